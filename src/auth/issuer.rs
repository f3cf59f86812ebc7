//! One issuer of tokens: its keys, and what it demands of the claims.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::config::{self, Config, ConfigError, KeySource, Place};
use crate::protocol::UserId;

use super::grants::Grants;
use super::identity::{ANONYMOUS_PREFIX, Authority, Details, Handles, Identity, profile};
use super::key::{Key, KeySet, Setting, from_base64};
use super::reason::{Reason, TokenError, shown};
use super::remote::RemoteKeys;
use super::token::{Claims, Presented, invalid, missing};

/// The last second that a time in a token may name: the end of the year 9999. What lies behind it is
/// most likely a time in milliseconds, whose token would never expire.
const MAX_TIME: f64 = 253_402_300_799.0;
/// The claim by which a logout token is known (OpenID Connect Back-Channel Logout 1.0, 2.4).
pub(super) const EVENTS: &str = "events";

/// One issuer of tokens.
pub(super) struct Issuer {
    written: config::Issuer,
    number: u16,
    default_grants: Grants,
    leeway: Duration,
    keeps_claims: bool,
    keys: KeySet,
    remote: Option<Arc<RemoteKeys>>,
}

impl Issuer {
    /// Makes keys and rules of what an operator has written. If it is one of those before, its published
    /// keys are.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub(super) fn new(
        written: &config::Issuer,
        number: u16,
        config: &Config,
        before: &[Arc<Self>],
    ) -> Result<Self, ConfigError> {
        let setting = |field: &str| format!("issuers[{number}]{field}");
        let default_grants = Grants::from_lists(&written.grants)
            .map_err(|why| ConfigError::new(setting(".grants"), format!("cannot be: {why}")))?;
        if written.user_prefix.starts_with(ANONYMOUS_PREFIX) {
            let problem = format!("must not begin with `{ANONYMOUS_PREFIX}`, which is for users without a token");
            return Err(ConfigError::new(setting(".user_prefix"), problem));
        }
        let mut keys = KeySet::default();
        for (index, source) in written.keys.iter().enumerate() {
            let found = load(source, written, config.weak_secrets);
            let name = if config.issuers.len() == 1 && source.secret.is_some() {
                "jwt_secret".to_owned()
            } else {
                setting(&format!(".keys[{index}]"))
            };
            keys.0.extend(found.map_err(|why| ConfigError::new(name, why))?.0);
        }
        let remote = RemoteKeys::of(written, &config.limits, &config.clock)
            .map_err(|(field, why)| ConfigError::new(setting(field), why))?;
        let leeway = config.limits.leeway;
        let same = before.iter().filter(|issuer| issuer.written == *written).filter_map(|issuer| issuer.remote());
        let known = same.into_iter().find(|known| known.is_within(&config.limits)).cloned();
        // By the name: another issuer before it in the configuration is not to change who may renew what.
        let named = before.iter().find(|issuer| issuer.written.issuer == written.issuer).map(|issuer| issuer.number);
        let unused = before.iter().map(|issuer| issuer.number.saturating_add(1)).max().unwrap_or_default();
        let number = named.unwrap_or(unused.saturating_add(number));
        let (keeps_claims, remote) = (config.keeps_claims(), known.or(remote.map(Arc::new)));
        Ok(Self { written: written.clone(), number, default_grants, leeway, keeps_claims, keys, remote })
    }

    /// What `iss` must be, if this issuer has a name.
    pub(super) fn name(&self) -> Option<&str> {
        self.written.issuer.as_deref()
    }

    /// What it is called where people read it.
    pub(super) fn title(&self) -> String {
        self.name().map_or_else(|| "the issuer without a name".to_owned(), |name| format!("\"{}\"", shown(name)))
    }

    /// Its keys that are published somewhere.
    pub(super) fn remote(&self) -> Option<&Arc<RemoteKeys>> {
        self.remote.as_ref()
    }

    /// All its keys as they are known now.
    ///
    /// # Errors
    /// Those that are published somewhere could not be fetched, and there are no others.
    pub(super) fn keys(&self, clock: &Clock) -> Result<KeySet, TokenError> {
        let Some(remote) = &self.remote else { return Ok(self.keys.clone()) };
        match remote.keys(clock.now()) {
            Some(published) if self.keys.0.is_empty() => Ok(published),
            Some(published) => Ok(KeySet([&published.0[..], &self.keys.0[..]].concat())),
            None if self.keys.0.is_empty() => {
                let detail = format!("the keys of {} could not be fetched: {}", self.title(), remote.problem());
                Err(Reason::KeysUnavailable.because(detail))
            }
            None => Ok(self.keys.clone()),
        }
    }

    /// What a token says, whose signature has been found good, at a time since the Unix epoch.
    ///
    /// # Errors
    /// The first reason not to accept it.
    pub(super) fn identify(&self, presented: &Presented<'_>, now: Duration) -> Result<Identity, TokenError> {
        let claims = &presented.claims;
        check_type(presented)?;
        self.check_meant(claims)?;
        let user = self.user(claims)?;
        let expires_at = time(claims, "exp")?.ok_or_else(|| missing("exp"))?;
        let issued_at = time(claims, "iat")?.unwrap_or_default();
        if expires_at <= now {
            let ago = humantime::format_duration(Duration::from_secs((now - expires_at).as_secs()));
            return Err(Reason::Expired.because(format!("the token has expired, {ago} ago")));
        }
        if let Some(not_before) = time(claims, "nbf")?.filter(|nbf| *nbf > now + self.leeway) {
            let ahead = humantime::format_duration(Duration::from_secs((not_before - now).as_secs()));
            return Err(Reason::NotYetValid.because(format!("the token is not valid yet: its `nbf` is {ahead} ahead")));
        }
        let handles = self.handles(claims)?;
        let grants = self.grants(claims)?;
        let authority = Authority::Issuer(self.number);
        let details = self.details(claims)?;
        Ok(Identity { user, expires_at, grants, authority, issued_at, handles, details })
    }

    /// Whether a token is meant for here.
    fn check_meant(&self, claims: &Claims) -> Result<(), TokenError> {
        self.check_audience(claims, &self.written.audience_claim)?;
        for (claim, demanded) in &self.written.require {
            let found = claims.at(claim).ok_or_else(|| missing(claim))?;
            let fits = found == demanded || demanded.as_array().is_some_and(|any| any.contains(found));
            if !fits {
                let detail =
                    format!("the token's `{claim}` is {}, and should be {demanded}", shown(&found.to_string()));
                return Err(Reason::WrongClaim.because(detail));
            }
        }
        Ok(())
    }

    /// Whether a token is this issuer's, and for us by this claim.
    pub(super) fn check_audience(&self, claims: &Claims, claim: &str) -> Result<(), TokenError> {
        if let Some(name) = self.name()
            && claims.text("iss")? != Some(name)
        {
            return Err(Reason::UnknownIssuer.because(format!("the token's `iss` is not {}", self.title())));
        }
        let audience = &self.written.audience;
        if audience.is_empty() {
            return Ok(());
        }
        let theirs = audiences(claims, claim)?;
        if theirs.iter().any(|one| audience.iter().any(|ours| ours == one)) {
            return Ok(());
        }
        let theirs = theirs.iter().map(|one| format!("\"{}\"", shown(one))).collect::<Vec<_>>().join(", ");
        let ours = audience.iter().map(|one| format!("\"{one}\"")).collect::<Vec<_>>().join(" or ");
        let detail = format!("the token is for {theirs} by its `{claim}`, and should be for {ours}");
        Err(Reason::WrongAudience.because(detail))
    }

    /// The user that the claims name.
    pub(super) fn user(&self, claims: &Claims) -> Result<UserId, TokenError> {
        let claim = &self.written.user_claim;
        let id = match claims.at(claim) {
            None => return Err(missing(claim)),
            Some(Value::String(text)) => text.clone(),
            // A number beyond 64 bits, or with a fraction, has no one spelling: two users could be one.
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => number.to_string(),
            Some(_) => return Err(invalid(claim, "is neither a string nor a whole number")),
        };
        if id.is_empty() {
            return Err(invalid(claim, "must not be empty"));
        }
        let id = format!("{}{id}", self.written.user_prefix);
        if id.starts_with(ANONYMOUS_PREFIX) {
            let detail = format!("the user's id begins with `{ANONYMOUS_PREFIX}`, which is for users without a token");
            return Err(Reason::ReservedUser.because(detail));
        }
        id.parse().map_err(|why: String| invalid(claim, &why))
    }

    /// The names by which the token can be revoked.
    pub(super) fn handles(&self, claims: &Claims) -> Result<Option<Box<Handles>>, TokenError> {
        let (token, session) = (claims.text("jti")?, claims.text(&self.written.session_claim)?);
        if token.is_none() && session.is_none() {
            return Ok(None);
        }
        let (issuer, token, session) = (self.name().map(Into::into), token.map(Into::into), session.map(Into::into));
        Ok(Some(Box::new(Handles { issuer, token, session })))
    }

    /// What else somebody wants to know.
    fn details(&self, claims: &Claims) -> Result<Option<Box<Details>>, TokenError> {
        let claim = self.written.profile_claim.as_deref();
        let profile = match claim.and_then(|claim| Some((claim, claims.at(claim)?))) {
            Some((claim, value)) => Some(profile(value).map_err(|why| invalid(claim, &why))?),
            None => None,
        };
        let kept = if self.keeps_claims { Arc::new(claims.all().clone()) } else { Arc::default() };
        let needed = self.keeps_claims || profile.is_some();
        Ok(needed.then(|| Box::new(Details { claims: kept, profile, guest: None })))
    }

    fn grants(&self, claims: &Claims) -> Result<Grants, TokenError> {
        let claim = &self.written.grants_claim;
        let Some(value) = claims.at(claim) else { return Ok(self.default_grants.clone()) };
        let own = Grants::deserialize(value)
            .map_err(|error| invalid(claim, &format!("is wrong: {}", shown(&error.to_string()))))?;
        Ok(own.with(&self.default_grants))
    }
}

