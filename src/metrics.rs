//! What is counted, for operators: Prometheus' text at `GET /metrics`.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Why somebody was refused: the words of `docs/identity.md`.
type Refused = [(&'static str, &'static str); 1];

/// All that is counted. Shared by all threads.
pub struct Metrics {
    registry: Registry,
    accepted: Counter,
    refused: Family<Refused, Counter>,
    connections: Gauge,
    rooms: Gauge,
    revocations: Gauge,
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
