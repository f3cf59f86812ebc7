//! What a server has used, as the kernel tells: all threads of its process and of its children.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// The processor time so far. It is what the scheduler counted, to the nanosecond, so it holds on a
/// busy machine, where elapsed time does not.
pub fn processor_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for process in family(pid)? {
        for task in tasks(process)? {
            // A thread that has just ended has no file any more.
            let Ok(counted) = fs::read_to_string(task.join("schedstat")) else { continue };
            let on_processor = counted.split(' ').next().context("the kernel keeps no schedstat")?;
            nanoseconds += on_processor.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The bytes of memory that are resident now.
pub fn resident(pid: u32) -> Result<u64> {
    let mut kibibytes = 0;
    for process in family(pid)? {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).context("no Rss in smaps_rollup")?;
        kibibytes += line.trim().trim_end_matches(" kB").parse::<u64>()?;
    }
    Ok(kibibytes * 1024)
}

/// The process and all that come of it.
fn family(pid: u32) -> Result<Vec<u32>> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&process) = family.get(next) {
        for task in tasks(process)? {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
        next += 1;
    }
    Ok(family)
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}
