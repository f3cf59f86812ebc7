//! The threads that serve clients, and what each of them drives.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Gateway;
use super::certificate::Certificate;
use super::http::{Http, Until, accept};
use super::listener::Listener;
use crate::auth::{Attempts, Authenticator, LiveRules};
use crate::backend::Backend;
use crate::clock::Clock;
use crate::config::{Config, LiveLimits};
use crate::connection::{self, Addresses, Admission, Door, GOODBYES_AT_ONCE, Places, Preface};
use crate::errand::Errands;
use crate::hub::{Flusher, Hub};
use crate::inquiry::Inquiries;
use crate::metrics::Metrics;

/// The threads that serve clients. Each has a runtime of its own, accepts from the same socket, and
/// keeps the connections that it has accepted: so no task and no timer of theirs is ever shared.
pub(super) struct Workers {
    limits: LiveLimits,
    clock: Clock,
    routes: Router,
    authenticator: Arc<Authenticator>,
    addresses: Arc<Addresses>,
    attempts: Arc<Attempts>,
    pub(super) inquiries: Arc<Inquiries>,
    metrics: Arc<Metrics>,
    admission: Arc<ArcSwap<Admission>>,
    rules: LiveRules,
    backend: Arc<Backend>,
    pub(super) errands: Arc<Errands>,
    /// For all workers together.
    places: Places,
    preface: Option<Arc<Preface>>,
    hub: Arc<Hub>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Workers {
    pub(super) fn new(gateway: &Gateway, tasks: &TaskTracker, stopping: &CancellationToken) -> Self {
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
            places: Places::new(limits.clone(), metrics),
            preface,
            hub: Arc::clone(hub),
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        }
    }

    /// Accepts clients on the runtime that this is called on; `flusher` must be driven there.
    pub(super) fn accept(&self, listener: Listener, flusher: &Arc<Flusher>) {
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
    pub(super) fn start(
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
pub(super) async fn flush(flusher: Arc<Flusher>) {
    loop {
        poll_fn(|cx| flusher.poll_turn(cx)).await;
        tokio::task::yield_now().await;
    }
}

/// Announces who comes into rooms and leaves them when that is due, a turn at a time.
pub(super) async fn announce(hub: Arc<Hub>, clock: Clock) {
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
