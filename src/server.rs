//! Binds the two doors to one hub; accepts, and drains.

mod certificate;
mod http;
mod listener;
mod live;
mod workers;

use std::future::Future;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::api::{self, Api, Idempotency};
pub use crate::api::{ApiKeys, Reloaded, Reread};
use crate::auth::{Authenticator, LiveRules, Rules};
use crate::backend::Backend;
use crate::config::{Config, ConfigError, LiveLimits, RoomTraits};
use crate::connection::Admission;
use crate::hub::{Hub, Presence};
use crate::metrics::Metrics;
use crate::protocol::RoomName;
use certificate::{Certificate, server_config};
pub use http::{Http, Until, accept};
pub use listener::Listener;
pub use live::Live;
use live::Parts;
use workers::{Workers, announce, flush};

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
