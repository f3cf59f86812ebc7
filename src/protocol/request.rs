//! What clients ask of the gateway: their frames.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::fields::Fields;
use super::name::{EventName, InquiryId, RoomName};
use super::refusal::{ErrorCode, Refusal};
use super::target::Target;

/// Longest request id, in bytes as it is written in JSON.
pub const MAX_ID_BYTES: usize = 64;

/// What a request may be at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Levels of arrays and objects.
    pub max_depth: usize,
    /// Entries of each list in a target.
    pub max_targets: usize,
}

/// The id that a client gave to its request: a string or an integer, sent back as it came.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(transparent)]
pub struct RequestId<'a>(&'a RawValue);

/// One frame of a client.
#[derive(Debug)]
pub struct Request<'a> {
    /// With an id, the client gets exactly one answer that carries it.
    pub id: Option<RequestId<'a>>,
    /// What is to be done.
    pub action: Action<'a>,
}

/// What a client can ask for.
#[derive(Debug)]
pub enum Action<'a> {
    /// Prove who this is, or renew the token.
    Auth(Proof<'a>),
    /// Enter a room.
    Join {
        /// Which.
        room: RoomName,
    },
    /// Leave a room.
    Leave {
        /// Which.
        room: RoomName,
    },
    /// Send an event to others.
    Publish(Publication<'a>),
    /// Ask who is in a room.
    Members {
        /// Which.
        room: RoomName,
    },
    /// Answer what a backend has asked.
    Answer {
        /// What it was asked with.
        reply_to: InquiryId,
        /// The answer: any JSON, untouched.
        data: &'a RawValue,
    },
    /// Ask the backend.
    Call(Call<'a>),
    /// Ask whether the gateway is there.
    Ping,
}

/// Something for the backend to answer.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its name.
    pub event: EventName,
    /// Its data: any JSON, untouched.
    pub data: &'a RawValue,
}

/// What somebody shows to prove who they are.
#[derive(Debug)]
pub enum Proof<'a> {
    /// A JWT.
    Token(Cow<'a, str>),
    /// A ticket of a backend.
    Ticket(Cow<'a, str>),
    /// Nothing: a client that wishes to stay unknown.
    Anonymous,
}

/// An event that is to be sent.
#[derive(Debug)]
pub struct Publication<'a> {
    /// For whom.
    pub to: Target,
    /// Its name.
    pub event: EventName,
    /// Its data: any JSON, untouched.
    pub data: &'a RawValue,
    /// Who of those who publish gets a copy too, where they are among the recipients.
    pub echo: Echo,
}

/// Whether whoever publishes gets a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// Like everybody else.
    Yes,
    /// All connections of the user but the one that publishes.
    NotHere,
    /// No connection of the user.
    Nowhere,
}

impl<'a> Request<'a> {
    /// Reads one text frame.
    ///
    /// # Errors
    /// A refusal, with the request's id where it could be read, so that the client can tell which
    /// of its requests is meant.
    pub fn parse(text: &'a str, bounds: Bounds) -> Result<Self, (Option<RequestId<'a>>, Refusal)> {
        let (mut fields, whole) = Fields::parse(text, bounds.max_depth).map_err(|refusal| (None, refusal))?;
        let id = RequestId::take(&mut fields).map_err(|refusal| (None, refusal))?;
        match whole.and_then(|()| Action::take(fields, bounds)) {
            Ok(action) => Ok(Self { id, action }),
            Err(refusal) => Err((id, refusal)),
        }
    }
}

