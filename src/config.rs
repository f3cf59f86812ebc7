//! What an operator decides: whose tokens count, who may connect, secrets and limits.

mod api_key;
mod backend;
mod configure;
mod environment;
mod example;
mod file;
mod issuer;
mod limits;
mod listen;
mod mask;
mod options;
mod origin;
mod pattern;
mod remarks;
mod room;
mod settings;
mod tls;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::clock::Clock;
use crate::trace::Tracer;

pub use api_key::{ApiAction, ApiKey, MIN_API_KEY_BYTES};
pub(crate) use api_key::{DEFAULT_NAME, check_api_keys, usable};
pub use backend::{Backend, WhenDown, is_safe};
use environment::misspelt_variables;
pub use environment::wrong_variable;
pub use example::example;
pub use file::File;
pub use issuer::{Issuer, KeySource, Place};
pub use limits::{Limits, LiveLimits, WhenFull};
pub use listen::ListenAddress;
pub use options::{LogFormat, Options};
pub use origin::{OriginPattern, Origins};
pub use pattern::{Asker, Placeholder, RoomPattern};
pub use room::{Access, PRESENCE_LIMIT, RoomRule, RoomTraits};
pub use settings::{Origin, Setting, Settings};
pub use tls::Tls;

/// Everything the gateway needs to know before it starts.
#[derive(Debug, Clone)]
pub struct Config {
    /// Whose tokens count, each with its keys.
    pub issuers: Vec<Issuer>,
    /// Who may do what in which rooms: the first rule that a room matches decides. If there is none,
    /// tokens alone do.
    pub rooms: Vec<RoomRule>,
    /// Whom to ask what rules leave open, and what clients call.
    pub backend: Option<Backend>,
    /// The key that may do everything, if there is one.
    pub api_key: Option<Secret>,
    /// Keys that may do what they say. One key is needed, here or above.
    pub api_keys: Vec<ApiKey>,
    /// Whose pages may connect.
    pub origins: Origins,
    /// The cookie that may hold a token; it needs an allow-list of origins.
    pub cookie: Option<String>,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether each connection to the public door begins with a header of the PROXY protocol, version 1 or
    /// 2. They must come from trusted proxies, or over a Unix socket: others are refused.
    pub proxy_protocol: bool,
    /// The certificate of the public door, which speaks TLS if this is given.
    pub tls: Option<Tls>,
    /// What those may who show no token; none may connect if this is not given.
    pub anonymous: Option<Anonymous>,
    /// The file that keeps revocations and blocks; without it they end with the process.
    pub state_file: Option<PathBuf>,
    /// Whether secrets may be short or well known, as for `wsgate dev` only.
    pub weak_secrets: bool,
    /// What is allowed, how much and how long.
    pub limits: Limits,
    /// What tells the time.
    pub clock: Clock,
    /// Threads that serve connections, the one that the gateway is run on included. Each of the
    /// others has a runtime of its own: a connection stays on the thread that accepted it.
    pub workers: NonZeroUsize,
    /// Where traces of requests are sent; nowhere, if nothing else is said.
    pub tracer: Tracer,
}

/// What connections without a token may do.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anonymous {
    /// Patterns of rooms, and what is allowed in the rooms that match.
    #[serde(default)]
    pub grants: BTreeMap<String, Vec<String>>,
    /// Who of them may do what in which rooms: the rules for others do not concern them.
    #[serde(default, deserialize_with = "room::rules")]
    pub rooms: Vec<RoomRule>,
    /// How many there may be at once.
    #[serde(default = "Anonymous::default_connections")]
    pub max_connections: usize,
    /// Whether they may call the backend.
    #[serde(default)]
    pub calls: bool,
    /// How many rooms each may be in, its personal one not counted.
    #[serde(default = "Anonymous::default_rooms")]
    pub max_rooms: usize,
    /// How long each may stay.
    #[serde(default = "Anonymous::default_lifetime", deserialize_with = "issuer::duration")]
    pub lifetime: Duration,
}

impl Anonymous {
    fn default_connections() -> usize {
        1000
    }

