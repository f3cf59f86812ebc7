//! Tells the backend of connections that come and go: in order, in batches, again until it listens.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::metrics::{Metrics, Question};
use crate::protocol::{ConnectionId, UserId};

use super::link::Link;

/// Events that wait for a backend that does not listen. More are lost, and it is told how many.
const MAX_WAITING: usize = 10_000;
/// Events in one request.
const MAX_BATCH: usize = 100;
/// The time between two attempts while they fail: the first, and the longest. It doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Something that has happened to a connection.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Event {
    /// It is in.
    Connected {
        /// Whose it is.
        user: UserId,
        /// Its id.
        connection: ConnectionId,
        /// When, in Unix seconds.
        at: u64,
        /// How many connections the user has now.
        connections: usize,
    },
    /// It has gone.
    Disconnected {
        /// Whose it was.
        user: UserId,
        /// Its id.
        connection: ConnectionId,
        /// When, in Unix seconds.
        at: u64,
        /// How many connections the user has left.
        connections: usize,
        /// The code that we closed it with; none if the client has ended it, or it broke.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<u16>,
        /// Why we closed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// What the backend is told.
#[derive(Serialize)]
struct Told<'a> {
    r#type: &'static str,
    events: &'a [Event],
    /// How many have been lost since it was last told, because it did not listen for too long.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Events on their way to the backend.
pub(super) struct Events {
    link: Link,
    queue: Mutex<Queue>,
    added: Notify,
    clock: Clock,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Event>,
    lost: u64,
}

impl Events {
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    pub(super) fn new(link: Link, clock: &Clock, metrics: &Arc<Metrics>) -> Self {
        let (clock, metrics) = (clock.clone(), Arc::clone(metrics));
        Self { link, queue: Mutex::default(), added: Notify::new(), clock, metrics }
    }

    pub(super) fn add(&self, event: impl FnOnce() -> Event) {
        let mut queue = self.queue.lock();
        if queue.waiting.len() < MAX_WAITING {
            queue.waiting.push_back(event());
        } else {
            queue.lost += 1;
            self.metrics.asked(Question::Events, "lost");
        }
        drop(queue);
        self.added.notify_one();
    }

    /// Sends what there is to send, until it is told to stop and nothing is left.
    pub(super) async fn send(&self, stopping: &CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let (batch, lost) = self.next();
            if batch.is_empty() && lost == 0 {
                if stopping.is_cancelled() {
                    return;
                }
                tokio::select! { () = self.added.notified() => {}, () = stopping.cancelled() => {} }
                continue;
            }
            if self.deliver(&batch, lost).await {
                self.done(batch.len(), lost);
                pause = FIRST_PAUSE;
            } else if stopping.is_cancelled() {
                return tracing::warn!(
                    lost = self.queue.lock().waiting.len(),
                    "the backend was not told of everything"
                );
            } else {
                let wait = self.clock.sleep_until(self.clock.now() + pause);
                tokio::select! { () = wait => {}, () = stopping.cancelled() => {} }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }

    /// What is to be sent next. It stays in the queue until it has been.
    fn next(&self) -> (Vec<Event>, u64) {
        let queue = self.queue.lock();
        (queue.waiting.iter().take(MAX_BATCH).cloned().collect(), queue.lost)
    }

    async fn deliver(&self, events: &[Event], lost: u64) -> bool {
        let Ok(body) = serde_json::to_vec(&Told { r#type: "events", events, lost }) else { return false };
        let outcome = match self.link.post(body).await {
            Ok(answer) if answer.status.is_success() => "ok",
            Ok(_) => "failed",
            Err(fault) => fault.as_str(),
        };
        self.metrics.asked(Question::Events, outcome);
        outcome == "ok"
    }

    fn done(&self, sent: usize, lost: u64) {
        let mut queue = self.queue.lock();
        queue.waiting.drain(..sent);
        queue.lost -= lost;
    }
}
