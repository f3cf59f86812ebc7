//! Patterns of room names with places for what is known of whoever asks, as rules have them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use smallvec::{SmallVec, smallvec};

use crate::protocol::{MAX_ROOM_BYTES, PERSONAL, RoomName};

/// A pattern of room names with places for what is known of whoever asks: `*` stands for any
/// characters, `{sub}` for the user's id, `{claims.org}` for what the claim says. A claim that is a list stands
/// for each of its entries.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct RoomPattern {
    written: Box<str>,
    parts: Box<[Part]>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Star,
    /// What is known of whoever asks, and the character behind it, which it must not contain: whoever
    /// could choose an id of `a:b` would else be in the rooms of `a`.
    Place(Placeholder, Option<char>),
}

/// What a place in a pattern stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// The user's id.
    User,
    /// What a claim says: a name, or a path of names.
    Claim(Box<str>),
}

/// What is known of whoever asks, for the places of a pattern.
pub trait Asker {
    /// The values that a place stands for: none if there is nothing to put there.
    fn values(&self, placeholder: &Placeholder) -> SmallVec<[Cow<'_, str>; 1]>;
}

/// Where in a name the rest of a pattern may begin.
struct Ends<'a> {
    name: &'a [u8],
    at: SmallVec<[usize; 4]>,
    /// There, and anywhere behind the first.
    open: bool,
}

impl RoomPattern {
    /// Whether a room is of this pattern for whoever asks.
    pub fn matches(&self, room: &RoomName, asker: &impl Asker) -> bool {
        self.walk(room, |ends, placeholder, behind| ends.step_any(&asker.values(placeholder), *behind))
    }

    /// Whether a room is of this pattern for anybody.
    pub fn matches_for_somebody(&self, room: &RoomName) -> bool {
        self.walk(room, |ends, _, _| ends.star())
    }

    fn walk(&self, room: &RoomName, mut place: impl FnMut(&mut Ends<'_>, &Placeholder, &Option<char>)) -> bool {
        if room.is_personal() && !self.is_personal() {
            return false;
        }
        let mut ends = Ends { name: room.as_str().as_bytes(), at: smallvec![0], open: false };
        for part in &self.parts {
            match part {
                Part::Text(text) => ends.step(text),
                Part::Star => ends.star(),
                Part::Place(placeholder, behind) => place(&mut ends, placeholder, behind),
            }
            if ends.at.is_empty() {
                return false;
            }
        }
        ends.open || ends.at.contains(&ends.name.len())
    }

    /// Whether every room of the other pattern is of this one too, whoever asks.
    pub(super) fn covers(&self, other: &Self) -> bool {
        if other.is_personal() && !self.is_personal() {
            return false;
        }
        let (wide, narrow) = (self.symbols(), other.symbols());
        let (mut w, mut n) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while let Some(symbol) = narrow.get(n) {
            match (wide.get(w), star) {
                (Some(Symbol::Star), _) => {
                    star = Some((w + 1, n));
                    w += 1;
                }
                (Some(expected), _) if expected == symbol => {
                    w += 1;
                    n += 1;
                }
                (_, Some((after, taken))) => {
                    star = Some((after, taken + 1));
                    w = after;
                    n = taken + 1;
                }
                (_, None) => return false,
            }
        }
        wide.iter().skip(w).all(|rest| *rest == Symbol::Star)
    }

    fn symbols(&self) -> Vec<Symbol<'_>> {
        fn symbols(part: &Part) -> Vec<Symbol<'_>> {
            match part {
                Part::Text(text) => text.bytes().map(Symbol::Byte).collect(),
                Part::Star => vec![Symbol::Star],
                Part::Place(placeholder, _) => vec![Symbol::Place(placeholder)],
            }
        }
        self.parts.iter().flat_map(symbols).collect()
    }

    /// The claims that it has places for.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Place(Placeholder::Claim(path), _) => Some(&**path),
            _ => None,
        })
    }

    /// The pattern of all rooms, or of all personal rooms.
    pub(super) fn everything(personal: bool) -> Self {
        let text = personal.then(|| Part::Text(PERSONAL.into()));
        let parts = text.into_iter().chain([Part::Star]).collect();
        Self { written: if personal { format!("{PERSONAL}*").into() } else { "*".into() }, parts }
    }

    /// Whether it is of personal rooms: only what begins as they do is. Else a rule for everybody's chats
    /// would let everybody publish to every user, and so would a claim of `user` in a place.
    fn is_personal(&self) -> bool {
        self.written.starts_with(PERSONAL)
    }

    /// Whether it is of personal rooms, and not of one's own alone.
    pub(super) fn is_of_other_users(&self) -> bool {
        self.is_personal() && &*self.written != "user:{sub}"
    }
}

