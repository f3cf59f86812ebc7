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
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::api::{self, Api, Idempotency};
pub use crate::api::{ApiKeys, Reloaded, Reread};
use crate::auth::Authenticator;
use crate::backend::Backend;
use crate::config::{Config, ConfigError};
use crate::connection::Admission;
use crate::hub::Hub;
use crate::parts::Parts;
use certificate::{Certificate, server_config};
pub use http::{Http, Until, accept};
pub use listener::Listener;
pub use live::Live;
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
    parts: Parts,
    admission: Arc<ArcSwap<Admission>>,
    certificate: Option<Certificate>,
    keys: ApiKeys,
    live: Live,
    routes: Router,
    reread: Option<Reread>,
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
        let parts = Parts::new(&config)?;
        let admission = Arc::new(ArcSwap::from_pointee(Admission::of(&config)));
        let read = |files| Certificate::read(files, &parts.metrics, &parts.clock);
        let certificate = config.tls.as_ref().map(read).transpose()?;
        let live = Live::new(config.clone(), parts.clone(), certificate.clone(), keys.clone(), Arc::clone(&admission));
        Ok(Self {
            config,
            parts,
            admission,
            certificate,
            keys,
            live,
            routes: Router::new(),
            reread: None,
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

    /// What of a configuration is worth a warning once its files have been read; each a sentence.
    pub fn remarks(config: &Config) -> Vec<String> {
        let read = config.tls.as_ref().and_then(|files| server_config(files).ok());
        read.and_then(|(_, end)| certificate::remark(end, &config.clock)).into_iter().collect()
    }

    /// The hub: a program that runs the gateway inside itself publishes through it.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.parts.hub
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
        let Parts { limits, clock, tracer, hub, backend, drain, .. } = self.parts.clone();
        let (clients, backends) = (TaskTracker::new(), TaskTracker::new());
        let [stopping, ending, ended, all_told] = [(); 4].map(|()| CancellationToken::new());
        // Whoever drops this future instead of asking it to stop stops the accepting all the same.
        let _stop_on_drop = [&stopping, &ending, &ended].map(|token| token.clone().drop_guard());
        let _driving = self.drive();
        let telling = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&backend).keep_telling(all_told.clone())));
        self.serve_clients(listeners.public, &clients, &stopping, &ended);
        let until =
            Until { stopping: if self.hands_over { &stopping } else { &ending }.clone(), ending: ending.clone() };
        self.serve_backends(listeners.backend, &backends, until);

        tokio::select! { () = shutdown => drain.cancel(), () = drain.cancelled() => {} }
        let delay = limits.get().drain_delay;
        let wait = humantime::format_duration(delay).to_string();
        tracing::info!(connections = hub.census().connections, delay = wait, "draining");
        clock.sleep_until(clock.now() + delay).await;
        stopping.cancel();
        self.live.stop();
        hub.close_all();
        clients.close();
        let limit = limits.get().drain_timeout;
        let empty = clock.timeout(limit, clients.wait()).await.is_some();
        let stopped = if empty { Stopped::Empty } else { Stopped::TimedOut { connections: clients.len() } };
        ending.cancel();
        backends.close();
        // Those who have gone last have only now been added to what the backend is to be told.
        all_told.cancel();
        let rest = async { tokio::join!(backends.wait(), telling) };
        if clock.timeout(limit, rest).await.is_none() {
            tracing::warn!("some requests of backends did not end in time, or the backend was not told of everything");
        }
        tracer.end().await;
        stopped
    }

    /// Does what is to be done whoever comes: it ends when the handles are dropped.
    fn drive(&self) -> Vec<AbortOnDropHandle<()>> {
        let Parts { hub, clock, .. } = &self.parts;
        self.live.keep_keys();
        let announcing = tokio::spawn(announce(Arc::clone(hub), clock.clone()));
        let flushing = hub.flushers().first().map(|first| tokio::spawn(flush(Arc::clone(first))));
        let certificate = self.certificate.clone().map(|certificate| tokio::spawn(certificate.keep()));
        [announcing].into_iter().chain(flushing).chain(certificate).map(AbortOnDropHandle::new).collect()
    }

    /// Accepts clients on every worker, of which this thread is the first.
    fn serve_clients(
        &self,
        listener: Listener,
        tasks: &TaskTracker,
        stopping: &CancellationToken,
        ended: &CancellationToken,
    ) {
        let workers = Workers::new(self, tasks, stopping);
        let [first, others @ ..] = self.parts.hub.flushers() else { return };
        for (number, flusher) in (1..).zip(others) {
            if let Err(error) = workers.start(number, flusher, &listener, ended.clone()) {
                tracing::error!(%error, number, "a worker could not be started; the others serve on");
            }
        }
        workers.accept(listener, first);
    }

    /// Accepts backends.
    fn serve_backends(&self, listener: Listener, tasks: &TaskTracker, until: Until) {
        let Parts { limits, clock, drain, .. } = &self.parts;
        let api = Arc::new(Api {
            parts: self.parts.clone(),
            keys: self.keys.clone(),
            reread: self.reread.clone(),
            idempotency: Idempotency::new(limits.clone(), clock.clone()),
            reloading: Mutex::default(),
        });
        let http = Http::backend(api::routes(api), clock.clone(), drain.clone());
        tasks.spawn(accept(listener, http, tasks.clone(), until));
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
