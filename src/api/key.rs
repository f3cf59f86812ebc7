//! Who a backend is, and what it may do: API keys with their limits.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use parking_lot::RwLock;
use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::auth::SECURITY;
use crate::config::{ApiAction, ApiKey, ConfigError, DEFAULT_NAME, Secret, check_api_keys, usable};
use crate::protocol::{ErrorCode, Pattern, Problem, RoomName, Target, UserId};

use super::Api;

/// How many characters of a key are logged: they tell keys apart, and are no help to a guesser.
const SHOWN_CHARS: usize = 4;

/// The keys that count now: a handle, whose clones are the same keys. They can be replaced while
/// the gateway runs; a request that has begun goes on with what its key allowed then.
#[derive(Clone)]
pub struct ApiKeys(Arc<RwLock<Arc<[Arc<Key>]>>>);

/// One key. Its text is not kept: what is not here cannot be printed.
struct Key {
    name: Box<str>,
    /// The last characters of its text.
    ends_with: Box<str>,
    /// Of one length for all, so that keys of different lengths are compared in the same time.
    digest: [u8; 32],
    allow: Box<[ApiAction]>,
    rooms: Box<[Pattern]>,
}

impl ApiKeys {
    /// Keys as they are written: one that may do everything, if there is one, and others. Files and
    /// the environment are read.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn new(api_key: Option<&Secret>, written: &[ApiKey]) -> Result<Self, ConfigError> {
        Ok(Self(Arc::new(RwLock::new(read(api_key, written)?))))
    }

    /// Puts others in the place of these, and logs which they are.
    ///
    /// # Errors
    /// The first setting that cannot be; then all keys stay as they are.
    pub fn replace(&self, api_key: Option<&Secret>, written: &[ApiKey]) -> Result<(), ConfigError> {
        self.replacing(api_key, written).map(|put| put())
    }

    /// Reads others, and gives what puts them in place.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub(crate) fn replacing(
        &self,
        api_key: Option<&Secret>,
        written: &[ApiKey],
    ) -> Result<impl FnOnce() + use<'_>, ConfigError> {
        let keys = read(api_key, written)?;
        Ok(move || {
            *self.0.write() = keys;
            self.log();
        })
    }

    /// Logs which keys count.
    pub(crate) fn log(&self) {
        for key in self.0.read().iter() {
            let allow = key.allow.iter().map(|action| action.as_str()).collect::<Vec<_>>().join(",");
            let rooms = key.rooms.iter().map(Pattern::as_str).collect::<Vec<_>>().join(",");
            tracing::info!(name = &*key.name, ends_with = &*key.ends_with, allow, rooms, "an API key");
        }
    }

    /// The key of this text. It is compared with all keys, in the same time whatever was guessed.
    fn find(&self, shown: &[u8]) -> Option<Caller> {
        let shown = hash(shown);
        let keys = Arc::clone(&self.0.read());
        let mut found = u64::MAX;
        for (index, key) in (0..).zip(keys.iter()) {
            found.conditional_assign(&index, key.digest.ct_eq(&shown));
        }
        keys.get(usize::try_from(found).ok()?).map(|key| Caller(Arc::clone(key)))
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.read().iter().map(|key| &key.name)).finish()
    }
}

