//! Verifies tokens (RFC 7519, RFC 8725).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::config::{Config, Secret};
use crate::protocol::UserId;

use super::grants::Grants;

/// The last second that `exp` may name: the end of the year 9999. What lies behind it is most
/// likely a time in milliseconds, whose token would never expire.
const MAX_EXP: f64 = 253_402_300_799.0;

/// What a verified token says.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Who it is.
    pub user: UserId,
    /// When the token ends, as the time since the Unix epoch.
    pub expires_at: Duration,
    /// What it allows.
    pub grants: Grants,
}

/// Why a token is not accepted, in words for whoever made or sent it. None of them repeats it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TokenError {
    /// Longer than the limit; it was not looked into.
    #[error("the token is longer than {0} bytes")]
    TooLong(usize),
    /// Not three parts of base64url, or a part that is not JSON.
    #[error("this is not a JWT")]
    Malformed,
    /// A header that cannot be: an unknown algorithm, such as `none`, or a parameter of a wrong type.
    #[error("the token's header is wrong: {0}")]
    WrongHeader(String),
    /// Signed by another algorithm than the key's.
    #[error("the token is not signed with HS256")]
    WrongAlgorithm,
    /// Signed with another key, or changed since.
    #[error("the token's signature is wrong")]
    WrongSignature,
    /// A header parameter that would have to be understood (RFC 7515, 4.1.11).
    #[error("the token's header has `crit`, which is not supported")]
    Critical,
    /// The claims do not have the form that they need.
    #[error("the token's claims are wrong: {0}")]
    WrongClaims(String),
    /// Past `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf`.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The cryptography itself failed.
    #[error("the token could not be verified")]
    Unverifiable,
}

/// The claims that the gateway reads; a token may have others.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Claims {
    /// The user.
    pub sub: String,
    /// When the token ends, in Unix seconds.
    #[serde(serialize_with = "whole_seconds")]
    pub exp: f64,
    /// Since when it is valid, in Unix seconds.
    #[serde(default, deserialize_with = "not_null", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<f64>,
    /// What it allows.
    #[serde(default)]
    pub grants: Grants,
}

/// Turns tokens into identities. It knows the key; it keeps no state.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    max_bytes: usize,
    leeway: Duration,
}

impl Verifier {
    /// A verifier for the configured secret.
    pub fn new(config: &Config) -> Self {
        install_provider();
        Self {
            key: DecodingKey::from_secret(config.jwt_secret.reveal().as_bytes()),
            validation: signature_only(),
            max_bytes: config.limits.max_token_bytes,
            leeway: config.limits.leeway,
        }
    }

    /// Verifies a token at a time, given as the time since the Unix epoch.
    ///
    /// # Errors
    /// The first reason found not to accept it.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Identity, TokenError> {
        if token.len() > self.max_bytes {
            return Err(TokenError::TooLong(self.max_bytes));
        }
        let data = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .map_err(|error| header_error(token).unwrap_or_else(|| token_error(&error)))?;
        if has_crit(token) {
            return Err(TokenError::Critical);
        }
        self.identity(data.claims, now)
    }

    fn identity(&self, claims: Claims, now: Duration) -> Result<Identity, TokenError> {
        let user = claims.sub.parse().map_err(|why| TokenError::WrongClaims(format!("`sub` {why}")))?;
        let expires_at = numeric_date("exp", claims.exp)?;
        if expires_at <= now {
            return Err(TokenError::Expired);
        }
        let not_before = claims.nbf.map(|nbf| numeric_date("nbf", nbf)).transpose()?;
        if not_before.is_some_and(|nbf| nbf > now + self.leeway) {
            return Err(TokenError::NotYetValid);
        }
        Ok(Identity { user, expires_at, grants: claims.grants })
    }
}

