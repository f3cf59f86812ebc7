//! The names that travel: rooms, users, events, connections.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest room name, in bytes.
pub const MAX_ROOM_BYTES: usize = 255;
/// Longest user id, in bytes: with the prefix `user:` it is still a room name.
pub const MAX_USER_BYTES: usize = 128;
/// Longest event name, in bytes.
pub const MAX_EVENT_BYTES: usize = 128;

/// Rooms of this prefix are the users' personal rooms: the gateway alone decides who is in them.
pub const PERSONAL: &str = "user:";

/// Says what is wrong with a name, or nothing.
fn check(name: &str, max: usize) -> Result<(), String> {
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if name.len() > max {
        return Err(format!("must not be longer than {max} bytes"));
    }
    let has_control = if name.is_ascii() {
        name.bytes().any(|byte| byte.is_ascii_control())
    } else {
        name.chars().any(char::is_control)
    };
    if has_control {
        return Err("must not contain control characters".to_owned());
    }
    Ok(())
}

/// Declares a checked name: cheap to clone, printed and serialised as its text.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            /// What is wrong with the name, to be read after the name of the field that held it.
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                check(name, $max)?;
                Ok(Self(name.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a room: 1 to [`MAX_ROOM_BYTES`] bytes without control characters.
    RoomName,
    MAX_ROOM_BYTES
);
name!(
    /// A user: what the token's `sub` says. 1 to [`MAX_USER_BYTES`] bytes without control characters.
    UserId,
    MAX_USER_BYTES
);
name!(
    /// The name of an event: 1 to [`MAX_EVENT_BYTES`] bytes without control characters.
    EventName,
    MAX_EVENT_BYTES
);

impl RoomName {
    /// The personal room of a user, which all of that user's connections are in.
    pub fn personal(user: &UserId) -> Self {
        Self(format!("{PERSONAL}{user}").into())
    }

    /// Whether this is some user's personal room.
    pub fn is_personal(&self) -> bool {
        self.0.starts_with(PERSONAL)
    }
}

/// One connection of one user. Random, so that it says nothing about how many there are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Makes an id of 64 random bits.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        getrandom::u64().map(Self)
    }

    /// A number from 0 to 1, evenly spread over connections: what spreads them over time.
    pub fn fraction(self) -> f64 {
        self.0 as f64 / u64::MAX as f64
    }
}

/// One question of a backend to clients. Random, so that nobody can answer who was not asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InquiryId(u64);

impl InquiryId {
    /// Makes an id of 64 random bits.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        getrandom::u64().map(Self)
    }
}

/// Declares how an id of 64 bits is written: as 16 hexadecimal digits.
macro_rules! hexadecimal {
    ($name:ident, $what:literal) => {
        impl FromStr for $name {
            /// What is wrong with the id, to be read after the name of the field that held it.
            type Err = String;

            fn from_str(id: &str) -> Result<Self, String> {
                let digits = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                match u64::from_str_radix(id, 16) {
                    Ok(number) if digits && id.len() == 16 => Ok(Self(number)),
                    _ => Err(concat!("must be ", $what, ": 16 hexadecimal digits").to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    };
}

hexadecimal!(ConnectionId, "a connection id");
hexadecimal!(InquiryId, "the id of what is answered");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_for_a_reason_a_person_understands() {
        let refuse = |name: &str| name.parse::<RoomName>().unwrap_err();
        assert_eq!(refuse(""), "must not be empty");
        assert_eq!(refuse("a\nb"), "must not contain control characters");
        assert_eq!(refuse(&"r".repeat(256)), "must not be longer than 255 bytes");
        assert!("r".repeat(255).parse::<RoomName>().is_ok());
    }

    #[test]
    fn the_longest_user_has_a_personal_room() {
        let user: UserId = "u".repeat(MAX_USER_BYTES).parse().unwrap();
        let room = RoomName::personal(&user);
        assert!(room.is_personal());
        assert_eq!(room.as_str().parse::<RoomName>().unwrap(), room);
    }

    #[test]
    fn a_connection_id_survives_text() {
        let id = ConnectionId::random().unwrap();
        assert_eq!(id.to_string().parse::<ConnectionId>().unwrap(), id);
        assert!("+00000000000000f".parse::<ConnectionId>().is_err());
        assert!("00".parse::<ConnectionId>().is_err());
    }
}
