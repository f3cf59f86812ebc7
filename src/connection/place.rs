//! Places for connections that have not proven who they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use prometheus_client::metrics::gauge::Gauge;

use crate::config::LiveLimits;
use crate::metrics::Metrics;

use super::Admission;
use super::address::{Addresses, Excess, Visit};
use super::credential::Peer;

/// As many places as the limits say now.
#[derive(Clone)]
pub(crate) struct Places {
    /// How many are taken: the metric itself counts.
    taken: Gauge,
    metrics: Arc<Metrics>,
    limits: LiveLimits,
    addresses: Arc<Addresses>,
    admission: Arc<ArcSwap<Admission>>,
}

impl Places {
    /// All of them, free.
    pub(crate) fn new(
        limits: LiveLimits,
        metrics: &Arc<Metrics>,
        addresses: &Arc<Addresses>,
        admission: &Arc<ArcSwap<Admission>>,
    ) -> Self {
        let (metrics, addresses, admission) = (Arc::clone(metrics), Arc::clone(addresses), Arc::clone(admission));
        Self { taken: metrics.unproven(), metrics, limits, addresses, admission }
    }

    /// Notes that whoever has one of them has gone beyond a limit.
    pub(crate) fn note(&self, limit: &'static str) {
        self.metrics.limit(limit);
    }

    /// Notes that whoever has one of them is refused before their request.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.metrics.refuse(reason);
    }

    /// One of them for whoever has just come, with or without TLS before them. No address may have all of
    /// them; for whom a trusted proxy has come is not known yet, and counted later.
    ///
    /// # Errors
    /// The limit that they are beyond.
    pub(crate) fn take(&self, peer: Peer, with_tls: bool) -> Result<Place, &'static str> {
        let is_proxy = peer.is_trusted(&self.admission.load().trusted_proxies);
        let arriving = if is_proxy { Ok(None) } else { self.addresses.arrive(peer.address(), with_tls) };
        let arriving = arriving.map_err(|excess| match excess {
            Excess::Connections(_) => "max_connections_per_address",
            Excess::Attempts(_) => "max_connects_per_second",
        });
        let taken = arriving.and_then(|arriving| self.take_any().map(|taken| Place { taken, _arriving: arriving }));
        taken.inspect_err(|limit| self.note(limit))
    }

    fn take_any(&self) -> Result<Option<Gauge>, &'static str> {
        let max = i64::try_from(self.limits.get().max_unauthenticated).unwrap_or(i64::MAX);
        let take = |taken| (taken < max).then_some(taken + 1);
        let taken = self.taken.inner().fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| Some(self.taken.clone())).map_err(|_| "max_unauthenticated")
    }
}

/// One place. It is free again when this is dropped.
#[derive(Debug, Default)]
pub struct Place {
    taken: Option<Gauge>,
    _arriving: Option<Box<Visit>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.dec();
        }
    }
}
