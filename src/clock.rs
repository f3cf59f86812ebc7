//! Time, which can be put into the hands of a test.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

/// What tells the time and waits for it. A clone tells the same time.
#[derive(Debug, Clone)]
pub struct Clock(Source);

/// See [`Clock::timer`].
pub type Timer = Pin<Box<dyn Future<Output = ()> + Send>>;

#[derive(Debug, Clone)]
enum Source {
    System,
    /// Behind a pointer: every connection has a clock, and but for tests it is the system's.
    Manual(Arc<Manual>),
}

#[derive(Debug)]
struct Manual {
    since: Instant,
    since_unix: Duration,
    time: watch::Receiver<Moved>,
}

/// Moves the clock that it was made with.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<Moved>);

/// How far a manual clock has been moved.
#[derive(Debug, Default)]
struct Moved {
    /// The time that has passed.
    passed: Duration,
    /// How far the time of day has been set forward beside that.
    set: Duration,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that starts now and stands still until it is moved.
    pub fn manual() -> (Self, ManualClock) {
        let (sender, time) = watch::channel(Moved::default());
        let manual = Manual { since: Instant::now(), since_unix: unix_now(), time };
        (Self(Source::Manual(Arc::new(manual))), ManualClock(sender))
    }

    /// The time for measuring durations: it never jumps.
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::System => Instant::now(),
            Source::Manual(manual) => manual.since + manual.time.borrow().passed,
        }
    }

    /// The time since the Unix epoch, as tokens count it: it may be set.
    pub fn unix(&self) -> Duration {
        match &self.0 {
            Source::System => unix_now(),
            Source::Manual(manual) => {
                let moved = manual.time.borrow();
                manual.since_unix + moved.passed + moved.set
            }
        }
    }

    /// Is ready once [`Clock::now`] has reached an instant, and small: every connection has one.
    pub fn timer(&self, instant: Instant) -> Timer {
        match &self.0 {
            Source::System => Box::pin(tokio::time::sleep_until(instant.into())),
            Source::Manual(_) => {
                let clock = self.clone();
                Box::pin(async move { clock.sleep_until(instant).await })
            }
        }
    }

    /// Waits until [`Clock::now`] has reached an instant.
    pub async fn sleep_until(&self, instant: Instant) {
        match &self.0 {
            Source::System => tokio::time::sleep_until(instant.into()).await,
            Source::Manual(manual) => {
                let has_come = |moved: &Moved| manual.since + moved.passed >= instant;
                // If whoever moves the clock is gone, it stands still for ever.
                if manual.time.clone().wait_for(has_come).await.is_err() {
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
        self.0.send_modify(|moved| moved.passed += by);
    }

    /// Sets the time of day forward, as an operator or a time server does: no time passes.
    pub fn set_forward(&self, by: Duration) {
        self.0.send_modify(|moved| moved.set += by);
    }
}

/// A system clock before 1970 counts as 1970: every token is then valid from the future on, and
/// refused.
fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
