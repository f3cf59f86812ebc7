//! What the process takes of the machine, under the names that all programs have for it.

use std::fmt;

use procfs::process::Process;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Looks at `/proc/self` when it is asked.
#[derive(Debug)]
pub(super) struct OwnProcess;

/// What is seen there.
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_files: u64,
    max_files: Option<u64>,
    threads: i64,
    started: f64,
}

fn usage() -> procfs::ProcResult<Usage> {
    let process = Process::myself()?;
    let stat = process.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let max_files = match process.limits()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(max) => Some(max),
        procfs::process::LimitValue::Unlimited => None,
    };
    Ok(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss * procfs::page_size(),
        open_files: process.fd_count()? as u64,
        max_files,
        threads: stat.num_threads,
        started: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
    })
}

impl Collector for OwnProcess {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        // Where there is no such thing, as on another system, there is nothing to say.
        let Ok(usage) = usage() else { return Ok(()) };
        let help = "CPU time that the process has used, in seconds";
        let counter = encoder.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
        ConstCounter::new(usage.cpu_seconds).encode(counter)?;
        for (name, help, value) in [
            ("process_resident_memory_bytes", "Memory of the process", Some(usage.resident_bytes as f64)),
            ("process_open_fds", "Files and sockets that are open", Some(usage.open_files as f64)),
            ("process_max_fds", "How many may be", usage.max_files.map(|max| max as f64)),
            ("process_threads", "Threads", Some(usage.threads as f64)),
            ("process_start_time_seconds", "When the process began, in Unix time", Some(usage.started)),
        ] {
            if let Some(value) = value {
                ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
            }
        }
        Ok(())
    }
}
