//! What the gateway says to a client, as the bytes of whole WebSocket frames.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use utoipa::ToSchema;

use super::name::{ConnectionId, EventName, InquiryId, RoomName, UserId};
use super::refusal::Refusal;
use super::request::RequestId;

/// One whole WebSocket frame (RFC 6455, 5.2). A server's frames are not masked, so the same bytes
/// serve every recipient; a clone shares them.
#[derive(Debug, Clone)]
pub struct Frame(Bytes);

/// A message to a client, but for `closing`, which is made of a `Close`.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Response<'a> {
    /// The token is good, the connection is in.
    Welcome {
        /// The connection's id.
        connection: ConnectionId,
        /// The user that the token names.
        user: &'a UserId,
        /// When the token ends, in Unix seconds.
        expires_at: u64,
        /// The seconds left until then, for clients whose clock is wrong.
        expires_in: u64,
        /// The rooms that the connection is in.
        rooms: &'a [RoomName],
        /// How large a message may be: a larger one ends the connection.
        max_message_bytes: usize,
    },
    /// Done.
    Reply {
        /// The request's id. Only the answer to a `ping` may lack one.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId<'a>>,
        /// Always `true`; what fails is an `error`.
        ok: bool,
        /// The room that was joined or left.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a RoomName>,
        /// After a renewal: when the new token ends, in Unix seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
        /// After a renewal: the seconds left until then.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_in: Option<u64>,
        /// After a call: what the backend has answered, untouched.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    },
    /// Not done.
    Error {
        /// The request's id, where it had one that could be read.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId<'a>>,
        /// The machine's word for it.
        code: &'static str,
        /// The field at fault.
        #[serde(skip_serializing_if = "Option::is_none")]
        field: Option<&'a str>,
        /// A sentence for a person.
        message: &'a str,
        /// Whether the same request may succeed later.
        temporary: bool,
        /// What the backend has said of a call that it refuses.
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    },
    /// Something happened that this connection is to know.
    Event {
        /// The room by which it came; none if it came to this connection or to all.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a RoomName>,
        /// Its name.
        event: &'a EventName,
        /// The user who sent it; none if a backend did.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<&'a UserId>,
        /// Its data, untouched.
        data: &'a RawValue,
        /// The inquiry that is to be answered; most events are none.
        #[serde(skip_serializing_if = "Option::is_none")]
        reply_to: Option<InquiryId>,
    },
    /// The reply to `members`.
    #[serde(rename = "reply")]
    Members {
        /// The request's id.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<RequestId<'a>>,
        /// Always `true`.
        ok: bool,
        /// The room.
        room: &'a RoomName,
        /// How many users are in it, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        users: Option<usize>,
        /// How many connections are in it.
        connections: usize,
        /// The users, if there are not too many.
        #[serde(skip_serializing_if = "Option::is_none")]
        members: Option<&'a [PresentUser]>,
    },
    /// Users have come into the room or left it.
    Presence {
        /// Which room.
        room: &'a RoomName,
        /// Who has come, or shows something else now.
        #[serde(skip_serializing_if = "is_empty")]
        joined: &'a [ArrivedUser],
        /// Who has gone.
        #[serde(skip_serializing_if = "is_empty")]
        left: &'a [UserId],
        /// All who are there, in place of all that was announced before.
        #[serde(skip_serializing_if = "Option::is_none")]
        members: Option<&'a [PresentUser]>,
        /// How many users are there now.
        users: usize,
    },
    /// A backend has put this connection into a room.
    Joined {
        /// Which.
        room: &'a RoomName,
    },
    /// This connection has been taken out of a room: by a backend, or because it may be there no more.
    Left {
        /// Which.
        room: &'a RoomName,
        /// Why it may be there no more.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// Whether it may be again later.
        #[serde(skip_serializing_if = "Option::is_none")]
        temporary: Option<bool>,
    },
    /// Events have not been sent to this connection, because they were not worth anything any more.
    Lost {
        /// How many.
        count: usize,
    },
    /// The token ends soon.
    Expiring {
        /// In so many seconds.
        #[serde(rename = "in")]
        seconds: u64,
    },
}

/// One user who is in a room.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PresentUser {
    /// Who.
    pub user: UserId,
    /// With how many connections.
    pub connections: usize,
    /// What the user shows to the others.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "untouched")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub data: Option<Arc<RawValue>>,
}

/// One user who has come into a room, or shows something else there now.
#[derive(Debug, Clone, Serialize)]
pub struct ArrivedUser {
    /// Who.
    pub user: UserId,
    /// What the user shows to the others.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "untouched")]
    pub data: Option<Arc<RawValue>>,
}

fn untouched<S: Serializer>(data: &Option<Arc<RawValue>>, serializer: S) -> Result<S::Ok, S::Error> {
    data.as_deref().serialize(serializer)
}

fn is_empty<T>(list: &&[T]) -> bool {
    list.is_empty()
}

impl<'a> Response<'a> {
    /// A reply that says no more than done.
    pub fn done(id: Option<RequestId<'a>>) -> Self {
        Self::Reply { id, ok: true, room: None, expires_at: None, expires_in: None, data: None }
    }

    /// The reply to `join` or `leave`.
    pub fn room(id: Option<RequestId<'a>>, room: &'a RoomName) -> Self {
        Self::Reply { id, ok: true, room: Some(room), expires_at: None, expires_in: None, data: None }
    }

