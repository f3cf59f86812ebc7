//! How a connection ends: close codes, and what they tell the client to do next.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::response::Frame;

/// The longest reason in a Close: a control frame holds 125 bytes, two of them are the code
/// (RFC 6455, 5.5).
const MAX_REASON_BYTES: usize = 123;

/// Why the gateway closes a connection.
///
/// Codes of ours read like HTTP statuses. 44xx: coming back unchanged will fail again. 45xx: come
/// back. The standard ones keep their meaning (RFC 6455, 7.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// 1002: the peer broke the WebSocket protocol.
    ProtocolError,
    /// 1003: a binary message.
    UnsupportedData,
    /// 1007: text that is not UTF-8.
    InvalidText,
    /// 1009: a message larger than the limit.
    MessageTooBig,
    /// 1011: the gateway itself failed.
    InternalError,
    /// 4400: the first frame made no sense, or too many frames were bad.
    BadFrame,
    /// 4401: the token is missing, refused or has expired.
    TokenRefused,
    /// 4403: a backend disconnected or blocked the user, or the token was revoked.
    Kicked,
    /// 4408: no token came in time.
    AuthTimeout,
    /// 4409: the user has as many connections as one may, and a newer one took this one's place.
    Replaced,
    /// 4429: the user has as many connections as one may, or the client sends too fast.
    LimitExceeded,
    /// 4503: the gateway is going down, or cannot decide at the moment.
    Unavailable,
    /// 4504: the peer stopped answering pings.
    NoPong,
    /// 4505: the connection has lived as long as one may.
    TooOld,
    /// 4508: the peer reads too slowly.
    TooSlow,
}

/// Whether a client should come back after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// It would fail again.
    No,
    /// Once, with a fresh token.
    FreshToken,
    /// Yes, with growing delays, or after `retry_after_ms` where given.
    Yes,
}

impl CloseCode {
    /// Every code there is, in the order of `protocol.md`.
    pub const ALL: [Self; 15] = [
        Self::ProtocolError,
        Self::UnsupportedData,
        Self::InvalidText,
        Self::MessageTooBig,
        Self::InternalError,
        Self::BadFrame,
        Self::TokenRefused,
        Self::Kicked,
        Self::AuthTimeout,
        Self::Replaced,
        Self::LimitExceeded,
        Self::Unavailable,
        Self::NoPong,
        Self::TooOld,
        Self::TooSlow,
    ];

    /// The status code on the wire.
    pub fn number(self) -> u16 {
        match self {
            Self::ProtocolError => 1002,
            Self::UnsupportedData => 1003,
            Self::InvalidText => 1007,
            Self::MessageTooBig => 1009,
            Self::InternalError => 1011,
            Self::BadFrame => 4400,
            Self::TokenRefused => 4401,
            Self::Kicked => 4403,
            Self::AuthTimeout => 4408,
            Self::Replaced => 4409,
            Self::LimitExceeded => 4429,
            Self::Unavailable => 4503,
            Self::NoPong => 4504,
            Self::TooOld => 4505,
            Self::TooSlow => 4508,
        }
    }

    /// Whether a client should come back.
    pub fn retry(self) -> Retry {
        match self {
            Self::TokenRefused => Retry::FreshToken,
            Self::InternalError | Self::Unavailable | Self::NoPong | Self::TooOld | Self::TooSlow => Retry::Yes,
            _ => Retry::No,
        }
    }
}

/// One end of one connection: a code, a reason for a person, and when to come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// A sentence for a person. It never holds a token.
    pub reason: Cow<'static, str>,
    /// How long the client should wait before it comes back.
    pub retry_after: Option<Duration>,
}

impl Close {
    /// A close without a time to come back.
    pub fn new(code: CloseCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { code, reason: reason.into(), retry_after: None }
    }

    /// The `closing` message, which says in JSON what the Close right after it says in a code.
    pub fn announcement(&self) -> Frame {
        #[derive(Serialize)]
        #[serde(tag = "type", rename = "closing")]
        struct Closing<'a> {
            code: u16,
            reason: &'a str,
            retry: Retry,
            #[serde(skip_serializing_if = "Option::is_none")]
            retry_after_ms: Option<u128>,
        }
        Frame::json(&Closing {
            code: self.code.number(),
            reason: &self.reason,
            retry: self.code.retry(),
            retry_after_ms: self.retry_after.map(|wait| wait.as_millis()),
        })
    }

    /// The Close itself, its reason cut to what fits into a control frame.
    pub fn frame(&self) -> Frame {
        let fits = |&end: &usize| self.reason.is_char_boundary(end);
        let end = (0..=self.reason.len().min(MAX_REASON_BYTES)).rev().find(fits).unwrap_or(0);
        Frame::close(self.code.number(), self.reason.get(..end).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bands_of_the_codes_of_ours_have_no_exceptions() {
        for code in CloseCode::ALL {
            match code.number() {
                4400..4500 => assert_ne!(code.retry(), Retry::Yes, "{code:?}"),
                4500..4600 => assert_eq!(code.retry(), Retry::Yes, "{code:?}"),
                standard => assert!((1002..=1011).contains(&standard), "{code:?}"),
            }
        }
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let close = Close::new(CloseCode::BadFrame, "€".repeat(100));
        let bytes = close.frame().into_bytes();
        assert_eq!(bytes.len(), 2 + 2 + 123);
        assert!(std::str::from_utf8(&bytes[4..]).is_ok());
    }
}
