//! Who is where, and fan-out. Knows no tokens; every function is synchronous and short.
//!
//! The hub is shared by all tasks. A publisher puts an event into its rooms and goes on: the walk
//! over the members is the flusher's. Its locks, in the order in which they may be taken: the places
//! of one member; the sending of one room, or a shard of the table of rooms; the states of rooms, in
//! the order of their names; the schedule of presence, or an outbox. None of them is held while a
//! room is walked but its sending, which only those wait for who need to know that an event has gone
//! out. Whoever looks at a room because the schedule says so has let go of the schedule before.

mod batch;
mod expiry;
mod flusher;
mod member;
mod outbox;
mod presence;
mod publish;
mod room;
mod roster;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use dashmap::{DashMap, Entry as Slot};
use serde_json::value::RawValue;
use smallvec::SmallVec;
use thiserror::Error;

use crate::config::LiveLimits;
pub use crate::config::RoomTraits;
use crate::protocol::{Close, CloseCode, ConnectionId, Frame, RoomName, UserId};

pub use expiry::Expiry;
pub use flusher::Flusher;
use member::Place;
pub use member::{Member, Membership};
pub use outbox::{Outbox, Wire};
pub use presence::Presence;
pub use publish::{Event, Full, Publish};
use room::Room;
pub use roster::Present;

/// Why a connection did not get into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JoinError {
    /// It is in as many rooms as it may be.
    #[error("a connection may not be in more than {0} rooms")]
    TooManyRooms(usize),
    /// As many connections are in the room as may be.
    #[error("the room is full: its limit is {0}")]
    RoomFull(usize),
    /// It is on its way out.
    #[error("the connection has ended")]
    Gone,
}

/// How a member enters a room.
#[derive(Debug, Default)]
pub struct Entry {
    /// What it is told, if it was outside, before the room's first event.
    pub told: Option<Frame>,
    /// What it shows of itself to the others of this room.
    pub data: Option<Arc<RawValue>>,
    /// Whether a backend puts it there.
    pub placed: bool,
}

/// Says what holds for a room itself. It is asked once, when somebody enters a room in which nobody
/// is, while the tables are locked: it must be quick and must not ask the hub. It is not asked about
/// personal rooms.
pub type Traits = Box<dyn Fn(&RoomName) -> RoomTraits + Send + Sync>;

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Connections that have proven who they are.
    pub connections: usize,
    /// Rooms with at least one member, the users' personal rooms among them.
    pub rooms: usize,
}

/// The tables of who is where.
pub struct Hub {
    connections: DashMap<ConnectionId, Arc<Member>>,
    rooms: DashMap<RoomName, Arc<Room>>,
    /// The room that all connections are in: for events to all.
    everyone: Arc<Room>,
    /// Connections by numbers that whoever let them in has given them.
    marks: DashMap<u64, SmallVec<[ConnectionId; 2]>>,
    flushers: Box<[Arc<Flusher>]>,
    traits: Traits,
    presence: Presence,
    draining: AtomicBool,
    /// How many connections have entered so far.
    entered: AtomicU32,
    limits: LiveLimits,
}

impl Hub {
    /// An empty hub. `workers` is the number of threads that send: each is to drive one of
    /// [`Hub::flushers`], and one of them [`Hub::presence`].
    pub fn new(limits: LiveLimits, workers: NonZeroUsize, traits: Traits, presence: Presence) -> Arc<Self> {
        let first = Arc::new(Flusher::default());
        let others = (1..workers.get()).map(|_| Arc::default());
        Arc::new(Self {
            connections: DashMap::new(),
            rooms: DashMap::new(),
            everyone: Arc::new(Room::new(None, Arc::clone(&first), &RoomTraits::default(), &presence)),
            marks: DashMap::new(),
            flushers: std::iter::once(first).chain(others).collect(),
            traits,
            presence,
            draining: AtomicBool::new(false),
            entered: AtomicU32::new(0),
            limits,
        })
    }

