//! Whose tokens count, as an operator writes it: `[[issuers]]` in the configuration file.
//!
//! This is what was written; `auth` makes keys and rules of it, and finds what cannot be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{ConfigError, Secret};

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What `iss` must be. Without it any token counts that its keys have signed and whose `iss` is
    /// no other issuer's.
    pub issuer: Option<String>,
    /// For whom a token must be, in `aud`: one of these. Any, if it is empty.
    #[serde(default, deserialize_with = "one_or_many")]
    pub audience: Vec<String>,
    /// The claim that is compared with `audience`.
    #[serde(default = "Issuer::aud")]
    pub audience_claim: String,
    /// Claims that must have one of these values, as `token_use = "access"`.
    #[serde(default)]
    pub require: BTreeMap<String, Value>,
    /// The claim with the user's id: a name, or a path as `https://example.com/claims.uid`.
    #[serde(default = "Issuer::sub")]
    pub user_claim: String,
    /// What stands before that id, to tell the users of several issuers apart.
    #[serde(default)]
    pub user_prefix: String,
    /// The claim with the grants: a name, or a path.
    #[serde(default = "Issuer::grants_claim")]
    pub grants_claim: String,
    /// What every user of this issuer may do, beside what the token grants.
    #[serde(default)]
    pub grants: BTreeMap<String, Vec<String>>,
    /// The claim with what other members of a room may see of a user, as a name or a picture.
    pub profile_claim: Option<String>,
    /// The claim with the id of the login's session.
    #[serde(default = "Issuer::sid")]
    pub session_claim: String,
    /// With what tokens may be signed. If it is missing: what each key says, or HS256, RS256, ES256,
    /// ES384 or EdDSA, as its kind is.
    #[serde(default)]
    pub algorithms: Vec<Algorithm>,
    /// Keys that are known.
    #[serde(default)]
    pub keys: Vec<KeySource>,
    /// Where the issuer publishes its keys (RFC 7517).
    pub jwks_url: Option<String>,
    /// Whether the issuer says itself where that is (OpenID Connect Discovery 1.0).
    #[serde(default)]
    pub discover: bool,
}

/// Where a key, or a set of them, comes from: one of the first five.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeySource {
    /// The secret itself. A file or the environment is the better place.
    pub secret: Option<Secret>,
    /// The environment variable that holds the secret.
    pub secret_env: Option<String>,
    /// The file that holds the secret; a line's end behind it does not count.
    pub secret_file: Option<PathBuf>,
    /// A public key in PEM: RSA, EC or Ed25519.
    pub public_key_file: Option<PathBuf>,
    /// A set of keys (RFC 7517).
    pub jwks_file: Option<PathBuf>,
    /// Whether the secret is written in base64.
    #[serde(default)]
    pub base64: bool,
    /// The algorithm that the key is for.
    pub algorithm: Option<Algorithm>,
    /// The key's id. A key without one is tried for any token.
    pub kid: Option<String>,
    /// Until when tokens that it has signed are accepted, as the time since the Unix epoch: for a
    /// key that is being replaced.
    #[serde(default, deserialize_with = "time")]
    pub until: Option<Duration>,
}

