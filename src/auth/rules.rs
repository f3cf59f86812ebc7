//! What somebody may do in a room: by the configured rules, and by what the token grants.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::{Access, Asker, Config, Placeholder, RoomRule, RoomTraits};
use crate::protocol::RoomName;

use super::grants::Permission;
use super::identity::Identity;

/// The rules that hold now: an operator may change them while the gateway runs.
pub type LiveRules = Arc<ArcSwap<Rules>>;

/// The rules for rooms. The first that a room matches decides; where none does, everything is denied.
pub struct Rules {
    members: Box<[RoomRule]>,
    /// Those for whoever has no token.
    guests: Box<[RoomRule]>,
}

/// What comes of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It may be done.
    Allowed,
    /// It may not, for this reason: for the client.
    Denied(String),
    /// That is for the backend to say.
    Ask,
}

/// How a decision comes about, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Ruling {
    /// Whether it may be done; none if that is for the backend to say.
    pub allowed: Option<bool>,
    /// The rule that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<ShownRule>,
    /// The pattern in the token's grants that decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// Why, in a sentence.
    pub because: String,
    /// What would have to be true for it to be allowed; nothing if it is.
    pub needed: Vec<String>,
}

/// A rule as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ShownRule {
    /// Its number, counted from 0.
    pub number: usize,
    /// Its line in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// Its rooms.
    pub pattern: String,
    /// What it says of the action.
    pub access: Access,
}

impl Rules {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let or_by_grant =
            |rules: &[RoomRule]| if rules.is_empty() { RoomRule::by_grant().into() } else { rules.into() };
        let guests = config.anonymous.as_ref().map_or(&[][..], |anonymous| &anonymous.rooms);
        Self { members: or_by_grant(&config.rooms), guests: or_by_grant(guests) }
    }

    /// The rule that holds for somebody in a room, and its number.
    pub fn rule(&self, identity: &Identity, room: &RoomName) -> Option<(usize, &RoomRule)> {
        self.of(identity).iter().enumerate().find(|(_, rule)| rule.pattern.matches(room, identity))
    }

    /// What holds for a room itself, whoever is in it: by the first rule that it matches for anybody.
    pub fn traits(&self, room: &RoomName) -> RoomTraits {
        let mut rules = self.members.iter().chain(&self.guests);
        let rule = rules.find(|rule| rule.pattern.matches_for_somebody(room));
        rule.map(RoomRule::traits).unwrap_or_default()
    }

    /// Whether somebody may do something in a room.
    pub fn decide(&self, identity: &Identity, permission: Permission, room: &RoomName) -> Decision {
        self.decide_by(self.rule(identity, room), identity, permission, room)
    }

    /// As [`Rules::decide`], by the rule that has been found to hold.
    pub fn decide_by(
        &self,
        rule: Option<(usize, &RoomRule)>,
        identity: &Identity,
        permission: Permission,
        room: &RoomName,
    ) -> Decision {
        let what = verb(permission);
        let Some((_, rule)) = rule else {
            return Decision::Denied(format!("no rule lets {} {what} {room}", identity.user));
        };
        match access(rule, permission) {
            Access::Allow => Decision::Allowed,
            Access::Deny => Decision::Denied(format!("nobody may {what} {room}")),
            Access::Grant if identity.grants.allow(permission, room) => Decision::Allowed,
            Access::Grant => Decision::Denied(format!("the token of {} has no grant to {what} {room}", identity.user)),
            Access::Ask => Decision::Ask,
        }
    }

    /// How [`Rules::decide`] comes to its decision, and what another one would take.
    pub fn explain(&self, identity: &Identity, permission: Permission, room: &RoomName) -> Ruling {
        let mut needed = self.near(identity, permission, room);
        let Some((number, rule)) = self.rule(identity, room) else {
            let because = format!("no rule holds for {room} and {}", identity.user);
            needed.push(format!("a rule whose pattern {room} matches"));
            return Ruling { allowed: Some(false), rule: None, grant: None, because, needed };
        };
        let access = access(rule, permission);
        let pattern = rule.pattern.to_string();
        let grant = identity.grants.granting(permission, room).map(|pattern| pattern.as_str().to_owned());
        let grant = grant.filter(|_| access == Access::Grant);
        let (allowed, because) = match (access, &grant) {
            (Access::Allow, _) => (Some(true), format!("the rule `{pattern}` allows it to everybody")),
            (Access::Grant, Some(grant)) => {
                (Some(true), format!("the rule `{pattern}` leaves it to the token, which grants it for `{grant}`"))
            }
            (Access::Grant, None) => {
                needed.insert(0, format!("a grant in the token, as {{\"{room}\":[\"{permission}\"]}}"));
                (Some(false), format!("the rule `{pattern}` leaves it to the token, which does not grant it"))
            }
            (Access::Deny, _) => {
                needed.push(format!("`{permission}` in the rule `{pattern}` to be allow, grant or ask"));
                (Some(false), format!("the rule `{pattern}` denies it to everybody"))
            }
            (Access::Ask, _) => {
                needed.insert(0, "a yes of the backend".to_owned());
                (None, format!("the rule `{pattern}` leaves it to the backend"))
            }
        };
        if allowed == Some(true) {
            needed.clear();
        }
        let rule = Some(ShownRule { number, line: rule.line, pattern, access });
        Ruling { allowed, rule, grant, because, needed }
    }

    /// Rules before the one that decides, which would hold for the room if the claims were others.
    fn near(&self, identity: &Identity, permission: Permission, room: &RoomName) -> Vec<String> {
        let before = self.of(identity).iter().take_while(|rule| !rule.pattern.matches(room, identity));
        let near = before.filter(|rule| rule.pattern.matches_for_somebody(room));
        near.filter(|rule| access(rule, permission) != Access::Deny).map(|rule| would_hold(rule, identity)).collect()
    }

    fn of(&self, identity: &Identity) -> &[RoomRule] {
        if identity.guest().is_some() { &self.guests } else { &self.members }
    }
}

