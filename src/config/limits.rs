//! How much of everything, and how long.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::ConfigError;

/// No limit in bytes may be larger: a gibibyte.
const MAX_BYTES: usize = 1024 * 1024 * 1024;
/// No time limit or interval may be longer: a leap year.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// A clock that is further off is no clock (RFC 7519, 4.1.4: "usually no more than a few minutes").
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// What is allowed, how much and how long.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Limits")]
#[allow(clippy::doc_markdown, reason = "the doc comments are also the help of the command line")]
pub struct Limits {
    /// Time from accepting a connection to the end of its HTTP request
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub handshake_timeout: Duration,
    /// Bytes of an HTTP request's line and headers, a token in the query included (at least 8192)
    #[arg(long, default_value_t = Self::DEFAULT.max_head_bytes)]
    pub max_head_bytes: usize,
    /// Time from the upgrade to the first frame's token; nothing but a token extends it
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub auth_timeout: Duration,
    /// Bytes of a token; a first frame may have 512 more
    #[arg(long, default_value_t = Self::DEFAULT.max_token_bytes)]
    pub max_token_bytes: usize,
    /// How far into the future `nbf` may lie, for issuers whose clock is ahead; `exp` is exact
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub leeway: Duration,
    /// How long a live connection may go on after its token has ended, to renew it
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    pub expiry_grace: Duration,
    /// How long a connection may live, however long its token does; 0s for as long as the token
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    pub max_lifetime: Duration,
    /// Connections that have proven who they are; more are answered with 503
    #[arg(long, default_value_t = Self::DEFAULT.max_connections)]
    pub max_connections: usize,
    /// Connections of one address, or network of 2^64 addresses; more are answered with 429. As many may have
    /// come and not proven who they are: more of those are turned away. 500, if not
    /// given, but not for this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<usize>)]
    pub max_connections_per_address: Option<usize>,
    /// Attempts to connect a second from one address, or network of 2^64 addresses, and twice as many at
    /// once; more are answered with 429. 50, if not given, but not for this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<u32>)]
    pub max_connects_per_second: Option<u32>,
    /// Connections of one user. 100, if not given, but not for connections of this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<usize>)]
    pub max_connections_per_user: Option<usize>,
    /// What becomes of a user's connections that are too many: close the oldest (replace), or the one that
    /// comes (refuse)
    #[arg(long, default_value = "replace")]
    pub when_user_is_full: WhenFull,
    /// Frames that a client may send a second, and twice as many at once; who sends more is read more
    /// slowly. 200, if not given, but not for this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<u32>)]
    pub max_frames_per_second: Option<u32>,
    /// Bytes that a client may send a second, and twice as many at once; who sends more is read more
    /// slowly. 262144, if not given, but not for this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<usize>)]
    pub max_bytes_per_second: Option<usize>,
    /// How long a client may go on sending faster than it may before it is closed
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    pub throttle_timeout: Duration,
    /// Connections that have not proven who they are yet; more are turned away
    #[arg(long, default_value_t = Self::DEFAULT.max_unauthenticated)]
    pub max_unauthenticated: usize,
    /// Attempts with forged or senseless tokens from one address within a minute, before it has to wait.
    /// 1000, if not given, but not for this machine's own addresses
    #[arg(long, value_name = "NUMBER", value_parser = one_at_least::<u32>)]
    pub max_failures: Option<u32>,
    /// Tickets that have been made and not used
    #[arg(long, default_value_t = Self::DEFAULT.max_tickets)]
    pub max_tickets: usize,
    /// Revocations and blocks that are kept
    #[arg(long, default_value_t = Self::DEFAULT.max_revocations)]
    pub max_revocations: usize,
    /// How long a revocation is kept that does not say; longer than any token lives
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30days")]
    pub revocation_lifetime: Duration,
    /// Time for fetching an issuer's keys
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub keys_timeout: Duration,
    /// The least time between two fetches of an issuer's keys, however many tokens name unknown ones
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub keys_min_interval: Duration,
    /// How long an issuer's keys are used while they cannot be fetched anew
    #[arg(long, value_parser = humantime::parse_duration, default_value = "24h")]
    pub keys_max_stale: Duration,
    /// How long before a token ends its client is warned; at most half of the time left
    #[arg(long, value_parser = humantime::parse_duration, default_value = "60s")]
    pub expiry_warning: Duration,
    /// Bytes of a client's message
    #[arg(long, default_value_t = Self::DEFAULT.max_message_bytes)]
    pub max_message_bytes: usize,
    /// Levels of arrays and objects in a message or a body, its `data` included
    #[arg(long, default_value_t = Self::DEFAULT.max_depth)]
    pub max_depth: usize,
    /// Malformed frames and refused renewals of one connection; the next one closes it
    #[arg(long, default_value_t = Self::DEFAULT.max_bad_frames)]
    pub max_bad_frames: usize,
    /// Rooms that one connection may be in, its personal room not counted
    #[arg(long, default_value_t = Self::DEFAULT.max_rooms)]
    pub max_rooms: usize,
    /// Connections in one room, where no rule says otherwise
    #[arg(long, default_value_t = Self::DEFAULT.max_members)]
    pub max_members: usize,
    /// Calls and questions of one connection that wait for the backend
    #[arg(long, default_value_t = Self::DEFAULT.max_pending)]
    pub max_pending: usize,
    /// Entries of each list of rooms, users or connections in a publish
    #[arg(long, default_value_t = Self::DEFAULT.max_targets)]
    pub max_targets: usize,
    /// Idempotency keys of events that are remembered
    #[arg(long, default_value_t = Self::DEFAULT.max_idempotency_keys)]
    pub max_idempotency_keys: usize,
    /// Bytes that may wait to be written to one connection
    #[arg(long, default_value_t = Self::DEFAULT.max_outbox_bytes)]
    pub max_outbox_bytes: usize,
    /// Silence of a client after which it is pinged
    #[arg(long, value_parser = humantime::parse_duration, default_value = "25s")]
    pub ping_interval: Duration,
    /// Silence after a ping after which the client counts as gone
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub pong_timeout: Duration,
    /// Time that a closed connection has to read its close code and to end TCP
    #[arg(long, value_parser = humantime::parse_duration, default_value = "5s")]
    pub close_timeout: Duration,
    /// Bytes that a closed connection may still send, unread, before TCP is ended
    #[arg(long, default_value_t = Self::DEFAULT.max_linger_bytes)]
    pub max_linger_bytes: usize,
    /// Bytes of a backend's request body
    #[arg(long, default_value_t = Self::DEFAULT.max_body_bytes)]
    pub max_body_bytes: usize,
    /// Time for a backend's request body to arrive
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    pub body_timeout: Duration,
    /// Members that one look-up of a room lists
    #[arg(long, default_value_t = Self::DEFAULT.max_listed_members)]
    pub max_listed_members: usize,
    /// How long a user has to be away from a room with presence before its members are told
    #[arg(long, value_parser = humantime::parse_duration, default_value = "3s")]
    pub presence_delay: Duration,
    /// Time in which a drain says that the gateway is not ready, and serves on: for load balancers to notice
    #[arg(long, value_parser = humantime::parse_duration, default_value = "0s")]
    pub drain_delay: Duration,
    /// Time over which a drain tells clients to spread their return; as long as drain_timeout, if not given
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub return_spread: Option<Duration>,
    /// Time that a drain waits for connections to end, once they have been told
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
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
        expiry_grace: Duration::ZERO,
        max_lifetime: Duration::ZERO,
        max_connections: 50_000,
        max_connections_per_address: None,
        max_connects_per_second: None,
        max_connections_per_user: None,
        when_user_is_full: WhenFull::Replace,
        max_frames_per_second: None,
        max_bytes_per_second: None,
        throttle_timeout: Duration::from_secs(30),
        max_unauthenticated: 10_000,
        max_failures: None,
        max_tickets: 100_000,
        max_revocations: 100_000,
        revocation_lifetime: Duration::from_secs(30 * 24 * 60 * 60),
        keys_timeout: Duration::from_secs(5),
        keys_min_interval: Duration::from_secs(5),
        keys_max_stale: Duration::from_secs(24 * 60 * 60),
        expiry_warning: Duration::from_secs(60),
        max_message_bytes: 64 * 1024,
        max_depth: 64,
        max_bad_frames: 10,
        max_rooms: 128,
        max_members: 50_000,
        max_pending: 8,
        max_targets: 100,
        max_idempotency_keys: 100_000,
        max_outbox_bytes: 1024 * 1024,
        ping_interval: Duration::from_secs(25),
        pong_timeout: Duration::from_secs(10),
        close_timeout: Duration::from_secs(5),
        max_linger_bytes: 16 * 1024 * 1024,
        max_body_bytes: 256 * 1024,
        body_timeout: Duration::from_secs(10),
        max_listed_members: 10_000,
        presence_delay: Duration::from_secs(3),
        drain_delay: Duration::ZERO,
        return_spread: None,
        drain_timeout: Duration::from_secs(10),
    };
}