/// Signs a token, for development and tests: in production the application's own login does.
///
/// # Errors
/// When the cryptography fails.
pub fn mint(secret: &Secret, claims: &Claims) -> Result<String, TokenError> {
    install_provider();
    let key = EncodingKey::from_secret(secret.reveal().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(|error| token_error(&error))
}

/// Names the one provider of cryptography, since with two in the build (one more dependency can
/// bring a second) the library panics at the first token. An error means that it is installed.
fn install_provider() {
    let _already_installed = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// The library is to check the signature alone: its time is the system's, not our clock's, and
/// its checks of claims pass what is missing or has the wrong type.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

/// Whether the header has `crit` at all: the library takes `null` for its absence.
fn has_crit(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| BASE64_URL_SAFE_NO_PAD.decode(header).ok());
    let header = header.and_then(|json| serde_json::from_slice::<BTreeMap<String, IgnoredAny>>(&json).ok());
    header.is_none_or(|fields| fields.contains_key("crit"))
}

/// A claim that may be missing, but not `null`.
fn not_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    f64::deserialize(deserializer).map(Some)
}

/// What is wrong with the header, if it is JSON: the library says of an error in JSON not where it
/// is.
fn header_error(token: &str) -> Option<TokenError> {
    match jsonwebtoken::decode_header(token).err()?.kind() {
        ErrorKind::Json(error) if error.is_data() => Some(TokenError::WrongHeader(in_short(error))),
        _ => None,
    }
}

fn token_error(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::WrongSignature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenError::WrongAlgorithm,
        // The claims are read after the signature was found good: this is the issuer's mistake.
        ErrorKind::Json(error) if error.is_data() => TokenError::WrongClaims(in_short(error)),
        ErrorKind::InvalidToken | ErrorKind::Base64(_) | ErrorKind::Json(_) | ErrorKind::Utf8(_) => {
            TokenError::Malformed
        }
        _ => TokenError::Unverifiable,
    }
}

/// serde_json's words without the position, which means nothing to whoever wrote the claims, and
/// without the length that a stranger may have given them.
fn in_short(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split(" at line ").next().unwrap_or_default().chars().take(100).collect()
}

/// A time as most issuers write it, without a fraction where there is none.
fn whole_seconds<S: Serializer>(seconds: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if seconds.fract() == 0.0 && (0.0..=MAX_EXP).contains(seconds) {
        serializer.serialize_u64(*seconds as u64)
    } else {
        serializer.serialize_f64(*seconds)
    }
}

