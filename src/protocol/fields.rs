//! Reads a JSON object field by field, so that what is wrong is said of the field by its name.
//!
//! Every value stays as it came (`RawValue`) until a field is asked for: `data` is checked to be
//! JSON and never parsed further, so big integers, key order and duplicates inside it survive.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::refusal::{ErrorCode, Refusal};

/// More fields than any object of the protocol has. It bounds the search for duplicates.
const MAX_FIELDS: usize = 16;
/// The end of the year 9999, in Unix seconds.
const MAX_SECONDS: u64 = 253_402_300_799;
/// How much of an unknown field's name is repeated in the error.
const SHOWN_BYTES: usize = 64;

/// The fields of one JSON object that nobody has asked for yet.
pub(super) struct Fields<'a> {
    /// The field that this object is the value of, if it is not the whole text.
    parent: Option<Cow<'static, str>>,
    left: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Fields<'a> {
    /// Reads a whole text as one object. Beside it comes what is wrong with the object as a whole,
    /// if anything is: its fields can be read all the same, to tell which request it was.
    pub(super) fn parse(text: &'a str, max_depth: usize) -> Result<(Self, Result<(), Refusal>), Refusal> {
        let (fields, mut whole) = Self::object(text, None)?;
        if deeper_than(text, max_depth) {
            let message = format!("the JSON is nested more than {max_depth} levels deep");
            whole = Err(Refusal::new(ErrorCode::TooDeep, message));
        }
        Ok((fields, whole))
    }

    fn object(text: &'a str, parent: Option<Cow<'static, str>>) -> Result<(Self, Result<(), Refusal>), Refusal> {
        match serde_json::from_str::<Object<'a>>(text) {
            Ok(Object { fields, fault }) => {
                let fields = Self { parent, left: fields };
                let whole = fault.map_or(Ok(()), |fault| Err(fault.refusal(&fields)));
                Ok((fields, whole))
            }
            Err(error) if error.is_data() => Err(match parent {
                None => Refusal::new(ErrorCode::NotAnObject, "the JSON must be an object"),
                Some(field) => Refusal::invalid(field, "must be an object"),
            }),
            Err(error) => Err(Refusal::new(ErrorCode::NotJson, format!("this is not JSON: {error}"))),
        }
    }

    /// The full path of a field of this object, as in `to.room`.
    pub(super) fn path_of(&self, name: &str) -> String {
        self.parent.as_ref().map_or_else(|| name.to_owned(), |parent| format!("{parent}.{name}"))
    }

    /// The path of this object itself.
    pub(super) fn own_path(&self) -> Cow<'static, str> {
        self.parent.clone().unwrap_or_default()
    }

    /// Takes a field as it came.
    pub(super) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        let index = self.left.iter().position(|(field, _)| field == name)?;
        Some(self.left.swap_remove(index).1)
    }

    /// Takes a field that must be a string, if it is there.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str::<Text<'a>>(raw.get()) {
            Ok(Text(text)) => Ok(Some(text)),
            Err(_) => Err(Refusal::invalid(self.path_of(name), "must be a string")),
        }
    }

    /// Takes a string field and checks it as a name, if it is there.
    pub(super) fn name<T: FromStr<Err = String>>(&mut self, name: &str) -> Result<Option<T>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|why: String| Refusal::invalid(self.path_of(name), &why))
    }

    /// Takes a list of strings and checks each as a name; a missing field is an empty list.
    pub(super) fn names<T: FromStr<Err = String>>(&mut self, name: &str, max: usize) -> Result<Vec<T>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(Vec::new()) };
        let path = self.path_of(name);
        let Ok(items) = serde_json::from_str::<Vec<Text<'a>>>(raw.get()) else {
            return Err(Refusal::invalid(path, "must be a list of strings"));
        };
        if items.len() > max {
            return Err(Refusal::invalid(path, &format!("must not have more than {max} entries")));
        }
        let parse = |(i, Text(item)): (usize, Text<'a>)| {
            item.parse().map_err(|why: String| Refusal::invalid(format!("{path}[{i}]"), &why))
        };
        items.into_iter().enumerate().map(parse).collect()
    }

    /// Takes a field that must be `true` or `false`, if it is there.
    pub(super) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match raw.get() {
            "true" => Ok(Some(true)),
            "false" => Ok(Some(false)),
            _ => Err(Refusal::invalid(self.path_of(name), "must be true or false")),
        }
    }

    /// Takes a field that must be a whole number of seconds, if it is there.
    pub(super) fn seconds(&mut self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match whole_number(raw.get()) {
            Some(seconds) if seconds <= MAX_SECONDS => Ok(Some(seconds)),
            Some(_) => Err(Refusal::invalid(self.path_of(name), "must be seconds: this looks like milliseconds")),
            None => Err(Refusal::invalid(self.path_of(name), "must be a whole number of seconds")),
        }
    }

    /// Takes a field that must be a number, if it is there. One that is too large is infinite.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        // Rust reads more than JSON has, as in `inf`; but this is JSON already.
        match raw.get().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Refusal::invalid(self.path_of(name), "must be a number")),
        }
    }

    /// Takes a field that must be an object, if it is there.
    pub(super) fn fields(&mut self, name: &str) -> Result<Option<Fields<'a>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        Self::inside(raw, self.path_of(name)).map(Some)
    }

    /// Takes a list, if it is there, and gives for each entry its path and what it is.
    pub(super) fn list(&mut self, name: &str, max: usize) -> Result<Option<Vec<(String, &'a RawValue)>>, Refusal> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let path = self.path_of(name);
        let Ok(items) = serde_json::from_str::<Vec<&'a RawValue>>(raw.get()) else {
            return Err(Refusal::invalid(path, "must be a list"));
        };
        if items.is_empty() || items.len() > max {
            return Err(Refusal::invalid(path, &format!("must have 1 to {max} entries")));
        }
        Ok(Some(items.into_iter().enumerate().map(|(index, item)| (format!("{path}[{index}]"), item)).collect()))
    }

    /// The fields of an object that stands somewhere inside the whole text.
    pub(super) fn inside(raw: &'a RawValue, path: String) -> Result<Fields<'a>, Refusal> {
        let (fields, whole) = Fields::object(raw.get(), Some(path.into()))?;
        whole.map(|()| fields)
    }

    /// Whether every field has been taken.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// The refusal of a field that is needed and not there.
    pub(super) fn missing(&self, name: &str) -> Refusal {
        let path = self.path_of(name);
        let message = format!("`{path}` is missing");
        Refusal::of(ErrorCode::MissingField, path, message)
    }

    /// Refuses what nobody has asked for: a misspelt field must not be passed over in silence.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let path = self.path_of(shown(name));
        let message = format!("there is no field `{path}` here");
        Err(Refusal::of(ErrorCode::UnknownField, path, message))
    }
}

