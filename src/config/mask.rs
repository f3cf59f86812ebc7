//! Settings without their secrets, to be printed.

use toml::Value;

/// Fields of sections that hold secrets; they are not printed.
const SECRETS: [&str; 2] = ["secret", "key"];
/// What stands for a secret.
pub(super) const MASK: &str = "***";

/// The same without its secrets.
pub(super) fn masked(value: Value) -> Value {
    match value {
        Value::Table(table) => {
            Value::Table(table.into_iter().map(|(name, value)| (name.clone(), mask(&name, value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(masked).collect()),
        value => value,
    }
}

fn mask(name: &str, value: Value) -> Value {
    match value {
        Value::String(_) if SECRETS.contains(&name) => MASK.into(),
        // An address may have a password in it.
        Value::String(text) if name.ends_with("_url") => without_password(&text).into(),
        value => masked(value),
    }
}

fn without_password(address: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(address) else {
        // It is none, and yet may have one in it.
        return if address.contains('@') { MASK.to_owned() } else { address.to_owned() };
    };
    if url.password().is_none() {
        return address.to_owned();
    }
    // It can have one: it has.
    url.set_password(Some(MASK)).map_or_else(|()| MASK.to_owned(), |()| url.into())
}

#[cfg(test)]
mod tests {
    use super::super::settings::{parse, section};
    use super::*;

    #[test]
    fn no_field_that_holds_a_secret_is_printed() {
        for source in [include_str!("issuer.rs"), include_str!("backend.rs"), include_str!("api_key.rs")] {
            let fields = source.lines().filter(|line| line.contains(": Option<Secret>,"));
            for field in fields.filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':')) {
                assert!(SECRETS.contains(&field.0), "{}", field.0);
            }
        }
        let value = parse(r#"[{keys = [{secret = "hush"}], jwks_url = "https://me:hush@example.com/"}]"#).unwrap();
        let shown = section("issuers", masked(value));
        assert!(!shown.contains("hush") && shown.contains("https://me:***@example.com/"), "{shown}");
    }
}
