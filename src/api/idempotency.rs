//! Events that are not to be published twice: what came of the first attempt is kept for a while, and is
//! the answer to all others.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::LiveLimits;
use crate::protocol::{ErrorCode, Problem, Refusal};

/// For how long a key is remembered.
const MEMORY: Duration = Duration::from_secs(5 * 60);

/// Whose key it is, and the key.
type Key = (Box<str>, Box<str>);

/// What has been published under keys.
pub(crate) struct Idempotency {
    known: Mutex<Known>,
    limits: LiveLimits,
    clock: Clock,
}

#[derive(Default)]
struct Known {
    attempts: HashMap<Key, First>,
    /// When each lapses, in the order in which they do.
    lapses: VecDeque<(Instant, u64, Key)>,
    /// Tells attempts under the same key apart.
    next: u64,
}

/// The first attempt under a key.
struct First {
    number: u64,
    /// Of what was to be published.
    digest: Box<[u8]>,
    /// How many it has reached, once that is known.
    reached: watch::Receiver<Option<usize>>,
}

/// What is to be done.
pub(super) enum Attempt<'a> {
    /// This is the first.
    First(Turn<'a>),
    /// It has been published, and has reached so many.
    Again(usize),
}

/// The right to publish under a key. Dropped before it is done, it is as if nobody had tried.
pub(super) struct Turn<'a> {
    store: &'a Idempotency,
    key: Key,
    number: u64,
    reached: watch::Sender<Option<usize>>,
}

impl Idempotency {
    /// Nothing as yet.
    pub(crate) fn new(limits: LiveLimits, clock: Clock) -> Self {
        Self { known: Mutex::default(), limits, clock }
    }

    /// Begins an attempt, or waits for the one that is under way.
    ///
    /// # Errors
    /// Something else was published under this key, or too many keys are remembered.
    pub(super) async fn begin(&self, whose: &str, key: &str, written: &str) -> Result<Attempt<'_>, Problem> {
        let digest: Box<[u8]> = digest(&SHA256, written.as_bytes()).as_ref().into();
        let key: Key = (whose.into(), key.into());
        loop {
            let mut under_way = match self.look_up(&key, &digest)? {
                Ok(turn) => return Ok(Attempt::First(turn)),
                Err(under_way) => under_way,
            };
            // If whoever tried has given up, it is somebody else's turn.
            if let Ok(reached) = under_way.wait_for(Option::is_some).await
                && let Some(reached) = *reached
            {
                return Ok(Attempt::Again(reached));
            }
        }
    }

    fn look_up(&self, key: &Key, digest: &[u8]) -> Result<Result<Turn<'_>, watch::Receiver<Option<usize>>>, Problem> {
        let now = self.clock.now();
        let mut known = self.known.lock();
        known.drop_lapsed(now);
        if let Some(first) = known.attempts.get(key) {
            if *first.digest != *digest {
                let message = "`idempotency_key` was used for something else within the last 5 minutes";
                return Err(Refusal::of(ErrorCode::KeyReused, "idempotency_key", message).into());
            }
            return Ok(Err(first.reached.clone()));
        }
        // Attempts that were given up leave their time behind.
        let max = self.limits.get().max_idempotency_keys;
        if known.attempts.len() >= max || known.lapses.len() >= max.saturating_mul(2) {
            let detail = format!("{max} idempotency keys are remembered, and there is room for no more");
            return Err(Problem::new(ErrorCode::Full, detail));
        }
        let (sender, receiver) = watch::channel(None);
        known.next += 1;
        let number = known.next;
        known.lapses.push_back((now + MEMORY, number, key.clone()));
        known.attempts.insert(key.clone(), First { number, digest: digest.into(), reached: receiver });
        Ok(Ok(Turn { store: self, key: key.clone(), number, reached: sender }))
    }
}

impl Turn<'_> {
    /// It has been published.
    pub(super) fn done(self, reached: usize) {
        self.reached.send_replace(Some(reached));
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.reached.borrow().is_none() {
            self.store.known.lock().forget(&self.key, self.number);
        }
    }
}

impl Known {
    fn drop_lapsed(&mut self, now: Instant) {
        while let Some((at, _, _)) = self.lapses.front()
            && *at <= now
            && let Some((_, number, key)) = self.lapses.pop_front()
        {
            self.forget(&key, number);
        }
    }

    fn forget(&mut self, key: &Key, number: u64) {
        if self.attempts.get(key).is_some_and(|first| first.number == number) {
            self.attempts.remove(key);
        }
    }
}
