//! Patterns of room names, as grants, rules, keys and publishers write them.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::name::{MAX_ROOM_BYTES, PERSONAL, RoomName};

/// A pattern of room names: `*` stands for any characters, none included; everything else stands for
/// itself. It is never longer than the longest name, which bounds the time that a match can take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Box<str>);

impl Pattern {
    /// Whether a room's name is of this pattern.
    pub fn matches(&self, room: &RoomName) -> bool {
        self.matches_text(room.as_str())
    }

    /// As [`Pattern::matches`], for a pattern that stands for rooms as a whole: personal rooms are
    /// meant only by one that begins as their names do.
    pub fn is_of_kind(&self, room: &RoomName) -> bool {
        (!room.is_personal() || self.0.starts_with(PERSONAL)) && self.matches(room)
    }

    /// Whether every name that is of the other pattern is of this one too. A star of the other can
    /// only be taken by a star of this one, since nothing else stands for it.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches_text(&other.0)
    }

    /// Whether every name is of this pattern, as only `*` says.
    pub fn is_everything(&self) -> bool {
        &*self.0 == "*"
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Walks both once. After a mismatch only the last star can take one more byte: a star before
    /// it never needs to, since what stands between them was found as early as possible.
    fn matches_text(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(byte) = name.get(n) {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p + 1, n));
                    p += 1;
                }
                Some(expected) if expected == byte => {
                    p += 1;
                    n += 1;
                }
                _ => match star {
                    Some((after, taken)) => {
                        star = Some((after, taken + 1));
                        p = after;
                        n = taken + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.iter().skip(p).all(|&rest| rest == b'*')
    }
}

impl FromStr for Pattern {
    /// What is wrong with the pattern.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_ROOM_BYTES {
            return Err(format!("a pattern has 1 to {MAX_ROOM_BYTES} bytes"));
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_and_nothing_else_does() {
        for (pattern, name, expected) in [
            ("chat:*", "chat:42", true),
            ("chat:*", "chat:", true),
            ("chat:*", "chat", false),
            ("chat:*", "xchat:42", false),
            ("*", "anything", true),
            ("chat:42", "chat:42", true),
            ("chat:42", "chat:421", false),
            ("org:*:news", "org:a:b:news", true),
            ("org:*:news", "org:a:newsletter", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a*a", "a", false),
            ("a.c", "abc", false),
            ("[a-z]?", "[a-z]?", true),
            ("*é", "café", true),
        ] {
            assert_eq!(Pattern(pattern.into()).matches_text(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn an_evil_pattern_takes_no_time() {
        let pattern = Pattern("*a".repeat(127).into());
        assert!(!pattern.matches_text(&"b".repeat(255)));
        let pattern = Pattern(format!("{}b", "*a".repeat(100)).into());
        assert!(!pattern.matches_text(&"a".repeat(255)));
    }

    #[test]
    fn a_pattern_covers_those_whose_names_are_all_its_own() {
        for (wide, narrow, expected) in [
            ("*", "chat:*", true),
            ("chat:*", "chat:*", true),
            ("chat:*", "chat:a*b", true),
            ("chat:*", "chat*", false),
            ("chat:*", "*", false),
            ("*a", "*", false),
            ("chat:42", "chat:42", true),
            ("chat:42", "chat:*", false),
            ("*:news", "org:*:news", true),
        ] {
            let parse = |text: &str| text.parse::<Pattern>().unwrap();
            assert_eq!(parse(wide).covers(&parse(narrow)), expected, "{wide} {narrow}");
        }
    }
}
