//! The log: lines for people on a terminal, objects for programs elsewhere.

#[path = "throttle.rs"]
mod throttle;

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};
use wsgate::config::LogFormat;

use throttle::Throttle;

/// How often what has been left out is told.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The log, whose levels can be changed.
pub(super) struct Log {
    levels: Handle<EnvFilter, Registry>,
    throttle: Throttle,
}

/// Starts the log.
///
/// # Errors
/// When the levels make no sense.
pub(super) fn start(levels: &str, format: LogFormat) -> anyhow::Result<Log> {
    let (filter, handle) = reload::Layer::new(filter(levels)?);
    let terminal = std::io::stderr().is_terminal();
    let as_json = match format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if as_json {
        lines.json().flatten_event(true).with_ansi(false).boxed()
    } else {
        lines.with_ansi(terminal).boxed()
    };
    let throttle = Throttle::default();
    tracing_subscriber::registry().with(filter).with(lines.with_filter(throttle.clone())).init();
    Ok(Log { levels: handle, throttle })
}

impl Log {
    /// Says from time to time what has been left out.
    pub(super) fn keep_reporting(&self) -> impl Future<Output = ()> + use<> {
        let throttle = self.throttle.clone();
        async move {
            loop {
                tokio::time::sleep(REPORT_INTERVAL).await;
                for (count, message) in throttle.take_left_out() {
                    tracing::warn!(count, like = message, "lines of the log were left out, which came too fast");
                }
            }
        }
    }

    /// Whether levels make sense.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(levels: &str) -> anyhow::Result<()> {
        filter(levels).map(drop)
    }

    /// Changes what is logged.
    ///
    /// # Errors
    /// When the levels make no sense.
    pub(super) fn set(&self, levels: &str) -> anyhow::Result<()> {
        Ok(self.levels.reload(filter(levels)?)?)
    }
}

fn filter(levels: &str) -> anyhow::Result<EnvFilter> {
    levels.parse().with_context(|| format!("--log cannot be `{levels}`: it is as info, or info,wsgate::hub=debug"))
}