/// What becomes of a user's connections that are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WhenFull {
    /// The oldest is closed.
    Replace,
    /// The one that comes is.
    Refuse,
}

/// The limits that hold now: an operator may change them while the gateway runs. A clone is of the same.
#[derive(Debug, Clone)]
pub struct LiveLimits(Arc<ArcSwap<Limits>>);

impl LiveLimits {
    /// These, until others are set.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(limits)))
    }

    /// Those that hold now. Not to be kept for long: look again.
    pub fn get(&self) -> Guard<Arc<Limits>> {
        self.0.load()
    }

    /// From now on others hold.
    pub fn set(&self, limits: Limits) {
        self.0.store(Arc::new(limits));
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Limits {
    /// How long a connection may live, if there is such a limit.
    pub fn lifetime(&self) -> Option<Duration> {
        Some(self.max_lifetime).filter(|lifetime| !lifetime.is_zero())
    }

    /// How many connections an address may have; any number, if nothing is said. This machine's own are
    /// limited only where somebody has decided so: what is on it is the operator's, and a proxy that is
    /// not trusted would share one limit among all clients. So it is with the five after this.
    pub fn connections_per_address(&self, is_local: bool) -> Option<usize> {
        usual(self.max_connections_per_address, 500, is_local)
    }

    /// How many attempts to connect an address may make a second.
    pub fn connects_per_second(&self, is_local: bool) -> Option<u32> {
        usual(self.max_connects_per_second, 50, is_local)
    }

    /// How many connections a user may have.
    pub fn connections_per_user(&self, is_local: bool) -> Option<usize> {
        usual(self.max_connections_per_user, 100, is_local)
    }

    /// How many attempts of an address may fail within a minute.
    pub fn failures(&self, is_local: bool) -> Option<u32> {
        usual(self.max_failures, 1000, is_local)
    }

    /// How many frames a client may send a second.
    pub fn frames_per_second(&self, is_local: bool) -> Option<u32> {
        usual(self.max_frames_per_second, 200, is_local)
    }

    /// How many bytes a client may send a second.
    pub fn bytes_per_second(&self, is_local: bool) -> Option<usize> {
        usual(self.max_bytes_per_second, 256 * 1024, is_local)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        // Sums of two of them must not overflow, and none makes sense that is larger.
        for (setting, value) in [
            ("max_head_bytes", self.max_head_bytes),
            ("max_token_bytes", self.max_token_bytes),
            ("max_message_bytes", self.max_message_bytes),
            ("max_outbox_bytes", self.max_outbox_bytes),
            ("max_body_bytes", self.max_body_bytes),
        ] {
            if value > MAX_BYTES {
                return Err(ConfigError::new(setting, format!("must be at most {MAX_BYTES}, not {value}")));
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
        between("handshake_timeout", self.handshake_timeout, instant, MAX_DURATION)?;
        between("auth_timeout", self.auth_timeout, instant, MAX_DURATION)?;
        between("leeway", self.leeway, Duration::ZERO, MAX_LEEWAY)?;
        at_least("max_connections", self.max_connections, 1)?;
        at_least("max_members", self.max_members, 1)?;
        between("throttle_timeout", self.throttle_timeout, Duration::ZERO, MAX_DURATION)?;
        at_least("max_unauthenticated", self.max_unauthenticated, 1)?;
        at_least("max_pending", self.max_pending, 1)?;
        between("revocation_lifetime", self.revocation_lifetime, instant, MAX_DURATION)?;
        between("keys_timeout", self.keys_timeout, instant, MAX_DURATION)?;
        between("keys_min_interval", self.keys_min_interval, instant, MAX_DURATION)?;
        between("keys_max_stale", self.keys_max_stale, instant, MAX_DURATION)?;
        between("expiry_grace", self.expiry_grace, Duration::ZERO, MAX_DURATION)?;
        between("max_lifetime", self.max_lifetime, Duration::ZERO, MAX_DURATION)?;
        between("expiry_warning", self.expiry_warning, Duration::ZERO, MAX_DURATION)?;
        between("ping_interval", self.ping_interval, instant, MAX_DURATION)?;
        between("pong_timeout", self.pong_timeout, instant, MAX_DURATION)?;
        between("close_timeout", self.close_timeout, instant, MAX_DURATION)?;
        between("body_timeout", self.body_timeout, instant, MAX_DURATION)?;
        between("presence_delay", self.presence_delay, instant, MAX_DURATION)?;
        between("drain_delay", self.drain_delay, Duration::ZERO, MAX_DURATION)?;
        between("return_spread", self.return_spread.unwrap_or_default(), Duration::ZERO, MAX_DURATION)?;
        between("drain_timeout", self.drain_timeout, instant, MAX_DURATION)
    }
}

/// What holds where nobody has decided.
fn usual<T>(decided: Option<T>, usual: T, is_local: bool) -> Option<T> {
    decided.or((!is_local).then_some(usual))
}

/// A limit that none would be without.
fn one_at_least<T: FromStr + From<u8> + PartialOrd>(text: &str) -> Result<T, String> {
    match text.parse() {
        Ok(number) if number >= T::from(1) => Ok(number),
        Ok(_) => Err("must be at least 1".to_owned()),
        Err(_) => Err("must be a whole number, 1 or more, without a unit".to_owned()),
    }
}

fn at_least(setting: &'static str, value: usize, least: usize) -> Result<(), ConfigError> {
    if value >= least {
        return Ok(());
    }
    Err(ConfigError::new(setting, format!("must be at least {least}, not {value}")))
}

fn between(setting: &'static str, value: Duration, least: Duration, most: Duration) -> Result<(), ConfigError> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
    let value = humantime::format_duration(value);
    Err(ConfigError::new(setting, format!("must be between {least} and {most}, not {value}")))
}
