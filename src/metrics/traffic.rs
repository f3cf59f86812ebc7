//! What is counted of each frame and event. One of these belongs to each worker, so that no two processors
//! write to the same memory; they are added up when somebody looks.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

/// Connections that an event goes to.
const FAN_OUT: [f64; 12] = [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0];
/// Seconds until copies of an event are handed on.
const LATENCY: [f64; 14] =
    [25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 500e-3, 2.0];

/// What went through one worker.
#[derive(Debug, Default)]
pub struct Traffic {
    frames_in: AtomicU64,
    bytes_in: AtomicU64,
    of_clients: AtomicU64,
    of_backends: AtomicU64,
    deliveries: AtomicU64,
    bytes_out: AtomicU64,
    lost: AtomicU64,
    fan_out: Tally<{ FAN_OUT.len() }>,
    latency: Tally<{ LATENCY.len() }>,
}

/// How many there were up to each bound, and beyond, and their sum.
#[derive(Debug)]
struct Tally<const BOUNDS: usize> {
    counts: [AtomicU64; BOUNDS],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const BOUNDS: usize> Default for Tally<BOUNDS> {
    fn default() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BOUNDS], beyond: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl<const BOUNDS: usize> Tally<BOUNDS> {
    /// Notes a value, which is `sum` in the unit of the sum.
    fn note(&self, bounds: &[f64; BOUNDS], value: f64, sum: u64) {
        let place = bounds.partition_point(|bound| *bound < value);
        self.counts.get(place).unwrap_or(&self.beyond).fetch_add(1, Relaxed);
        self.sum.fetch_add(sum, Relaxed);
    }
}

impl Traffic {
    /// A frame of a client has been read.
    pub fn heard(&self, bytes: usize) {
        self.frames_in.fetch_add(1, Relaxed);
        self.bytes_in.fetch_add(bytes as u64, Relaxed);
    }

    /// An event was published, by a client or else a backend, to so many connections.
    pub fn published(&self, by_client: bool, recipients: usize) {
        if by_client { &self.of_clients } else { &self.of_backends }.fetch_add(1, Relaxed);
        self.fan_out.note(&FAN_OUT, recipients as f64, recipients as u64);
    }

    /// So many copies of events were written or put into outboxes.
    pub fn sent(&self, copies: usize, bytes: usize) {
        self.deliveries.fetch_add(copies as u64, Relaxed);
        self.bytes_out.fetch_add(bytes as u64, Relaxed);
    }

    /// So many copies of events that expire were dropped, because their time had passed.
    pub fn lost(&self, copies: usize) {
        self.lost.fetch_add(copies as u64, Relaxed);
    }

    /// The next members, up to 64, have been handed an event that was published then.
    pub fn delivered(&self, published: Instant) {
        let time = published.elapsed();
        self.latency.note(&LATENCY, time.as_secs_f64(), u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What went through all workers, as it was when it was last added up.
#[derive(Debug, Default)]
pub(super) struct Total(Mutex<Sums>);

#[derive(Debug, Default)]
struct Sums {
    counters: [u64; 7],
    fan_out: Histogram,
    latency: Histogram,
}

#[derive(Debug, Default)]
struct Histogram {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

impl Histogram {
    fn of<const BOUNDS: usize>(tallies: &[&Tally<BOUNDS>], bounds: &[f64; BOUNDS], unit: f64) -> Self {
        let add = |pick: &dyn Fn(&Tally<BOUNDS>) -> u64| tallies.iter().map(|tally| pick(tally)).sum::<u64>();
        let at = |place: usize| add(&|tally| tally.counts.get(place).map_or(0, |count| count.load(Relaxed)));
        let mut buckets: Vec<_> = bounds.iter().enumerate().map(|(place, bound)| (*bound, at(place))).collect();
        buckets.push((f64::INFINITY, add(&|tally| tally.beyond.load(Relaxed))));
        let count = buckets.iter().map(|(_, count)| count).sum();
        Self { sum: add(&|tally| tally.sum.load(Relaxed)) as f64 * unit, count, buckets }
    }
}

impl Total {
    /// Adds up.
    pub(super) fn take(&self, workers: &[&Traffic]) {
        let add = |pick: fn(&Traffic) -> &AtomicU64| workers.iter().map(|traffic| pick(traffic).load(Relaxed)).sum();
        let fan_out: Vec<_> = workers.iter().map(|traffic| &traffic.fan_out).collect();
        let latency: Vec<_> = workers.iter().map(|traffic| &traffic.latency).collect();
        let nanosecond = Duration::from_nanos(1).as_secs_f64();
        *self.0.lock() = Sums {
            counters: [
                add(|traffic| &traffic.frames_in),
                add(|traffic| &traffic.bytes_in),
                add(|traffic| &traffic.of_clients),
                add(|traffic| &traffic.of_backends),
                add(|traffic| &traffic.deliveries),
                add(|traffic| &traffic.bytes_out),
                add(|traffic| &traffic.lost),
            ],
            fan_out: Histogram::of(&fan_out, &FAN_OUT, 1.0),
            latency: Histogram::of(&latency, &LATENCY, nanosecond),
        };
    }
}

impl Collector for Total {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Sums { counters, fan_out, latency } = &*self.0.lock();
        let [frames_in, bytes_in, of_clients, of_backends, deliveries, bytes_out, lost] = *counters;
        for (name, help, unit, value) in [
            ("received_frames", "Frames with messages that clients have sent", None, frames_in),
            ("received", "Bytes of the messages that clients have sent", Some(Unit::Bytes), bytes_in),
            (
                "deliveries",
                "Copies of events that were written to clients, or put into their outboxes",
                None,
                deliveries,
            ),
            ("delivered", "Bytes of those copies", Some(Unit::Bytes), bytes_out),
            ("expired_deliveries", "Copies of events that were dropped, because their time had passed", None, lost),
        ] {
            let counter = ConstCounter::new(value);
            counter.encode(encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?)?;
        }
        let help = "Events that were published, by a client or a backend";
        let mut events = encoder.encode_descriptor("events", help, None, MetricType::Counter)?;
        for (source, value) in [("client", of_clients), ("backend", of_backends)] {
            ConstCounter::new(value).encode(events.encode_family(&[("source", source)])?)?;
        }
        let help = "Connections that an event went to";
        let histogram = encoder.encode_descriptor("fan_out", help, None, MetricType::Histogram)?;
        fan_out.encode(histogram)?;
        let help = "From publishing an event in a room to its having been written to the next members, up to 64, or put into \
                    their outboxes: one observation for each such handful";
        let histogram = encoder.encode_descriptor("delivery", help, Some(&Unit::Seconds), MetricType::Histogram)?;
        latency.encode(histogram)
    }
}

impl Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        // The text counts each bucket together with those before it: the library adds them up.
        encoder.encode_histogram::<NoLabelSet>(self.sum, self.count, &self.buckets, None)
    }
}
