//! Who may use the backend API, as an operator writes it: `[[api_keys]]` in the configuration file.
//!
//! This is what was written; `api` makes keys of it, and finds what cannot be.

use std::path::PathBuf;

use serde::Deserialize;

use super::{ConfigError, Secret};

/// The shortest API key, in bytes: 16 are what a random 128-bit key has before it is encoded.
pub const MIN_API_KEY_BYTES: usize = 16;
/// The longest name of an API key, in bytes: it stands in logs and answers.
const MAX_NAME_BYTES: usize = 64;

/// One API key with its limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// What it is called in logs and answers: 1 to 64 bytes, unlike any other's.
    pub name: String,
    /// The key itself. A file or the environment is the better place.
    pub key: Option<Secret>,
    /// The environment variable that holds the key.
    pub key_env: Option<String>,
    /// The file that holds the key; a line's end behind it does not count.
    pub key_file: Option<PathBuf>,
    /// What may be done with it.
    pub allow: Vec<ApiAction>,
    /// Patterns of the rooms that it may concern, personal rooms of users among them: all, if it is
    /// missing.
    #[serde(default = "ApiKey::every_room")]
    pub rooms: Vec<String>,
}

/// Something that an API key may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiAction {
    /// To send events.
    Publish,
    /// To ask clients and wait for their answers.
    Request,
    /// To look up users, rooms and revocations.
    Read,
    /// To put users into rooms, and to take them out.
    Move,
    /// To end the connections of a user.
    Disconnect,
    /// To make tickets.
    Tickets,
    /// To revoke, to block, and to take that back.
    Revoke,
    /// To have the configuration read again, and to have the gateway drain.
    Operate,
}

impl ApiAction {
    /// Every action there is.
    pub const ALL: [Self; 8] = [
        Self::Publish,
        Self::Request,
        Self::Read,
        Self::Move,
        Self::Disconnect,
        Self::Tickets,
        Self::Revoke,
        Self::Operate,
    ];

    /// The word in the configuration file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Request => "request",
            Self::Read => "read",
            Self::Move => "move",
            Self::Disconnect => "disconnect",
            Self::Tickets => "tickets",
            Self::Revoke => "revoke",
            Self::Operate => "operate",
        }
    }
}

impl ApiKey {
    fn every_room() -> Vec<String> {
        vec!["*".to_owned()]
    }

    /// Reads the key from the one place that is named.
    ///
    /// # Errors
    /// What is wrong, and with which setting; `setting` is the path of this one.
    pub fn read(&self, setting: &str) -> Result<Secret, ConfigError> {
        let wrong = |field: &str, problem: String| ConfigError::new(format!("{setting}{field}"), problem);
        let (field, text) = match (&self.key, &self.key_env, &self.key_file) {
            (Some(key), None, None) => (".key", key.reveal().to_owned()),
            (None, Some(name), None) => {
                let unset = |error| wrong(".key_env", format!("names {name}, which cannot be read: {error}"));
                (".key_env", std::env::var(name).map_err(unset)?)
            }
            (None, None, Some(path)) => {
                let lost =
                    |error| wrong(".key_file", format!("names {}, which cannot be read: {error}", path.display()));
                (".key_file", std::fs::read_to_string(path).map_err(lost)?)
            }
            _ => return Err(wrong("", "needs one of key, key_env and key_file".to_owned())),
        };
        usable(&text).map(Secret::new).map_err(|problem| wrong(field, problem))
    }

    fn check(&self, setting: &str, others: &[Self]) -> Result<(), ConfigError> {
        let wrong = |field: &str, problem: &str| Err(ConfigError::new(format!("{setting}{field}"), problem));
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES || self.name.contains(char::is_control) {
            return wrong(".name", "must have 1 to 64 bytes, and no control characters");
        }
        if self.name == DEFAULT_NAME || others.iter().any(|other| other.name == self.name) {
            return wrong(".name", "is another key's");
        }
        if self.allow.is_empty() {
            return wrong(".allow", "must name one action at least");
        }
        if self.rooms.is_empty() {
            return wrong(".rooms", "must have one pattern at least");
        }
        Ok(())
    }
}

/// What the key is called that stands in no file, and may do everything.
pub(crate) const DEFAULT_NAME: &str = "api_key";

