//! What has been revoked: tokens, sessions, a user's older tokens, users.
//!
//! A connection looks here when it enters and whenever something has been added since it last did.
//! Whoever adds wakes those that may be meant, so that they look at once; the rest look when they
//! next do anything. So nothing is ever searched but a few tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use thiserror::Error;
use utoipa::ToSchema;

use crate::clock::Clock;
use crate::config::{Config, ConfigError, LiveLimits};
use crate::protocol::UserId;

use super::identity::{Handles, Identity};
use super::reason::{Reason, TokenError, shown};
use super::signer::whole_seconds;
use super::store::{Change, Store};

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Subject {
    /// One token.
    Token {
        /// Its id.
        jti: String,
        /// Its issuer; any, if none is named.
        #[serde(skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
    },
    /// All tokens of one login.
    Session {
        /// The session's id.
        sid: String,
        /// Its issuer; any, if none is named.
        #[serde(skip_serializing_if = "Option::is_none")]
        issuer: Option<String>,
    },
    /// All tokens of a user that were issued before a time.
    User {
        /// Whose.
        user: UserId,
        /// The time since the Unix epoch, in seconds. A token that does not say when it was issued
        /// counts as issued before.
        #[serde(serialize_with = "whole_seconds")]
        issued_before: f64,
    },
    /// Everything of a user, whenever issued.
    Block {
        /// Who.
        blocked: UserId,
    },
}

/// One entry of the list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    /// Its number.
    pub id: u64,
    /// What is revoked.
    #[serde(flatten)]
    pub subject: Subject,
    /// When it was revoked, in Unix seconds.
    pub at: u64,
    /// When it lapses, in Unix seconds; never, if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// Why something could not be revoked, or a revocation not removed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RevocationError {
    /// There are as many as there may be.
    #[error("there are {0} revocations, and there may be no more")]
    TooMany(usize),
    /// The file could not be written; nothing has changed.
    #[error("the revocation could not be stored: {0}")]
    Store(String),
}

/// Everything that is revoked.
pub struct Revocations {
    list: RwLock<List>,
    /// Counts what has been added.
    generation: AtomicU64,
    store: Option<Store>,
    /// Changes are made one after the other, in the file and here.
    changing: tokio::sync::Mutex<()>,
    /// Makes marks that no stranger can aim at.
    hasher: RandomState,
    limits: LiveLimits,
    clock: Clock,
}

#[derive(Default)]
struct List {
    entries: BTreeMap<u64, Revocation>,
    by_handle: HashMap<Handle, SmallVec<[u64; 1]>>,
    lapses: BTreeSet<(u64, u64)>,
    /// Those that have lapsed and are still in the file.
    stored: Vec<u64>,
    /// The greatest number that has been given.
    last: u64,
}

/// How a revocation is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Handle {
    Token(Box<str>),
    Session(Box<str>),
    User(UserId),
}