/// The one place that a key source names.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// A secret, as it is.
    Secret(&'a Secret),
    /// An environment variable that holds a secret.
    SecretEnv(&'a str),
    /// A file that holds a secret.
    SecretFile(&'a Path),
    /// A public key in PEM.
    PublicKeyFile(&'a Path),
    /// A set of keys.
    JwksFile(&'a Path),
}

impl KeySource {
    /// Where the key is.
    ///
    /// # Errors
    /// In words: it names no place, or several.
    pub fn place(&self) -> Result<Place<'_>, String> {
        let places = [
            self.secret.as_ref().map(Place::Secret),
            self.secret_env.as_deref().map(Place::SecretEnv),
            self.secret_file.as_deref().map(Place::SecretFile),
            self.public_key_file.as_deref().map(Place::PublicKeyFile),
            self.jwks_file.as_deref().map(Place::JwksFile),
        ];
        let mut named = places.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(place), None) => Ok(place),
            _ => Err("needs one of secret, secret_env, secret_file, public_key_file and jwks_file".to_owned()),
        }
    }
}

impl Issuer {
    /// One whose tokens are signed with a secret (HS256), whatever their `iss`.
    pub fn with_secret(secret: Secret) -> Self {
        Self { keys: vec![KeySource { secret: Some(secret), ..KeySource::default() }], ..Self::default() }
    }

    fn aud() -> String {
        "aud".to_owned()
    }

    fn sub() -> String {
        "sub".to_owned()
    }

    fn grants_claim() -> String {
        "grants".to_owned()
    }

    fn sid() -> String {
        "sid".to_owned()
    }

    fn check(&self, setting: &str) -> Result<(), ConfigError> {
        let wrong = |field: &str, problem: &str| Err(ConfigError::new(format!("{setting}{field}"), problem));
        if self.issuer.as_deref().is_some_and(str::is_empty) {
            return wrong(".issuer", "must not be empty");
        }
        if self.discover && self.jwks_url.is_some() {
            return wrong(".discover", "is not needed where jwks_url is given");
        }
        if self.discover && self.issuer.is_none() {
            return wrong(".issuer", "is needed to discover its keys");
        }
        if self.keys.is_empty() && self.jwks_url.is_none() && !self.discover {
            return wrong("", "has no keys: give it keys, jwks_url or discover");
        }
        for (field, claim) in [
            (".audience_claim", &self.audience_claim),
            (".user_claim", &self.user_claim),
            (".grants_claim", &self.grants_claim),
            (".session_claim", &self.session_claim),
            (".profile_claim", self.profile_claim.as_ref().unwrap_or(&self.user_claim)),
        ] {
            if claim.is_empty() {
                return wrong(field, "must not be empty");
            }
        }
        Ok(())
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            audience_claim: Self::aud(),
            require: BTreeMap::new(),
            user_claim: Self::sub(),
            user_prefix: String::new(),
            grants_claim: Self::grants_claim(),
            grants: BTreeMap::new(),
            profile_claim: None,
            session_claim: Self::sid(),
            algorithms: Vec::new(),
            keys: Vec::new(),
            jwks_url: None,
            discover: false,
        }
    }
}

/// What is wrong with issuers beside each other: whose a token is must never be in doubt.
pub(super) fn check_all(issuers: &[Issuer]) -> Result<(), ConfigError> {
    for (index, issuer) in issuers.iter().enumerate() {
        let setting = format!("issuers[{index}]");
        issuer.check(&setting)?;
        if issuers.iter().take(index).any(|other| other.issuer == issuer.issuer) {
            let problem = match &issuer.issuer {
                Some(_) => "stands there twice: one issuer may have many keys and audiences",
                None => "is needed: only one issuer may do without",
            };
            return Err(ConfigError::new(format!("{setting}.issuer"), problem));
        }
        let overlaps = |other: &Issuer| {
            let (own, theirs) = (issuer.user_prefix.as_str(), other.user_prefix.as_str());
            own != theirs && (own.starts_with(theirs) || theirs.starts_with(own))
        };
        if let Some(other) = issuers.iter().take(index).position(overlaps) {
            let problem =
                format!("and that of issuers[{other}] begin alike: a user of one could be named as one of the other");
            return Err(ConfigError::new(format!("{setting}.user_prefix"), problem));
        }
    }
    Ok(())
}

/// A string, or a list of them.
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a list of strings")]
    enum Written {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Written::deserialize(deserializer)? {
        Written::One(one) => vec![one],
        Written::Many(many) => many,
    })
}

