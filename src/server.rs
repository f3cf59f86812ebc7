//! Binds the two doors to one hub; accepts, and drains.

mod certificate;
mod listener;
mod live;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::middleware::{map_response, map_response_with_state};
use axum::response::Response;
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower_service::Service;

use crate::api::{self, Api, Idempotency};
pub use crate::api::{ApiKeys, Reloaded, Reread};
use crate::auth::{Attempts, Authenticator, LiveRules, Rules, SECURITY};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::{Config, ConfigError, LiveLimits, RoomTraits};
use crate::connection::{
    self, Addresses, Admission, Bare, Door, GOODBYES_AT_ONCE, Handshake, Peer, Place, Places, Preface, Stream,
    read_head,
};
use crate::errand::Errands;
use crate::hub::{Flusher, Hub, Presence};
use crate::inquiry::Inquiries;
use crate::metrics::Metrics;
use crate::protocol::RoomName;
use certificate::{Certificate, server_config};
pub use listener::Listener;
pub use live::Live;
use live::Parts;

/// How long to wait after a failed `accept`. At the limit of file descriptors it fails at once
/// and again, until some connection ends.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// How long a connection has for its request that has come before the gateway stopped accepting.
const LAST_REQUESTS: Duration = Duration::from_secs(1);
/// How long an idle connection of a backend is kept, longer than common pools keep theirs.
const BACKEND_IDLE: Duration = Duration::from_secs(120);

/// Where the gateway listens. The caller binds, and so knows the ports.
#[derive(Debug)]
pub struct Listeners {
    /// For browsers and other clients.
    pub public: Listener,
    /// For backends. It need not, and should not, face the internet.
    pub backend: Listener,
}

/// A gateway that is ready to run.
pub struct Gateway {
    config: Config,
    hub: Arc<Hub>,
    authenticator: Arc<Authenticator>,
    rules: LiveRules,
    admission: Arc<ArcSwap<Admission>>,
    limits: LiveLimits,
    backend: Arc<Backend>,
    metrics: Arc<Metrics>,
    certificate: Option<Certificate>,
    keys: ApiKeys,
    live: Live,
    routes: Router,
    reread: Option<Reread>,
    drain: CancellationToken,
    hands_over: bool,
}

