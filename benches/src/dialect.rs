//! How a server is spoken to.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::ValueEnum;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The servers that are compared, each with its own words for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Dialect {
    /// See [`crate::floor`]. Not a subject: all others are compared with it.
    #[value(skip)]
    Floor,
    /// This repository's.
    Wsgate,
    /// `peers/ws.mjs`
    Ws,
    /// `peers/socket.io.mjs`
    #[value(name = "socket.io")]
    SocketIo,
}

/// A step of entering: what a client says, and what it waits to hear before the next.
#[derive(Debug)]
pub struct Step {
    /// The text of a message, or nothing.
    pub say: Option<String>,
    /// Part of what is received.
    pub hear: String,
}

impl Step {
    fn hear(hear: &str) -> Self {
        Self { say: None, hear: hear.into() }
    }

    fn say(say: String, hear: impl Into<String>) -> Self {
        Self { say: Some(say), hear: hear.into() }
    }
}

impl Dialect {
    /// As its users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Wsgate => "wsgate",
            Self::Ws => "ws",
            Self::SocketIo => "Socket.IO",
        }
    }

    /// What to ask an upgrade for.
    pub fn path(self, token: &str) -> String {
        match self {
            Self::Floor | Self::Ws => "/".into(),
            Self::Wsgate => format!("/ws?token={token}"),
            Self::SocketIo => "/socket.io/?EIO=4&transport=websocket".into(),
        }
    }

    /// The steps from the answer to the upgrade until all rooms are joined.
    pub fn entering(self, token: &str, rooms: &[String]) -> Vec<Step> {
        let mut steps = vec![Step::hear("HTTP/1.1 101"), Step::hear("\r\n\r\n")];
        match self {
            Self::Floor | Self::Ws => {}
            Self::Wsgate => steps.push(Step::hear(r#""type":"welcome""#)),
            Self::SocketIo => {
                steps.push(Step::hear(r#"0{"sid""#));
                steps.push(Step::say(format!(r#"40{{"token":"{token}"}}"#), r#"40{"sid""#));
            }
        }
        steps.extend(rooms.iter().enumerate().map(|(id, room)| self.join(room, id)));
        steps
    }

    fn join(self, room: &str, id: usize) -> Step {
        match self {
            Self::Floor => Step::say(format!("sub:{room}"), "ok"),
            Self::Wsgate => {
                Step::say(format!(r#"{{"type":"join","room":"{room}","id":{id}}}"#), format!(r#""id":{id},"ok":true"#))
            }
            Self::Ws => Step::say(format!(r#"{{"type":"join","room":"{room}"}}"#), r#""type":"joined""#),
            Self::SocketIo => Step::say(format!(r#"42{id}["joinRoom","{room}"]"#), format!(r#"43{id}[{{"ok":true"#)),
        }
    }

    /// Whether one must be in a room to publish to it.
    pub fn publishers_join(self) -> bool {
        self == Self::Wsgate
    }

    /// The message that publishes JSON to a room. Where the publisher is in the room, it gets a copy
    /// if `echo` says so.
    pub fn publish(self, room: &str, data: &str, echo: bool) -> String {
        match self {
            Self::Floor => format!("pub:{room}:{data}"),
            Self::Wsgate => {
                let echo = if echo { "" } else { r#""echo":false,"# };
                format!(r#"{{"type":"publish","to":{{"room":"{room}"}},"event":"m",{echo}"data":{data}}}"#)
            }
            Self::Ws => format!(r#"{{"type":"publish","room":"{room}","data":{data}}}"#),
            Self::SocketIo => format!(r#"42["message","{room}",{data}]"#),
        }
    }

    /// The bytes of a ping that is no WebSocket ping, and the message to answer it with. Who does not
    /// answer one is closed after 20 seconds.
    pub fn ping(self) -> Option<(&'static [u8], &'static str)> {
        (self == Self::SocketIo).then_some((b"\x81\x012", "3"))
    }
}

/// In Unix seconds: when no token of a benchmark ends before.
const END_OF_2099: u64 = 4_102_444_799;

/// A JWT of a user who may join every room and publish there.
pub fn token(secret: &str, user: usize) -> anyhow::Result<String> {
    token_until(secret, user, END_OF_2099)
}

/// One that ends at a time, in Unix seconds.
pub fn token_until(secret: &str, user: usize, end: u64) -> anyhow::Result<String> {
    let header = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let claims = format!(r#"{{"sub":"user-{user}","exp":{end},"grants":{{"*":["join","publish"]}}}}"#);
    let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes())?;
    mac.update(signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}
