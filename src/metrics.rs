//! What is counted, for operators: Prometheus' text at `GET /metrics`.

mod process;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use process::OwnProcess;
use traffic::Total;
pub use traffic::Traffic;

/// One label, of which there are only so many values as the program has words.
type Word = [(&'static str, &'static str); 1];
/// Two of them.
type Words = [(&'static str, &'static str); 2];
/// The names of the configuration's issuers.
type Issuer = [(&'static str, String); 1];
/// An operation of the API by its route, and the class of the answer's status.
type Operation = [(&'static str, String); 2];

/// The limits that are counted when they bite, by their names in the configuration; `requests` are those of
/// backends that wait for answers of clients.
const LIMITS: [&str; 28] = [
    "anonymous.max_connections",
    "auth_timeout",
    "body_timeout",
    "handshake_timeout",
    "max_bad_frames",
    "max_body_bytes",
    "max_connections",
    "max_connections_per_address",
    "max_connections_per_user",
    "max_connects_per_second",
    "max_data_bytes",
    "max_depth",
    "max_failures",
    "max_frames_per_second",
    "max_head_bytes",
    "max_idempotency_keys",
    "max_lifetime",
    "max_members",
    "max_message_bytes",
    "max_outbox_bytes",
    "max_pending",
    "max_publishes_per_second",
    "max_revocations",
    "max_rooms",
    "max_tickets",
    "max_unauthenticated",
    "pong_timeout",
    "requests",
];

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

/// How much there is of what, at the moment.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Connections that have proven who they are.
    pub connections: usize,
    /// Users who have any.
    pub users: usize,
    /// Rooms with at least one member, but for the users' personal rooms.
    pub rooms: usize,
    /// Places in them that are taken.
    pub memberships: usize,
    /// Bytes that wait to be written to connections.
    pub outbox_bytes: usize,
    /// Revocations and blocks in force.
    pub revocations: usize,
    /// Issuers that publish their keys: how many keys there are, and how old they are.
    pub issuers: Vec<(String, usize, Option<Duration>)>,
    /// Whether the gateway drains.
    pub draining: bool,
    /// How many connections there may be.
    pub max_connections: usize,
    /// What the backend is asked, and whether it is left alone with that.
    pub left_alone: Vec<(Question, bool)>,
}

/// All that is counted. Shared by all threads; what is counted of each frame and event is in [`Traffic`].
pub struct Metrics {
    registry: Registry,
    traffic: Arc<Total>,
    connections: Family<Word, Gauge>,
    accepted: Counter,
    closed: Family<Word, Counter>,
    users: Gauge,
    rooms: Gauge,
    memberships: Gauge,
    outbox_bytes: Gauge,
    authenticated: Counter,
    refused: Family<Word, Counter>,
    revocations: Gauge,
    keys: Family<Issuer, Gauge>,
    key_ages: Family<Issuer, Gauge>,
    requests: Family<Operation, Counter>,
    request_seconds: Family<[(&'static str, String); 1], Histogram>,
    asked: Family<Words, Counter>,
    answers: Family<Words, Histogram>,
    left_alone: Family<Word, Gauge>,
    limits: Family<Word, Counter>,
    draining: Gauge,
    max_connections: Gauge,
    reload_succeeded: Gauge,
    /// Nothing without a certificate.
    certificate_end: Family<[(&'static str, &'static str); 0], Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        // From half a millisecond to a quarter of a minute, doubled each time.
        let seconds = || Histogram::new(exponential_buckets(0.0005, 2.0, 15));
        let mut metrics = Self {
            registry: Registry::default(),
            traffic: Arc::default(),
            connections: Family::default(),
            accepted: Counter::default(),
            closed: Family::default(),
            users: Gauge::default(),
            rooms: Gauge::default(),
            memberships: Gauge::default(),
            outbox_bytes: Gauge::default(),
            authenticated: Counter::default(),
            refused: Family::default(),
            revocations: Gauge::default(),
            keys: Family::default(),
            key_ages: Family::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            asked: Family::default(),
            answers: Family::new_with_constructor(seconds),
            left_alone: Family::default(),
            limits: Family::default(),
            draining: Gauge::default(),
            max_connections: Gauge::default(),
            reload_succeeded: Gauge::default(),
            certificate_end: Family::default(),
        };
        metrics.reloaded(true);
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Says what each is called, and what it means. `docs/metrics.md` says the same.
    fn register(&mut self) {
        let mut root = Registry::default();
        root.register_collector(Box::new(OwnProcess::beginning_now()));
        let registry = root.sub_registry_with_prefix("wsgate");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "Which version this is", build);
        let help =
            "Connections: unproven, who have not shown who they are; live; closing, who have been said goodbye to";
        registry.register("connections", help, self.connections.clone());
        registry.register("accepted_connections", "Clients that have become WebSockets", self.accepted.clone());
        let help = "Connections that have ended, by the code of our Close; `peer` if they closed, `lost` if they broke";
        registry.register("closed_connections", help, self.closed.clone());
        registry.register("users", "Users with at least one connection", self.users.clone());
        registry.register("rooms", "Rooms with at least one member, but for personal ones", self.rooms.clone());
        registry.register("memberships", "Places in these rooms that are taken", self.memberships.clone());
        registry.register("outbox_bytes", "Bytes that wait to be written to connections", self.outbox_bytes.clone());
        registry.register_collector(Box::new(Arc::clone(&self.traffic)));
        let help = "Tokens, tickets and guests let in, renewals included";
        registry.register("authentications", help, self.authenticated.clone());
        let help = "Attempts to connect or renew that were refused, by reason";
        registry.register("refusals", help, self.refused.clone());
        registry.register("revocations", "Revocations and blocks in force", self.revocations.clone());
        registry.register("issuer_keys", "Keys of an issuer that publishes them", self.keys.clone());
        let help = "How long ago these were fetched";
        registry.register("issuer_keys_age_seconds", help, self.key_ages.clone());
        let help = "Requests of backends, by route and class of the answer's status";
        registry.register("api_requests", help, self.requests.clone());
        let help = "How long they took to answer, by route";
        registry.register("api_request_seconds", help, self.request_seconds.clone());
        registry.register("backend_requests", "What the backend was asked, by outcome", self.asked.clone());
        let help = "How long the backend took to answer, or not to, by outcome";
        registry.register("backend_answer_seconds", help, self.answers.clone());
        let help = "Whether the backend is left alone, because it has not answered lately";
        registry.register("backend_breaker_open", help, self.left_alone.clone());
        registry.register("limit_hits", "How often a limit has bitten, by its name", self.limits.clone());
        registry.register("draining", "Whether the gateway takes no more clients", self.draining.clone());
        registry.register("max_connections", "How many connections there may be", self.max_connections.clone());
        let help = "Whether the configuration could be read, the last time that it was";
        registry.register("config_last_reload_successful", help, self.reload_succeeded.clone());
        let help = "When the certificate ends, in Unix time";
        let name = "tls_certificate_not_after_timestamp_seconds";
        registry.register(name, help, self.certificate_end.clone());
        self.registry = root;
    }

    /// The connections that have not shown who they are: the gauge counts for whoever keeps it so.
    pub fn unproven(&self) -> Gauge {
        self.connections.get_or_create_owned(&[("state", "unproven")])
    }

    /// A client has become a WebSocket.
    pub fn connect(&self) {
        self.accepted.inc();
    }

    /// A connection is said goodbye to: it counts as closing until what is given back is dropped.
    pub fn closing(&self, how: &'static str) -> Closing {
        self.closed.get_or_create(&[("code", how)]).inc();
        let gauge = self.connections.get_or_create_owned(&[("state", "closing")]);
        gauge.inc();
        Closing(gauge)
    }

    /// Somebody was let in, or renewed.
    pub fn accept(&self) {
        self.authenticated.inc();
    }

    /// Somebody was refused.
    pub fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// A request of a backend was answered.
    pub fn requested(&self, route: &str, status: &'static str, time: Duration) {
        self.requests.get_or_create(&[("route", route.to_owned()), ("status", status.to_owned())]).inc();
        self.request_seconds.get_or_create(&[("route", route.to_owned())]).observe(time.as_secs_f64());
    }

    /// The backend was asked something, or would have been.
    pub fn asked(&self, question: Question, outcome: &'static str) {
        self.asked.get_or_create(&[question.label(), ("outcome", outcome)]).inc();
    }

    /// How long that took.
    pub fn answered(&self, question: Question, outcome: &'static str, time: Duration) {
        self.answers.get_or_create(&[question.label(), ("outcome", outcome)]).observe(time.as_secs_f64());
    }

    /// A limit has bitten, by its name in the configuration.
    pub fn limit(&self, limit: &'static str) {
        debug_assert!(LIMITS.contains(&limit), "{limit} is to begin at zero");
        self.limits.get_or_create(&[("limit", limit)]).inc();
    }

    /// When the certificate ends, since the Unix epoch.
    pub fn certificate_ends(&self, end: Duration) {
        set(&self.certificate_end.get_or_create(&[]), end.as_secs());
    }

    /// Whether the configuration could be read again.
    pub fn reloaded(&self, succeeded: bool) {
        set(&self.reload_succeeded, u64::from(succeeded));
    }

    /// How many connections are being said goodbye to.
    pub fn closing_now(&self) -> usize {
        let closing = self.connections.get_or_create_owned(&[("state", "closing")]);
        usize::try_from(closing.get()).unwrap_or(0)
    }

    /// Has all words begin at zero: what is seen first at its first time cannot be seen to grow.
    pub fn begin_at_zero(
        &self,
        reasons: impl Iterator<Item = &'static str>,
        codes: impl Iterator<Item = &'static str>,
    ) {
        reasons.for_each(|reason| drop(self.refused.get_or_create(&[("reason", reason)])));
        codes.chain(["peer", "lost"]).for_each(|code| drop(self.closed.get_or_create(&[("code", code)])));
        LIMITS.iter().for_each(|limit| drop(self.limits.get_or_create(&[("limit", *limit)])));
    }

    /// All of it as text, with how much there is of what now, and what has gone through each worker.
    pub fn text<'a>(&self, now: &Inventory, traffic: impl Iterator<Item = &'a Traffic>) -> String {
        self.traffic.take(&traffic.collect::<Vec<_>>());
        let live = self.connections.get_or_create_owned(&[("state", "live")]);
        for (gauge, now) in [
            (&live, now.connections),
            (&self.users, now.users),
            (&self.rooms, now.rooms),
            (&self.memberships, now.memberships),
            (&self.outbox_bytes, now.outbox_bytes),
            (&self.revocations, now.revocations),
            (&self.draining, usize::from(now.draining)),
            (&self.max_connections, now.max_connections),
        ] {
            set(gauge, now as u64);
        }
        for (question, left_alone) in &now.left_alone {
            set(&self.left_alone.get_or_create(&[question.label()]), u64::from(*left_alone));
        }
        // Issuers may have been taken out of the configuration.
        self.keys.clear();
        self.key_ages.clear();
        for (issuer, keys, age) in &now.issuers {
            let label = [("issuer", issuer.clone())];
            set(&self.keys.get_or_create(&label), *keys as u64);
            if let Some(age) = age {
                set(&self.key_ages.get_or_create(&label), age.as_secs());
            }
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _written = encode(&mut text, &self.registry);
        text
    }
}

/// A connection that is being said goodbye to.
pub struct Closing(Gauge);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.inner().store(i64::try_from(value).unwrap_or(i64::MAX), Relaxed);
}
