//! How connections are accepted, and HTTP is spoken on them.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::{map_response, map_response_with_state};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use super::listener::Listener;
use crate::auth::SECURITY;
use crate::clock::Clock;
use crate::config::LiveLimits;
use crate::connection::{Bare, Handshake, Peer, Place, Places, Preface, Stream, read_head};

/// How long to wait after a failed `accept`. At the limit of file descriptors it fails at once
/// and again, until some connection ends.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How long a connection has for its request that has come before the gateway stopped accepting.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// How long an idle connection of a backend is kept, longer than common pools keep theirs.
const BACKEND_IDLE: Duration = Duration::from_secs(120);

/// Until when connections are accepted, and served.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// None is accepted any more.
    pub stopping: CancellationToken,
    /// Those that there are end as soon as they can.
    pub ending: CancellationToken,
}

/// How HTTP is spoken at one door.
#[derive(Clone)]
pub struct Http {
    routes: Router,
    protocol: http1::Builder,
    /// On connections that serve one request only.
    limits: Option<LiveLimits>,
    /// Places for connections that have not proven who they are.
    places: Option<Places>,
    /// What comes before HTTP.
    preface: Option<Arc<Preface>>,
    clock: Clock,
}

impl Http {
    /// For clients: one request, whose head is bounded in bytes and in time.
    pub fn public(routes: Router, limits: &LiveLimits, clock: Clock) -> Self {
        let routes = routes.layer(map_response(close_unless_upgraded));
        Self {
            routes,
            protocol: http1::Builder::new(),
            limits: Some(limits.clone()),
            places: None,
            preface: None,
            clock,
        }
    }

    /// For backends: connections are kept.
    pub(super) fn backend(routes: Router, clock: Clock, drain: CancellationToken) -> Self {
        let routes = routes.layer(map_response_with_state(drain, close_when_draining));
        let mut protocol = http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(BACKEND_IDLE);
        Self { routes, protocol, limits: None, places: None, preface: None, clock }
    }

    /// Takes no more connections at once than there are places.
    #[must_use]
    pub(super) fn within(self, places: &Places) -> Self {
        Self { places: Some(places.clone()), ..self }
    }

    /// Hears something else before HTTP on each connection.
    #[must_use]
    pub(super) fn after(self, preface: Option<Arc<Preface>>) -> Self {
        Self { preface, ..self }
    }

