//! One connection as the hub knows it.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::{ConnectionId, RoomName, UserId};

use super::Hub;
use super::outbox::Outbox;

/// One connection: who it is, how it is reached, and where it is.
#[derive(Debug)]
pub struct Member {
    id: ConnectionId,
    user: UserId,
    outbox: Arc<Outbox>,
    rooms: Mutex<Rooms>,
}

/// The rooms that one member is in. Few, so that looking through them beats a table.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    names: Vec<RoomName>,
    left: bool,
}

/// The right to be in the hub. Leaving is its `Drop`: there is no way to forget it.
#[derive(Debug)]
pub struct Membership {
    hub: Arc<Hub>,
    member: Arc<Member>,
}

impl Member {
    pub(super) fn new(id: ConnectionId, user: UserId, outbox: Arc<Outbox>) -> Self {
        Self { id, user, outbox, rooms: Mutex::default() }
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose connection it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// What waits to be written to it.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The rooms that it is in, the personal one first.
    pub fn room_names(&self) -> Vec<RoomName> {
        self.rooms().names.clone()
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.rooms().contains(room)
    }

    pub(super) fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock()
    }
}

impl Rooms {
    pub(super) fn contains(&self, room: &RoomName) -> bool {
        self.names.contains(room)
    }

    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether the member has left the hub and must not enter a room again.
    pub(super) fn left(&self) -> bool {
        self.left
    }

    pub(super) fn enter(&mut self, room: &RoomName) {
        self.names.push(room.clone());
    }

    pub(super) fn leave(&mut self, room: &RoomName) -> bool {
        let place = self.names.iter().position(|name| name == room);
        place.map(|place| self.names.remove(place)).is_some()
    }

    pub(super) fn leave_all(&mut self) -> Vec<RoomName> {
        self.left = true;
        std::mem::take(&mut self.names)
    }
}

impl Membership {
    pub(super) fn new(hub: Arc<Hub>, member: Arc<Member>) -> Self {
        Self { hub, member }
    }

    /// The hub.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The member.
    pub fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.hub.leave_all(&self.member);
    }
}
