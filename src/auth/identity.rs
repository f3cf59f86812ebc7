//! What is known of a connection once it has proven who it is.

use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;

use crate::protocol::UserId;

use super::grants::Grants;

/// What the users without a token are called, before a number of their own. No token can name one.
pub const ANONYMOUS_PREFIX: &str = "anonymous:";

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
    /// For somebody without a token.
    pub guest: Option<Box<Guest>>,
}

/// Who vouches for an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The issuer of a token, by its number in the configuration.
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
    /// One of as many as there may be; it is free again when this is dropped.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Identity {
    /// Whether another may take this one's place on a live connection: the same user, by the word of
    /// the same issuer. What a backend vouches for with a ticket, either may go on with.
    pub fn is_renewed_by(&self, other: &Self) -> bool {
        let vouched = self.authority == Authority::Backend || other.authority == Authority::Backend;
        self.user == other.user && (vouched || self.authority == other.authority)
    }
}
