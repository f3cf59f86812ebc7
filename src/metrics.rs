//! What is counted, for operators: Prometheus' text at `GET /metrics`.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Why somebody was refused: the words of `docs/identity.md`.
type Refused = [(&'static str, &'static str); 1];

/// What the backend is asked, and what has come of it.
type Asked = [(&'static str, &'static str); 2];

/// Which limit, by its name in the configuration.
type Limit = [(&'static str, &'static str); 1];

/// Which question it is.
type Kind = [(&'static str, &'static str); 1];

/// What the backend is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who may do what in a room.
    Access,
    /// What a client calls.
    Call,
    /// Whether it has heard of connections that come and go.
    Events,
}

impl Question {
    /// In a word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Call => "call",
            Self::Events => "events",
        }
    }

    fn label(self) -> (&'static str, &'static str) {
        ("kind", self.name())
    }
}

/// All that is counted. Shared by all threads.
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    refused: Family<Refused, Counter>,
    connections: Gauge,
    rooms: Gauge,
    revocations: Gauge,
    asked: Family<Asked, Counter>,
    answers: Family<Kind, Histogram>,
    left_alone: Family<Kind, Gauge>,
    limits: Family<Limit, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("wsgate");
        let metrics = Self {
            accepted: Counter::default(),
            refused: Family::default(),
            connections: Gauge::default(),
            rooms: Gauge::default(),
            revocations: Gauge::default(),
            asked: Family::default(),
            // From half a millisecond to a quarter of a minute, doubled each time.
            answers: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 15))),
            left_alone: Family::default(),
            limits: Family::default(),
            registry: Registry::default(),
        };
        registry.register(
            "authentications",
            "Tokens, tickets and guests let in, renewals included",
            metrics.accepted.clone(),
        );
        registry.register(
            "refusals",
            "Attempts to connect or renew that were refused, by reason",
            metrics.refused.clone(),
        );
        registry.register("connections", "Connections that have proven who they are", metrics.connections.clone());
        registry.register("rooms", "Rooms with at least one member", metrics.rooms.clone());
        registry.register("revocations", "Revocations and blocks in force", metrics.revocations.clone());
        registry.register("backend_requests", "What the backend was asked, by outcome", metrics.asked.clone());
        registry.register(
            "backend_answer_seconds",
            "How long the backend took to answer, or not to",
            metrics.answers.clone(),
        );
        registry.register(
            "backend_breaker_open",
            "Whether the backend is left alone, because it has not answered lately",
            metrics.left_alone.clone(),
        );
        registry.register("limit_hits", "How often a limit has bitten, by its name", metrics.limits.clone());
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Somebody was let in, or renewed.
    pub fn accept(&self) {
        self.accepted.inc();
    }

    /// Somebody was refused.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// The backend was asked something, or would have been.
    pub fn asked(&self, question: Question, outcome: &'static str) {
        self.asked.get_or_create(&[question.label(), ("outcome", outcome)]).inc();
    }

    /// How long that took.
    pub fn answered(&self, question: Question, time: Duration) {
        self.answers.get_or_create(&[question.label()]).observe(time.as_secs_f64());
    }

    /// A limit has bitten, by its name in the configuration.
    pub fn limit(&self, limit: &'static str) {
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// Whether the backend is left alone.
    pub fn left_alone(&self, question: Question, left_alone: bool) {
        self.left_alone.get_or_create(&[question.label()]).set(i64::from(left_alone));
    }

    /// All of it as text, with how many there are of these now.
    pub fn text(&self, connections: usize, rooms: usize, revocations: usize) -> String {
        for (gauge, now) in [(&self.connections, connections), (&self.rooms, rooms), (&self.revocations, revocations)] {
            gauge.set(i64::try_from(now).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}
