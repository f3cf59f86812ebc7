//! The public door: browsers and other clients, each on a WebSocket.

mod address;
mod asset;
mod credential;
mod decoder;
mod duplex;
mod early;
mod entrance;
mod flow;
mod forwarded;
mod handshake;
mod life;
mod logout;
mod place;
mod preface;
mod proxy;
mod session;
mod socket;
mod tls;
mod upgrade;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use ipnet::IpNet;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::display;

use crate::auth::{Attempts, Claimed, Reason, SECURITY, TokenError};
use crate::config::{Config, Origins};
use crate::hub::Flusher;
use crate::parts::Parts;
use crate::protocol::{Close, CloseCode, ErrorCode, Problem};

pub(crate) use address::Addresses;
use address::{Excess, Visit, is_local};
use asset::Script;
pub(crate) use credential::Peer;
use credential::Visitor;
use entrance::Arrival;
pub(crate) use handshake::{Handshake, Stream, read_head};
use life::Life;
pub use place::Place;
pub(crate) use place::Places;
pub(crate) use preface::Preface;

pub use socket::{Ended, Message, Socket};
pub use upgrade::Upgrade;
pub(crate) use wire::Bare;

/// When to come back to a gateway, or as an address, with as many connections as it may have.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(10);
/// Goodbyes that are said in turn before others get theirs. At some microseconds each, whoever shares
/// the thread waits a fraction of a millisecond.
pub(crate) const GOODBYES_AT_ONCE: usize = 16;

/// What whoever comes then is told.
const FULL: &str = "the gateway has as many connections as it takes: try again later";
/// Characters of an origin that are logged.
const MAX_LOGGED_CHARS: usize = 100;

/// What every connection of a worker needs: shared by all of them.
pub(crate) struct Door {
    /// What the other door works with too.
    pub(crate) parts: Parts,
    /// Who sends the events of rooms that these connections are the first in.
    pub(crate) flusher: Arc<Flusher>,
    /// The connections of each address.
    pub(crate) addresses: Arc<Addresses>,
    /// The failed attempts of each address.
    pub(crate) attempts: Arc<Attempts>,
    /// Whose pages may connect, where a token may be, and whom to believe.
    pub(crate) admission: Arc<ArcSwap<Admission>>,
    /// Set when the gateway stops.
    pub(crate) stopping: CancellationToken,
    /// Turns for those who go, where many do at once.
    pub(crate) goodbyes: Semaphore,
    /// Counts the tasks of connections, so that a stop can wait for them.
    pub(crate) tasks: TaskTracker,
}

/// What is decided by a request's headers.
pub(crate) struct Admission {
    /// Whose pages may connect.
    pub(crate) origins: Origins,
    /// The cookie that may hold a token.
    pub(crate) cookie: Option<String>,
    /// Proxies that are believed whom they speak for.
    pub(crate) trusted_proxies: Vec<IpNet>,
}

impl Admission {
    /// What a configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            origins: config.origins.clone(),
            cookie: config.cookie.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }
}

/// The routes of the public listener, with those of whoever runs the gateway.
pub(crate) fn routes(door: Arc<Door>, others: Router) -> Router {
    Router::new()
        .route("/ws", get(connect))
        .route("/backchannel-logout", post(logout::backchannel))
        .route("/health", get(health))
        .route("/client.js", script(include_str!("../client-js/dist/wsgate.iife.js")))
        .route("/client.mjs", script(include_str!("../client-js/wsgate.js")))
        .merge(others.with_state(()))
        .method_not_allowed_fallback(|| async {
            Problem::new(
                ErrorCode::MethodNotAllowed,
                "this path has no such method; the header Allow lists its methods",
            )
        })
        .fallback(|| async { Problem::new(ErrorCode::NotFound, "there is nothing here; WebSockets connect to /ws") })
        .with_state(door)
}

