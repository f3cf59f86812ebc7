//! How fast one connection publishes, where rules limit it: a bucket of tokens for each such rule, as
//! full as a second's worth, and refilled as time goes by.

use std::time::{Duration, Instant};

/// How fast one connection has published, by the number of the rule. Empty, and without memory of its
/// own, as long as no rule limits it.
#[derive(Default)]
pub(super) struct Pace(Vec<Bucket>);

struct Bucket {
    rule: usize,
    /// When the bucket will be full again, if nothing more is taken from it.
    full_at: Instant,
}

impl Pace {
    /// Whether one more event may be published by a rule that allows so many a second.
    pub(super) fn allows(&self, rule: usize, max: u32, now: Instant) -> bool {
        let full_at = self.0.iter().find(|bucket| bucket.rule == rule).map_or(now, |bucket| bucket.full_at);
        full_at.saturating_duration_since(now) + cost(max) <= Duration::from_secs(1)
    }

    /// Whether it is as if nothing had been published.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.0.iter().all(|bucket| bucket.full_at <= now)
    }

    /// Counts an event that has been published.
    pub(super) fn count(&mut self, rule: usize, max: u32, now: Instant) {
        match self.0.iter_mut().find(|bucket| bucket.rule == rule) {
            Some(bucket) => bucket.full_at = bucket.full_at.max(now) + cost(max),
            None => self.0.push(Bucket { rule, full_at: now + cost(max) }),
        }
    }
}

/// How long it takes to refill what one event takes; rounded down, so that all of a second's worth fits.
fn cost(max: u32) -> Duration {
    Duration::from_nanos(1_000_000_000 / u64::from(max.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seconds_worth_goes_at_once_and_then_as_much_as_time_gives_back() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        for _ in 0..3 {
            assert!(pace.allows(7, 3, start));
            pace.count(7, 3, start);
        }
        assert!(!pace.allows(7, 3, start));
        assert!(pace.allows(8, 3, start), "another rule has its own");
        let later = start + Duration::from_millis(334);
        assert!(pace.allows(7, 3, later));
        pace.count(7, 3, later);
        assert!(!pace.allows(7, 3, later));
        assert!(pace.allows(7, 3, start + Duration::from_secs(10)));
    }
}
