//! What a live connection has been proven by: its renewal, its end, and its revocation.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Credential, Identity, Reason, SECURITY, TokenError};
use crate::protocol::{Close, CloseCode, ErrorCode, Refusal, RequestId, Response};

use super::{Door, Held, Session};

/// The longest time between two looks at the system's clock, which may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

impl Session {
    /// Begins to look into the proof for a renewal. Nothing further is heard until that is done.
    pub(super) fn look_into(&mut self, id: Option<RequestId<'_>>, credential: Credential) {
        let door = Arc::clone(&self.door);
        let proving = Box::pin(async move { door.parts.authenticator.authenticate(&credential, None).await });
        self.hold(Held::Renewal { id: id.map(RequestId::to_owned), proving });
    }

    /// Takes another identity of the same user in place of the one that the connection has.
    pub(super) fn renew(
        &mut self,
        id: Option<RequestId<'_>>,
        proof: Result<Identity, TokenError>,
    ) -> Result<(), Refusal> {
        let identity = proof.map_err(|error| {
            let close = self.door.refuse(&error, None);
            Refusal::of(ErrorCode::TokenRefused, "token", close.reason.into_owned())
        })?;
        if !self.identity.is_renewed_by(&identity) {
            self.door.parts.metrics.refuse("wrong_user");
            tracing::info!(target: SECURITY, reason = "wrong_user", user = self.identity.user.as_str(), "a renewal was refused");
            let message = format!("this token is not of {}: open another connection for it", self.identity.user);
            return Err(Refusal::of(ErrorCode::WrongUser, "token", message));
        }
        self.door.parts.metrics.accept();
        let replaced = std::mem::replace(&mut self.identity, identity);
        self.mark();
        // Who renews with the token whose end has just been announced is not told again: that client
        // would renew again with the same, and so on.
        if self.warn_at.is_some() || self.identity.expires_at > replaced.expires_at {
            self.plan_warning();
        } else {
            self.plan_look();
        }
        if id.is_some() {
            let (expires_at, expires_in) = expiry(&self.identity, &self.door);
            self.say(&Response::renewed(id, expires_at, expires_in));
        }
        if !self.identity.says_as_much_as(&replaced) {
            self.decide_anew();
        }
        Ok(())
    }

    /// Plans the warning of a token that is new here. A short-lived token is warned of when half of
    /// its time is left, so that a client that renews when it is warned never does so in a loop.
    pub(super) fn plan_warning(&mut self) {
        let now = self.door.parts.clock.unix();
        let left = self.identity.expires_at.saturating_sub(now);
        let warning = self.door.parts.limits.get().expiry_warning.min(left / 2);
        self.warn_at = (!warning.is_zero()).then(|| self.identity.expires_at.saturating_sub(warning));
        self.plan_look();
    }

    pub(super) fn plan_look(&mut self) {
        let now = self.door.parts.clock.unix();
        let next = self.warn_at.unwrap_or(Duration::MAX).min(self.ends_at());
        self.look_at = self.door.parts.clock.now() + next.saturating_sub(now).min(LOOK_INTERVAL);
    }

    pub(super) fn look_at_clock(&mut self) -> Result<(), Close> {
        self.check_expiry()?;
        let now = self.door.parts.clock.unix();
        if self.warn_at.is_some_and(|warn_at| now >= warn_at) {
            self.warn_at = None;
            let left = self.identity.expires_at.saturating_sub(now);
            self.say(&Response::Expiring { seconds: left.as_secs() });
        }
        self.plan_look();
        Ok(())
    }

    /// When the connection ends at the latest, as the time since the Unix epoch.
    pub(super) fn ends_at(&self) -> Duration {
        (self.identity.expires_at + self.door.parts.limits.get().expiry_grace)
            .min(Duration::from_millis(self.lives_until))
    }

    pub(super) fn check_expiry(&self) -> Result<(), Close> {
        let now = self.door.parts.clock.unix();
        if now < self.ends_at() {
            return Ok(());
        }
        if now >= Duration::from_millis(self.lives_until) {
            return Err(Close::new(CloseCode::TooOld, "this connection has lived as long as one may: connect again"));
        }
        Err(Close::new(CloseCode::TokenRefused, Reason::Expired.sentence()))
    }

    /// Whether what has been revoked since this was last asked is meant for this connection.
    pub(super) fn check_revoked(&mut self) -> Result<(), Close> {
        let revocations = self.door.parts.authenticator.revocations();
        let generation = revocations.generation();
        if generation == self.revocations {
            return Ok(());
        }
        self.revocations = generation;
        revocations.check(&self.identity).map_err(|error| {
            self.door.parts.metrics.refuse(error.reason.as_str());
            tracing::info!(target: SECURITY, reason = error.reason.as_str(), user = self.identity.user.as_str(), "a live connection was revoked");
            Close::new(CloseCode::Kicked, error.reason.sentence())
        })
    }

    /// Lets the connection be found by the names of its token.
    pub(super) fn mark(&self) {
        let marks = self.door.parts.authenticator.revocations().marks(self.identity.handles.as_deref());
        if !(marks.is_empty() && self.identity.handles.is_none()) {
            self.membership.hub().mark(self.member(), &marks);
        }
    }
}

/// When a token ends, in Unix seconds, and in how many seconds that is.
pub(super) fn expiry(identity: &Identity, door: &Door) -> (u64, u64) {
    let left = identity.expires_at.saturating_sub(door.parts.clock.unix());
    (identity.expires_at.as_secs(), left.as_secs())
}