    fn default_rooms() -> usize {
        8
    }

    fn default_lifetime() -> Duration {
        Duration::from_secs(60 * 60)
    }
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What else stands there must not be repeated in the error: it is a secret without its quotes.
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a secret must be a string in quotes")]
        enum Written {
            Text(String),
        }
        let Written::Text(text) = Written::deserialize(deserializer)?;
        Ok(Self(text))
    }
}

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for those who check with it.
    pub fn reveal(&self) -> &str {
        &self.0
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
    /// The setting, by its name in [`Config`] or [`Limits`], as in `issuers[0].keys[1].until`.
    pub setting: Cow<'static, str>,
    /// What is wrong with it, to be read after its name.
    pub problem: String,
}

impl ConfigError {
    /// A setting, and what is wrong with it.
    pub fn new(setting: impl Into<Cow<'static, str>>, problem: impl Into<String>) -> Self {
        Self { setting: setting.into(), problem: problem.into() }
    }
}

impl Config {
    /// A configuration with one secret that tokens are signed with (HS256), the default limits and
    /// one worker. Pages may connect from the gateway's own host only.
    pub fn new(jwt_secret: Secret, api_key: Secret) -> Self {
        Self {
            issuers: vec![Issuer::with_secret(jwt_secret)],
            rooms: Vec::new(),
            backend: None,
            api_key: Some(api_key),
            api_keys: Vec::new(),
            origins: Origins::default(),
            cookie: None,
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
            anonymous: None,
            state_file: None,
            weak_secrets: false,
            limits: Limits::DEFAULT,
            clock: Clock::system(),
            workers: NonZeroUsize::MIN,
            tracer: Tracer::default(),
        }
    }

    /// Whether somebody wants to know all claims of a token: rules with places for them, or a backend.
    pub fn keeps_claims(&self) -> bool {
        self.backend.is_some() || self.rooms.iter().any(|rule| rule.pattern.claims().next().is_some())
    }

    /// Says what cannot be. What is wrong with a key is found when the gateway is made.
    ///
    /// # Errors
    /// The first setting that is wrong, by name.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_api_keys(self.api_key.as_ref(), &self.api_keys)?;
        if self.issuers.is_empty() && self.anonymous.is_none() {
            return Err(ConfigError::new("issuers", "must have one at least, or nobody could connect"));
        }
        issuer::check_all(&self.issuers)?;
        if let Some(backend) = &self.backend {
            backend.check()?;
        }
        let can_ask = self.backend.as_ref().is_some_and(|backend| backend.access_url.is_some());
        room::check_rules("rooms", &self.rooms, can_ask)?;
        if let Some(anonymous) = &self.anonymous {
            room::check_rules("anonymous.rooms", &anonymous.rooms, can_ask)?;
        }
        if self.cookie.is_some() && !self.origins.is_strict() {
            // Any page can make a browser send a cookie (CWE-1385).
            return Err(ConfigError::new(
                "cookie",
                "needs a list of allowed origins, without `*` and `null`: give --allow-origin",
            ));
        }
        if self.cookie.as_deref().is_some_and(|name| name.is_empty() || name.contains(['=', ';', ' ', ','])) {
            return Err(ConfigError::new("cookie", "must be the name of a cookie"));
        }
        self.limits.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_cannot_be_is_named() {
        let short = Config::new(Secret::new("whatever"), Secret::new("short"));
        assert_eq!(short.check().unwrap_err().setting, "api_key");
        let mut config = Config::new(Secret::new("whatever"), Secret::new("0123456789abcdef"));
        config.cookie = Some("session".to_owned());
        assert_eq!(config.check().unwrap_err().setting, "cookie");
        for vague in ["*", "null"] {
            config.origins = Origins::list(vec!["https://example.com".parse().unwrap(), vague.parse().unwrap()]);
            assert_eq!(config.check().unwrap_err().setting, "cookie");
        }
        config.origins = Origins::list(vec!["https://example.com".parse().unwrap()]);
        assert_eq!(config.check(), Ok(()));
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
