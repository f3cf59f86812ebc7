//! What the process takes of the machine, under the names that all programs have for it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::process::{LimitValue, Process};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Looks at `/proc/self` when it is asked.
#[derive(Debug)]
pub(super) struct OwnProcess {
    /// In Unix time.
    began: f64,
}

impl OwnProcess {
    /// One that begins now: a hardened service cannot see in `/proc` when it did (`ProcSubset=pid`).
    pub(super) fn beginning_now() -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        Self { began: began.map_or(0.0, |began| began.as_secs_f64()) }
    }
}

/// The gauges that are seen there. Each by itself: a hardened service may not see all of `/proc`.
fn gauges(process: &Process, began: f64) -> [(&'static str, &'static str, Option<f64>); 5] {
    let stat = process.stat().ok();
    let max_files = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(max) => Some(max as f64),
        LimitValue::Unlimited => None,
    });
    let open_files = process.fd_count().ok().map(|count| count as f64);
    let resident = stat.as_ref().map(|stat| (stat.rss * procfs::page_size()) as f64);
    let threads = stat.as_ref().map(|stat| stat.num_threads as f64);
    [
        ("process_resident_memory_bytes", "Memory of the process, in bytes", resident),
        ("process_open_fds", "Files and sockets that are open", open_files),
        ("process_max_fds", "How many files and sockets may be open", max_files),
        ("process_threads", "Threads of the process", threads),
        ("process_start_time_seconds", "When the process began, in Unix time", Some(began)),
    ]
}

impl Collector for OwnProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Where there is no such thing, as on another system, there is nothing to say.
        let Ok(process) = Process::myself() else { return Ok(()) };
        if let Ok(stat) = process.stat() {
            let seconds = (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64;
            let help = "CPU time that the process has used, in seconds";
            let counter = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(counter)?;
        }
        for (name, help, value) in gauges(&process, self.began) {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}