    /// The reply to a renewal.
    pub fn renewed(id: Option<RequestId<'a>>, expires_at: u64, expires_in: u64) -> Self {
        Self::Reply { id, ok: true, room: None, expires_at: Some(expires_at), expires_in: Some(expires_in), data: None }
    }

    /// The reply to a call.
    pub fn answer(id: Option<RequestId<'a>>, data: &'a RawValue) -> Self {
        Self::Reply { id, ok: true, room: None, expires_at: None, expires_in: None, data: Some(data) }
    }

    /// Something that is not done.
    pub fn refused(id: Option<RequestId<'a>>, refusal: &'a Refusal) -> Self {
        Self::refused_with(id, refusal, None)
    }

    /// Something that is not done, with what the backend says of it.
    pub fn refused_with(id: Option<RequestId<'a>>, refusal: &'a Refusal, data: Option<&'a RawValue>) -> Self {
        Self::Error {
            id,
            code: refusal.code.as_str(),
            field: refusal.field.as_deref(),
            message: &refusal.message,
            temporary: refusal.code.is_temporary(),
            data,
        }
    }

    /// The message as a text frame.
    pub fn frame(&self) -> Frame {
        Frame::json(self)
    }

    /// Appends the message as a text frame to others.
    pub fn append_to(&self, frames: &mut Vec<u8>) {
        append(frames, OpCode::Data(Data::Text), |out| serde_json::to_writer(out, self).map_err(io::Error::from));
    }
}

impl Frame {
    /// A text frame that holds a value as JSON.
    pub(super) fn json<T: Serialize>(value: &T) -> Self {
        Self::build(OpCode::Data(Data::Text), |out| serde_json::to_writer(out, value).map_err(io::Error::from))
    }

    /// A text or binary frame with this payload.
    pub fn data(payload: &[u8], text: bool) -> Self {
        let kind = if text { Data::Text } else { Data::Binary };
        Self::build(OpCode::Data(kind), |out| out.write_all(payload))
    }

    /// An empty ping.
    pub fn ping() -> Self {
        Self::build(OpCode::Control(Control::Ping), |_| Ok(()))
    }

    /// A Close with a status code and a reason, which must not be longer than 123 bytes.
    pub(super) fn close(code: u16, reason: &str) -> Self {
        Self::build(OpCode::Control(Control::Close), |out| {
            out.write_all(&code.to_be_bytes())?;
            out.write_all(reason.as_bytes())
        })
    }

    /// Bytes that are one whole frame already.
    pub fn whole(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes for the socket.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many bytes go over the wire.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing in it. No frame is empty: its header has two bytes at least.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn build(opcode: OpCode, payload: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> Self {
        let mut out = Vec::with_capacity(256);
        append(&mut out, opcode, payload);
        out.shrink_to_fit();
        Self(Bytes::from(out))
    }
}

/// Where the frame ends of which, among whole unmasked frames, so many bytes are written: there, and
/// only there, something else may follow.
pub fn end_of_frame(frames: &[u8], written: usize) -> usize {
    let mut end = 0;
    while end < written {
        let mut rest = io::Cursor::new(frames.get(end..).unwrap_or_default());
        let Ok(Some((_, length))) = FrameHeader::parse(&mut rest) else { return frames.len() };
        end = end.saturating_add(rest.position() as usize).saturating_add(length as usize);
    }
    end
}

/// Appends one whole frame. The payload is written behind room for the header that most frames have,
/// since its length is known only then; what it took more or less is moved, once.
fn append(out: &mut Vec<u8>, opcode: OpCode, payload: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
    /// The header of an unmasked frame of 126 to 65,535 bytes.
    const ROOM: usize = 4;
    let start = out.len();
    out.resize(start + ROOM, 0);
    // Writing to memory fails for no type of ours; if it did, an empty payload is the honest rest.
    if let Err(error) = payload(out) {
        tracing::error!(%error, "a frame could not be encoded");
        out.truncate(start + ROOM);
    }
    let length = (out.len() - start - ROOM) as u64;
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let taken = header.len(length);
    out.splice(start..start + ROOM, std::iter::repeat_n(0, taken));
    if let Some(mut place) = out.get_mut(start..start + taken) {
        let written = header.format(length, &mut place);
        debug_assert!(written.is_ok(), "the header fits where it says it does");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_its_payload_behind_the_shortest_header() {
        for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let frame = Frame::data(&vec![b'x'; length], true);
            assert_eq!(frame.len(), length + header);
            assert_eq!(frame.0[0], 0x81);
            assert!(frame.0[header..].iter().all(|byte| *byte == b'x'));
        }
    }

    #[test]
    fn a_frame_that_is_begun_ends_where_the_next_one_starts() {
        let mut frames = Vec::new();
        let ends: Vec<usize> = [0, 10, 200, 70_000]
            .map(|length| {
                frames.extend_from_slice(&Frame::data(&vec![b'x'; length], true).into_bytes());
                frames.len()
            })
            .into();
        for written in 0..=frames.len() {
            let expected = if written == 0 { 0 } else { *ends.iter().find(|end| **end >= written).unwrap() };
            assert_eq!(end_of_frame(&frames, written), expected, "{written}");
        }
    }

    #[test]
    fn frames_are_appended_whole_after_one_another() {
        let mut both = Vec::new();
        let message = Response::Expiring { seconds: 1 };
        message.append_to(&mut both);
        message.append_to(&mut both);
        let once = message.frame().into_bytes();
        assert_eq!(both, [&once[..], &once[..]].concat());
    }
}
