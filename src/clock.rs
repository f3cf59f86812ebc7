//! Time, which can be put into the hands of a test.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// What tells the time and waits for it. A clone tells the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

#[derive(Debug, Clone)]
enum Source {
    System,
    Manual { since: Instant, since_unix: Duration, passed: watch::Receiver<Duration> },
}

/// Moves the clock that it was made with.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<Duration>);

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts now and stands still until it is moved.
    pub fn manual() -> (Self, ManualClock) {
        let (sender, passed) = watch::channel(Duration::ZERO);
        let clock = Self(Source::Manual { since: Instant::now(), since_unix: unix_now(), passed });
        (clock, ManualClock(sender))
    }

    /// The time for measuring durations: it never jumps.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual { since, passed, .. } => *since + *passed.borrow(),
        }
    }

    /// The time since the Unix epoch, as tokens count it: it may be set.
    pub fn unix(&self) -> Duration {
        match &self.0 {
            Source::System => unix_now(),
            Source::Manual { since_unix, passed, .. } => *since_unix + *passed.borrow(),
        }
    }

    /// Waits until [`Clock::now`] has reached an instant.
    pub async fn sleep_until(&self, instant: Instant) {
        match &self.0 {
            Source::System => tokio::time::sleep_until(instant.into()).await,
            Source::Manual { since, passed, .. } => {
                let since = *since;
                // If whoever moves the clock is gone, it stands still for ever.
                if passed.clone().wait_for(|passed| since + *passed >= instant).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Runs a future for so long at most; `None` if it did not end in time.
    pub async fn timeout<F: Future>(&self, limit: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep_until(self.now() + limit) => None,
        }
    }
}

impl ManualClock {
    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.send_modify(|passed| *passed += by);
    }
}

/// A system clock before 1970 counts as 1970: every token is then valid from the future on, and
/// refused.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