impl<'a> Action<'a> {
    fn take(mut fields: Fields<'a>, bounds: Bounds) -> Result<Self, Refusal> {
        let kind = fields.text("type")?.ok_or_else(|| fields.missing("type"))?;
        let action = match kind.as_ref() {
            "auth" => Self::Auth(Proof::take(&mut fields)?),
            "join" => Self::Join { room: take_room(&mut fields)? },
            "leave" => Self::Leave { room: take_room(&mut fields)? },
            "publish" => Self::Publish(Publication::take(&mut fields, bounds)?),
            "call" => Self::Call(Call { event: take_event(&mut fields)?, data: take_data(&mut fields) }),
            "members" => Self::Members { room: take_room(&mut fields)? },
            "answer" => Self::Answer {
                reply_to: fields.name("reply_to")?.ok_or_else(|| fields.missing("reply_to"))?,
                data: take_data(&mut fields),
            },
            "ping" => Self::Ping,
            _ => {
                let known = "`type` must be one of auth, join, leave, publish, members, call, answer, ping";
                return Err(Refusal::of(ErrorCode::UnknownType, "type", known));
            }
        };
        fields.finish()?;
        Ok(action)
    }
}

impl<'a> Proof<'a> {
    fn take(fields: &mut Fields<'a>) -> Result<Self, Refusal> {
        let (token, ticket) = (fields.text("token")?, fields.text("ticket")?);
        match (token, ticket, fields.boolean("anonymous")?.unwrap_or(false)) {
            (Some(token), None, false) => Ok(Self::Token(token)),
            (None, Some(ticket), false) => Ok(Self::Ticket(ticket)),
            (None, None, true) => Ok(Self::Anonymous),
            (None, None, false) => Err(fields.missing("token")),
            _ => Err(Refusal::invalid("token", "must stand alone: give one of token, ticket and anonymous")),
        }
    }
}

impl<'a> Publication<'a> {
    fn take(fields: &mut Fields<'a>, bounds: Bounds) -> Result<Self, Refusal> {
        let to = fields.fields("to")?.ok_or_else(|| fields.missing("to"))?;
        Ok(Self {
            to: Target::from_client(to, bounds.max_targets)?,
            event: take_event(fields)?,
            data: take_data(fields),
            echo: take_echo(fields)?,
        })
    }
}

fn take_echo(fields: &mut Fields<'_>) -> Result<Echo, Refusal> {
    let echo = fields.boolean("echo")?.unwrap_or(true);
    match (echo, fields.text("echo_scope")?.as_deref()) {
        (true, None) => Ok(Echo::Yes),
        (true, Some(_)) => Err(Refusal::invalid("echo_scope", "goes with `echo` being false")),
        (false, None | Some("connection")) => Ok(Echo::NotHere),
        (false, Some("user")) => Ok(Echo::Nowhere),
        (false, Some(_)) => Err(Refusal::invalid("echo_scope", "must be connection or user")),
    }
}

impl<'a> RequestId<'a> {
    /// The id as it came, to be kept.
    pub fn to_owned(self) -> Box<RawValue> {
        self.0.to_owned()
    }

    /// An id that was kept.
    pub fn of(kept: &'a RawValue) -> Self {
        Self(kept)
    }

    fn take(fields: &mut Fields<'a>) -> Result<Option<Self>, Refusal> {
        let Some(raw) = fields.raw("id") else { return Ok(None) };
        let text = raw.get();
        let integer = text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
        if !integer && !text.starts_with('"') {
            return Err(Refusal::invalid("id", "must be a string or an integer"));
        }
        if text.len() > MAX_ID_BYTES {
            return Err(Refusal::invalid("id", &format!("must not be longer than {MAX_ID_BYTES} bytes")));
        }
        Ok(Some(Self(raw)))
    }
}

pub(super) fn take_room(fields: &mut Fields<'_>) -> Result<RoomName, Refusal> {
    fields.name("room")?.ok_or_else(|| fields.missing("room"))
}

pub(super) fn take_event(fields: &mut Fields<'_>) -> Result<EventName, Refusal> {
    fields.name("event")?.ok_or_else(|| fields.missing("event"))
}

/// Data that is not there is `null`, as an event without data is sent.
pub(super) fn take_data<'a>(fields: &mut Fields<'a>) -> &'a RawValue {
    fields.raw("data").unwrap_or(RawValue::NULL)
}
