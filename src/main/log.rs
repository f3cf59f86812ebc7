//! The log: lines for people on a terminal, objects for programs elsewhere.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};
use wsgate::config::LogFormat;

/// The log, whose levels can be changed.
pub(super) struct Log(Handle<EnvFilter, Registry>);

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
    tracing_subscriber::registry().with(filter).with(lines).init();
    Ok(Log(handle))
}

impl Log {
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
        Ok(self.0.reload(filter(levels)?)?)
    }
}

fn filter(levels: &str) -> anyhow::Result<EnvFilter> {
    levels.parse().with_context(|| format!("--log cannot be `{levels}`: it is as info, or info,wsgate::hub=debug"))
}