/// Says what cannot be, but for the keys' texts, which only [`ApiKey::read`] knows.
pub(crate) fn check_api_keys(api_key: Option<&Secret>, keys: &[ApiKey]) -> Result<(), ConfigError> {
    match api_key {
        Some(key) => {
            usable(key.reveal()).map_err(|problem| ConfigError::new(DEFAULT_NAME, problem))?;
        }
        None if keys.is_empty() => {
            return Err(ConfigError::new(DEFAULT_NAME, "is missing, and there are no api_keys: one is needed"));
        }
        None => {}
    }
    let mut others = keys.iter().enumerate();
    others.try_for_each(|(index, key)| key.check(&format!("api_keys[{index}]"), keys.get(..index).unwrap_or_default()))
}

/// A key without what stands around it: HTTP takes the white space around a header's value away, so
/// a key with some would never be shown.
///
/// # Errors
/// In words: why it cannot be a key.
pub(crate) fn usable(text: &str) -> Result<&str, String> {
    let key = text.trim_ascii();
    if key.len() < MIN_API_KEY_BYTES {
        return Err(format!("must have at least {MIN_API_KEY_BYTES} bytes, and has {}", key.len()));
    }
    if key.contains(char::is_control) {
        return Err("must be one line without control characters, as a header is".to_owned());
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::super::File;
    use super::*;

    fn wrong(text: &str) -> String {
        let file: File = text.parse().unwrap();
        check_api_keys(None, &file.api_keys).unwrap_err().setting.into_owned()
    }

    #[test]
    fn a_key_that_cannot_be_is_named() {
        assert_eq!(wrong(""), "api_key");
        let key = |rest: &str| format!("[[api_keys]]\nkey = \"x\"\n{rest}\n");
        assert_eq!(wrong(&key("name = \"\"\nallow = [\"read\"]")), "api_keys[0].name");
        assert_eq!(wrong(&key("name = \"a\\nb\"\nallow = [\"read\"]")), "api_keys[0].name");
        assert_eq!(wrong(&key(&format!("name = \"{}\"\nallow = [\"read\"]", "n".repeat(65)))), "api_keys[0].name");
        assert_eq!(wrong(&key("name = \"api_key\"\nallow = [\"read\"]")), "api_keys[0].name");
        assert_eq!(wrong(&key("name = \"a\"\nallow = [\"read\"]").repeat(2)), "api_keys[1].name");
        assert_eq!(wrong(&key("name = \"a\"\nallow = []")), "api_keys[0].allow");
        assert_eq!(wrong(&key("name = \"a\"\nallow = [\"read\"]\nrooms = []")), "api_keys[0].rooms");
    }

    #[test]
    fn what_an_action_is_called_is_what_is_read() {
        for action in ApiAction::ALL {
            let text = format!("[[api_keys]]\nname = \"a\"\nallow = [\"{}\"]", action.as_str());
            assert_eq!(text.parse::<File>().unwrap().api_keys[0].allow, [action]);
        }
        let refused = "[[api_keys]]\nname = \"a\"\nallow = [\"write\"]".parse::<File>().unwrap_err();
        assert!(
            refused.contains("line 3") && refused.contains("`write`") && refused.contains("`publish`"),
            "{refused}"
        );
        let missing = "[[api_keys]]\nname = \"a\"".parse::<File>().unwrap_err();
        assert!(missing.contains("line 1") && missing.contains("`allow`"), "{missing}");
    }

    #[test]
    fn what_is_wrong_in_a_file_is_said_without_the_key() {
        for line in ["key = \"hush-hush-hush", "key = 1234567890123456", "key = hush-hush-hush", "kex = \"hush-hush\""]
        {
            let refused = format!("[[api_keys]]\nname = \"a\"\n{line}\nallow = []").parse::<File>().unwrap_err();
            assert!(refused.contains("line 3"), "{refused}");
            assert!(!refused.contains("hush") && !refused.contains("12345"), "{refused}");
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        let file: File = "[[api_keys]]\nname = \"a\"\nkey = \"hush-hush\"\nallow = []".parse().unwrap();
        assert!(!format!("{file:?}").contains("hush"));
    }

    #[test]
    fn a_key_is_one_line_and_long_enough_and_what_is_around_it_does_not_count() {
        assert_eq!(usable(" 0123456789abcdef\r\n"), Ok("0123456789abcdef"));
        assert!(usable("0123456789abcde\n").unwrap_err().contains("has 15"));
        assert!(usable("0123456789\nabcdef").unwrap_err().contains("one line"));
    }
}
