//! Events that are worth nothing after a time, and are then not sent any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// When an event is worth nothing any more. Small, since it waits wherever the event does.
#[derive(Debug, Clone)]
pub struct Expiry(Arc<(Clock, Instant)>);

impl Expiry {
    /// After a time from now.
    pub fn after(clock: &Clock, time: Duration) -> Self {
        Self(Arc::new((clock.clone(), clock.now() + time)))
    }

    /// Whether it is worth nothing now.
    pub fn has_passed(&self) -> bool {
        let (clock, at) = &*self.0;
        clock.now() >= *at
    }
}
