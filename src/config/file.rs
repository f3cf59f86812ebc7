//! The configuration file (TOML): values of options at its top, and sections.
//!
//! It is read twice: once as it was written, to say where each value stands and what nobody knows, and
//! once into what the sections mean.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor, value};
use toml::{Spanned, Value};

use super::options::Options;
use super::room::{self, RoomRule};
use super::{Anonymous, ApiKey, Backend, Issuer};

/// The sections of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct File {
    /// Whose tokens count.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// Who may do what in which rooms; tokens alone say so if there are none.
    #[serde(default, deserialize_with = "room::rules")]
    pub rooms: Vec<RoomRule>,
    /// Whom to ask what rules leave open, and what clients call.
    pub backend: Option<Backend>,
    /// What connections without a token may do; they are refused if this is missing.
    pub anonymous: Option<Anonymous>,
    /// Who may use the backend API, and for what.
    #[serde(default)]
    pub api_keys: Vec<ApiKey>,
}

/// The file as it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Written {
    /// What stands at its top, by name, with the line.
    pub(super) values: BTreeMap<String, (Value, usize)>,
    text: String,
    path: PathBuf,
}

impl Written {
    /// Reads a file.
    ///
    /// # Errors
    /// In words: it cannot be read, or what is wrong in which line.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let values: BTreeMap<String, Spanned<Value>> =
            toml::from_str(&text).map_err(|error| format!("{}: {}", path.display(), explain(&error, &text)))?;
        let placed = values.into_iter().map(|(name, value)| {
            let line = line_of(&text, value.span().start);
            (name, (value.into_inner(), line))
        });
        Ok(Self { values: placed.collect(), path: path.to_owned(), text })
    }

    /// What its sections mean. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// In words: what is wrong in which line.
    pub(super) fn sections(&self) -> Result<File, String> {
        let mut file: File = self.text.parse().map_err(|error| format!("{}: {error}", self.path.display()))?;
        file.resolve(self.folder());
        Ok(file)
    }

    /// The folder that paths in it are relative to.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }
}

impl File {
    /// The names of the sections.
    pub(super) fn names() -> &'static [&'static str] {
        fields::<Self>()
    }

    fn resolve(&mut self, folder: &Path) {
        let keys = self.issuers.iter_mut().flat_map(|issuer| &mut issuer.keys);
        let of_keys = keys.flat_map(|key| [&mut key.secret_file, &mut key.public_key_file, &mut key.jwks_file]);
        let of_backend = self.backend.iter_mut().map(|backend| &mut backend.secret_file);
        let of_api_keys = self.api_keys.iter_mut().map(|key| &mut key.key_file);
        for path in of_keys.chain(of_backend).chain(of_api_keys).flatten() {
            *path = folder.join(&*path);
        }
    }
}

impl FromStr for File {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut file: Self = toml::from_str(text).map_err(|error| explain(&error, text))?;
        room::number_lines(&mut file.rooms, text);
        if let Some(anonymous) = &mut file.anonymous {
            room::number_lines(&mut anonymous.rooms, text);
        }
        Ok(file)
    }
}

/// What is wrong, and in which line. The library would show the line, and a secret may stand in it.
fn explain(error: &toml::de::Error, text: &str) -> String {
    let span = error.span().unwrap_or_default();
    let line = line_of(text, span.start);
    let message = match error.message() {
        "duplicate key" => format!("`{}` is there twice", text.get(span).unwrap_or_default()),
        "invalid type: map, expected a sequence" => {
            "there may be several of these: its name stands in double brackets, as in [[rooms]]".to_owned()
        }
        message => match field_before(text, span.start) {
            Some(field) if message.starts_with("invalid ") || message.starts_with("must ") => {
                format!("{field}: {}", without_types(message))
            }
            _ => with_suggestion(message),
        },
    };
    format!("line {line}: {message}")
}

/// The field whose value begins at a place.
fn field_before(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?.trim_end().strip_suffix('=')?.trim_end();
    let is_bare = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    before.rsplit(|character| !is_bare(character)).next().filter(|field| !field.is_empty())
}

/// An error in words for those who do not know Rust's types.
fn without_types(message: &str) -> String {
    let types = ["usize", "u64", "u32", "u16"];
    types.iter().fold(message.to_owned(), |message, name| {
        message.replace(&format!("expected {name}"), "expected a whole number")
    })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Adds what was probably meant to serde's "unknown field `x`, expected one of `y`, `z`".
pub(super) fn with_suggestion(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field `") else { return message.to_owned() };
    let mut quoted = rest.split('`').step_by(2);
    let (Some(unknown), known) = (quoted.next(), quoted.collect::<Vec<_>>()) else { return message.to_owned() };
    if Options::command().get_arguments().any(|arg| arg.get_id() == unknown) {
        return format!("unknown field `{unknown}`: as an option it belongs above the first section");
    }
    match suggest(unknown, known.iter().copied()) {
        Some(meant) => format!("unknown field `{unknown}`: did you mean `{meant}`?"),
        None => message.to_owned(),
    }
}

/// The name that is most like another, if one is.
pub(super) fn suggest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &&str| strsim::jaro_winkler(unknown, name);
    let best = known.into_iter().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&best) > 0.8).then_some(best)
}

/// The names of a struct's fields, as they stand in the file.
pub(super) fn fields<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Listing(&'static [&'static str]);
    impl<'de> Deserializer<'de> for &mut Listing {
        type Error = value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, value::Error> {
            self.0 = fields;
            Err(value::Error::custom("only the names were asked for"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, value::Error> {
            Err(value::Error::custom("this is no struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }
    let mut listing = Listing(&[]);
    // It always fails, after the names are known.
    let _fails = T::deserialize(&mut listing);
    listing.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_their_fields_are_known_by_name() {
        assert_eq!(File::names(), ["issuers", "rooms", "backend", "anonymous", "api_keys"]);
        assert!(fields::<Backend>().contains(&"access_url"));
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        assert_eq!(suggest("max_room", ["max_rooms", "listen"]), Some("max_rooms"));
        assert_eq!(suggest("colour", ["max_rooms", "listen"]), None);
        let error = "[[rooms]]\npatern = \"a\"\n".parse::<File>().unwrap_err();
        assert_eq!(error, "line 2: unknown field `patern`: did you mean `pattern`?");
    }
}