/// Reads all keys, and finds what cannot be.
fn read(api_key: Option<&Secret>, written: &[ApiKey]) -> Result<Arc<[Arc<Key>]>, ConfigError> {
    check_api_keys(api_key, written)?;
    let mut keys: Vec<Arc<Key>> = Vec::with_capacity(written.len() + 1);
    if let Some(key) = api_key {
        let text = usable(key.reveal()).map_err(|problem| ConfigError::new(DEFAULT_NAME, problem))?;
        keys.push(Arc::new(Key::new(DEFAULT_NAME, text, &ApiAction::ALL, "*".parse().into_iter().collect())));
    }
    for (index, written) in written.iter().enumerate() {
        let setting = format!("api_keys[{index}]");
        let pattern = |(at, text): (usize, &String)| {
            text.parse().map_err(|why: String| ConfigError::new(format!("{setting}.rooms[{at}]"), why))
        };
        let rooms = written.rooms.iter().enumerate().map(pattern).collect::<Result<_, _>>()?;
        let key = Key::new(&written.name, written.read(&setting)?.reveal(), &written.allow, rooms);
        if let Some(same) = keys.iter().find(|other| other.digest == key.digest) {
            let problem = format!("has the same key as {}: nobody could tell which is used", same.name);
            return Err(ConfigError::new(setting, problem));
        }
        keys.push(Arc::new(key));
    }
    Ok(keys.into())
}

fn hash(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    for (to, from) in hash.iter_mut().zip(digest(&SHA256, text).as_ref()) {
        *to = *from;
    }
    hash
}

impl Key {
    fn new(name: &str, text: &str, allow: &[ApiAction], rooms: Box<[Pattern]>) -> Self {
        let hidden = text.chars().count().saturating_sub(SHOWN_CHARS);
        let ends_with = text.chars().skip(hidden).collect::<String>().into();
        Self { name: name.into(), ends_with, digest: hash(text.as_bytes()), allow: allow.into(), rooms }
    }
}

/// Whose key came with a request. Handlers take it as an argument, and ask it about the rooms that
/// the request concerns; the action has been asked about before they are called (`needs`).
#[derive(Clone)]
pub(super) struct Caller(Arc<Key>);

impl Caller {
    /// What the key is called.
    pub(super) fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the key allows the action.
    pub(super) fn may(&self, action: ApiAction) -> Result<(), Problem> {
        if self.0.allow.contains(&action) {
            return Ok(());
        }
        Err(self.refuse(&format!("has no leave to {0}: its `allow` lacks `{0}`", action.as_str())))
    }

    /// Whether a room is of the key's patterns.
    pub(super) fn room(&self, room: &RoomName) -> Result<(), Problem> {
        self.concerns(room.as_str(), |own| own.matches(room))
    }

    /// Whether a user's personal room is.
    pub(super) fn user(&self, user: &UserId) -> Result<(), Problem> {
        self.room(&RoomName::personal(user))
    }

    /// Whether all rooms of a pattern are.
    pub(super) fn pattern(&self, pattern: &Pattern) -> Result<(), Problem> {
        self.concerns(pattern.as_str(), |own| own.covers(pattern))
    }

    /// Whether the key is for every room, as what is no room's needs.
    pub(super) fn everything(&self, what: &str) -> Result<(), Problem> {
        if self.0.rooms.iter().any(Pattern::is_everything) {
            return Ok(());
        }
        Err(self.refuse(&format!("does not reach {what}: that needs `*` in its `rooms`")))
    }

    /// Whether the key reaches all that an event is for.
    pub(super) fn target(&self, to: &Target) -> Result<(), Problem> {
        if to.all {
            self.everything("`all`")?;
        }
        if !to.connections.is_empty() {
            self.everything("connections by their ids")?;
        }
        to.patterns.iter().try_for_each(|pattern| self.pattern(pattern))?;
        to.rooms.iter().try_for_each(|room| self.room(room))
    }

    fn concerns(&self, name: &str, is_meant: impl Fn(&Pattern) -> bool) -> Result<(), Problem> {
        if self.0.rooms.iter().any(is_meant) {
            return Ok(());
        }
        Err(self.refuse(&format!("does not reach {name}: no pattern in its `rooms` does")))
    }

    fn refuse(&self, why: &str) -> Problem {
        let detail = format!("the API key `{}` {why}", self.name());
        tracing::warn!(target: SECURITY, name = self.name(), ends_with = &*self.0.ends_with, detail, "an API key was refused");
        Problem::new(ErrorCode::Forbidden, detail)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A route that nobody checks the key of answers nobody.
        parts.extensions.get().cloned().ok_or_else(|| unauthorized("the API key is missing"))
    }
}

