//! Lets in who can prove who they are, by whatever they show.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::{Anonymous, Config, ConfigError, LiveLimits};
use crate::protocol::UserId;

use super::grants::Grants;
use super::identity::{ANONYMOUS_PREFIX, Authority, Details, Guest, Identity};
use super::reason::{Reason, TokenError};
use super::revocation::Revocations;
use super::ticket::Tickets;
use super::verifier::Verifier;

/// What somebody shows.
#[derive(Debug)]
pub enum Credential {
    /// A JWT.
    Token(Box<str>),
    /// A ticket of a backend.
    Ticket(Box<str>),
    /// The wish to stay unknown.
    Anonymous,
}

/// Decides who gets in.
pub struct Authenticator {
    verifier: ArcSwap<Verifier>,
    tickets: Tickets,
    revocations: Revocations,
    guests: ArcSwapOption<Guests>,
    clock: Clock,
}

/// What holds for those without a token.
struct Guests {
    grants: Grants,
    max_rooms: usize,
    calls: bool,
    lifetime: Duration,
    max_connections: usize,
    places: Arc<Semaphore>,
}

impl Authenticator {
    /// One for a configuration, with the revocations that its file has kept.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(config: &Config, limits: &LiveLimits) -> Result<Self, ConfigError> {
        Ok(Self {
            verifier: ArcSwap::from_pointee(Verifier::new(config)?),
            tickets: Tickets::new(limits.clone(), config.clock.clone()),
            revocations: Revocations::new(config, limits.clone())?,
            guests: Guests::new(config, None)?.map(Arc::new).into(),
            clock: config.clock.clone(),
        })
    }

    /// Whether there could be one for a configuration, whatever its file has kept.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn check(config: &Config) -> Result<(), ConfigError> {
        Guests::new(config, None)?;
        Verifier::new(config).map(drop)
    }

    /// Who it is that shows this, on a page of this origin.
    ///
    /// # Errors
    /// The first reason found not to let them in.
    pub async fn authenticate(&self, credential: &Credential, origin: Option<&str>) -> Result<Identity, TokenError> {
        let identity = match credential {
            Credential::Token(token) => self.verifier().verify(token).await?,
            Credential::Ticket(ticket) => self.tickets.redeem(ticket, origin)?,
            Credential::Anonymous => self.welcome_guest()?,
        };
        self.revocations.check(&identity)?;
        Ok(identity)
    }

    fn welcome_guest(&self) -> Result<Identity, TokenError> {
        let guests = self.guests.load();
        let guests = guests.as_ref().ok_or(Reason::AnonymousNotAllowed)?;
        let place = Arc::clone(&guests.places).try_acquire_owned().map_err(|_| Reason::TooManyAnonymous)?;
        let unverifiable = |why: String| Reason::Unverifiable.because(why);
        let number = getrandom::u64().map_err(|error| unverifiable(error.to_string()))?;
        let user: UserId = format!("{ANONYMOUS_PREFIX}{number:016x}").parse().map_err(unverifiable)?;
        let now = self.clock.unix();
        let guest = Guest { max_rooms: guests.max_rooms, calls: guests.calls, _place: place };
        Ok(Identity {
            user,
            expires_at: now + guests.lifetime,
            grants: guests.grants.clone(),
            authority: Authority::Nobody,
            issued_at: now,
            handles: None,
            details: Some(Box::new(Details { guest: Some(guest), ..Details::default() })),
        })
    }

    /// Who verifies tokens, as things are now.
    pub fn verifier(&self) -> Arc<Verifier> {
        self.verifier.load_full()
    }

    /// Reads another configuration's keys, and gives what lets in by it from then on. Whoever is in stays, and
    /// what is revoked stays revoked. Keys that issuers publish are known as before, where the issuer is the
    /// same; [`Verifier::keep_keys`] is to be called anew.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn replacing(&self, config: &Config) -> Result<impl FnOnce() + use<'_>, ConfigError> {
        let guests = Guests::new(config, self.guests.load().as_deref())?;
        let verifier = Verifier::after(config, &self.verifier())?;
        Ok(move || {
            self.verifier.store(Arc::new(verifier));
            self.guests.store(guests.map(Arc::new));
        })
    }

    /// The tickets that backends have made.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// What has been revoked.
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }
}

impl Guests {
    /// What a configuration says of them, if it lets any in. If it lets in as many as before, those that
    /// are in count.
    fn new(config: &Config, before: Option<&Self>) -> Result<Option<Self>, ConfigError> {
        let Some(rules) = &config.anonymous else { return Ok(None) };
        let grants = Grants::from_lists(&rules.grants)
            .map_err(|why| ConfigError::new("anonymous.grants", format!("cannot be: {why}")))?;
        let Anonymous { max_connections, max_rooms, calls, lifetime, .. } = *rules;
        let new = || Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS)));
        let same = before.filter(|before| before.max_connections == max_connections);
        let places = same.map_or_else(new, |before| Arc::clone(&before.places));
        Ok(Some(Self { grants, max_rooms, calls, lifetime, max_connections, places }))
    }
}
