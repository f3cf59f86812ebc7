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
use crate::auth::Attempts;
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::{self, Addresses, Admission, Door, GOODBYES_AT_ONCE, Places, Preface};
use crate::hub::{Flusher, Hub};
use crate::parts::Parts;

/// The threads that serve clients. Each has a runtime of its own, accepts from the same socket, and
/// keeps the connections that it has accepted: so no task and no timer of theirs is ever shared.
pub(super) struct Workers {
    parts: Parts,
    routes: Router,
    addresses: Arc<Addresses>,
    attempts: Arc<Attempts>,
    admission: Arc<ArcSwap<Admission>>,
    /// For all workers together.
    places: Places,
    preface: Option<Arc<Preface>>,
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Workers {
    pub(super) fn new(gateway: &Gateway, tasks: &TaskTracker, stopping: &CancellationToken) -> Self {
        let Gateway { config, parts, admission, routes, .. } = gateway;
        let tls = gateway.certificate.as_ref().map(Certificate::current);
        let Config { proxy_protocol, .. } = *config;
        let preface = Preface { proxy_protocol, admission: Arc::clone(admission), tls };
        let has_preface = proxy_protocol || preface.tls.is_some();
        let preface = has_preface.then(|| Arc::new(preface));
        let addresses = Addresses::new(parts.limits.clone(), parts.clock.clone());
        Self {
            attempts: Arc::new(Attempts::new(parts.limits.clone(), parts.clock.clone())),
            places: Places::new(parts.limits.clone(), &parts.metrics, &addresses, admission),
            addresses,
            parts: parts.clone(),
            routes: routes.clone(),
            admission: Arc::clone(admission),
            preface,
            tasks: tasks.clone(),
            stopping: stopping.clone(),
        }
    }

    /// Accepts clients on the runtime that this is called on; `flusher` must be driven there.
    pub(super) fn accept(&self, listener: Listener, flusher: &Arc<Flusher>) {
        let door = Arc::new(Door {
            parts: self.parts.clone(),
            flusher: Arc::clone(flusher),
            addresses: Arc::clone(&self.addresses),
            attempts: Arc::clone(&self.attempts),
            admission: Arc::clone(&self.admission),
            stopping: self.stopping.clone(),
            goodbyes: Semaphore::new(GOODBYES_AT_ONCE),
            tasks: self.tasks.clone(),
        });
        let routes = connection::routes(door, self.routes.clone());
        let http = Http::public(routes, &self.parts.limits, self.parts.clock.clone());
        let http = http.within(&self.places).after(self.preface.clone());
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
