//! What a token lets its bearer do, in rooms that match a pattern.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::protocol::{Pattern, RoomName};

/// Something that may be done in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// Enter it.
    Join,
    /// Send events to it.
    Publish,
    /// Ask who is in it.
    Members,
}

/// The `grants` claim: patterns of room names, and what is allowed in the rooms that match.
/// What nothing allows is denied.
///
/// In a pattern, `*` stands for any characters, none included; everything else stands for itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Grants(Box<[Grant]>);

/// The claim as a token has it. A map takes ten times the memory of the few grants in it, and every
/// connection keeps its own.
type Written = BTreeMap<Pattern, Vec<Permission>>;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Grant {
    pattern: Pattern,
    permissions: Box<[Permission]>,
}

impl Grants {
    /// Whether this may be done in the room.
    pub fn allow(&self, permission: Permission, room: &RoomName) -> bool {
        self.any(permission, |pattern| pattern.matches(room))
    }

    /// Whether this may be done in every room there is, as only the pattern `*` says.
    pub fn allow_everywhere(&self, permission: Permission) -> bool {
        self.any(permission, Pattern::is_everything)
    }

    /// Reads grants as a configuration has them: patterns, and what each allows.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_lists(lists: &BTreeMap<String, Vec<String>>) -> Result<Self, String> {
        let mut written = Written::new();
        for (pattern, permissions) in lists {
            let permissions = permissions.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
            written.insert(pattern.parse()?, permissions);
        }
        Ok(written.into())
    }

    /// These and others together.
    #[must_use]
    pub fn with(self, others: &Self) -> Self {
        if others.0.is_empty() { self } else { Self(self.0.iter().chain(&others.0).cloned().collect()) }
    }

    fn any(&self, permission: Permission, matches: impl Fn(&Pattern) -> bool) -> bool {
        self.0.iter().any(|grant| grant.permissions.contains(&permission) && matches(&grant.pattern))
    }

    /// Adds another grant, written as `chat:*=join,publish`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let (pattern, permissions) = text.rsplit_once('=').ok_or("must look like 'chat:*=join,publish'")?;
        let permissions = permissions.split(',').map(str::parse).collect::<Result<Vec<Permission>, _>>()?;
        let mut written = Written::from(std::mem::take(self));
        written.entry(pattern.parse()?).or_default().extend(permissions);
        *self = written.into();
        Ok(())
    }
}

impl From<Written> for Grants {
    fn from(written: Written) -> Self {
        let grant = |(pattern, permissions): (_, Vec<_>)| Grant { pattern, permissions: permissions.into() };
        Self(written.into_iter().map(grant).collect())
    }
}

impl From<Grants> for Written {
    fn from(grants: Grants) -> Self {
        grants.0.into_iter().map(|grant| (grant.pattern, grant.permissions.into())).collect()
    }
}

impl FromStr for Permission {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.trim() {
            "join" => Ok(Self::Join),
            "publish" => Ok(Self::Publish),
            "members" => Ok(Self::Members),
            other => Err(format!("`{other}` cannot be granted: it is one of join, publish, members")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(text: &str) -> Grants {
        let mut grants = Grants::default();
        grants.add(text).unwrap();
        grants
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        let room: RoomName = "chat:42".parse().unwrap();
        assert!(!Grants::default().allow(Permission::Join, &room));
        assert!(grants("chat:*=join").allow(Permission::Join, &room));
        assert!(!grants("chat:*=join").allow(Permission::Publish, &room));
        assert!(!grants("chat*=publish").allow_everywhere(Permission::Publish));
        assert!(grants("*=publish").allow_everywhere(Permission::Publish));
    }

    #[test]
    fn a_grant_on_the_command_line_is_refused_in_words() {
        let refuse = |text: &str| Grants::default().add(text).unwrap_err();
        assert_eq!(refuse("chat:*"), "must look like 'chat:*=join,publish'");
        assert_eq!(refuse("chat:*=jion"), "`jion` cannot be granted: it is one of join, publish, members");
        assert_eq!(refuse("=join"), "a pattern has 1 to 255 bytes");
    }
}
