//! One connection as the hub knows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::{Mutex, MutexGuard};
use serde_json::value::RawValue;

use crate::protocol::{ConnectionId, RoomName, UserId};

use super::Hub;
use super::flusher::Flusher;
use super::outbox::Outbox;
use super::room::Room;

/// The rooms that every member is in: the one of everyone, and the personal one.
const ALWAYS: usize = 2;

/// One connection: who it is, how it is reached, and where it is.
pub struct Member {
    id: ConnectionId,
    /// Its number among all that have entered.
    order: u32,
    user: UserId,
    outbox: Arc<Outbox>,
    /// What it shows in every room in which it shows nothing else.
    /// In a box, since an `Arc` of what has no size of its own takes twice the room, and few have one.
    profile: Option<Box<Arc<RawValue>>>,
    /// Who sends the events of the rooms that it is the first in.
    flusher: Arc<Flusher>,
    places: Mutex<Places>,
    /// Numbers of what its task is to look at, by bit: what they mean is for others to say.
    notices: AtomicU8,
}

/// Where one member is. Few rooms, so that looking through them beats a table.
#[derive(Default)]
pub(super) struct Places {
    /// The room of everyone first, then the personal room.
    places: Vec<Place>,
    /// Numbers that it is found by.
    marks: Box<[u64]>,
    left: bool,
}

/// A seat in a room.
pub(super) struct Place {
    pub(super) room: Arc<Room>,
    pub(super) seat: u32,
    /// Whether a backend has put it there.
    pub(super) placed: bool,
}

/// The right to be in the hub. Leaving is its `Drop`: there is no way to forget it.
pub struct Membership {
    hub: Arc<Hub>,
    member: Arc<Member>,
}

impl Member {
    pub(super) fn new(
        id: ConnectionId,
        order: u32,
        user: UserId,
        outbox: Arc<Outbox>,
        flusher: Arc<Flusher>,
        profile: Option<Arc<RawValue>>,
    ) -> Self {
        Self {
            id,
            order,
            user,
            outbox,
            profile: profile.map(Box::new),
            flusher,
            places: Mutex::default(),
            notices: AtomicU8::new(0),
        }
    }

    /// Its number among all connections that have entered, which grows, and begins anew after 2^32.
    pub fn order(&self) -> u32 {
        self.order
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
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// What it shows of itself in every room in which it shows nothing else.
    pub fn profile(&self) -> Option<&Arc<RawValue>> {
        self.profile.as_deref()
    }

    /// How many rooms it is in, the personal one not counted.
    pub fn rooms(&self) -> usize {
        self.places().joined()
    }

    /// Wakes the connection's task, so that it looks at what has changed.
    pub fn wake(&self) {
        self.outbox.wake();
    }

    /// Leaves notices for the connection's task, and wakes it.
    pub fn notify(&self, notices: u8) {
        self.notices.fetch_or(notices, Ordering::SeqCst);
        self.wake();
    }

    /// Takes the notices that have been left.
    pub fn take_notices(&self) -> u8 {
        // Most of the time there are none, and reading is cheaper than taking.
        if self.notices.load(Ordering::SeqCst) == 0 { 0 } else { self.notices.swap(0, Ordering::SeqCst) }
    }

    /// The rooms that it is in, the personal one first.
    pub fn room_names(&self) -> Vec<RoomName> {
        self.places().places.iter().filter_map(|place| place.room.name().cloned()).collect()
    }

    /// The rooms that it has joined by its own wish: no backend has put it there, nor is it the
    /// personal one.
    pub fn joined_rooms(&self) -> Vec<RoomName> {
        let places = self.places();
        let own = places.places.iter().skip(ALWAYS).filter(|place| !place.placed);
        own.filter_map(|place| place.room.name().cloned()).collect()
    }

    /// Whether it has left the hub.
    pub fn has_left(&self) -> bool {
        self.places().left()
    }

    /// Whether it is in a room.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.places().find(room).is_some()
    }

    pub(super) fn flusher(&self) -> &Arc<Flusher> {
        &self.flusher
    }

    pub(super) fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock()
    }
}

impl Places {
    /// Whether the member has left the hub and must not enter a room again.
    pub(super) fn left(&self) -> bool {
        self.left
    }

    /// How many rooms, the personal one and the one of everyone not counted.
    pub(super) fn joined(&self) -> usize {
        self.places.len().saturating_sub(ALWAYS)
    }

    pub(super) fn find(&self, room: &RoomName) -> Option<usize> {
        self.places.iter().position(|place| place.room.name() == Some(room))
    }

    pub(super) fn is_in(&self, room: &Arc<Room>) -> bool {
        self.places.iter().any(|place| Arc::ptr_eq(&place.room, room))
    }

    pub(super) fn enter(&mut self, room: Arc<Room>, seat: u32, placed: bool) {
        if self.places.is_empty() {
            // As a rule one more.
            self.places.reserve_exact(ALWAYS + 1);
        }
        self.places.push(Place { room, seat, placed });
    }

    /// A backend wants it there.
    pub(super) fn keep(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            place.placed = true;
        }
    }

    pub(super) fn leave(&mut self, place: usize) -> Place {
        self.places.remove(place)
    }

    pub(super) fn leave_all(&mut self) -> (Vec<Place>, Box<[u64]>) {
        self.left = true;
        (std::mem::take(&mut self.places), std::mem::take(&mut self.marks))
    }

    /// Sets the numbers that it is found by, and gives back those that it had.
    pub(super) fn replace_marks(&mut self, marks: &[u64]) -> Box<[u64]> {
        std::mem::replace(&mut self.marks, marks.into())
    }

    /// Sends what is on its way from all the rooms now, before anything else happens.
    pub(super) fn catch_up(&self) {
        for place in &self.places {
            place.room.catch_up(place.seat);
        }
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

    /// Leaves the hub now, for whoever has something to do after that; again changes nothing.
    pub fn end(&self) {
        self.hub.leave_all(&self.member);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.end();
    }
}
