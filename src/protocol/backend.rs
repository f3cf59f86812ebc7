//! What backends ask of the gateway: the bodies of their requests.

use std::time::Duration;

use serde_json::value::RawValue;

use super::fields::Fields;
use super::name::{ConnectionId, EventName, RoomName, UserId};
use super::refusal::Refusal;
use super::request::{Bounds, take_data, take_event, take_room};
use super::target::Target;

/// For how many seconds answers are waited for, if the backend does not say, and at most.
const ANSWER_SECONDS: f64 = 5.0;
const MAX_ANSWER_SECONDS: f64 = 60.0;

/// Events in one batch.
const MAX_BATCH: usize = 100;
/// Longest time for which an event may be worth to be sent, in seconds.
const MAX_TTL_SECONDS: f64 = 300.0;
/// Longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 128;
/// Longest id of a token or a session that can be revoked, in bytes.
const MAX_HANDLE_BYTES: usize = 512;

/// The body of `POST /v1/publish`.
#[derive(Debug)]
pub struct BackendPublish<'a> {
    /// For whom.
    pub to: Target,
    /// For whom not, even where `to` names them.
    pub except: Target,
    /// Its name.
    pub event: EventName,
    /// Its data: any JSON, untouched.
    pub data: &'a RawValue,
    /// For how long it is worth to be sent.
    pub ttl: Option<Duration>,
    /// What is published twice under the same key is published once.
    pub idempotency_key: Option<Box<str>>,
}

/// The body of `POST /v1/batch`: each event as it is written, and as it was read.
#[derive(Debug)]
pub struct Batch<'a>(pub Vec<(&'a str, BackendPublish<'a>)>);

/// The body of `POST /v1/request`.
#[derive(Debug)]
pub struct InquiryRequest<'a> {
    /// Who is asked.
    pub to: Asked,
    /// The event's name.
    pub event: EventName,
    /// Its data: any JSON, untouched.
    pub data: &'a RawValue,
    /// How long to wait for answers.
    pub timeout: Duration,
    /// For how many of them.
    pub wait: Wait,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// All connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

/// For how many answers to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// For those of all who are asked.
    All,
    /// For the first.
    First,
}

/// The body of a request that concerns one room.
#[derive(Debug)]
pub struct RoomRequest {
    /// Which.
    pub room: RoomName,
}

/// The body of `POST /v1/revocations`.
#[derive(Debug)]
pub struct RevocationRequest {
    /// What is to be revoked.
    pub what: Revoked,
    /// When that lapses, in Unix seconds.
    pub until: Option<u64>,
}

/// What is to be revoked.
#[derive(Debug)]
pub enum Revoked {
    /// The token of an id, of one issuer or any.
    Token {
        /// Its `jti`.
        jti: String,
        /// Its `iss`.
        issuer: Option<String>,
    },
    /// The tokens of a session, of one issuer or any.
    Session {
        /// Their `sid`.
        sid: String,
        /// Their `iss`.
        issuer: Option<String>,
    },
    /// The tokens of a user that were issued before a time; before now, if there is none.
    User {
        /// Whose.
        user: UserId,
        /// The time, in Unix seconds.
        issued_before: Option<u64>,
    },
}

/// The body of `POST /v1/users/{user}/block`, which may be empty.
#[derive(Debug, Default)]
pub struct BlockRequest {
    /// When the block lapses, in Unix seconds.
    pub until: Option<u64>,
}

/// The body of `POST /v1/tickets`.
#[derive(Debug)]
pub struct TicketRequest<'a> {
    /// For whom.
    pub user: UserId,
    /// What they may do, as in a token.
    pub grants: Option<&'a RawValue>,
    /// What is known of them, as the claims of a token: any object.
    pub claims: Option<&'a RawValue>,
    /// What others in the same rooms may see of them.
    pub profile: Option<&'a RawValue>,
    /// The id of the login's session.
    pub session: Option<String>,
    /// The origin of the page that may use it.
    pub origin: Option<String>,
    /// For how many seconds it can be used.
    pub valid_for: Option<u64>,
    /// For how many seconds the connection may last.
    pub expires_in: Option<u64>,
}

impl<'a> BackendPublish<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, Refusal> {
        Self::take(whole(text, bounds)?, bounds)
    }

    fn take(mut fields: Fields<'a>, bounds: Bounds) -> Result<Self, Refusal> {
        let to = fields.fields("to")?.ok_or_else(|| fields.missing("to"))?;
        let except = fields.fields("except")?;
        let publish = Self {
            to: Target::from_backend(to, bounds.max_targets)?,
            except: except.map_or_else(|| Ok(Target::default()), |it| Target::from_backend(it, bounds.max_targets))?,
            event: take_event(&mut fields)?,
            data: take_data(&mut fields),
            ttl: take_ttl(&mut fields)?,
            idempotency_key: take_idempotency_key(&mut fields)?,
        };
        fields.finish()?;
        Ok(publish)
    }
}

impl<'a> Batch<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong, of whichever event.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, Refusal> {
        let mut fields = whole(text, bounds)?;
        let publishes = fields.list("publishes", MAX_BATCH)?.ok_or_else(|| fields.missing("publishes"))?;
        fields.finish()?;
        let read = |(path, raw): (String, &'a RawValue)| {
            Ok((raw.get(), BackendPublish::take(Fields::inside(raw, path)?, bounds)?))
        };
        publishes.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }
}