impl Revocations {
    /// Those that the configured file has kept, without those that have lapsed.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(config: &Config, limits: LiveLimits) -> Result<Self, ConfigError> {
        let failed = |why: String| ConfigError::new("state_file", why);
        let mut list = List::default();
        let store = match &config.state_file {
            None => None,
            Some(path) => {
                let (store, entries) = Store::open(path).map_err(failed)?;
                for (_, json) in entries {
                    let read = serde_json::from_str(&json);
                    list.add(read.map_err(|error| {
                        failed(format!("{} has an entry that cannot be read: {error}", path.display()))
                    })?);
                }
                Some(store)
            }
        };
        list.drop_lapsed(config.clock.unix().as_secs());
        Ok(Self {
            generation: AtomicU64::new(u64::from(!list.entries.is_empty())),
            list: RwLock::new(list),
            store,
            changing: tokio::sync::Mutex::default(),
            hasher: RandomState::new(),
            limits,
            clock: config.clock.clone(),
        })
    }

    /// Revokes, until a time in Unix seconds. Without one, a block holds until it is removed, and
    /// anything else for the configured time. It is kept when this returns.
    ///
    /// # Errors
    /// There are too many, or it could not be kept; then nothing is revoked.
    pub async fn add(&self, subject: Subject, until: Option<u64>) -> Result<Revocation, RevocationError> {
        let _turn = self.changing.lock().await;
        let at = self.clock.unix().as_secs();
        let usual =
            (!matches!(subject, Subject::Block { .. })).then(|| at + self.limits.get().revocation_lifetime.as_secs());
        let (entry, replaced) = {
            let mut list = self.list.write();
            list.drop_lapsed(at);
            let entry = Revocation { id: list.last + 1, subject, at, until: until.or(usual) };
            let weaker = list.weaker_than(&entry);
            let max = self.limits.get().max_revocations;
            if list.entries.len() - weaker.len() >= max {
                return Err(RevocationError::TooMany(max));
            }
            (entry, weaker)
        };
        let lapsed = std::mem::take(&mut self.list.write().stored);
        if let Some(store) = &self.store {
            let json = serde_json::to_string(&entry).map_err(|error| RevocationError::Store(error.to_string()))?;
            let gone = replaced.iter().chain(&lapsed).map(|id| Change::Remove(*id));
            let changes = std::iter::once(Change::Put(entry.id, json)).chain(gone);
            store.commit(changes.collect()).await.map_err(RevocationError::Store)?;
        }
        let mut list = self.list.write();
        for id in replaced {
            list.remove(id);
        }
        list.add(entry.clone());
        self.generation.fetch_add(1, Ordering::SeqCst);
        Ok(entry)
    }

    /// Takes entries off the list, and says how many there were.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn remove(&self, which: impl Fn(&Revocation) -> bool) -> Result<usize, RevocationError> {
        let _turn = self.changing.lock().await;
        let ids: Vec<u64> =
            self.list.read().entries.values().filter(|entry| which(entry)).map(|entry| entry.id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        if let Some(store) = &self.store {
            store.commit(ids.iter().map(|id| Change::Remove(*id)).collect()).await.map_err(RevocationError::Store)?;
        }
        let mut list = self.list.write();
        Ok(ids.into_iter().filter(|id| list.remove(*id)).count())
    }

    /// Takes the entry of a number off the list, and says whether there was one.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn remove_one(&self, id: u64) -> Result<bool, RevocationError> {
        Ok(self.remove(|entry| entry.id == id).await? > 0)
    }

    /// Takes the blocks of a user off the list, and says whether there were any.
    ///
    /// # Errors
    /// The file could not be written.
    pub async fn unblock(&self, user: &UserId) -> Result<bool, RevocationError> {
        let is_it = |entry: &Revocation| matches!(&entry.subject, Subject::Block { blocked } if blocked == user);
        Ok(self.remove(is_it).await? > 0)
    }

    /// How many there are, and the newest of them, as many as are asked for.
    pub fn list(&self, max: usize) -> (usize, Vec<Revocation>) {
        self.list.write().drop_lapsed(self.clock.unix().as_secs());
        let list = self.list.read();
        (list.entries.len(), list.entries.values().rev().take(max).cloned().collect())
    }

    /// The entry of a number, if it is in force.
    pub fn get(&self, id: u64) -> Option<Revocation> {
        let now = self.clock.unix().as_secs();
        self.list.read().entries.get(&id).filter(|entry| entry.until.is_none_or(|until| now < until)).cloned()
    }

    /// Whether they are kept when the process ends.
    pub fn are_kept(&self) -> bool {
        self.store.is_some()
    }

    /// A number that changes whenever something is revoked.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whether an identity still holds.
    ///
    /// # Errors
    /// It has been revoked, or its user is blocked.
    pub fn check(&self, identity: &Identity) -> Result<(), TokenError> {
        if self.generation() == 0 {
            return Ok(());
        }
        let now = self.clock.unix().as_secs();
        let list = self.list.read();
        let mut handles: SmallVec<[Handle; 3]> = SmallVec::new();
        handles.push(Handle::User(identity.user.clone()));
        if let Some(names) = &identity.handles {
            handles.extend(names.token.clone().map(Handle::Token));
            handles.extend(names.session.clone().map(Handle::Session));
        }
        let found = handles.iter().filter_map(|handle| list.by_handle.get(handle)).flatten();
        let mut entries = found.filter_map(|id| list.entries.get(id));
        match entries.find(|entry| entry.until.is_none_or(|until| now < until) && entry.subject.covers(identity)) {
            None => Ok(()),
            Some(Revocation { id, subject: Subject::Block { blocked }, .. }) => {
                Err(Reason::Blocked
                    .because(format!("the user {} is blocked, by revocation {id}", shown(blocked.as_str()))))
            }
            Some(entry) => {
                Err(Reason::Revoked.because(format!("the token has been revoked, by revocation {}", entry.id)))
            }
        }
    }

    /// Numbers by which a connection can be found that has these names.
    pub fn marks(&self, handles: Option<&Handles>) -> SmallVec<[u64; 2]> {
        let Some(handles) = handles else { return SmallVec::new() };
        let token = handles.token.clone().map(Handle::Token);
        let session = handles.session.clone().map(Handle::Session);
        token.into_iter().chain(session).map(|handle| self.hasher.hash_one(handle)).collect()
    }

    /// How to find the connections that a revocation may concern.
    pub fn concerns(&self, subject: &Subject) -> Concerned {
        match subject.handle() {
            Handle::User(user) => Concerned::User(user),
            handle => Concerned::Mark(self.hasher.hash_one(handle)),
        }
    }
}

