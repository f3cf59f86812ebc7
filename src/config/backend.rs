//! Whom the gateway asks, as an operator writes it: `[backend]` in the configuration file.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use serde::Deserialize;

use super::issuer::duration;
use super::{ConfigError, Secret};

/// The shortest secret that the gateway shows to a backend, in bytes.
const MIN_SECRET_BYTES: usize = 16;

/// Where the gateway asks what it does not decide itself, and how patiently.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Whom to ask who may do what in rooms.
    pub access_url: Option<String>,
    /// To whom clients' calls go.
    pub call_url: Option<String>,
    /// Who is told of connections that come and go.
    pub events_url: Option<String>,
    /// Whether addresses may begin with http:// that are not on this machine: whoever is on the way can
    /// then read what is asked, and answer it.
    #[serde(default)]
    pub insecure: bool,
    /// What the gateway shows to be known by. A file or the environment is the better place.
    pub secret: Option<Secret>,
    /// The environment variable that holds it.
    pub secret_env: Option<String>,
    /// The file that holds it; a line's end behind it does not count.
    pub secret_file: Option<PathBuf>,
    /// Time for an answer about a room.
    #[serde(default = "two_seconds", deserialize_with = "duration")]
    pub access_timeout: Duration,
    /// Time for the answer to a call.
    #[serde(default = "ten_seconds", deserialize_with = "duration")]
    pub call_timeout: Duration,
    /// What holds while the backend does not answer.
    #[serde(default)]
    pub when_down: WhenDown,
    /// Requests at once, to each address.
    #[serde(default = "max_concurrent")]
    pub max_concurrent: usize,
    /// Requests that wait for a turn, to each address; their time counts from the beginning.
    #[serde(default = "max_waiting")]
    pub max_waiting: usize,
    /// Bytes of an answer.
    #[serde(default = "max_answer_bytes")]
    pub max_answer_bytes: usize,
    /// Failures to get any answer, one after the other, after which an address is left alone for a while.
    #[serde(default = "breaker_failures")]
    pub breaker_failures: u32,
    /// For how long it is.
    #[serde(default = "five_seconds", deserialize_with = "duration")]
    pub breaker_pause: Duration,
}

/// What holds while the backend does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Nobody may do what it is asked about.
    #[default]
    Deny,
    /// Everybody may.
    Allow,
}

impl Default for Backend {
    fn default() -> Self {
        Self {
            access_url: None,
            call_url: None,
            events_url: None,
            insecure: false,
            secret: None,
            secret_env: None,
            secret_file: None,
            access_timeout: two_seconds(),
            call_timeout: ten_seconds(),
            when_down: WhenDown::Deny,
            max_concurrent: max_concurrent(),
            max_waiting: max_waiting(),
            max_answer_bytes: max_answer_bytes(),
            breaker_failures: breaker_failures(),
            breaker_pause: five_seconds(),
        }
    }
}

