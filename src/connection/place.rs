//! Places for connections that have not proven who they are.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use prometheus_client::metrics::gauge::Gauge;

use crate::config::LiveLimits;
use crate::metrics::Metrics;

/// As many places as the limits say now.
#[derive(Clone)]
pub(crate) struct Places {
    /// How many are taken: the metric itself counts.
    taken: Gauge,
    metrics: Arc<Metrics>,
    limits: LiveLimits,
}

impl Places {
    /// All of them, free.
    pub(crate) fn new(limits: LiveLimits, metrics: &Arc<Metrics>) -> Self {
        Self { taken: metrics.unproven(), metrics: Arc::clone(metrics), limits }
    }

    /// Notes that whoever has one of them has gone beyond a limit.
    pub(crate) fn note(&self, limit: &'static str) {
        self.metrics.limit(limit);
    }

    /// Notes that whoever has one of them is refused before their request.
    pub(crate) fn refuse(&self, reason: &'static str) {
        self.metrics.refuse(reason);
    }

    /// One of them, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        let max = i64::try_from(self.limits.get().max_unauthenticated).unwrap_or(i64::MAX);
        let take = |taken| (taken < max).then_some(taken + 1);
        let taken = self.taken.inner().fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        if taken.is_err() {
            self.note("max_unauthenticated");
        }
        taken.ok().map(|_| Place(Some(self.taken.clone())))
    }
}

/// One place. It is free again when this is dropped.
#[derive(Debug, Default)]
pub struct Place(Option<Gauge>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.dec();
        }
    }
}
