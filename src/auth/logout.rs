//! Logout tokens (OpenID Connect Back-Channel Logout 1.0): an issuer says that a login has ended.

use serde_json::Value;

use super::issuer::{EVENTS, time};
use super::reason::{Reason, TokenError};
use super::revocation::Subject;
use super::token::{Presented, invalid, missing};
use super::verifier::Verifier;

/// What the event is called.
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

impl Verifier {
    /// What a logout token ends: the login's session if it names one, else all of the user's tokens
    /// that were issued before it. To accept one twice changes nothing, so that none is remembered.
    ///
    /// # Errors
    /// The first reason found not to accept it (2.6).
    pub async fn verify_logout(&self, token: &str) -> Result<Subject, TokenError> {
        let presented = Presented::parse(token, self.max_bytes())?;
        let (issuer, _) = self.authentic(&presented).await?;
        let claims = &presented.claims;
        if let Some(typ) = presented.typ.as_deref()
            && !["jwt", "logout+jwt", "application/logout+jwt"].contains(&typ.to_ascii_lowercase().as_str())
        {
            return Err(Reason::WrongType.because("the token's `typ` is not logout+jwt"));
        }
        issuer.check_audience(claims, "aud")?;
        let now = self.now();
        let issued_at = time(claims, "iat")?.ok_or_else(|| missing("iat"))?;
        if time(claims, "exp")?.ok_or_else(|| missing("exp"))? <= now {
            return Err(Reason::Expired.into());
        }
        match claims.at(EVENTS).and_then(|events| events.get(LOGOUT)) {
            Some(Value::Object(_)) => {}
            Some(_) => return Err(invalid(EVENTS, "has a logout event that is not an object")),
            None => return Err(missing(EVENTS)),
        }
        if claims.at("nonce").is_some() {
            return Err(invalid("nonce", "must not be in a logout token"));
        }
        let handles = issuer.handles(claims)?;
        if let Some(sid) = handles.as_deref().and_then(|handles| handles.session.as_deref()) {
            return Ok(Subject::Session { sid: sid.to_owned(), issuer: issuer.name().map(str::to_owned) });
        }
        // Those of the same second too: a time in a token is seldom more precise.
        let issued_before = issued_at.as_secs_f64().floor() + 1.0;
        Ok(Subject::User { user: issuer.user(claims)?, issued_before })
    }
}
