//! How fast a client sends: a bucket of frames and one of bytes, each as full as two seconds' worth.
//!
//! Whoever sends faster is read more slowly, so that TCP holds them up and nobody else; who goes on like
//! that for too long is closed. The buckets are kept as the time at which they will be full again
//! (the generic cell rate algorithm, ITU-T I.371).

use std::time::{Duration, Instant};

use crate::config::Limits;

/// Seconds' worth that may be sent at once.
const BURST: Duration = Duration::from_secs(2);
/// A frame's own bytes, about.
const HEADER_BYTES: u32 = 6;

/// What a client has sent lately.
pub(super) struct Flow {
    /// When the bucket of frames will be full again.
    frames: Instant,
    /// And that of bytes.
    bytes: Instant,
    /// Since when it has been sending faster than it may.
    slowed_since: Option<Instant>,
}

/// How fast one may send.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    /// What one frame takes of the bucket.
    frame: Duration,
    /// What one byte takes.
    byte: Duration,
    /// How long one may go on sending faster.
    patience: Duration,
}

impl Rates {
    /// Those for a client, which may be on this machine; nothing if it may send as it likes.
    pub(super) fn of(limits: &Limits, is_local: bool) -> Option<Self> {
        let (frames, bytes) = (limits.frames_per_second(is_local), limits.bytes_per_second(is_local));
        let share = |rate: Option<u64>| rate.map_or(0, |rate| 1_000_000_000 / rate.max(1));
        (frames.is_some() || bytes.is_some()).then(|| Self {
            frame: Duration::from_nanos(share(frames.map(u64::from))),
            byte: Duration::from_nanos(share(bytes.map(|bytes| bytes as u64))),
            patience: limits.throttle_timeout,
        })
    }
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self { frames: now, bytes: now, slowed_since: None }
    }

    /// Counts frames that have been read, and the bytes of what is in them.
    pub(super) fn count(&mut self, rates: Rates, frames: u32, bytes: usize, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).saturating_add(frames.saturating_mul(HEADER_BYTES));
        self.frames = self.frames.max(now) + rates.frame.saturating_mul(frames);
        self.bytes = self.bytes.max(now) + rates.byte.saturating_mul(bytes);
        if self.is_full(now) {
            self.slowed_since = None;
        }
    }

    /// When to read on, if not now.
    pub(super) fn resumes(&mut self, now: Instant) -> Option<Instant> {
        let resumes = self.frames.max(self.bytes).checked_sub(BURST).filter(|at| *at > now);
        if resumes.is_some() {
            self.slowed_since.get_or_insert(now);
        }
        resumes
    }

    /// Whether it has been going on for too long, or will, as after thousands of fragments at once.
    pub(super) fn is_abuse(&self, rates: Rates, now: Instant) -> bool {
        let will = self.frames > now + BURST + rates.patience + rates.frame;
        will || self.slowed_since.is_some_and(|since| now.saturating_duration_since(since) > rates.patience)
    }

    /// Whether it is as if nothing had been sent.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.frames.max(self.bytes) <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates =
        Rates { frame: Duration::from_millis(100), byte: Duration::ZERO, patience: Duration::from_secs(5) };

    #[test]
    fn two_seconds_worth_goes_at_once_and_then_as_much_as_time_gives_back() {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        for _ in 0..20 {
            assert_eq!(flow.resumes(start), None);
            flow.count(RATES, 1, 0, start);
        }
        assert_eq!(flow.resumes(start), None);
        flow.count(RATES, 1, 0, start);
        let later = start + Duration::from_millis(100);
        assert_eq!(flow.resumes(start), Some(later));
        assert_eq!(flow.resumes(later), None);
    }

    #[test]
    fn more_frames_at_once_than_there_is_patience_for_are_abusive() {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        flow.count(RATES, 71, 0, start);
        assert!(!flow.is_abuse(RATES, start));
        flow.count(RATES, 1, 0, start);
        assert!(flow.is_abuse(RATES, start));
    }

    #[test]
    fn who_never_slows_down_is_abusive_and_who_pauses_is_not() {
        let start = Instant::now();
        let mut flow = Flow::new(start);
        let mut now = start;
        while !flow.is_abuse(RATES, now) {
            flow.count(RATES, 1, 0, now);
            now = flow.resumes(now).unwrap_or(now);
            assert!(now < start + Duration::from_secs(6));
        }
        assert!(now > start + Duration::from_secs(5));
        let rested = now + BURST;
        flow.count(RATES, 1, 0, rested + RATES.frame);
        assert!(flow.is_abuse(RATES, rested), "it has to be full again");
        let rested = rested + BURST;
        flow.count(Rates { frame: Duration::ZERO, ..RATES }, 1, 0, rested);
        assert!(!flow.is_abuse(RATES, rested));
    }
}