/// Whether clients are taken, for whatever stands before the gateway.
async fn health(State(door): State<Arc<Door>>) -> (StatusCode, &'static str) {
    match door.parts.drain.is_cancelled() {
        false => (StatusCode::OK, "ok\n"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
    }
}

/// Upgrades to a WebSocket, whatever its token is worth: a browser cannot read the answer to an
/// upgrade that fails, but it can read a close code.
async fn connect(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (headers, admission) = (request.headers(), door.admission.load());
    let visitor = Visitor::of(headers, peer(&request), &admission.trusted_proxies);
    let visit = match door.check_origin(headers, &visitor).and_then(|()| door.check_attempts(&visitor)) {
        Ok(()) => door.visit(&visitor),
        Err(problem) => Err(problem),
    };
    let visit = match visit {
        Ok(visit) => visit,
        Err(problem) => return problem.into_response(),
    };
    let shown = credential::shown(headers, request.uri().query().unwrap_or_default(), admission.cookie.as_deref());
    let upgrade = match Upgrade::accept(request) {
        Ok(upgrade) => upgrade,
        Err(problem) => return problem.into_response(),
    };
    let limits = door.parts.limits.clone();
    let clock = door.parts.clock.clone();
    let tasks = door.tasks.clone();
    upgrade.on(&tasks, limits, clock, move |mut socket, place| {
        door.parts.metrics.connect();
        socket.set_local(is_local(visitor.address));
        Life::begin(socket, door, Arrival { shown, visitor, place, visit })
    })
}

/// Whoever is at the other end of the connection.
fn peer(request: &Request) -> Peer {
    // There always is one; to nobody nothing is believed.
    request.extensions().get::<Peer>().copied().unwrap_or(Peer::at(Peer::NOWHERE))
}

impl Door {
    /// Whether the page that a request comes from may connect.
    fn check_origin(&self, headers: &HeaderMap, visitor: &Visitor) -> Result<(), Problem> {
        let origins = headers.get_all(ORIGIN).iter().count();
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let known = origins == usize::from(visitor.origin.is_some());
        if known && self.admission.load().origins.allow(visitor.origin.as_deref(), host) {
            return Ok(());
        }
        self.count_refusal("origin_not_allowed", visitor);
        Err(Problem::new(ErrorCode::OriginNotAllowed, "pages of this origin may not connect: see --allow-origin"))
    }

    /// Whether an address may try to prove something: it has not failed too often.
    fn check_attempts(&self, visitor: &Visitor) -> Result<(), Problem> {
        self.attempts.allow(visitor.address, is_local(visitor.address)).map_err(|wait| {
            self.parts.metrics.limit("max_failures");
            self.count_refusal("too_many_attempts", visitor);
            let detail = "too many tokens from this address were refused: try again later";
            Problem::new(ErrorCode::TooManyAttempts, detail).retry_after(wait)
        })
    }

    /// Counts a connection of an address, if there is room for one more.
    fn visit(&self, visitor: &Visitor) -> Result<Option<Box<Visit>>, Problem> {
        let refuse = |limit: &'static str, code: ErrorCode, detail: String, wait: Duration| {
            self.count_limit(limit, visitor);
            Problem::new(code, detail).retry_after(wait)
        };
        if self.is_full() {
            return Err(refuse("max_connections", ErrorCode::Full, FULL.to_owned(), RETRY_WHEN_FULL));
        }
        self.addresses.visit(visitor.address).map_err(|excess| match excess {
            Excess::Connections(max) => {
                let detail = format!("this address has {max} connections, which is as many as one may have");
                refuse("max_connections_per_address", ErrorCode::TooManyConnections, detail, RETRY_WHEN_FULL)
            }
            Excess::Attempts(wait) => {
                let detail = "this address connects too often: try again later".to_owned();
                refuse("max_connects_per_second", ErrorCode::TooManyAttempts, detail, wait)
            }
        })
    }

    /// Whether there are as many connections as there may be.
    fn is_full(&self) -> bool {
        self.parts.hub.census().connections >= self.parts.limits.get().max_connections
    }

    /// Notes a refusal because of a limit.
    fn count_limit(&self, limit: &'static str, visitor: &Visitor) {
        self.parts.metrics.limit(limit);
        self.count_refusal(limit, visitor);
    }

    /// Notes a refusal that is not of a token.
    fn count_refusal(&self, reason: &'static str, visitor: &Visitor) {
        self.parts.metrics.refuse(reason);
        let origin = visitor.origin.as_deref().map(beginning);
        tracing::warn!(target: SECURITY, reason, address = %visitor.address, origin, "a connection was refused");
    }

    /// Notes that somebody has not proven who they are, and says how their connection ends. A
    /// renewal has no visitor: its connection bears only so many.
    fn refuse(&self, error: &TokenError, visitor: Option<&Visitor>) -> Close {
        let (reason, address) = (error.reason, visitor.map(|visitor| visitor.address));
        self.parts.metrics.refuse(reason.as_str());
        if let Some(address) = address.filter(|_| reason.is_suspicious()) {
            self.attempts.fail(address);
        }
        let Claimed { sub, kid, iss } = error.claimed.as_deref().cloned().unwrap_or_default();
        // As texts, which the log quotes: what they repeat of a stranger's must add no line to it.
        let (word, detail, address) = (reason.as_str(), error.detail.as_str(), address.map(display));
        let (sub, kid, iss) = (sub.as_deref(), kid.as_deref(), iss.as_deref());
        if reason.is_suspicious() {
            tracing::warn!(target: SECURITY, reason = word, detail, address, sub, kid, iss, "a token was refused");
        } else {
            tracing::info!(target: SECURITY, reason = word, detail, address, sub, kid, iss, "a token was refused");
        }
        if reason == Reason::TooManyAnonymous {
            self.parts.metrics.limit("anonymous.max_connections");
        }
        let code = match reason {
            Reason::Blocked => CloseCode::Kicked,
            Reason::KeysUnavailable | Reason::TooManyAnonymous => CloseCode::Unavailable,
            _ => CloseCode::TokenRefused,
        };
        Close::new(code, reason.sentence())
    }
}

/// As much of a stranger's text as is logged: it may be as long as a head.
fn beginning(text: &str) -> &str {
    let end = text.char_indices().nth(MAX_LOGGED_CHARS).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

/// The JavaScript client, for pages: a script, or a module.
fn script(text: &'static str) -> MethodRouter<Arc<Door>> {
    let script = Script::new(text);
    get(async move |headers: HeaderMap| script.answer(&headers))
}