/// A pattern as a sequence, to be compared with another.
#[derive(PartialEq, Eq)]
enum Symbol<'a> {
    Byte(u8),
    Star,
    Place(&'a Placeholder),
}

impl Ends<'_> {
    fn star(&mut self) {
        // Always in order: the first is the least.
        self.at.truncate(1);
        self.open = true;
    }

    fn step(&mut self, text: &str) {
        self.at = self.behind(text);
        self.open = false;
    }

    /// One of several texts, of which none counts that is empty or has `behind` in it.
    fn step_any(&mut self, texts: &[Cow<'_, str>], behind: Option<char>) {
        let counts = |text: &&Cow<'_, str>| !text.is_empty() && !behind.is_some_and(|behind| text.contains(behind));
        self.at = texts.iter().filter(counts).flat_map(|text| self.behind(text)).collect();
        self.at.sort_unstable();
        self.at.dedup();
        self.open = false;
    }

    fn behind(&self, text: &str) -> SmallVec<[usize; 4]> {
        let found = |from: &usize| self.name.get(*from..).is_some_and(|rest| rest.starts_with(text.as_bytes()));
        let behind = |from: usize| from + text.len();
        match self.at.first() {
            Some(&first) if self.open => (first..=self.name.len()).filter(found).map(behind).collect(),
            _ => self.at.iter().copied().filter(found).map(behind).collect(),
        }
    }
}

impl FromStr for RoomPattern {
    /// What is wrong with the pattern.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > MAX_ROOM_BYTES {
            return Err(format!("a pattern has 1 to {MAX_ROOM_BYTES} bytes"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            match first {
                '*' => {
                    parts.push(Part::Star);
                    rest = rest.strip_prefix('*').unwrap_or_default();
                }
                '{' => {
                    let (inside, behind) =
                        rest.split_once('}').ok_or_else(|| format!("in `{text}`, `{{` has no `}}`"))?;
                    parts.push(Part::Place(placeholder(inside.trim_start_matches('{'))?, next(text, behind)?));
                    rest = behind;
                }
                '}' => return Err(format!("in `{text}`, `}}` has no `{{` before it")),
                _ => {
                    let end = rest.find(['*', '{', '}']).unwrap_or(rest.len());
                    let (plain, behind) = rest.split_at(end);
                    parts.push(Part::Text(plain.into()));
                    rest = behind;
                }
            }
        }
        Ok(Self { written: text.into(), parts: parts.into() })
    }
}

fn placeholder(inside: &str) -> Result<Placeholder, String> {
    match inside.strip_prefix("claims.") {
        _ if inside == "sub" => Ok(Placeholder::User),
        Some(path) if !path.is_empty() => Ok(Placeholder::Claim(path.into())),
        _ => Err(format!("`{{{inside}}}` is not known: there are {{sub}} and, for any claim, {{claims.name}}")),
    }
}

/// The character behind a place: a star, or another place, would leave open where it ends.
fn next(pattern: &str, behind: &str) -> Result<Option<char>, String> {
    match behind.chars().next() {
        Some('*' | '{') => Err(format!("in `{pattern}`, a `}}` must be followed by text or by the end")),
        next => Ok(next),
    }
}

