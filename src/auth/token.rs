//! A token taken apart (RFC 7515, 7.1), strictly and without belief in any of it.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::reason::{Reason, TokenError, shown};

/// A token whose signature nobody has checked yet.
#[derive(Debug)]
pub(super) struct Presented<'a> {
    /// The algorithm that it says it is signed with.
    pub(super) alg: String,
    /// The key that it says it is signed with.
    pub(super) kid: Option<String>,
    /// What kind of token it says it is.
    pub(super) typ: Option<String>,
    /// Its claims.
    pub(super) claims: Claims,
    /// What is signed.
    pub(super) message: &'a str,
    /// The signature, in base64url.
    pub(super) signature: &'a str,
}

/// The claims of a token.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Map<String, Value>);

impl<'a> Presented<'a> {
    /// Takes a token apart.
    ///
    /// base64url is canonical or refused: what is signed has one spelling. So is a name that stands in an
    /// object twice, at whatever depth, since readers disagree on which of the two counts. Keys that
    /// come with a token, or where they could be fetched (`jwk`, `jku`, `x5c`, `x5u`), are not read
    /// (RFC 8725, 3.10).
    pub(super) fn parse(token: &'a str, max_bytes: usize) -> Result<Self, TokenError> {
        if token.len() > max_bytes {
            return Err(Reason::TooLong.because(format!("the token is longer than {max_bytes} bytes")));
        }
        let malformed = || TokenError::from(Reason::Malformed);
        let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
        if signature.contains('.') || payload.contains('.') {
            return Err(malformed());
        }
        let mut header = object(header, "header")?;
        let claims = Claims(object(payload, "claims")?);
        if BASE64_URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(Reason::Malformed.because("the token's signature is not canonical base64url"));
        }
        if header.contains_key("crit") {
            return Err(Reason::Critical.into());
        }
        let mut text = |name: &str| match header.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Reason::WrongType.because(format!("the header's `{name}` is not a string"))),
        };
        let alg = text("alg")?.ok_or_else(|| Reason::Malformed.because("the token's header has no `alg`"))?;
        Ok(Self { alg, kid: text("kid")?, typ: text("typ")?, claims, message, signature })
    }
}

impl Claims {
    /// The claim at a path. `a` is a claim; `a.b` is the claim `a.b` or, inside the claim `a`, `b`;
    /// so that names with dots in them, which URLs have, can be written as they are.
    pub(super) fn at(&self, path: &str) -> Option<&Value> {
        at(&self.0, path)
    }

    /// All of them.
    pub(super) fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// A claim that must be a string, if it is there.
    pub(super) fn text(&self, path: &str) -> Result<Option<&str>, TokenError> {
        match self.at(path) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(invalid(path, "is not a string")),
        }
    }
}

/// What is at a path in an object: see [`Claims::at`].
pub(super) fn at<'v>(object: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    if let Some(value) = object.get(path) {
        return Some(value);
    }
    let dots = path.rmatch_indices('.');
    dots.filter_map(|(dot, _)| {
        let (name, rest) = (path.get(..dot)?, path.get(dot + 1..)?);
        at(object.get(name)?.as_object()?, rest)
    })
    .next()
}

/// The refusal of a claim, by its name.
pub(super) fn invalid(claim: &str, why: &str) -> TokenError {
    Reason::InvalidClaim.because(format!("the token's claims are wrong: `{}` {why}", shown(claim)))
}

/// The refusal of a token that lacks a claim.
pub(super) fn missing(claim: &str) -> TokenError {
    Reason::MissingClaim.because(format!("the token's claims are wrong: `{}` is missing", shown(claim)))
}

fn object(part: &str, name: &str) -> Result<Map<String, Value>, TokenError> {
    let Ok(bytes) = BASE64_URL_SAFE_NO_PAD.decode(part) else { return Err(Reason::Malformed.into()) };
    let mut reader = serde_json::Deserializer::from_slice(&bytes);
    match Strict.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Reason::Malformed.because(format!("the token's {name} are not a JSON object"))),
        Err(error) => {
            // Without the position, which means nothing to whoever made the token.
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            Err(Reason::Malformed.because(format!("this is not a JWT: its {name}: {}", shown(text))))
        }
    }
}

/// Reads any JSON in which no name stands twice in one object.
struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = fields.next_key::<String>()? {
            if object.contains_key(&name) {
                return Err(Error::custom(format_args!("`{}` stands there twice", shown(&name))));
            }
            let value = fields.next_value_seed(Self)?;
            object.insert(name, value);
        }
        Ok(object.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        match value {
            Value::Object(claims) => Claims(claims),
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn a_path_leads_into_claims_whose_names_may_have_dots() {
        let claims = claims(json!({
            "sub": "a",
            "https://example.com/claims": {"uid": "b", "x.y": "c"},
            "user": {"id": {"value": "d"}},
            "user.id": {"value": "e"},
        }));
        for (path, found) in [
            ("sub", json!("a")),
            ("https://example.com/claims.uid", json!("b")),
            ("https://example.com/claims.x.y", json!("c")),
            ("user.id.value", json!("e")),
        ] {
            assert_eq!(claims.at(path), Some(&found), "{path}");
        }
        for path in ["", ".", "sub.a", "user.id.", "https://example", "https://example.com/claims.x"] {
            assert_eq!(claims.at(path), None, "{path}");
        }
    }

    #[test]
    fn nothing_but_one_canonical_object_is_read() {
        let part = |json: &str| BASE64_URL_SAFE_NO_PAD.encode(json);
        for json in [r#"{"a":1,"a":1}"#, r#"{"a":{"b":[{"c":1,"c":2}]}}"#, "[]", "1", "{} {}", "{", "", "\u{feff}{}"] {
            assert!(object(&part(json), "claims").is_err(), "{json}");
        }
        assert!(object(&part(r#"{"a":{"b":1},"c":{"b":1}}"#), "claims").is_ok());
        assert!(object(&part(&format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500))), "claims").is_err());
        // The same bytes, spelt otherwise.
        for spelt in ["e30=", "e30\n", " e30", "e31", "e3+0"] {
            assert!(object(spelt, "claims").is_err(), "{spelt}");
        }
        assert!(object("e30", "claims").is_ok());
    }
}
