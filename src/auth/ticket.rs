//! Tickets: a backend that knows its user makes one, and the user's page connects with it, once. So
//! no token need be in an address.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use thiserror::Error;

use crate::clock::Clock;
use crate::config::LiveLimits;
use crate::protocol::UserId;

use super::grants::Grants;
use super::identity::{ANONYMOUS_PREFIX, Authority, Details, Handles, Identity};
use super::reason::{Reason, TokenError};

/// As many bytes as nobody can guess.
type Number = [u8; 24];

/// What a ticket is for.
#[derive(Debug)]
pub struct Offer {
    /// Who connects with it.
    pub user: UserId,
    /// What they may do.
    pub grants: Grants,
    /// The id of the login's session, by which the connection can be revoked.
    pub session: Option<String>,
    /// The origin of the page that it is for; any, if there is none.
    pub origin: Option<String>,
    /// What else is known of them.
    pub details: Option<Box<Details>>,
    /// For how long the ticket can be used.
    pub valid_for: Duration,
    /// For how long the connection may last that is made with it.
    pub expires_in: Duration,
}

/// Why there is no ticket.
#[derive(Debug, Error)]
pub enum TicketError {
    /// There are as many unused ones as there may be.
    #[error("there are {0} unused tickets, and there may be no more")]
    TooMany(usize),
    /// The name is kept for users without a token.
    #[error("must not begin with `{ANONYMOUS_PREFIX}`, which is for users without a token")]
    Reserved,
    /// The operating system has no randomness to give.
    #[error("no randomness for a ticket: {0}")]
    Random(#[from] getrandom::Error),
}

/// The tickets that have not been used yet.
pub struct Tickets {
    unused: Mutex<Unused>,
    limits: LiveLimits,
    clock: Clock,
}

#[derive(Default)]
struct Unused {
    offers: HashMap<Number, (Duration, Offer)>,
    /// When each lapses.
    lapses: BTreeSet<(Duration, Number)>,
}

impl Tickets {
    /// None as yet.
    pub fn new(limits: LiveLimits, clock: Clock) -> Self {
        Self { unused: Mutex::default(), limits, clock }
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// There are too many, or the user cannot be.
    pub fn make(&self, offer: Offer) -> Result<String, TicketError> {
        if offer.user.as_str().starts_with(ANONYMOUS_PREFIX) {
            return Err(TicketError::Reserved);
        }
        let mut number = Number::default();
        getrandom::fill(&mut number)?;
        let now = self.clock.unix();
        let lapses = now + offer.valid_for;
        let mut unused = self.unused.lock();
        unused.drop_lapsed(now);
        let max = self.limits.get().max_tickets;
        if unused.offers.len() >= max {
            return Err(TicketError::TooMany(max));
        }
        unused.lapses.insert((lapses, number));
        unused.offers.insert(number, (lapses, offer));
        Ok(BASE64_URL_SAFE_NO_PAD.encode(number))
    }

    /// Uses a ticket: whatever comes of it, it is gone.
    ///
    /// # Errors
    /// There is no such ticket, or it is for another page.
    pub fn redeem(&self, ticket: &str, origin: Option<&str>) -> Result<Identity, TokenError> {
        let unknown = || TokenError::from(Reason::UnknownTicket);
        let number = BASE64_URL_SAFE_NO_PAD
            .decode(ticket)
            .ok()
            .and_then(|bytes| Number::try_from(bytes).ok())
            .ok_or_else(unknown)?;
        let now = self.clock.unix();
        let (lapses, offer) = {
            let mut unused = self.unused.lock();
            unused.drop_lapsed(now);
            let (lapses, offer) = unused.offers.remove(&number).ok_or_else(unknown)?;
            unused.lapses.remove(&(lapses, number));
            (lapses, offer)
        };
        if offer.origin.is_some() && offer.origin.as_deref() != origin {
            return Err(Reason::WrongOrigin.into());
        }
        let handles =
            offer.session.map(|session| Box::new(Handles { session: Some(session.into()), ..Handles::default() }));
        Ok(Identity {
            user: offer.user,
            expires_at: now + offer.expires_in,
            grants: offer.grants,
            authority: Authority::Backend,
            // When it was made: what has been revoked since then is revoked.
            issued_at: lapses.saturating_sub(offer.valid_for),
            handles,
            details: offer.details,
        })
    }
}

impl Unused {
    fn drop_lapsed(&mut self, now: Duration) {
        while let Some((lapses, number)) = self.lapses.first().copied().filter(|(lapses, _)| *lapses <= now) {
            self.lapses.remove(&(lapses, number));
            self.offers.remove(&number);
        }
    }
}