/// A NumericDate (RFC 7519, 2): seconds since the Unix epoch, fractions allowed.
fn numeric_date(claim: &str, seconds: f64) -> Result<Duration, TokenError> {
    if (0.0..=MAX_EXP).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    let hint = if seconds > MAX_EXP { ": it counts seconds, not milliseconds" } else { "" };
    Err(TokenError::WrongClaims(format!("`{claim}` is not a time{hint}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn verifier() -> Verifier {
        Verifier::new(&Config::new(Secret::new(SECRET), Secret::new("an-api-key-for-tests")))
    }

    fn sign(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        install_provider();
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        format!("{message}.{signature}")
    }

    fn hs256(claims: &Value) -> String {
        sign(&json!({"alg": "HS256", "typ": "JWT"}), claims)
    }

    fn refusal(token: &str) -> String {
        verifier().verify(token, NOW).unwrap_err().to_string()
    }

    fn good() -> Value {
        json!({"sub": "alice", "exp": NOW.as_secs() + 60, "grants": {"chat:*": ["join"]}})
    }

    fn with(claim: &str, value: Value) -> String {
        let mut claims = good();
        claims[claim] = value;
        hs256(&claims)
    }

    #[test]
    fn a_good_token_says_who_and_until_when_and_what() {
        let identity = verifier().verify(&hs256(&good()), NOW).unwrap();
        assert_eq!(identity.user.as_str(), "alice");
        assert_eq!(identity.expires_at, NOW + Duration::from_secs(60));
        assert_ne!(identity.grants, Grants::default());
    }

    #[test]
    fn a_minted_token_is_a_good_token_with_whole_seconds() {
        let claims = Claims { sub: "alice".into(), exp: 1.8e9 + 60.0, nbf: None, grants: Grants::default() };
        let token = mint(&Secret::new(SECRET), &claims).unwrap();
        assert!(verifier().verify(&token, NOW).is_ok());
        let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(String::from_utf8(payload).unwrap(), r#"{"sub":"alice","exp":1800000060,"grants":{}}"#);
    }

    #[test]
    fn the_last_moment_of_a_token_is_the_one_before_exp() {
        let token = with("exp", json!(NOW.as_secs()));
        assert!(verifier().verify(&token, NOW - Duration::from_nanos(1)).is_ok());
        assert_eq!(refusal(&token), "the token has expired");
    }

    #[test]
    fn nbf_is_checked_with_the_leeway() {
        assert!(verifier().verify(&with("nbf", json!(NOW.as_secs() + 5)), NOW).is_ok());
        assert_eq!(refusal(&with("nbf", json!(NOW.as_secs() + 6))), "the token is not valid yet");
    }

    #[test]
    fn claims_that_cannot_be_are_named() {
        let wrong = |text: &str| format!("the token's claims are wrong: {text}");
        for claim in ["sub", "exp"] {
            let mut claims = good();
            claims.as_object_mut().unwrap().remove(claim);
            assert_eq!(refusal(&hs256(&claims)), wrong(&format!("missing field `{claim}`")));
        }
        assert_eq!(refusal(&with("sub", json!(""))), wrong("`sub` must not be empty"));
        assert_eq!(refusal(&with("sub", json!("a\u{7}"))), wrong("`sub` must not contain control characters"));
        assert_eq!(refusal(&with("exp", json!(-1))), wrong("`exp` is not a time"));
        let milliseconds = wrong("`exp` is not a time: it counts seconds, not milliseconds");
        assert_eq!(refusal(&with("exp", json!(1_800_000_060_000_u64))), milliseconds);
        for value in [json!(null), json!("1800000060"), json!([1]), json!({}), json!(true)] {
            assert!(refusal(&with("exp", value.clone())).starts_with(&wrong("invalid type")), "{value}");
            assert!(refusal(&with("sub", if value.is_string() { json!(7) } else { value })).starts_with(&wrong("")));
        }
        for grants in [json!([]), json!({"chat:*": "join"}), json!({"chat:*": ["jion"]}), json!({"": ["join"]})] {
            assert!(refusal(&with("grants", grants.clone())).starts_with(&wrong("")), "{grants}");
        }
        assert!(refusal(&with("nbf", json!("soon"))).starts_with(&wrong("invalid type")));
        assert!(refusal(&with("nbf", json!(null))).starts_with(&wrong("invalid type")));
    }

    #[test]
    fn a_claim_that_stands_there_twice_is_refused() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"alice","sub":"bob","exp":1800000060}"#);
        let message = format!("{}.{payload}", BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#));
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert!(refusal(&format!("{message}.{signature}")).contains("duplicate field `sub`"));
    }

    #[test]
    fn the_algorithm_is_the_keys_and_never_the_tokens() {
        assert_eq!(refusal(&sign(&json!({"alg": "HS384"}), &good())), "the token is not signed with HS256");
        assert_eq!(refusal(&sign(&json!({"alg": "RS256"}), &good())), "the token is not signed with HS256");
        assert!(refusal(&sign(&json!({"alg": "none"}), &good())).starts_with("the token's header is wrong"));
        let unsigned = sign(&json!({"alg": "none"}), &good());
        let unsigned = unsigned.rsplit_once('.').unwrap().0;
        assert!(refusal(&format!("{unsigned}.")).starts_with("the token's header is wrong"));
    }

    #[test]
    fn crit_is_refused() {
        let token = sign(&json!({"alg": "HS256", "crit": ["exp"]}), &good());
        assert_eq!(refusal(&token), "the token's header has `crit`, which is not supported");
        assert!(
            refusal(&sign(&json!({"alg": "HS256", "crit": 1}), &good())).starts_with("the token's header is wrong")
        );
    }

    #[test]
    fn what_is_no_jwt_is_told_from_what_is_badly_signed() {
        for token in ["", "x", "a.b.c", "...", "\u{0}", "{}"] {
            assert_eq!(refusal(token), "this is not a JWT", "{token:?}");
        }
        let token = hs256(&good());
        let (message, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", signature.chars().rev().collect::<String>());
        assert!(["the token's signature is wrong", "this is not a JWT"].contains(&refusal(&forged).as_str()));
        assert_eq!(refusal(&format!("{message}.")), "the token's signature is wrong");
        assert_eq!(refusal(&"a".repeat(9000)), "the token is longer than 8192 bytes");
    }
}