impl Backend {
    /// Reads the secret, from wherever it is.
    ///
    /// # Errors
    /// The setting that cannot be.
    pub fn read_secret(&self) -> Result<Option<Secret>, ConfigError> {
        let wrong = |field: &'static str, problem: String| ConfigError::new(field, problem);
        let (field, text) = match (&self.secret, &self.secret_env, &self.secret_file) {
            (None, None, None) => return Ok(None),
            (Some(secret), None, None) => ("backend.secret", secret.reveal().to_owned()),
            (None, Some(name), None) => {
                let found = std::env::var(name);
                let missing = |_| wrong("backend.secret_env", format!("needs {name} in the environment"));
                ("backend.secret_env", found.map_err(missing)?)
            }
            (None, None, Some(path)) => {
                let unreadable = |error| format!("{} cannot be read: {error}", path.display());
                let found = std::fs::read_to_string(path).map_err(unreadable);
                ("backend.secret_file", found.map_err(|why| wrong("backend.secret_file", why))?)
            }
            _ => {
                let problem = "must stand alone: give one of secret, secret_env and secret_file";
                return Err(wrong("backend.secret", problem.to_owned()));
            }
        };
        let text = text.trim_end_matches(['\r', '\n']);
        if text.len() < MIN_SECRET_BYTES || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(wrong(
                field,
                format!("must have at least {MIN_SECRET_BYTES} bytes, all of them printable ASCII"),
            ));
        }
        Ok(Some(Secret::new(text)))
    }

    /// Says what cannot be.
    ///
    /// # Errors
    /// The first setting that is wrong.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        for (field, url) in [
            ("backend.access_url", &self.access_url),
            ("backend.call_url", &self.call_url),
            ("backend.events_url", &self.events_url),
        ] {
            if let Some(url) = url {
                self.check_url(url).map_err(|why| ConfigError::new(field, why))?;
            }
        }
        if self.access_url.is_none() && self.call_url.is_none() && self.events_url.is_none() {
            return Err(ConfigError::new("backend", "asks nobody: give access_url, call_url or events_url"));
        }
        let day = Duration::from_secs(24 * 60 * 60);
        for (field, time) in [
            ("backend.access_timeout", self.access_timeout),
            ("backend.call_timeout", self.call_timeout),
            ("backend.breaker_pause", self.breaker_pause),
        ] {
            if time.is_zero() || time > day {
                return Err(ConfigError::new(field, "must be more than nothing, and a day at most"));
            }
        }
        for (field, value) in [
            ("backend.max_concurrent", self.max_concurrent),
            ("backend.max_answer_bytes", self.max_answer_bytes),
            ("backend.breaker_failures", self.breaker_failures as usize),
        ] {
            if value == 0 {
                return Err(ConfigError::new(field, "must be at least 1"));
            }
        }
        self.read_secret().map(drop)
    }

    fn check_url(&self, text: &str) -> Result<(), String> {
        let url = Url::parse(text).map_err(|error| format!("is not an address: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not have a name or a password in it: give a secret".to_owned());
        }
        if self.insecure && url.scheme() == "http" || is_safe(&url) {
            return Ok(());
        }
        Err("must begin with https://, or be on this machine, unless insecure = true".to_owned())
    }
}

/// Whether nobody on the way can change what comes from an address.
pub fn is_safe(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    let here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "https" || (url.scheme() == "http" && here)
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn max_concurrent() -> usize {
    64
}

fn max_waiting() -> usize {
    1000
}

fn max_answer_bytes() -> usize {
    64 * 1024
}

fn breaker_failures() -> u32 {
    5
}

#[cfg(test)]
mod tests {
    use super::super::File;

    fn check(text: &str) -> Result<(), String> {
        let file: File = format!("[backend]\n{text}").parse()?;
        file.backend.unwrap().check().map_err(|error| error.to_string())
    }

    #[test]
    fn a_backend_that_cannot_be_is_refused_by_its_setting() {
        let url = "access_url = \"http://127.0.0.1:1/\"\n";
        for (text, why) in [
            ("", "backend asks nobody"),
            ("access_url = \"http://10.0.0.1/\"", "backend.access_url must begin with https://"),
            ("call_url = \"ftp://localhost/\"", "backend.call_url must begin with https://"),
            ("call_url = \"https://me:hush@example.com/\"", "backend.call_url must not have a name or a password"),
            ("events_url = \"/events\"", "backend.events_url is not an address"),
            ("acess_url = \"\"", "line 2: unknown field `acess_url`"),
            (&format!("{url}access_timeout = \"0s\""), "backend.access_timeout must be"),
            (&format!("{url}call_timeout = \"soon\""), "as in 90s or 1h"),
            (&format!("{url}breaker_pause = \"2days\""), "backend.breaker_pause must be"),
            (&format!("{url}max_concurrent = 0"), "backend.max_concurrent must be"),
            (&format!("{url}max_answer_bytes = 0"), "backend.max_answer_bytes must be"),
            (&format!("{url}breaker_failures = 0"), "backend.breaker_failures must be"),
            (&format!("{url}when_down = \"maybe\""), "unknown variant `maybe`"),
            (&format!("{url}secret = \"short\""), "backend.secret must have at least 16 bytes"),
            (&format!("{url}secret = \"sixteen bytes, ä\""), "backend.secret must have"),
            (&format!("{url}secret_env = \"WSGATE_NO_SUCH\""), "backend.secret_env needs WSGATE_NO_SUCH"),
            (&format!("{url}secret_file = \"/nowhere\""), "backend.secret_file /nowhere cannot be read"),
            (&format!("{url}secret_file = \"/a\"\nsecret_env = \"B\""), "backend.secret must stand alone"),
        ] {
            let error = check(text).expect_err(text);
            assert!(error.contains(why), "{text}\n{error}");
        }
        for text in [url, "call_url = \"https://example.com/\"", "insecure = true\ncall_url = \"http://backend/\""] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }
}
