//! The log: lines for people on a terminal, objects for programs elsewhere.

#[path = "throttle.rs"]
mod throttle;

use std::io::IsTerminal;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};
use wsgate::ConfigError;
use wsgate::auth::SECURITY;
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
                    // What strangers cause comes too fast: who hears of them only is told, too.
                    tracing::warn!(target: SECURITY, count, like = message, "lines of the log were left out, which came too fast");
                }
            }
        }
    }

    /// Whether levels make sense.
    ///
    /// # Errors
    /// They do not.
    pub(super) fn check(levels: &str) -> Result<(), ConfigError> {
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

/// What levels mean. A word alone is a level: the library would take any other for a part of the program.
fn filter(levels: &str) -> Result<EnvFilter, ConfigError> {
    let wrong =
        |problem: String| ConfigError::new("log", format!("{problem}: it is as info, or info,wsgate::hub=debug"));
    for part in levels.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if level.parse::<LevelFilter>().is_err() || level.is_empty() {
            return Err(wrong(format!("has `{part}`, of which `{level}` is no level")));
        }
    }
    levels.parse().map_err(|error| wrong(format!("cannot be `{levels}` ({error})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_words_that_are_known_and_a_typing_error_silences_nothing() {
        for levels in ["info", "OFF", "off,wsgate::security=info", "info,wsgate::hub=debug", "warn,hyper=error"] {
            assert!(filter(levels).is_ok(), "{levels}");
        }
        for levels in ["inof", "verbose", "", "info,", "debug;info", "wsgate::hub=debg", "wsgate::hub"] {
            assert!(filter(levels).is_err_and(|error| error.setting == "log"), "{levels}");
        }
    }
}