impl TryFrom<String> for RoomPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for RoomPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// alice, of the organisations acme and a:b.
    struct Alice;

    impl Asker for Alice {
        fn values(&self, placeholder: &Placeholder) -> SmallVec<[Cow<'_, str>; 1]> {
            match placeholder {
                Placeholder::User => smallvec!["alice".into()],
                Placeholder::Claim(path) if &**path == "org" => smallvec!["acme".into(), "a:b".into(), "".into()],
                Placeholder::Claim(_) => SmallVec::new(),
            }
        }
    }

    fn pattern(text: &str) -> RoomPattern {
        text.parse().unwrap()
    }

    #[test]
    fn a_pattern_takes_what_is_known_of_whoever_asks() {
        for (text, room, expected) in [
            ("user:{sub}", "user:alice", true),
            ("user:{sub}", "user:alic", false),
            ("user:{sub}", "user:alice2", false),
            ("user:{sub}", "user:bob", false),
            ("org:{claims.org}:*", "org:acme:news", true),
            ("org:{claims.org}:*", "org:acme:", true),
            ("org:{claims.org}:*", "org:acme", false),
            ("org:{claims.org}:*", "org:acmes:news", false),
            // What is behind a place must not be in it; at the end there is nothing behind.
            ("org:{claims.org}:*", "org:a:b:news", false),
            ("org:{claims.org}", "org:a:b", true),
            // An empty value, and a claim that is not there, stand for nothing.
            ("org:{claims.org}:*", "org::news", false),
            ("team:{claims.team}", "team:", false),
            ("dm:*:{sub}", "dm:bob:alice", true),
            ("dm:{sub}:*", "dm:bob:alice", false),
            ("*{sub}", "alicealice", true),
            ("*a*a*{sub}", "aaalice", true),
            ("*a*a*{sub}", "aalic", false),
            ("*", "anything", true),
            ("chat:*:x", "chat:a:x:x", true),
            ("chat:*:x", "chat:x", false),
            ("é*{sub}", "éalice", true),
        ] {
            assert_eq!(pattern(text).matches(&room.parse().unwrap(), &Alice), expected, "{text} {room}");
        }
    }

    #[test]
    fn for_somebody_a_place_stands_for_anything() {
        let org = pattern("org:{claims.org}:*");
        assert!(org.matches_for_somebody(&"org:other:news".parse().unwrap()));
        assert!(!org.matches_for_somebody(&"chat:other".parse().unwrap()));
    }

    #[test]
    fn an_evil_name_takes_no_time() {
        let evil = pattern(&"*a".repeat(120));
        assert!(!evil.matches(&format!("{}b", "a".repeat(119)).parse().unwrap(), &Alice));
    }

    #[test]
    fn a_pattern_that_cannot_be_is_refused_in_words() {
        for (text, why) in [
            ("", "a pattern has 1 to 255 bytes"),
            ("user:{sub", "in `user:{sub`, `{` has no `}`"),
            ("user:sub}", "in `user:sub}`, `}` has no `{` before it"),
            ("user:{name}", "`{name}` is not known: there are {sub} and, for any claim, {claims.name}"),
            ("user:{claims.}", "`{claims.}` is not known: there are {sub} and, for any claim, {claims.name}"),
            ("user:{sub}*", "in `user:{sub}*`, a `}` must be followed by text or by the end"),
            ("{sub}{claims.a}", "in `{sub}{claims.a}`, a `}` must be followed by text or by the end"),
        ] {
            assert_eq!(text.parse::<RoomPattern>().unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn a_rule_behind_one_that_takes_all_its_rooms_is_never_reached() {
        for (earlier, later, expected) in [
            ("*", "chat:*", true),
            ("chat:*", "chat:{sub}", true),
            ("org:{claims.org}:*", "org:{claims.org}:news", true),
            ("org:{claims.org}:*", "org:*", false),
            ("org:{claims.org}:*", "org:{claims.other}:*", false),
            ("user:{sub}", "user:*", false),
            ("*", "user:*", false),
            ("user:*", "user:{sub}", true),
            ("chat:*", "chat*", false),
            ("chat:42", "chat:42", true),
        ] {
            assert_eq!(pattern(earlier).covers(&pattern(later)), expected, "{earlier} {later}");
        }
    }
}