/// The connections that a revocation may concern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concerned {
    /// Those of a user.
    User(UserId),
    /// Those with a mark; see [`Revocations::marks`].
    Mark(u64),
}

impl Subject {
    fn handle(&self) -> Handle {
        match self {
            Self::Token { jti, .. } => Handle::Token(jti.as_str().into()),
            Self::Session { sid, .. } => Handle::Session(sid.as_str().into()),
            Self::User { user, .. } => Handle::User(user.clone()),
            Self::Block { blocked } => Handle::User(blocked.clone()),
        }
    }

    /// Whether this revokes an identity that has its handle.
    fn covers(&self, identity: &Identity) -> bool {
        match self {
            Self::Token { issuer, .. } | Self::Session { issuer, .. } => {
                let own = identity.handles.as_ref().and_then(|handles| handles.issuer.as_deref());
                issuer.is_none() || issuer.as_deref() == own
            }
            Self::User { issued_before, .. } => identity.issued_at.as_secs_f64() < *issued_before,
            Self::Block { .. } => true,
        }
    }

    /// Whether all that another one revokes is revoked by this.
    fn includes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::User { user, issued_before }, Self::User { user: other, issued_before: before }) => {
                user == other && issued_before >= before
            }
            _ => self == other,
        }
    }
}

impl List {
    fn add(&mut self, entry: Revocation) {
        self.by_handle.entry(entry.subject.handle()).or_default().push(entry.id);
        self.last = self.last.max(entry.id);
        self.lapses.extend(entry.until.map(|until| (until, entry.id)));
        self.entries.insert(entry.id, entry);
    }

    fn remove(&mut self, id: u64) -> bool {
        let Some(entry) = self.entries.remove(&id) else { return false };
        let handle = entry.subject.handle();
        if let Some(ids) = self.by_handle.get_mut(&handle) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.by_handle.remove(&handle);
            }
        }
        if let Some(until) = entry.until {
            self.lapses.remove(&(until, id));
        }
        true
    }

    /// Takes out what has lapsed. From the file it goes with the next change.
    fn drop_lapsed(&mut self, now: u64) {
        let lapsed: Vec<u64> = self.lapses.range(..=(now, u64::MAX)).map(|(_, id)| *id).collect();
        for id in &lapsed {
            self.remove(*id);
        }
        self.stored.extend(lapsed);
    }

    /// Those that a new entry makes superfluous: the same, or less, and for no longer.
    fn weaker_than(&self, entry: &Revocation) -> Vec<u64> {
        let ids = self.by_handle.get(&entry.subject.handle());
        let others = ids.into_iter().flatten().filter_map(|id| self.entries.get(id));
        let lasts =
            |other: &Revocation| entry.until.is_none_or(|until| other.until.is_some_and(|other| other <= until));
        others.filter(|other| entry.subject.includes(&other.subject) && lasts(other)).map(|other| other.id).collect()
    }
}