/// Whom a token is for: a string, or a list of strings (RFC 7519, 4.1.3).
fn audiences<'c>(claims: &'c Claims, claim: &str) -> Result<Vec<&'c str>, TokenError> {
    let wrong = || invalid(claim, "is not a string or a list of strings");
    match claims.at(claim) {
        None => Err(missing(claim)),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(many)) => many.iter().map(|one| one.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}

/// Only tokens for access connect (RFC 8725, 3.11): a logout token of the same issuer must not.
fn check_type(presented: &Presented<'_>) -> Result<(), TokenError> {
    if let Some(typ) = &presented.typ {
        let kind = typ.to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if !matches!(kind, "jwt" | "at+jwt") {
            return Err(Reason::WrongType.because(format!("the token's `typ` is `{}`, not JWT or at+jwt", shown(typ))));
        }
    }
    if presented.claims.at(EVENTS).is_some() {
        return Err(Reason::WrongType.because("the token reports events, as a logout token does"));
    }
    Ok(())
}

/// A time in a token (RFC 7519, 2: NumericDate): seconds since the Unix epoch, fractions allowed.
pub(super) fn time(claims: &Claims, claim: &str) -> Result<Option<Duration>, TokenError> {
    let Some(value) = claims.at(claim) else { return Ok(None) };
    let seconds = value.as_f64().ok_or_else(|| invalid(claim, "is not a number"))?;
    if (0.0..=MAX_TIME).contains(&seconds) {
        return Ok(Some(Duration::from_secs_f64(seconds)));
    }
    let hint = if seconds > MAX_TIME { "is not a time: it counts seconds, not milliseconds" } else { "is not a time" };
    Err(invalid(claim, hint))
}

