//! Places for connections that have not proven who they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::LiveLimits;

/// As many places as the limits say now.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    taken: Arc<AtomicUsize>,
    limits: LiveLimits,
}

impl Places {
    /// All of them, free.
    pub(crate) fn new(limits: LiveLimits) -> Self {
        Self { taken: Arc::default(), limits }
    }

    /// One of them, if one is free.
    pub(crate) fn take(&self) -> Option<Place> {
        let max = self.limits.get().max_unauthenticated;
        let taken =
            self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| (taken < max).then_some(taken + 1));
        taken.ok().map(|_| Place(Some(Arc::clone(&self.taken))))
    }
}

/// One place. It is free again when this is dropped.
#[derive(Debug, Default)]
pub struct Place(Option<Arc<AtomicUsize>>);

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(taken) = self.0.take() {
            taken.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
