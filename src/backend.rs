//! Asks the backend what the gateway does not decide itself: whether somebody may do something in a
//! room, and whatever clients call. Knows no connections and no members.

mod events;
mod link;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{self, ConfigError, WhenDown};
use crate::metrics::{Metrics, Question};
use crate::protocol::{ConnectionId, EventName, RoomName, UserId};
use crate::trace::Tracer;

pub use events::Event;
use events::Events;
use link::{Answer, Fault, Link};
use memory::{Key, Known, Memory};

/// For how long an answer holds that does not say, but for one to joining, which does not hold at all:
/// so that the backend is not asked for every event.
const REMEMBER: Duration = Duration::from_secs(30);
/// For how long an answer may hold.
const MAX_REMEMBER: f64 = 3600.0;
/// The longest reason that a client is told, in bytes.
const MAX_REASON_BYTES: usize = 200;
/// The longest data about a member that an answer may have, in bytes.
const MAX_DATA_BYTES: usize = 2048;

/// The backend, or none.
pub struct Backend {
    access: Option<Link>,
    call: Option<Link>,
    events: Option<Events>,
    when_down: WhenDown,
    memory: Mutex<Memory>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// Who asks for something.
#[derive(Debug, Clone)]
pub struct Who {
    /// The user.
    pub user: UserId,
    /// The connection.
    pub connection: ConnectionId,
    /// What the token says.
    pub claims: Arc<Map<String, Value>>,
}

/// What somebody wants to do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Enter it.
    Join,
    /// Send events to it.
    Publish,
    /// See who is in it.
    Members,
}

/// What the backend has decided, or what holds because it has not.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Whether it may be done.
    pub allowed: bool,
    /// Whether the backend did not answer: it may be different later.
    pub is_temporary: bool,
    /// What the client is to be told of a no.
    pub reason: Option<String>,
    /// What others in the room may see of the user.
    pub data: Option<Arc<RawValue>>,
}

/// Why a call has no answer, in words for the client.
#[derive(Debug, Error)]
pub enum CallError {
    /// There is no backend for calls.
    #[error("this gateway has no backend to call")]
    NotConfigured,
    /// Too many calls wait already.
    #[error("too much waits for the backend: try again later")]
    Overloaded,
    /// The answer did not come in time.
    #[error("the backend has not answered in time")]
    Timeout,
    /// The backend cannot be reached.
    #[error("the backend cannot be reached now: try again later")]
    Unreachable,
    /// The backend takes no more now.
    #[error("the backend takes no more now: try again later")]
    Busy,
    /// The backend does not do it.
    #[error("the backend has refused this ({status})")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it says, if that is JSON.
        data: Option<Box<RawValue>>,
    },
    /// What the backend says is no answer.
    #[error("the backend has failed: {0}")]
    Failed(String),
}

/// What the backend is asked.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Asked<'a> {
    Access {
        user: &'a UserId,
        claims: &'a Map<String, Value>,
        connection: ConnectionId,
        room: &'a RoomName,
        action: Action,
    },
    Call {
        user: &'a UserId,
        claims: &'a Map<String, Value>,
        connection: ConnectionId,
        event: &'a EventName,
        data: &'a RawValue,
    },
}

/// What the backend says of a room.
#[derive(Deserialize)]
struct Said {
    allow: bool,
    remember: Option<f64>,
    reason: Option<String>,
    data: Option<Box<RawValue>>,
}

impl Backend {
    /// The configured backend. Without any, every question is answered with a no, and no call at all.
    ///
    /// # Errors
    /// The setting that cannot be.
    pub fn new(
        config: Option<&config::Backend>,
        clock: &Clock,
        metrics: &Arc<Metrics>,
        tracer: &Tracer,
    ) -> Result<Self, ConfigError> {
        let written = config.cloned().unwrap_or_default();
        let secret = written.read_secret()?;
        let link = |kind, url: &Option<String>, timeout| {
            let link =
                |url: &String| Link::new(kind, url, timeout, &written, secret.as_ref(), (clock, metrics, tracer));
            url.as_ref().map(link).transpose()
        };
        let events = link(Question::Events, &written.events_url, written.call_timeout)?;
        Ok(Self {
            access: link(Question::Access, &written.access_url, written.access_timeout)?,
            call: link(Question::Call, &written.call_url, written.call_timeout)?,
            events: events.map(|link| Events::new(link, clock, metrics)),
            when_down: written.when_down,
            memory: Mutex::default(),
            clock: clock.clone(),
            metrics: Arc::clone(metrics),
        })
    }