/// Reads the keys of one source.
fn load(source: &KeySource, issuer: &config::Issuer, weak: bool) -> Result<KeySet, String> {
    let only = source.algorithm.map(|algorithm| vec![algorithm]);
    let allowed = only.as_deref().unwrap_or(&issuer.algorithms);
    let setting = Setting { allowed, kid: source.kid.as_deref(), until: source.until, weak };
    let secret = |text: &str, name: String| {
        let bytes = if source.base64 { from_base64(text)? } else { text.as_bytes().to_vec() };
        Key::secret(&bytes, name, &setting)
    };
    let key = match source.place()? {
        Place::Secret(text) => secret(text.reveal(), "configured secret".to_owned()),
        Place::SecretEnv(name) => {
            let text = std::env::var(name).map_err(|_| format!("needs {name} in the environment"))?;
            secret(&text, format!("secret in {name}"))
        }
        Place::SecretFile(path) => {
            let text = String::from_utf8(read(path)?).map_err(|_| format!("{} is not text", path.display()))?;
            secret(text.trim_end_matches(['\r', '\n']), format!("secret in {}", path.display()))
        }
        Place::PublicKeyFile(path) => Key::pem(&read(path)?, format!("key in {}", path.display()), &setting)
            .map_err(|why| format!("{} {why}", path.display())),
        Place::JwksFile(path) => {
            let (keys, unused) = KeySet::parse(&read(path)?, &path.display().to_string(), &setting)
                .map_err(|why| format!("{} {why}", path.display()))?;
            for why in unused {
                tracing::warn!(file = %path.display(), "not used: {why}");
            }
            return Ok(keys);
        }
    };
    key.map(|key| KeySet(vec![Arc::new(key)]))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))
}