/// Lets through who has a key, and keeps with the request which one.
pub(super) async fn check_key(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let Some(shown) = bearer(request.headers()) else {
        return unauthorized("the header `Authorization: Bearer <API key>` is missing").into_response();
    };
    let Some(caller) = api.keys.find(shown) else {
        tracing::warn!(target: SECURITY, path = request.uri().path(), "a wrong API key was refused");
        return unauthorized("the API key is wrong").into_response();
    };
    request.extensions_mut().insert(caller);
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(key.trim_ascii())
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(ErrorCode::Unauthorized, detail).header(WWW_AUTHENTICATE, "Bearer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, text: &str) -> ApiKey {
        let (key, rooms) = (Some(Secret::new(text)), vec!["chat:*".to_owned()]);
        ApiKey { name: name.to_owned(), key, key_env: None, key_file: None, allow: vec![ApiAction::Read], rooms }
    }

    #[test]
    fn a_key_is_found_among_many_by_its_whole_text() {
        let written: Vec<ApiKey> = (10..20).map(|n| key(&format!("k{n}"), &format!("0123456789abcdef{n}"))).collect();
        let keys = ApiKeys::new(Some(&Secret::new("the-one-for-everything\n")), &written).unwrap();
        let found = |text: &str| keys.find(text.as_bytes()).map(|caller| caller.0.name.to_string());
        assert_eq!(found("0123456789abcdef10").as_deref(), Some("k10"));
        assert_eq!(found("0123456789abcdef19").as_deref(), Some("k19"));
        assert_eq!(found("the-one-for-everything").as_deref(), Some("api_key"));
        for wrong in ["", "0123456789abcdef1", "0123456789abcdef100", "0123456789ABCDEF10"] {
            assert_eq!(found(wrong), None);
        }
    }

    #[test]
    fn keys_that_cannot_be_are_refused_and_change_nothing() {
        let good = [key("one", "0123456789abcdef")];
        let keys = ApiKeys::new(None, &good).unwrap();
        let refused = |written: &[ApiKey]| {
            let error = keys.replace(None, written).unwrap_err();
            assert!(!error.to_string().contains("0123456789"), "{error}");
            error.setting.into_owned()
        };
        let changed = |change: fn(&mut ApiKey)| {
            let mut key = key("one", "0123456789abcdef");
            change(&mut key);
            [key]
        };
        assert_eq!(refused(&[]), "api_key");
        assert_eq!(refused(&[key("one", "0123456789abcdef"), key("two", "0123456789abcdef")]), "api_keys[1]");
        assert_eq!(refused(&[key("one", "0123456789abcd")]), "api_keys[0].key");
        assert_eq!(refused(&changed(|key| key.rooms.push(String::new()))), "api_keys[0].rooms[1]");
        assert_eq!(refused(&changed(|key| key.key_env = Some("HOME".to_owned()))), "api_keys[0]");
        assert_eq!(refused(&changed(|key| key.key = None)), "api_keys[0]");
        let file = |key: &mut ApiKey| (key.key, key.key_file) = (None, Some("/nowhere/at/all".into()));
        assert_eq!(refused(&changed(file)), "api_keys[0].key_file");
        let variable = |key: &mut ApiKey| (key.key, key.key_env) = (None, Some("WSGATE_NO_SUCH_VARIABLE".into()));
        assert_eq!(refused(&changed(variable)), "api_keys[0].key_env");
        assert!(keys.find(b"0123456789abcdef").is_some(), "the old keys count on");
    }

    #[test]
    fn keys_are_not_printed() {
        let keys = ApiKeys::new(Some(&Secret::new("hush-hush-hush-hush")), &[key("shown", "psst-psst-psst-psst")]);
        assert_eq!(format!("{:?}", keys.unwrap()), r#"{"api_key", "shown"}"#);
    }
}