fn take_ttl(fields: &mut Fields<'_>) -> Result<Option<Duration>, Refusal> {
    match fields.number("ttl")? {
        None => Ok(None),
        Some(seconds) if seconds > 0.0 && seconds <= MAX_TTL_SECONDS => Ok(Some(Duration::from_secs_f64(seconds))),
        Some(_) => {
            let why = format!("must be more than 0 and at most {MAX_TTL_SECONDS} seconds");
            Err(Refusal::invalid(fields.path_of("ttl"), &why))
        }
    }
}

fn take_idempotency_key(fields: &mut Fields<'_>) -> Result<Option<Box<str>>, Refusal> {
    let Some(key) = fields.text("idempotency_key")? else { return Ok(None) };
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        let why = format!("must have 1 to {MAX_KEY_BYTES} bytes");
        return Err(Refusal::invalid(fields.path_of("idempotency_key"), &why));
    }
    Ok(Some(key.into()))
}

impl<'a> InquiryRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, Refusal> {
        let mut fields = whole(text, bounds)?;
        let to = fields.fields("to")?.ok_or_else(|| fields.missing("to"))?;
        let inquiry = Self {
            to: Asked::take(to)?,
            event: take_event(&mut fields)?,
            data: take_data(&mut fields),
            timeout: take_timeout(&mut fields)?,
            wait: Wait::take(&mut fields)?,
        };
        fields.finish()?;
        Ok(inquiry)
    }
}

impl Asked {
    fn take(mut fields: Fields<'_>) -> Result<Self, Refusal> {
        let to = fields.own_path();
        let asked = match (fields.name("user")?, fields.name("connection")?) {
            (Some(user), None) => Some(Self::User(user)),
            (None, Some(connection)) => Some(Self::Connection(connection)),
            _ => None,
        };
        fields.finish()?;
        asked.ok_or_else(|| Refusal::invalid(to, "must name either a user or a connection"))
    }
}

impl Wait {
    fn take(fields: &mut Fields<'_>) -> Result<Self, Refusal> {
        match fields.text("wait")?.as_deref() {
            None | Some("all") => Ok(Self::All),
            Some("first") => Ok(Self::First),
            Some(_) => Err(Refusal::invalid("wait", "must be all or first")),
        }
    }
}

impl RoomRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &str, bounds: Bounds) -> Result<Self, Refusal> {
        let mut fields = whole(text, bounds)?;
        let room = take_room(&mut fields)?;
        fields.finish()?;
        Ok(Self { room })
    }
}

impl RevocationRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &str, bounds: Bounds) -> Result<Self, Refusal> {
        let mut fields = whole(text, bounds)?;
        let (jti, sid) = (take_handle(&mut fields, "jti")?, take_handle(&mut fields, "sid")?);
        let (user, issuer) = (fields.name("user")?, take_handle(&mut fields, "issuer")?);
        let issued_before = fields.seconds("issued_before")?;
        let what = match (jti, sid, user) {
            (Some(jti), None, None) => Revoked::Token { jti, issuer },
            (None, Some(sid), None) => Revoked::Session { sid, issuer },
            (None, None, Some(_)) if issuer.is_some() => {
                return Err(Refusal::invalid("issuer", "goes with jti or sid"));
            }
            (None, None, Some(user)) => Revoked::User { user, issued_before },
            (None, None, None) => return Err(fields.missing("jti")),
            _ => return Err(Refusal::invalid("jti", "must stand alone: give one of jti, sid and user")),
        };
        if issued_before.is_some() && !matches!(what, Revoked::User { .. }) {
            return Err(Refusal::invalid("issued_before", "goes with user"));
        }
        let until = fields.seconds("until")?;
        fields.finish()?;
        Ok(Self { what, until })
    }
}

impl BlockRequest {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &str, bounds: Bounds) -> Result<Self, Refusal> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut fields = whole(text, bounds)?;
        let until = fields.seconds("until")?;
        fields.finish()?;
        Ok(Self { until })
    }
}

impl<'a> TicketRequest<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// The refusal of the first field that is wrong.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, Refusal> {
        let mut fields = whole(text, bounds)?;
        let ticket = Self {
            user: fields.name("user")?.ok_or_else(|| fields.missing("user"))?,
            grants: fields.raw("grants"),
            claims: fields.raw("claims"),
            profile: fields.raw("profile"),
            session: take_handle(&mut fields, "session")?,
            origin: take_handle(&mut fields, "origin")?,
            valid_for: fields.seconds("valid_for")?,
            expires_in: fields.seconds("expires_in")?,
        };
        fields.finish()?;
        Ok(ticket)
    }
}

fn whole(text: &str, bounds: Bounds) -> Result<Fields<'_>, Refusal> {
    let (fields, whole) = Fields::parse(text, bounds.max_depth)?;
    whole.map(|()| fields)
}

fn take_timeout(fields: &mut Fields<'_>) -> Result<Duration, Refusal> {
    match fields.number("timeout")?.unwrap_or(ANSWER_SECONDS) {
        seconds if seconds > 0.0 && seconds <= MAX_ANSWER_SECONDS => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(Refusal::invalid("timeout", &format!("must be more than 0 and at most {MAX_ANSWER_SECONDS} seconds"))),
    }
}

fn take_handle(fields: &mut Fields<'_>, name: &'static str) -> Result<Option<String>, Refusal> {
    let Some(text) = fields.text(name)? else { return Ok(None) };
    if text.is_empty() || text.len() > MAX_HANDLE_BYTES {
        return Err(Refusal::invalid(name, &format!("must have 1 to {MAX_HANDLE_BYTES} bytes")));
    }
    Ok(Some(text.into_owned()))
}