    /// A place for a connection that has just come, or the limit that it is beyond.
    fn place(&self, peer: Peer) -> Result<Place, &'static str> {
        let with_tls = self.preface.as_ref().is_some_and(|preface| preface.tls.is_some());
        self.places.as_ref().map_or_else(|| Ok(Place::default()), |places| places.take(peer, with_tls))
    }

    /// What holds for a connection that begins now.
    fn limit(&mut self) -> Option<Limit> {
        let limits = self.limits.as_ref()?.get();
        self.protocol.max_buf_size(limits.max_head_bytes);
        Some(Limit { time: limits.handshake_timeout, head_bytes: limits.max_head_bytes })
    }

    async fn serve(mut self, stream: Bare, peer: Peer, place: Place, stopping: CancellationToken) {
        let (limit, clock, places) = (self.limit(), self.clock.clone(), self.places.clone());
        let ending = stopping.clone();
        let served = async {
            let (stream, early, peer) = match self.hear(stream, peer, limit).await {
                Ok(heard) => heard,
                Err(error) => return self.refused(&error, peer),
            };
            let stream = Handshake::new(stream, early, place);
            // In a box: what waits for its request is to take no room for the answer.
            if let Err(error) = Box::pin(self.answer(stream, peer, stopping)).await {
                tracing::debug!(%error, "an HTTP connection failed");
            }
        };
        match limit {
            Some(limit) => {
                let in_time = tokio::select! {
                    in_time = clock.timeout(limit.time, served) => in_time,
                    () = patience(&ending, &clock) => return,
                };
                if in_time.is_none() {
                    places.iter().for_each(|places| places.note("handshake_timeout"));
                    tracing::debug!("an HTTP request did not arrive in time");
                }
            }
            None => served.await,
        }
    }

    /// Tells why a connection has come to nothing before its request.
    fn refused(&self, error: &io::Error, peer: Peer) {
        let reason = match error.kind() {
            io::ErrorKind::PermissionDenied => "not_a_proxy",
            io::ErrorKind::InvalidData => "bad_preface",
            _ => return tracing::debug!(%error, %peer, "a connection broke before its request"),
        };
        self.places.iter().for_each(|places| places.refuse(reason));
        let problem = error.to_string();
        tracing::warn!(target: SECURITY, reason, %peer, problem, "a connection was refused");
    }

    /// Hears what comes before HTTP, and the head of a request where it is limited.
    async fn hear(&self, stream: Bare, peer: Peer, limit: Option<Limit>) -> io::Result<(Stream, Vec<u8>, Peer)> {
        let (stream, mut early, peer) = match &self.preface {
            // In a box: most have none.
            Some(preface) => Box::pin(preface.hear(stream, peer)).await?,
            None => (Stream::Bare(stream), Vec::new(), peer),
        };
        if let Some(limit) = limit {
            read_head(stream.wire(), &mut early, limit.head_bytes).await?;
            if early.len() > limit.head_bytes {
                self.places.iter().for_each(|places| places.note("max_head_bytes"));
            }
        }
        Ok((stream, early, peer))
    }

    async fn answer(self, stream: Handshake, peer: Peer, stopping: CancellationToken) -> hyper::Result<()> {
        let one_request = self.limits.is_some();
        let routes = self.routes;
        // An axum router is always ready: its `call` needs no `poll_ready` before it.
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer);
            routes.clone().call(request)
        });
        let mut connection = pin!(self.protocol.serve_connection(stream, service).with_upgrades());
        tokio::select! {
            served = connection.as_mut() => served,
            // Who has one request only is answered it.
            () = stopping.cancelled(), if !one_request => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }
}

/// What a connection may take that serves one request only.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// For everything up to the answer.
    time: Duration,
    /// For the request line and headers.
    head_bytes: usize,
}

/// Ends a connection after its answer. hyper's own switch for this would also write
/// `Connection: upgrade, close` into the answer to an upgrade, which the WebSocket of Node refuses.
async fn close_unless_upgraded(mut response: Response) -> Response {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Ends the connection of a backend after its answer once the gateway drains: the next request is for
/// whoever comes after.
async fn close_when_draining(State(drain): State<CancellationToken>, mut response: Response) -> Response {
    if drain.is_cancelled() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Accepts connections until the gateway stops, each served by a task of its own. Those that have come
/// by then are served too: they would be reset.
pub async fn accept(listener: impl Into<Listener>, http: Http, tasks: TaskTracker, until: Until) {
    let listener = listener.into();
    loop {
        let accepted = tokio::select! {
            biased;
            () = until.stopping.cancelled() => match listener.accept_now() {
                Some(accepted) => accepted,
                None => return,
            },
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match http.place(peer) {
                Ok(place) => {
                    tasks.spawn(http.clone().serve(stream, peer, place, until.ending.clone()));
                }
                // To end it at once is all that can be done for nothing.
                Err(limit) => turned_away(peer, limit),
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection could be accepted");
                if until.stopping.is_cancelled() {
                    return;
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

fn turned_away(peer: Peer, reason: &'static str) {
    tracing::warn!(target: SECURITY, %peer, reason, "there are too many connections without a token: one was turned away");
}

/// Whoever has just come when the gateway stops has a moment to say what they want, and is answered.
async fn patience(stopping: &CancellationToken, clock: &Clock) {
    stopping.cancelled().await;
    clock.sleep_until(clock.now() + LAST_REQUESTS).await;
}

/// Whether only the connection that was being accepted has failed, and not the accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}
