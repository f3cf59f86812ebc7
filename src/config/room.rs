//! Who may do what in which rooms, as an operator writes it: `[[rooms]]` in the configuration file.
//!
//! The first rule whose pattern a room is of decides; where none is, everything is denied.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use toml::Spanned;
use utoipa::ToSchema;

use super::ConfigError;
use super::pattern::RoomPattern;

/// Rooms with more users than this are shown to their members by numbers only, if a rule does not say.
pub const PRESENCE_LIMIT: usize = 100;

/// Who may do what in the rooms of a pattern, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoomRule {
    /// Which rooms.
    pub pattern: RoomPattern,
    /// Who may join them. Who is in a personal room is not for rules to say.
    #[serde(default)]
    pub join: Access,
    /// Who may publish in them.
    #[serde(default)]
    pub publish: Access,
    /// Who may see who is in them.
    #[serde(default)]
    pub members: Access,
    /// Whether one may publish in them without being in them.
    #[serde(default)]
    pub publish_from_outside: bool,
    /// How many connections may be in each.
    pub max_members: Option<usize>,
    /// How many bytes of data an event may have that a client publishes in them.
    pub max_data_bytes: Option<usize>,
    /// How many events a second one connection may publish in them, and at once.
    pub max_publishes_per_second: Option<u32>,
    /// Whether the members are told who comes and goes.
    #[serde(default)]
    pub presence: bool,
    /// With how many users in a room its members are told numbers only.
    #[serde(default = "presence_limit")]
    pub presence_limit: usize,
    /// The line of the file that it begins in, where it comes from one.
    #[serde(skip)]
    pub line: Option<usize>,
}

/// What holds for a room itself, whoever is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoomTraits {
    /// How many connections may be in it; `usize::MAX` for no limit.
    pub max_members: usize,
    /// Whether its members are told who comes and goes.
    pub presence: bool,
    /// How many users its members are told of by name; of more, only the number. It also bounds
    /// the list that a member gets who asks for it.
    pub presence_limit: usize,
}

impl Default for RoomTraits {
    fn default() -> Self {
        Self { max_members: usize::MAX, presence: false, presence_limit: PRESENCE_LIMIT }
    }
}

/// How it is decided whether something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Everybody may.
    Allow,
    /// Nobody may.
    #[default]
    Deny,
    /// Those may whose token grants it.
    Grant,
    /// The backend is asked.
    Ask,
}

impl RoomRule {
    /// The rules that hold where none is configured: tokens decide.
    pub fn by_grant() -> [Self; 2] {
        [true, false].map(Self::by_grant_of)
    }

    fn by_grant_of(personal: bool) -> Self {
        Self {
            pattern: RoomPattern::everything(personal),
            join: if personal { Access::Deny } else { Access::Grant },
            publish: Access::Grant,
            members: Access::Grant,
            publish_from_outside: false,
            max_members: None,
            max_data_bytes: None,
            max_publishes_per_second: None,
            presence: false,
            presence_limit: PRESENCE_LIMIT,
            line: None,
        }
    }

    /// What it says of the rooms themselves.
    pub fn traits(&self) -> RoomTraits {
        let Self { max_members, presence, presence_limit, .. } = *self;
        RoomTraits { max_members: max_members.unwrap_or(usize::MAX), presence, presence_limit }
    }

    /// Whether the backend is asked for anything.
    pub fn asks(&self) -> bool {
        [self.join, self.publish, self.members].contains(&Access::Ask)
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.join != Access::Deny && self.pattern.is_of_other_users() {
            let why = "cannot be: everybody is in their own personal room and in no other, whatever a rule says";
            return Err(("join", why.to_owned()));
        }
        let zero = [
            ("max_members", self.max_members == Some(0)),
            ("max_publishes_per_second", self.max_publishes_per_second == Some(0)),
        ];
        match zero.iter().find(|(_, zero)| *zero) {
            Some((field, _)) => Err((field, "must be at least 1: to allow nothing, deny it".to_owned())),
            None => Ok(()),
        }
    }
}

/// Says what is wrong with rules, each by itself and beside the others. `setting` is what they are
/// called, and `can_ask` whether there is a backend to ask.
///
/// # Errors
/// The first rule that cannot be, with its line.
pub(super) fn check_rules(setting: &str, rules: &[RoomRule], can_ask: bool) -> Result<(), ConfigError> {
    for (index, rule) in rules.iter().enumerate() {
        let wrong = |field: &str, problem: String| {
            let line = rule.line.map(|line| format!(" (line {line})")).unwrap_or_default();
            Err(ConfigError::new(format!("{setting}[{index}].{field}{line}"), problem))
        };
        if let Err((field, why)) = rule.check() {
            return wrong(field, why);
        }
        if rule.asks() && !can_ask {
            return wrong("pattern", "asks the backend, and there is none: give [backend] an access_url".to_owned());
        }
        let earlier = rules.iter().take(index).enumerate().find(|(_, other)| other.pattern.covers(&rule.pattern));
        if let Some((number, other)) = earlier {
            let (own, other) = (&rule.pattern, &other.pattern);
            let why = format!("`{own}` is never reached: {setting}[{number}] `{other}` takes all its rooms before it");
            return wrong("pattern", why);
        }
    }
    Ok(())
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Grant => "grant",
            Self::Ask => "ask",
        })
    }
}

fn presence_limit() -> usize {
    PRESENCE_LIMIT
}

/// Rules that keep where in the file they begin, as a number of bytes for the time being.
pub(super) fn rules<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<RoomRule>, D::Error> {
    let rules = Vec::<Spanned<RoomRule>>::deserialize(deserializer)?;
    let place = |rule: Spanned<RoomRule>| RoomRule { line: Some(rule.span().start), ..rule.into_inner() };
    Ok(rules.into_iter().map(place).collect())
}

/// Makes lines of what [`rules`] has noted.
pub(super) fn number_lines(rules: &mut [RoomRule], text: &str) {
    for at in rules.iter_mut().filter_map(|rule| rule.line.as_mut()) {
        *at = 1 + text.bytes().take(*at).filter(|byte| *byte == b'\n').count();
    }
}
