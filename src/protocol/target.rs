//! Whom an event is for.

use super::fields::Fields;
use super::name::{ConnectionId, RoomName, UserId};
use super::pattern::Pattern;
use super::refusal::Refusal;

/// Whom an event is for, or who is left out: a union, in which every connection counts once.
///
/// A user is reached through the personal room, so that there is one kind of membership and one
/// order of events for all that concerns a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Every connection there is.
    pub all: bool,
    /// The connection that publishes.
    pub itself: bool,
    /// The members of these rooms, personal rooms of users among them.
    pub rooms: Vec<RoomName>,
    /// The members of the rooms whose names are of these patterns.
    pub patterns: Vec<Pattern>,
    /// These connections.
    pub connections: Vec<ConnectionId>,
}

impl Target {
    /// The members of one room.
    pub fn room(room: RoomName) -> Self {
        Self { rooms: vec![room], ..Self::default() }
    }

    /// All connections of one user.
    pub fn user(user: &UserId) -> Self {
        Self::room(RoomName::personal(user))
    }

    /// Reads a target as a client may write it: rooms, users, all, self.
    pub(super) fn from_client(mut fields: Fields<'_>, max: usize) -> Result<Self, Refusal> {
        let mut target = Self::common(&mut fields, max)?;
        target.itself = fields.boolean("self")?.unwrap_or_default();
        fields.finish()?;
        Ok(target)
    }

    /// Reads a target as a backend may write it: rooms, users, all, connections, patterns.
    pub(super) fn from_backend(mut fields: Fields<'_>, max: usize) -> Result<Self, Refusal> {
        let mut target = Self::common(&mut fields, max)?;
        target.connections = fields.names("connections", max)?;
        target.connections.extend(fields.name::<ConnectionId>("connection")?);
        target.patterns = fields.names("patterns", max)?;
        target.patterns.extend(fields.name::<Pattern>("pattern")?);
        fields.finish()?;
        Ok(target)
    }

    /// What both may write. A list may be empty, as a computed one sometimes is, and reaches
    /// nobody; an object that names nothing at all is a mistake.
    fn common(fields: &mut Fields<'_>, max: usize) -> Result<Self, Refusal> {
        if fields.is_empty() {
            return Err(Refusal::invalid(fields.own_path(), "names nobody"));
        }
        let mut rooms: Vec<RoomName> = fields.names("rooms", max)?;
        rooms.extend(fields.name("room")?);
        let mut users: Vec<UserId> = fields.names("users", max)?;
        users.extend(fields.name("user")?);
        rooms.extend(users.iter().map(RoomName::personal));
        Ok(Self { all: fields.boolean("all")?.unwrap_or_default(), rooms, ..Self::default() })
    }
}
