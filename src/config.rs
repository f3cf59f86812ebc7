//! What an operator decides: secrets and limits.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use thiserror::Error;

use crate::clock::Clock;

/// The shortest secret for HS256, in bytes: as long as the hash (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;
/// The shortest API key, in bytes: 16 are what a random 128-bit key has before it is encoded.
pub const MIN_API_KEY_BYTES: usize = 16;
/// No limit in bytes may be larger: a gibibyte.
const MAX_BYTES: usize = 1024 * 1024 * 1024;
/// No time limit or interval may be longer: a leap year.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Everything the gateway needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// The secret that tokens are signed with (HS256).
    pub jwt_secret: Secret,
    /// The key that backends show to the API.
    pub api_key: Secret,
    /// What is allowed, how much and how long.
    pub limits: Limits,
    /// What tells the time.
    pub clock: Clock,
    /// Threads that serve connections, the one that the gateway is run on included. Each of the
    /// others has a runtime of its own: a connection stays on the thread that accepted it.
    pub workers: NonZeroUsize,
    /// A page of HTML for `/` on the public listener, as `wsgate dev` has one; none as a rule. It is
    /// shown to requests for `localhost`, `127.0.0.1` or `[::1]` only.
    pub page: Option<String>,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for those who check with it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    fn check(&self, setting: &'static str, least: usize) -> Result<(), ConfigError> {
        if self.0.len() >= least {
            return Ok(());
        }
        let problem = format!("must have at least {least} bytes, and has {}", self.0.len());
        Err(ConfigError { setting, problem })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{setting} {problem}")]
pub struct ConfigError {
    /// The setting, by its name in [`Config`] or [`Limits`].
    pub setting: &'static str,
    /// What is wrong with it, to be read after its name.
    pub problem: String,
}

/// What is allowed, how much and how long. Each is an option of `wsgate serve` of the same name,
/// and an environment variable: `max_depth` is `--max-depth` and `WSGATE_MAX_DEPTH`.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Limits")]
#[allow(clippy::doc_markdown, reason = "the doc comments are also the help of the command line")]
pub struct Limits {
    /// Time from accepting a connection to the end of its HTTP request
    #[arg(long, env = "WSGATE_HANDSHAKE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub handshake_timeout: Duration,
    /// Bytes of an HTTP request's line and headers, a token in the query included (at least 8192)
    #[arg(long, env = "WSGATE_MAX_HEAD_BYTES", default_value_t = Self::DEFAULT.max_head_bytes)]
    pub max_head_bytes: usize,
    /// Time from the upgrade to the first frame's token; nothing but a token extends it
    #[arg(long, env = "WSGATE_AUTH_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub auth_timeout: Duration,
    /// Bytes of a token; a first frame may have 512 more
    #[arg(long, env = "WSGATE_MAX_TOKEN_BYTES", default_value_t = Self::DEFAULT.max_token_bytes)]
    pub max_token_bytes: usize,
    /// How far into the future `nbf` may lie, for issuers whose clock is ahead; `exp` is exact
    #[arg(long, env = "WSGATE_LEEWAY", value_parser = humantime::parse_duration, default_value = "5s")]
    pub leeway: Duration,
    /// How long before a token ends its client is warned; at most half of the time left
    #[arg(long, env = "WSGATE_EXPIRY_WARNING", value_parser = humantime::parse_duration, default_value = "60s")]
    pub expiry_warning: Duration,
    /// Bytes of a client's message
    #[arg(long, env = "WSGATE_MAX_MESSAGE_BYTES", default_value_t = Self::DEFAULT.max_message_bytes)]
    pub max_message_bytes: usize,
    /// Levels of arrays and objects in a message or a body, its `data` included
    #[arg(long, env = "WSGATE_MAX_DEPTH", default_value_t = Self::DEFAULT.max_depth)]
    pub max_depth: usize,
    /// Malformed frames and refused renewals of one connection; the next one closes it
    #[arg(long, env = "WSGATE_MAX_BAD_FRAMES", default_value_t = Self::DEFAULT.max_bad_frames)]
    pub max_bad_frames: usize,
    /// Rooms that one connection may be in, its personal room not counted
    #[arg(long, env = "WSGATE_MAX_ROOMS", default_value_t = Self::DEFAULT.max_rooms)]
    pub max_rooms: usize,
    /// Entries of each list of rooms, users or connections in a publish
    #[arg(long, env = "WSGATE_MAX_TARGETS", default_value_t = Self::DEFAULT.max_targets)]
    pub max_targets: usize,
    /// Bytes that may wait to be written to one connection
    #[arg(long, env = "WSGATE_MAX_OUTBOX_BYTES", default_value_t = Self::DEFAULT.max_outbox_bytes)]
    pub max_outbox_bytes: usize,
    /// Silence of a client after which it is pinged
    #[arg(long, env = "WSGATE_PING_INTERVAL", value_parser = humantime::parse_duration, default_value = "25s")]
    pub ping_interval: Duration,
    /// Silence after a ping after which the client counts as gone
    #[arg(long, env = "WSGATE_PONG_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub pong_timeout: Duration,
    /// Time that a closed connection has to read its close code and to end TCP
    #[arg(long, env = "WSGATE_CLOSE_TIMEOUT", value_parser = humantime::parse_duration, default_value = "5s")]
    pub close_timeout: Duration,
    /// Bytes that a closed connection may still send, unread, before TCP is ended
    #[arg(long, env = "WSGATE_MAX_LINGER_BYTES", default_value_t = Self::DEFAULT.max_linger_bytes)]
    pub max_linger_bytes: usize,
    /// Bytes of a backend's request body
    #[arg(long, env = "WSGATE_MAX_BODY_BYTES", default_value_t = Self::DEFAULT.max_body_bytes)]
    pub max_body_bytes: usize,
    /// Time for a backend's request body to arrive
    #[arg(long, env = "WSGATE_BODY_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub body_timeout: Duration,
    /// Members that one look-up of a room lists
    #[arg(long, env = "WSGATE_MAX_LISTED_MEMBERS", default_value_t = Self::DEFAULT.max_listed_members)]
    pub max_listed_members: usize,
    /// Time over which clients are told to spread their return after a shutdown
    #[arg(long, env = "WSGATE_RETURN_SPREAD", value_parser = humantime::parse_duration, default_value = "5s")]
    pub return_spread: Duration,
    /// Time that a shutdown waits for connections to end
    #[arg(long, env = "WSGATE_DRAIN_TIMEOUT", value_parser = humantime::parse_duration, default_value = "10s")]
    pub drain_timeout: Duration,
}

impl Limits {
    /// What holds where nobody has decided.
    pub const DEFAULT: Self = Self {
        handshake_timeout: Duration::from_secs(10),
        max_head_bytes: 16 * 1024,
        auth_timeout: Duration::from_secs(10),
        max_token_bytes: 8 * 1024,
        leeway: Duration::from_secs(5),
        expiry_warning: Duration::from_secs(60),
        max_message_bytes: 64 * 1024,
        max_depth: 64,
        max_bad_frames: 10,
        max_rooms: 128,
        max_targets: 100,
        max_outbox_bytes: 1024 * 1024,
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        close_timeout: Duration::from_secs(5),
        max_linger_bytes: 16 * 1024 * 1024,
        max_body_bytes: 256 * 1024,
        body_timeout: Duration::from_secs(10),
        max_listed_members: 10_000,
        return_spread: Duration::from_secs(5),
        drain_timeout: Duration::from_secs(10),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Config {
    /// A configuration with the default limits, and one worker.
    pub fn new(jwt_secret: Secret, api_key: Secret) -> Self {
        Self {
            jwt_secret,
            api_key,
            limits: Limits::DEFAULT,
            clock: Clock::system(),
            workers: NonZeroUsize::MIN,
            page: None,
        }
    }

    /// Says what cannot be.
    ///
    /// # Errors
    /// The first setting that is wrong, by name.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.jwt_secret.check("jwt_secret", MIN_SECRET_BYTES)?;
        self.api_key.check("api_key", MIN_API_KEY_BYTES)?;
        self.limits.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), ConfigError> {
        // Sums of two of them must not overflow, and none makes sense that is larger.
        for (setting, value) in [
            ("max_head_bytes", self.max_head_bytes),
            ("max_token_bytes", self.max_token_bytes),
            ("max_message_bytes", self.max_message_bytes),
            ("max_outbox_bytes", self.max_outbox_bytes),
            ("max_body_bytes", self.max_body_bytes),
        ] {
            if value > MAX_BYTES {
                return Err(ConfigError { setting, problem: format!("must be at most {MAX_BYTES}, not {value}") });
            }
        }
        // hyper's own least.
        at_least("max_head_bytes", self.max_head_bytes, 8192)?;
        at_least("max_token_bytes", self.max_token_bytes, 128)?;
        at_least("max_message_bytes", self.max_message_bytes, self.max_token_bytes)?;
        at_least("max_depth", self.max_depth, 2)?;
        at_least("max_body_bytes", self.max_body_bytes, 1024)?;
        // One event must not overflow an outbox that is empty or holds one other.
        let largest = self.max_message_bytes.max(self.max_body_bytes);
        at_least("max_outbox_bytes", self.max_outbox_bytes, 2 * largest + 4096)?;

        let instant = Duration::from_millis(1);
        between("handshake_timeout", self.handshake_timeout, instant)?;
        between("auth_timeout", self.auth_timeout, instant)?;
        between("leeway", self.leeway, Duration::ZERO)?;
        between("expiry_warning", self.expiry_warning, Duration::ZERO)?;
        between("ping_interval", self.ping_interval, instant)?;
        between("pong_timeout", self.pong_timeout, instant)?;
        between("close_timeout", self.close_timeout, instant)?;
        between("body_timeout", self.body_timeout, instant)?;
        between("return_spread", self.return_spread, Duration::ZERO)?;
        between("drain_timeout", self.drain_timeout, instant)
    }
}

fn at_least(setting: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError { setting, problem: format!("must be at least {least}, not {value}") })
}

fn between(setting: &'static str, value: Duration, least: Duration) -> Result<(), ConfigError> {
    if (least..=MAX_DURATION).contains(&value) {
        return Ok(());
    }
    let (least, most) = (humantime::format_duration(least), humantime::format_duration(MAX_DURATION));
    let value = humantime::format_duration(value);
    Err(ConfigError { setting, problem: format!("must be between {least} and {most}, not {value}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        limits: Limits,
    }

    #[test]
    fn the_defaults_of_the_command_line_are_the_defaults_and_hold_their_own_check() {
        assert_eq!(Arguments::parse_from(["wsgate"]).limits, Limits::DEFAULT);
        assert_eq!(Limits::DEFAULT.check(), Ok(()));
    }

    #[test]
    fn a_setting_that_cannot_be_is_named() {
        let short = Config::new(Secret::new("short"), Secret::new("0123456789abcdef"));
        assert_eq!(short.check().unwrap_err().setting, "jwt_secret");
        let limits = Limits { ping_interval: Duration::ZERO, ..Limits::DEFAULT };
        assert_eq!(limits.check().unwrap_err().setting, "ping_interval");
        let limits = Limits { max_message_bytes: usize::MAX, ..Limits::DEFAULT };
        assert_eq!(limits.check().unwrap_err().setting, "max_message_bytes");
        let limits = Limits { max_outbox_bytes: 1000, ..Limits::DEFAULT };
        assert_eq!(limits.check().unwrap_err().setting, "max_outbox_bytes");
    }

    #[test]
    fn secrets_are_not_printed() {
        let config = Config::new(Secret::new("hush-hush-hush"), Secret::new("psst-psst-psst"));
        let printed = format!("{config:?}");
        assert!(!printed.contains("hush") && !printed.contains("psst"), "{printed}");
    }
}