/// A string, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A JSON object as its fields came, and the first thing found wrong with it. A fault is kept and
/// not raised, so that the rest is still checked to be JSON, and the request's id still found.
struct Object<'a> {
    fields: Vec<(Cow<'a, str>, &'a RawValue)>,
    fault: Option<Fault>,
}

enum Fault {
    Duplicate(String),
    TooMany,
}

impl Fault {
    /// The fault in words, told of an object.
    fn refusal(self, object: &Fields<'_>) -> Refusal {
        match self {
            Self::Duplicate(name) => {
                let field = object.path_of(shown(&name));
                let message = format!("`{field}` stands there twice");
                Refusal::of(ErrorCode::DuplicateField, field, message)
            }
            Self::TooMany => Refusal::new(ErrorCode::UnknownField, format!("there are more than {MAX_FIELDS} fields")),
        }
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object { fields: Vec::with_capacity(8), fault: None };
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    if object.fields.iter().any(|(known, _)| *known == name) {
                        object.fault.get_or_insert_with(|| Fault::Duplicate(name.into_owned()));
                    } else if object.fields.len() == MAX_FIELDS {
                        object.fault.get_or_insert(Fault::TooMany);
                    } else {
                        object.fields.push((name, value));
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// A number without a fraction, however it is written: some languages write 60 as `60.0`.
fn whole_number(text: &str) -> Option<u64> {
    let written_otherwise = || text.parse::<f64>().ok().filter(|number| number.fract() == 0.0 && *number >= 0.0);
    text.parse().ok().or_else(|| written_otherwise().map(|number| number as u64))
}

/// The beginning of a name that a stranger chose, short enough to be repeated.
fn shown(name: &str) -> &str {
    let end = (0..=SHOWN_BYTES.min(name.len())).rev().find(|&i| name.is_char_boundary(i)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

/// Whether arrays and objects are nested deeper than `max`, told without recursion and without
/// asking whether the text is JSON. It is what protects every reader behind us.
fn deeper_than(text: &str, max: usize) -> bool {
    // Counting alone is fast, and is enough for almost every text.
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() <= max {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_counted_outside_strings_only() {
        assert!(!deeper_than(r#"{"a":"[[[[\"[[["}"#, 1));
        assert!(!deeper_than("[[]]", 2));
        assert!(deeper_than("[[[", 2));
        assert!(!deeper_than("[][][][]", 1));
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, number) in
            [("60", Some(60)), ("60.0", Some(60)), ("6e1", Some(60)), ("-0.0", Some(0)), ("1e99", Some(u64::MAX))]
        {
            assert_eq!(whole_number(text), number, "{text}");
        }
        for text in ["60.5", "-1", "-1.0", "\"60\"", "null", "true", "[60]"] {
            assert_eq!(whole_number(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_of_a_strangers_name_is_short_and_whole_characters() {
        assert_eq!(shown(&"é".repeat(100)).len(), SHOWN_BYTES);
        assert_eq!(shown(&"€".repeat(100)).len(), 63);
        assert_eq!(shown("room"), "room");
    }

    #[test]
    fn a_fault_does_not_hide_that_the_rest_is_no_json() {
        let refusal = Fields::parse(r#"{"a":1,"a":2,]"#, 8).err().unwrap();
        assert_eq!(refusal.code, ErrorCode::NotJson);
        let (mut fields, whole) = Fields::parse(r#"{"a":1,"a":2,"b":3}"#, 8).ok().unwrap();
        assert_eq!(whole.unwrap_err().code, ErrorCode::DuplicateField);
        assert_eq!(fields.raw("a").unwrap().get(), "1");
    }
}