    /// Who sends the rooms' events, one for each worker.
    pub fn flushers(&self) -> &[Arc<Flusher>] {
        &self.flushers
    }

    /// When to announce who comes and goes.
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Puts a connection into the tables and into its personal room, whose events `flusher` sends.
    /// It stays until the membership is dropped. It shows its profile in every room for which
    /// [`Entry::data`] says nothing else.
    pub fn enter(
        self: &Arc<Self>,
        id: ConnectionId,
        user: UserId,
        outbox: Arc<Outbox>,
        flusher: Arc<Flusher>,
        profile: Option<Arc<RawValue>>,
    ) -> Membership {
        let member =
            Arc::new(Member::new(id, self.entered.fetch_add(1, Ordering::Relaxed), user, outbox, flusher, profile));
        self.connections.insert(id, Arc::clone(&member));
        let mut places = member.places();
        // Neither has a limit but that of all seats: the fallback is never needed.
        if let Ok(seat) = self.everyone.add(&member, Entry::default(), &self.presence) {
            places.enter(Arc::clone(&self.everyone), seat, true);
        }
        if let Ok((room, seat)) = self.add(&RoomName::personal(member.user()), &member, Entry::default()) {
            places.enter(room, seat, true);
        }
        drop(places);
        // Whoever comes while everyone is sent away missed the call.
        if self.draining.load(Ordering::SeqCst) {
            member.outbox().close(self.restarting(id));
        }
        Membership::new(Arc::clone(self), member)
    }

    /// Puts a member into a room, and says whether it was outside. If it was in already, nothing is
    /// told, and nothing changes but that a backend wants it there now, if one does.
    ///
    /// # Errors
    /// When the member is in too many rooms or has left the hub, or the room is full.
    pub fn join(&self, member: &Arc<Member>, room: &RoomName, entry: Entry) -> Result<bool, JoinError> {
        let mut places = member.places();
        if places.left() {
            return Err(JoinError::Gone);
        }
        if let Some(place) = places.find(room) {
            if entry.placed {
                places.keep(place);
            }
            return Ok(false);
        }
        let max_rooms = self.limits.get().max_rooms;
        if places.joined() >= max_rooms {
            return Err(JoinError::TooManyRooms(max_rooms));
        }
        let placed = entry.placed;
        let (room, seat) = self.add(room, member, entry)?;
        places.enter(room, seat, placed);
        Ok(true)
    }

    /// Takes a member out of a room, and says whether it was in it. If so, `told` reaches it after
    /// the room's last event.
    pub fn leave(&self, member: &Arc<Member>, room: &RoomName, told: Option<Frame>) -> bool {
        // Held to the end: between two halves of a leaving, the member could enter again.
        let mut places = member.places();
        let Some(place) = places.find(room) else { return false };
        let Place { room, seat, .. } = places.leave(place);
        if room.leave(seat, member, &self.presence) {
            self.forget(&room);
        }
        if let Some(told) = told {
            member.outbox().push(told);
        }
        true
    }

    /// Asks a connection to end, once it has been sent all that was published before; the first
    /// reason counts. Says whether this was it.
    pub fn close(&self, member: &Member, close: Close) -> bool {
        member.places().catch_up();
        member.outbox().close(close)
    }

    /// Asks all connections of a user to end, and says how many there were.
    pub fn close_user(&self, user: &UserId, close: &Close) -> usize {
        let connections = self.connections_of(user);
        connections.iter().filter(|member| self.close(member, close.clone())).count()
    }

    /// Asks all connections to end, those that come from now on included, because the gateway
    /// stops. Each is told its own time to come back.
    pub fn close_all(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for member in self.everybody() {
            self.close(&member, self.restarting(member.id()));
        }
    }

    /// All connections.
    pub fn everybody(&self) -> Vec<Arc<Member>> {
        self.named(&self.everyone.members(usize::MAX).1)
    }

    /// One connection, if there is such a one.
    pub fn connection(&self, id: ConnectionId) -> Option<Arc<Member>> {
        self.connections.get(&id).map(|member| Arc::clone(&member))
    }