impl Gateway {
    /// A gateway with an empty hub.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        let keys = ApiKeys::new(config.api_key.as_ref(), &config.api_keys)?;
        let limits = LiveLimits::new(config.limits.clone());
        let rules: LiveRules = Arc::new(ArcSwap::from_pointee(Rules::new(&config)));
        let presence = Presence::new(config.clock.clone(), limits.clone());
        let rules_of_hub = Arc::clone(&rules);
        let limits_of_hub = limits.clone();
        let traits = Box::new(move |room: &RoomName| {
            let traits = rules_of_hub.load().traits(room);
            let unlimited = traits.max_members == usize::MAX;
            let max_members = if unlimited { limits_of_hub.get().max_members } else { traits.max_members };
            RoomTraits { max_members, ..traits }
        });
        let hub = Hub::new(limits.clone(), config.workers, traits, presence);
        let authenticator = Arc::new(Authenticator::new(&config, &limits)?);
        let admission = Arc::new(ArcSwap::from_pointee(Admission::of(&config)));
        let metrics = Arc::default();
        let backend = Arc::new(Backend::new(config.backend.as_ref(), &config.clock, &metrics, &config.tracer)?);
        let certificate = config.tls.as_ref().map(Certificate::read).transpose()?;
        let parts = Parts {
            certificate: certificate.clone(),
            keys: keys.clone(),
            limits: limits.clone(),
            rules: Arc::clone(&rules),
            admission: Arc::clone(&admission),
            authenticator: Arc::clone(&authenticator),
            backend: Arc::clone(&backend),
            hub: Arc::clone(&hub),
        };
        let live = Live::new(config.clone(), parts);
        Ok(Self {
            config,
            hub,
            authenticator,
            rules,
            admission,
            limits,
            backend,
            metrics,
            certificate,
            keys,
            live,
            routes: Router::new(),
            reread: None,
            drain: CancellationToken::new(),
            hands_over: false,
        })
    }

    /// Whether a gateway could be made of a configuration, keys and secrets included. Its state file is
    /// not opened: one that runs may have it.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(config: &Config) -> Result<(), ConfigError> {
        config.check()?;
        ApiKeys::new(config.api_key.as_ref(), &config.api_keys)?;
        Authenticator::check(config)?;
        config.tls.as_ref().map(server_config).transpose()?;
        Backend::new(config.backend.as_ref(), &config.clock, &Arc::default(), &config.tracer).map(drop)
    }

    /// The hub: a program that runs the gateway inside itself publishes through it.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Serves further routes on the public listener, beside its own: pages of a program that runs the
    /// gateway inside itself, say. They must not have a fallback, nor the paths of the gateway.
    #[must_use]
    pub fn with_routes(mut self, routes: Router) -> Self {
        self.routes = routes;
        self
    }

    /// Reads the configuration again when a backend asks for it by `POST /v1/reload`.
    #[must_use]
    pub fn with_reread(mut self, reread: Reread) -> Self {
        self.reread = Some(reread);
        self
    }

    /// Lets another process have the sockets as soon as this one drains: it accepts from the same ones, or on
    /// the same ports, and is there before this one goes.
    #[must_use]
    pub fn handing_over(mut self) -> Self {
        self.hands_over = true;
        self
    }

    /// The API keys: they can be replaced while the gateway runs.
    pub fn api_keys(&self) -> ApiKeys {
        self.keys.clone()
    }

    /// All that can be replaced while the gateway runs.
    pub fn live(&self) -> Live {
        self.live.clone()
    }

    /// Serves until `shutdown` is ready, or a backend asks for a drain. Then it is not ready any more;
    /// after the configured delay it accepts no clients, tells all of them to come back later, each at a
    /// time of its own, and waits for them to end, within the configured time. Backends are served until
    /// the last client has gone, but on new connections only if nobody else has their socket.
    pub async fn run(self, listeners: Listeners, shutdown: impl Future<Output = ()>) -> Stopped {
        self.keys.log();
        let (limits, clock, live) = (self.limits.clone(), self.config.clock.clone(), self.live.clone());
        let tasks = TaskTracker::new();
        let (drain, hands_over) = (self.drain.clone(), self.hands_over);
        let (of_backends, ending) = (TaskTracker::new(), CancellationToken::new());
        let (stopping, ended) = (CancellationToken::new(), CancellationToken::new());
        // Whoever drops this future instead of asking it to stop stops the accepting all the same.
        let _stop_on_drop = (stopping.clone().drop_guard(), ended.clone().drop_guard(), ending.clone().drop_guard());

        let workers = Workers::new(&self, &tasks, &stopping);
        let Self { hub, authenticator, rules, backend, metrics, certificate, keys, reread, config, .. } = self;
        let tracer = config.tracer;
        let all_told = CancellationToken::new();
        let telling = tokio::spawn(Arc::clone(&backend).keep_telling(all_told.clone()));
        let telling = AbortOnDropHandle::new(telling);
        live.keep_keys();
        let keeping = certificate.map(|certificate| tokio::spawn(certificate.keep(clock.clone())));
        let _keeping = keeping.map(AbortOnDropHandle::new);
        for (number, flusher) in hub.flushers().iter().enumerate().skip(1) {
            if let Err(error) = workers.start(number, flusher, &listeners.public, ended.clone()) {
                tracing::error!(%error, number, "a worker could not be started; the others serve on");
            }
        }
        let (hub_of_api, errands, inquiries) =
            (Arc::clone(&hub), Arc::clone(&workers.errands), Arc::clone(&workers.inquiries));
        let idempotency = Idempotency::new(limits.clone(), clock.clone());
        let api = Api {
            keys,
            limits: limits.clone(),
            clock: clock.clone(),
            tracer: tracer.clone(),
            reread,
            drain: drain.clone(),
            idempotency,
            hub: hub_of_api,
            authenticator,
            rules,
            backend,
            errands,
            inquiries,
            metrics,
        };
        let backend_door = Http::backend(api::routes(Arc::new(api)), clock.clone(), drain.clone());
        let until = Until { stopping: if hands_over { &stopping } else { &ending }.clone(), ending: ending.clone() };
        of_backends.spawn(accept(listeners.backend, backend_door, of_backends.clone(), until));
        let [first, ..] = hub.flushers() else { return Stopped::Empty };
        let _flushing = AbortOnDropHandle::new(tokio::spawn(flush(Arc::clone(first))));
        let _announcing = AbortOnDropHandle::new(tokio::spawn(announce(Arc::clone(&hub), clock.clone())));
        workers.accept(listeners.public, first);

        tokio::select! { () = shutdown => drain.cancel(), () = drain.cancelled() => {} }
        let delay = limits.get().drain_delay;
        tracing::info!(connections = hub.census().connections, ?delay, "draining");
        clock.sleep_until(clock.now() + delay).await;
        stopping.cancel();
        live.stop();
        hub.close_all();
        tasks.close();
        let limit = limits.get().drain_timeout;
        let empty = clock.timeout(limit, tasks.wait()).await.is_some();
        let stopped = if empty { Stopped::Empty } else { Stopped::TimedOut { connections: tasks.len() } };
        ending.cancel();
        of_backends.close();
        // Those who have gone last have only now been added to what the backend is to be told.
        all_told.cancel();
        let rest = async { tokio::join!(of_backends.wait(), telling) };
        if clock.timeout(limit, rest).await.is_none() {
            tracing::warn!("some requests of backends did not end in time, or the backend was not told of everything");
        }
        tracer.end().await;
        stopped
    }
}