    /// Whether somebody may do something in a room. All who want to know the same at the same time
    /// share one question, which goes on when one of them goes away.
    pub async fn may(self: &Arc<Self>, who: &Who, room: &RoomName, action: Action) -> Verdict {
        let key = Key::new(&who.user, room, action, &who.claims);
        let flight = {
            let mut memory = self.memory.lock();
            match memory.look_up(&key, self.clock.now()) {
                Known::Answer(verdict) => {
                    self.metrics.asked(Question::Access, "remembered");
                    return verdict;
                }
                Known::Flight(flight) => {
                    self.metrics.asked(Question::Access, "shared");
                    flight
                }
                Known::Nothing(number) => {
                    let (backend, key_of_flight, who, room) =
                        (Arc::clone(self), key.clone(), who.clone(), room.clone());
                    let asking =
                        tokio::spawn(async move { backend.decide(&key_of_flight, number, &who, &room, action).await });
                    let when_down = self.when_down;
                    let flight =
                        asking.map(move |said| said.unwrap_or_else(|_| Verdict::of(when_down))).boxed().shared();
                    memory.begin(key, number, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    async fn decide(&self, key: &Key, number: u64, who: &Who, room: &RoomName, action: Action) -> Verdict {
        let Who { user, connection, claims } = who;
        let said = self.ask(&Asked::Access { user, claims, connection: *connection, room, action }).await;
        let (verdict, remember) = match said {
            Ok(Said { allow, remember, reason, data }) => {
                self.metrics.asked(Question::Access, if allow { "ok" } else { "denied" });
                let usual = if action == Action::Join { Duration::ZERO } else { REMEMBER };
                let remember = remember.map_or(usual, |seconds| Duration::from_secs_f64(seconds.min(MAX_REMEMBER)));
                let (reason, data) = (reason.as_deref().map(presentable), data.map(Arc::from));
                (Verdict { allowed: allow, is_temporary: false, reason, data }, remember)
            }
            Err(outcome) => {
                self.metrics.asked(Question::Access, outcome);
                // Whoever asks so much that there is no turn for it must not get in by that.
                let no_turn = outcome == Fault::NoTurn.as_str();
                let holds = if no_turn { WhenDown::Deny } else { self.when_down };
                (Verdict::of(holds), Duration::ZERO)
            }
        };
        let until = (!remember.is_zero()).then(|| (self.clock.now() + remember, verdict.clone()));
        self.memory.lock().land(key, number, until);
        verdict
    }

    /// What the backend says of a room, or in a word for the metrics why it says nothing.
    async fn ask(&self, asked: &Asked<'_>) -> Result<Said, &'static str> {
        let Some(link) = &self.access else { return Err("not_configured") };
        let body = serde_json::to_vec(asked).map_err(|_| "failed")?;
        let answer = link.post(body).await.map_err(Fault::as_str)?;
        let failed = |why: &str| {
            tracing::debug!(why, status = answer.status.as_u16(), "the backend does not say who may do what");
            "failed"
        };
        if answer.status != 200 {
            return Err(failed("the status is not 200"));
        }
        let said: Said = serde_json::from_slice(&answer.body).map_err(|error| failed(&error.to_string()))?;
        if said.remember.is_some_and(|seconds| !(0.0..).contains(&seconds)) {
            return Err(failed("`remember` is no time"));
        }
        if said.data.as_ref().is_some_and(|data| data.get().len() > MAX_DATA_BYTES) {
            return Err(failed("`data` is too long"));
        }
        Ok(said)
    }

    /// Has a call answered: any JSON, as it came.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn call(&self, who: &Who, event: &EventName, data: &RawValue) -> Result<Box<RawValue>, CallError> {
        let Who { user, connection, claims } = who;
        let Some(link) = &self.call else { return Err(CallError::NotConfigured) };
        let asked = Asked::Call { user, claims, connection: *connection, event, data };
        let body = serde_json::to_vec(&asked).map_err(|error| CallError::Failed(error.to_string()))?;
        let answer = link.post(body).await.map_err(CallError::from).and_then(answer_to_call);
        self.metrics.asked(Question::Call, answer.as_ref().map_or_else(CallError::as_str, |_| "ok"));
        answer
    }

    /// What it is asked, and whether it is left alone with that now.
    pub fn left_alone(&self) -> Vec<(Question, bool)> {
        let links = [self.access.as_ref(), self.call.as_ref(), self.events.as_ref().map(Events::link)];
        links.into_iter().flatten().map(Link::left_alone).collect()
    }

    /// Forgets what it has said of a user.
    pub fn forget(&self, user: &UserId) {
        self.memory.lock().forget(user);
    }

    /// Forgets what has been answered about anybody.
    pub fn forget_all(&self) {
        self.memory.lock().forget_all();
    }

    /// Tells the backend that something has happened, sooner or later. One event is made after the other:
    /// what one counts, it counts after those before it.
    pub fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.add(event);
        }
    }

    /// Tells the backend what there is to tell, until it is told to stop and nothing is left to tell.
    pub async fn keep_telling(self: Arc<Self>, stopping: CancellationToken) {
        if let Some(events) = &self.events {
            events.send(&stopping).await;
        }
    }
}

impl Verdict {
    fn of(when_down: WhenDown) -> Self {
        let allowed = when_down == WhenDown::Allow;
        Self { allowed, is_temporary: !allowed, reason: None, data: None }
    }
}

impl Fault {
    /// In a word for the metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded | Self::NoTurn => "overloaded",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::LeftAlone => "left_alone",
            Self::TooLong => "failed",
        }
    }
}

impl CallError {
    fn as_str(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Busy => "busy",
            Self::Refused { .. } => "refused",
            Self::Failed(_) => "failed",
        }
    }
}

impl From<Fault> for CallError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Overloaded => Self::Overloaded,
            Fault::Timeout | Fault::NoTurn => Self::Timeout,
            Fault::Unreachable | Fault::LeftAlone => Self::Unreachable,
            Fault::TooLong => Self::Failed("its answer is too long".to_owned()),
        }
    }
}

fn answer_to_call(answer: Answer) -> Result<Box<RawValue>, CallError> {
    let Answer { status, body } = answer;
    let json = || serde_json::from_slice::<Box<RawValue>>(&body);
    match status.as_u16() {
        200 => json().map_err(|_| CallError::Failed("its answer is not JSON".to_owned())),
        204 => Ok(RawValue::NULL.to_owned()),
        // It cannot be reached behind whatever answers for it, or wants to be left alone.
        408 | 429 | 502..=504 => Err(CallError::Busy),
        status @ 400..500 => Err(CallError::Refused { status, data: json().ok() }),
        status => Err(CallError::Failed(format!("it answers {status}"))),
    }
}

/// A reason as a client may be told it: in one line, and short.
fn presentable(reason: &str) -> String {
    let mut line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let end = (0..=MAX_REASON_BYTES.min(line.len())).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
    line.truncate(end);
    line
}