    /// The connections of a user.
    pub fn connections_of(&self, user: &UserId) -> Vec<Arc<Member>> {
        self.members_of(&RoomName::personal(user), usize::MAX).1
    }

    /// Gives a member numbers to be found by, in place of those that it had. Several may have the
    /// same.
    pub fn mark(&self, member: &Member, marks: &[u64]) {
        let mut places = member.places();
        if places.left() {
            return;
        }
        let before = places.replace_marks(marks);
        self.unmark(member.id(), &before);
        for mark in marks {
            self.marks.entry(*mark).or_default().push(member.id());
        }
    }

    /// The connections that have a number.
    pub fn marked(&self, mark: u64) -> Vec<Arc<Member>> {
        let ids = self.marks.get(&mark).map(|ids| ids.clone()).unwrap_or_default();
        self.named(&ids)
    }

    fn unmark(&self, id: ConnectionId, marks: &[u64]) {
        for mark in marks {
            if let Slot::Occupied(mut ids) = self.marks.entry(*mark) {
                ids.get_mut().retain(|other| *other != id);
                if ids.get().is_empty() {
                    ids.remove();
                }
            }
        }
    }

    /// How many members a room has, and as many of them as are asked for.
    pub fn members_of(&self, room: &RoomName, max: usize) -> (usize, Vec<Arc<Member>>) {
        let Some(room) = self.room(room) else { return Default::default() };
        let (count, ids) = room.members(max);
        (count, self.named(&ids))
    }

    /// How much there is.
    pub fn census(&self) -> Census {
        Census { connections: self.connections.len(), rooms: self.rooms.len() }
    }

    /// The end of a connection because the gateway stops, with a time of its own to come back.
    pub fn restarting(&self, id: ConnectionId) -> Close {
        let limits = self.limits.get();
        let spread = limits.return_spread.unwrap_or(limits.drain_timeout);
        let mut close = Close::new(CloseCode::Unavailable, "the gateway is restarting");
        close.retry_after = Some(spread.mul_f64(id.fraction()));
        close
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms.get(name).map(|room| Arc::clone(&room))
    }

    /// The room is made, if need be, under the same lock of the table under which empty ones are
    /// removed: nobody enters a room that is no longer there.
    fn add(&self, name: &RoomName, member: &Arc<Member>, entry: Entry) -> Result<(Arc<Room>, u32), JoinError> {
        let slot = self.rooms.entry(name.clone()).or_insert_with(|| {
            let traits = if name.is_personal() { RoomTraits::default() } else { (self.traits)(name) };
            Arc::new(Room::new(Some(name.clone()), Arc::clone(member.flusher()), &traits, &self.presence))
        });
        let seat = slot.add(member, entry, &self.presence);
        let room = Arc::clone(&slot);
        drop(slot);
        match seat {
            Ok(seat) => Ok((room, seat)),
            Err(max) => {
                // One that nobody may enter at all has been made in vain.
                self.forget(&room);
                Err(JoinError::RoomFull(max))
            }
        }
    }

    /// Takes a room that is empty out of the table, unless somebody has entered meanwhile.
    fn forget(&self, room: &Room) {
        if let Some(name) = room.name() {
            self.rooms.remove_if(name, |_, room| room.is_empty());
        }
    }

    /// Takes a member out of everything, if it has not left; called when its membership is dropped.
    fn leave_all(&self, member: &Arc<Member>) {
        let mut places = member.places();
        if places.left() {
            return;
        }
        let (rooms, marks) = places.leave_all();
        drop(places);
        self.unmark(member.id(), &marks);
        for Place { room, seat, .. } in &rooms {
            if room.remove(*seat, member, &self.presence) {
                self.forget(room);
            }
        }
        self.connections.remove(&member.id());
    }

    /// Those of these connections that there are.
    fn named(&self, ids: &[ConnectionId]) -> Vec<Arc<Member>> {
        ids.iter().filter_map(|id| self.connection(*id)).collect()
    }
}

#[cfg(test)]
mod tests;