/// How a gateway has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All connections had ended, each with its Close.
    Empty,
    /// So many connections had not ended in time.
    TimedOut {
        /// The tasks of clients that were left, those that had not proven who they are among them.
        connections: usize,
    },
}

/// Until when connections are accepted, and served.
#[derive(Debug, Clone, Default)]
pub struct Until {
    /// None is accepted any more.
    pub stopping: CancellationToken,
    /// Those that there are end as soon as they can.
    pub ending: CancellationToken,
}

/// The threads that serve clients. Each has a runtime of its own, accepts from the same socket, and
/// keeps the connections that it has accepted: so no task and no timer of theirs is ever shared.
struct Workers {
    limits: LiveLimits,
    clock: Clock,
    routes: Router,
    authenticator: Arc<Authenticator>,
    addresses: Arc<Addresses>,
    attempts: Arc<Attempts>,
    inquiries: Arc<Inquiries>,
    metrics: Arc<Metrics>,
    admission: Arc<ArcSwap<Admission>>,
    rules: LiveRules,
    backend: Arc<Backend>,
    errands: Arc<Errands>,
    /// For all workers together.
    places: Places,
    preface: Option<Arc<Preface>>,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Workers {
    fn new(gateway: &Gateway, tasks: &TaskTracker, stopping: &CancellationToken) -> Self {
        let Gateway { config, hub, authenticator, rules, admission, limits, backend, metrics, routes, .. } = gateway;
        let tls = gateway.certificate.as_ref().map(Certificate::current);
        let Config { proxy_protocol, .. } = *config;
        let preface = Preface { proxy_protocol, admission: Arc::clone(admission), tls };
        let has_preface = proxy_protocol || preface.tls.is_some();
        let preface = has_preface.then(|| Arc::new(preface));
        Self {
            limits: limits.clone(),
            clock: config.clock.clone(),
            routes: routes.clone(),
            authenticator: Arc::clone(authenticator),
            addresses: Addresses::new(limits.clone(), config.clock.clone()),
            attempts: Arc::new(Attempts::new(limits.clone(), config.clock.clone())),
            inquiries: Arc::default(),
            metrics: Arc::clone(metrics),
            admission: Arc::clone(admission),
            rules: Arc::clone(rules),
            backend: Arc::clone(backend),
            errands: Arc::default(),
            places: Places::new(limits.clone()),
            preface,
            hub: Arc::clone(hub),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        }
    }

    /// Accepts clients on the runtime that this is called on; `flusher` must be driven there.
    fn accept(&self, listener: Listener, flusher: &Arc<Flusher>) {
        let door = Arc::new(Door {
            limits: self.limits.clone(),
            clock: self.clock.clone(),
            hub: Arc::clone(&self.hub),
            flusher: Arc::clone(flusher),
            authenticator: Arc::clone(&self.authenticator),
            addresses: Arc::clone(&self.addresses),
            attempts: Arc::clone(&self.attempts),
            inquiries: Arc::clone(&self.inquiries),
            metrics: Arc::clone(&self.metrics),
            admission: Arc::clone(&self.admission),
            rules: Arc::clone(&self.rules),
            backend: Arc::clone(&self.backend),
            errands: Arc::clone(&self.errands),
            stopping: self.stopping.clone(),
            goodbyes: Semaphore::new(GOODBYES_AT_ONCE),
            tasks: self.tasks.clone(),
        });
        let routes = connection::routes(door, self.routes.clone());
        let http =
            Http::public(routes, &self.limits, self.clock.clone()).within(&self.places).after(self.preface.clone());
        let until = Until { stopping: self.stopping.clone(), ending: self.stopping.clone() };
        self.tasks.spawn(accept(listener, http, self.tasks.clone(), until));
    }

    /// Starts another thread. What is left on it when `ended` is cancelled ends with it.
    fn start(
        &self,
        number: usize,
        flusher: &Arc<Flusher>,
        listener: &Listener,
        ended: CancellationToken,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        {
            let _here = runtime.enter();
            self.accept(listener.try_clone()?, flusher);
        }
        let flushing = flush(Arc::clone(flusher));
        let work = move || {
            runtime.block_on(async {
                tokio::select! { () = flushing => {}, () = ended.cancelled() => {} }
            });
        };
        std::thread::Builder::new().name(format!("worker-{number}")).spawn(work).map(drop)
    }
}

/// Sends the events of rooms, a turn at a time, and lets others go first after each.
async fn flush(flusher: Arc<Flusher>) {
    loop {
        poll_fn(|cx| flusher.poll_turn(cx)).await;
        tokio::task::yield_now().await;
    }
}

/// Announces who comes into rooms and leaves them when that is due, a turn at a time.
async fn announce(hub: Arc<Hub>, clock: Clock) {
    let presence = hub.presence();
    loop {
        let next = presence.turn();
        tokio::task::yield_now().await;
        let earlier = poll_fn(|cx| presence.poll_earlier(cx, next));
        match next {
            Some(next) => tokio::select! { () = clock.sleep_until(next) => {}, () = earlier => {} },
            None => earlier.await,
        }
    }
}

/// Runs a gateway: see [`Gateway`].
///
/// # Errors
/// The first setting that cannot be.
pub async fn run(
    listeners: Listeners,
    config: Config,
    shutdown: impl Future<Output = ()>,
) -> Result<Stopped, ConfigError> {
    Ok(Gateway::new(config)?.run(listeners, shutdown).await)
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
    fn backend(routes: Router, clock: Clock, drain: CancellationToken) -> Self {
        let routes = routes.layer(map_response_with_state(drain, close_when_draining));
        let mut protocol = http1::Builder::new();
        protocol.timer(TokioTimer::new()).header_read_timeout(BACKEND_IDLE);
        Self { routes, protocol, limits: None, places: None, preface: None, clock }
    }

    /// Takes no more connections at once than there are places.
    #[must_use]
    fn within(self, places: &Places) -> Self {
        Self { places: Some(places.clone()), ..self }
    }

    /// Hears something else before HTTP on each connection.
    #[must_use]
    fn after(self, preface: Option<Arc<Preface>>) -> Self {
        Self { preface, ..self }
    }

    /// A place for a connection that has just come, if there is one.
    fn place(&self) -> Option<Place> {
        self.places.as_ref().map_or_else(|| Some(Place::default()), Places::take)
    }

    /// What holds for a connection that begins now.
    fn limit(&mut self) -> Option<Limit> {
        let limits = self.limits.as_ref()?.get();
        self.protocol.max_buf_size(limits.max_head_bytes);
        Some(Limit { time: limits.handshake_timeout, head_bytes: limits.max_head_bytes })
    }

    async fn serve(mut self, stream: Bare, peer: Peer, place: Place, stopping: CancellationToken) {
        let (limit, clock) = (self.limit(), self.clock.clone());
        let served = async {
            let heard = tokio::select! {
                heard = self.hear(stream, peer, limit) => heard,
                () = patience(&stopping, &clock), if limit.is_some() => return,
            };
            let (stream, early, peer) = match heard {
                Ok(heard) => heard,
                Err(error) => return tracing::debug!(%error, %peer, "a connection broke before its request"),
            };
            let stream = Handshake::new(stream, early, place);
            // In a box: what waits for its request is to take no room for the answer.
            if let Err(error) = Box::pin(self.answer(stream, peer, stopping)).await {
                tracing::debug!(%error, "an HTTP connection failed");
            }
        };
        match limit {
            Some(limit) => {
                if clock.timeout(limit.time, served).await.is_none() {
                    tracing::debug!("an HTTP request did not arrive in time");
                }
            }
            None => served.await,
        }
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
            () = until.stopping.cancelled() => match listener.accept().now_or_never() {
                Some(accepted) => accepted,
                None => return,
            },
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match http.place() {
                Some(place) => {
                    tasks.spawn(http.clone().serve(stream, peer, place, until.ending.clone()));
                }
                // To end it at once is all that can be done for nothing.
                None => turned_away(peer),
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

fn turned_away(peer: Peer) {
    let reason = "max_unauthenticated";
    tracing::warn!(target: SECURITY, %peer, reason, "there are too many connections without a token: one was turned away");
}

/// Whoever has just come when the gateway stops has a moment to say what they want.
async fn patience(stopping: &CancellationToken, clock: &Clock) {
    stopping.cancelled().await;
    clock.sleep_until(clock.now() + LAST_REQUESTS).await;
}

/// Whether only the connection that was being accepted has failed, and not the accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | InvalidInput | NotConnected)
}