/// A time in UTC, as `2026-12-31T00:00:00Z`.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let written = toml::value::Datetime::deserialize(deserializer)?.to_string();
    let time = humantime::parse_rfc3339(&written)
        .map_err(|_| Error::custom("must be a time in UTC, as 2026-12-31T00:00:00Z"))?;
    time.duration_since(UNIX_EPOCH).map(Some).map_err(|_| Error::custom("must not be before 1970"))
}

/// A length of time, as `90s` or `1h`.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let in_quotes = |_| Error::custom("must be a time in quotes, as \"90s\" or \"1h\"");
    let written = String::deserialize(deserializer).map_err(in_quotes)?;
    humantime::parse_duration(&written).map_err(|error| Error::custom(format!("`{written}`: {error}, as in 90s or 1h")))
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn refuse(text: &str) -> String {
        text.parse::<File>().unwrap_err()
    }

    #[test]
    fn a_file_says_whose_tokens_count() {
        let file: File = r#"
            [[issuers]]
            issuer = "https://login.example.com/"
            audience = "chat"
            discover = true

            [[issuers]]
            algorithms = ["HS512"]
            keys = [
                { secret_env = "NEW_SECRET" },
                { secret_env = "OLD_SECRET", until = 2026-12-31T00:00:00Z },
            ]

            [anonymous]
            grants = { "news:*" = ["join"] }
            lifetime = "10m"
        "#
        .parse()
        .unwrap();
        assert_eq!(file.issuers[0].audience, ["chat"]);
        assert_eq!(file.issuers[1].algorithms, [Algorithm::HS512]);
        assert_eq!(file.issuers[1].keys[1].until, Some(Duration::from_secs(1_798_675_200)));
        assert_eq!(file.anonymous.unwrap().lifetime, Duration::from_secs(600));
        assert_eq!(check_all(&file.issuers), Ok(()));
    }

    #[test]
    fn what_is_wrong_in_a_file_is_shown_with_its_line() {
        assert!(refuse("[[issuers]]\nissuers = 1").contains("unknown field `issuers`"));
        assert!(refuse("[[issuers]]\nissuers = 1").contains("line 2"));
        assert!(refuse("[[issuers]]\nalgorithms = [\"none\"]").contains("none"));
        assert!(refuse("[[issuers]]\nkeys = [{ until = 2026-12-31T00:00:00+01:00 }]").contains("in UTC"));
        assert!(refuse("[anonymous]\nlifetime = \"soon\"").contains("as in 90s or 1h"));
    }

    #[test]
    fn issuers_that_could_be_mistaken_for_each_other_are_refused() {
        let check = |text: &str| check_all(&text.parse::<File>().unwrap().issuers).unwrap_err().setting;
        let twice = "[[issuers]]\nissuer = \"a\"\njwks_url = \"x\"\n".repeat(2);
        assert_eq!(check(&twice), "issuers[1].issuer");
        assert_eq!(check(&twice.replace("issuer = \"a\"", "")), "issuers[1].issuer");
        let prefixes = |one: &str, other: &str| {
            let issuer = |name: &str, prefix: &str| {
                format!("[[issuers]]\nissuer = \"{name}\"\njwks_url = \"x\"\nuser_prefix = \"{prefix}\"\n")
            };
            check_all(&(issuer("a", one) + &issuer("b", other)).parse::<File>().unwrap().issuers)
        };
        assert_eq!(prefixes("", "b:").unwrap_err().setting, "issuers[1].user_prefix");
        assert_eq!(prefixes("a:b:", "a:").unwrap_err().setting, "issuers[1].user_prefix");
        assert_eq!((prefixes("", ""), prefixes("a:", "a:"), prefixes("a:", "b:")), (Ok(()), Ok(()), Ok(())));
        assert_eq!(check("[[issuers]]\nissuer = \"a\""), "issuers[0]");
        assert_eq!(check("[[issuers]]\ndiscover = true"), "issuers[0].issuer");
        assert_eq!(check("[[issuers]]\njwks_url = \"x\"\nuser_claim = \"\""), "issuers[0].user_claim");
    }
}
