//! What is known of a connection once it has proven who it is.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use smallvec::{SmallVec, smallvec};
use tokio::sync::OwnedSemaphorePermit;

use crate::config::{Asker, Placeholder};
use crate::protocol::UserId;

use super::grants::Grants;
use super::token::at;

/// What the users without a token are called, before a number of their own. No token can name one.
pub const ANONYMOUS_PREFIX: &str = "anonymous:";

/// The longest profile of a user, in bytes.
pub const MAX_PROFILE_BYTES: usize = 2048;

/// Who somebody is, until when, and what they may do.
#[derive(Debug)]
pub struct Identity {
    /// Who it is.
    pub user: UserId,
    /// When it ends, as the time since the Unix epoch.
    pub expires_at: Duration,
    /// What it allows.
    pub grants: Grants,
    /// Who says so.
    pub authority: Authority,
    /// When it was issued, as the time since the Unix epoch; 0 if that is not known, as if it had
    /// been issued before everything else.
    pub issued_at: Duration,
    /// Names by which it can be revoked, where it has any.
    pub handles: Option<Box<Handles>>,
    /// What else is known, where somebody wants to know it.
    pub details: Option<Box<Details>>,
}

/// What else is known of somebody: it takes room on every connection, and most need none of it.
#[derive(Debug, Default)]
pub struct Details {
    /// All claims of the token, if rules or a backend ask for them.
    pub claims: Arc<Map<String, Value>>,
    /// What others in the same rooms may see of the user.
    pub profile: Option<Arc<RawValue>>,
    /// What holds for somebody without a token.
    pub guest: Option<Guest>,
}

/// Who vouches for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The issuer of a token, by a number that stays its own.
    Issuer(u16),
    /// A backend, with a ticket.
    Backend,
    /// Nobody.
    Nobody,
}

/// Names by which one token, or all tokens of one login, can be revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handles {
    /// The issuer's name, where it has one.
    pub issuer: Option<Box<str>>,
    /// The token's id (`jti`).
    pub token: Option<Box<str>>,
    /// The id of the login's session (`sid`).
    pub session: Option<Box<str>>,
}

/// What holds for somebody without a token.
#[derive(Debug)]
pub struct Guest {
    /// How many rooms they may be in.
    pub max_rooms: usize,
    /// Whether they may call the backend.
    pub calls: bool,
    /// One of as many as there may be; it is free again when this is dropped.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Identity {
    /// Somebody of whom nothing is known but the name.
    pub fn of(user: UserId) -> Self {
        Self {
            user,
            expires_at: Duration::MAX,
            grants: Grants::default(),
            authority: Authority::Nobody,
            issued_at: Duration::ZERO,
            handles: None,
            details: None,
        }
    }

    /// What holds for somebody without a token; none for whoever has one.
    pub fn guest(&self) -> Option<&Guest> {
        self.details.as_ref()?.guest.as_ref()
    }

    /// All claims of the token, where they are kept.
    pub fn claims(&self) -> Arc<Map<String, Value>> {
        self.details.as_ref().map(|details| Arc::clone(&details.claims)).unwrap_or_default()
    }

    /// What others in the same rooms may see of the user.
    pub fn profile(&self) -> Option<Arc<RawValue>> {
        self.details.as_ref()?.profile.clone()
    }

    /// Whether another identity of the same user says the same, but for when it was issued and ends.
    pub fn says_as_much_as(&self, other: &Self) -> bool {
        let lasting = |identity: &Self| {
            let mut claims = identity.details.as_ref().map(|details| (*details.claims).clone()).unwrap_or_default();
            claims.retain(|name, _| !matches!(name.as_str(), "exp" | "iat" | "nbf" | "jti"));
            claims
        };
        self.grants == other.grants && lasting(self) == lasting(other)
    }

    /// Whether another may take this one's place on a live connection: the same user, by the word of
    /// the same issuer. What a backend vouches for with a ticket, either may go on with.
    pub fn is_renewed_by(&self, other: &Self) -> bool {
        let vouched = self.authority == Authority::Backend || other.authority == Authority::Backend;
        self.user == other.user && (vouched || self.authority == other.authority)
    }
}

impl Asker for Identity {
    fn values(&self, placeholder: &Placeholder) -> SmallVec<[Cow<'_, str>; 1]> {
        match placeholder {
            Placeholder::User => smallvec![self.user.as_str().into()],
            Placeholder::Claim(path) => match self.details.as_ref().and_then(|details| at(&details.claims, path)) {
                Some(Value::Array(many)) => many.iter().filter_map(text).collect(),
                Some(one) => text(one).into_iter().collect(),
                None => SmallVec::new(),
            },
        }
    }
}

/// What others may see of a user, as a token or a backend says it.
///
/// # Errors
/// It is too long.
pub fn profile(value: impl Serialize) -> Result<Arc<RawValue>, String> {
    let written = serde_json::value::to_raw_value(&value).map_err(|error| error.to_string())?;
    if written.get().len() > MAX_PROFILE_BYTES {
        return Err(format!("must not be longer than {MAX_PROFILE_BYTES} bytes"));
    }
    Ok(written.into())
}

/// A claim as it stands in a room's name: strings and whole numbers do.
fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(number) if number.is_i64() || number.is_u64() => Some(number.to_string().into()),
        _ => None,
    }
}