fn would_hold(rule: &RoomRule, identity: &Identity) -> String {
    let claims = rule.pattern.claims().map(|claim| {
        let values = identity.values(&Placeholder::Claim(claim.into())).join(", ");
        if values.is_empty() { format!("`{claim}` is missing") } else { format!("`{claim}` is {values}") }
    });
    let known: Vec<String> = std::iter::once(format!("`sub` is {}", identity.user)).chain(claims).collect();
    format!("claims for which the rule `{}` holds; now {}", rule.pattern, known.join(", "))
}

fn access(rule: &RoomRule, permission: Permission) -> Access {
    match permission {
        Permission::Join => rule.join,
        Permission::Publish => rule.publish,
        Permission::Members => rule.members,
    }
}

fn verb(permission: Permission) -> &'static str {
    match permission {
        Permission::Join => "join",
        Permission::Publish => "publish in",
        Permission::Members => "list the members of",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Details;
    use crate::config::{File, Secret};
    use serde_json::json;
    use std::sync::Arc;

    fn rules(file: &str) -> Rules {
        let mut config = Config::new(Secret::new("x"), Secret::new("x"));
        config.rooms = file.parse::<File>().unwrap().rooms;
        Rules::new(&config)
    }

    fn alice(claims: serde_json::Value) -> Identity {
        let serde_json::Value::Object(claims) = claims else { unreachable!() };
        let mut identity = Identity::of("alice".parse().unwrap());
        identity.grants.add("secret:*=join").unwrap();
        identity.details = Some(Box::new(Details { claims: Arc::new(claims), ..Details::default() }));
        identity
    }

    const FILE: &str = r#"
[[rooms]]
pattern = "org:{claims.orgs}:*"
join = "allow"

[[rooms]]
pattern = "org:*"

[[rooms]]
pattern = "secret:*"
join = "grant"

[[rooms]]
pattern = "asked:*"
join = "ask"
"#;

    #[test]
    fn the_first_rule_decides_and_where_there_is_none_it_is_denied() {
        let (rules, alice) = (rules(FILE), alice(json!({"orgs": ["acme", 7]})));
        let decide = |room: &str| rules.decide(&alice, Permission::Join, &room.parse().unwrap());
        assert_eq!(decide("org:acme:news"), Decision::Allowed);
        assert_eq!(decide("org:7:news"), Decision::Allowed);
        assert_eq!(decide("org:other:news"), Decision::Denied("nobody may join org:other:news".to_owned()));
        assert_eq!(decide("secret:1"), Decision::Allowed);
        assert_eq!(decide("asked:1"), Decision::Ask);
        assert_eq!(decide("chat"), Decision::Denied("no rule lets alice join chat".to_owned()));
        let publish = rules.decide(&alice, Permission::Publish, &"org:acme:news".parse().unwrap());
        assert_eq!(publish, Decision::Denied("nobody may publish in org:acme:news".to_owned()));
    }

    #[test]
    fn without_rules_the_token_decides() {
        let (rules, alice) = (rules(""), alice(json!({})));
        assert_eq!(rules.decide(&alice, Permission::Join, &"secret:1".parse().unwrap()), Decision::Allowed);
        let denied = rules.decide(&alice, Permission::Join, &"chat".parse().unwrap());
        assert_eq!(denied, Decision::Denied("the token of alice has no grant to join chat".to_owned()));
    }

    #[test]
    fn a_ruling_says_which_rule_decided_and_what_it_would_take() {
        let (rules, alice) = (rules(FILE), alice(json!({"orgs": ["acme", 7]})));
        let explain = |room: &str| rules.explain(&alice, Permission::Join, &room.parse().unwrap());
        let other = explain("org:other:news");
        assert_eq!(other.allowed, Some(false));
        assert_eq!((other.rule.clone().unwrap().number, other.rule.unwrap().line), (1, Some(6)));
        assert_eq!(
            other.needed,
            [
                "claims for which the rule `org:{claims.orgs}:*` holds; now `sub` is alice, `orgs` is acme, 7",
                "`join` in the rule `org:*` to be allow, grant or ask",
            ]
        );
        let granted = explain("secret:1");
        assert_eq!((granted.allowed, granted.grant.as_deref()), (Some(true), Some("secret:*")));
        assert_eq!(granted.needed, Vec::<String>::new());
        assert_eq!((explain("asked:1").allowed, explain("chat").rule), (None, None));
    }
}
