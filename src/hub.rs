//! Who is where, and fan-out. Knows no tokens; every function is synchronous and short.
//!
//! The hub is shared by all tasks. Its locks, in the order in which they may be taken: the rooms
//! of one member, a shard of the table of rooms, the members of one room, an outbox. A publisher
//! takes none of the first two while it walks: it holds the order of its rooms, which only other
//! publishers to the same rooms wait for, and a snapshot of the members.

mod member;
mod outbox;
mod room;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::protocol::{Close, CloseCode, ConnectionId, EventName, Frame, Response, RoomName, Target, UserId};

pub use member::{Member, Membership};
pub use outbox::Outbox;
use room::Room;

/// What is sent to whom.
#[derive(Debug)]
pub struct Event<'a> {
    /// For whom.
    pub to: &'a Target,
    /// For whom not, even where `to` names them.
    pub except: &'a Target,
    /// The event's name.
    pub name: &'a EventName,
    /// The user who sends it; none if a backend does.
    pub from: Option<&'a UserId>,
    /// Its data, untouched.
    pub data: &'a RawValue,
}

/// Why a connection did not get into a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum JoinError {
    /// It is in as many rooms as it may be.
    #[error("a connection may not be in more than {0} rooms")]
    TooManyRooms(usize),
    /// It is on its way out.
    #[error("the connection has ended")]
    Gone,
}

/// How much there is of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Connections that have proven who they are.
    pub connections: usize,
    /// Rooms with at least one member, the users' personal rooms among them.
    pub rooms: usize,
}

/// The tables of who is where.
#[derive(Debug)]
pub struct Hub {
    connections: DashMap<ConnectionId, Arc<Member>>,
    rooms: DashMap<RoomName, Arc<Room>>,
    /// The order of events to everyone, as a room has one of its own.
    everyone: Mutex<()>,
    draining: AtomicBool,
    max_rooms: usize,
    return_spread: Duration,
}

impl Hub {
    /// An empty hub, in which a connection may join so many rooms beside its personal one.
    /// `return_spread` is the time over which [`Hub::close_all`] spreads the clients' return.
    pub fn new(max_rooms: usize, return_spread: Duration) -> Arc<Self> {
        Arc::new(Self {
            connections: DashMap::new(),
            rooms: DashMap::new(),
            everyone: Mutex::new(()),
            draining: AtomicBool::new(false),
            max_rooms,
            return_spread,
        })
    }

    /// Puts a connection into the tables and into its personal room. It stays until the membership
    /// is dropped.
    pub fn enter(self: &Arc<Self>, id: ConnectionId, user: UserId, outbox: Arc<Outbox>) -> Membership {
        let member = Arc::new(Member::new(id, user, outbox));
        self.connections.insert(id, Arc::clone(&member));
        let personal = RoomName::personal(member.user());
        member.rooms().enter(&personal);
        self.add(&personal, &member, None);
        // Whoever comes while everyone is sent away missed the call.
        if self.draining.load(Ordering::SeqCst) {
            member.outbox().close(self.restarting(id));
        }
        Membership::new(Arc::clone(self), member)
    }

    /// Puts a member into a room, and says whether it was outside. If so, `told` reaches it before
    /// the room's first event; if it was in already, nothing is told.
    ///
    /// # Errors
    /// When the member is in too many rooms, or has left the hub.
    pub fn join(&self, member: &Arc<Member>, room: &RoomName, told: Option<Frame>) -> Result<bool, JoinError> {
        let mut rooms = member.rooms();
        if rooms.left() {
            return Err(JoinError::Gone);
        }
        if rooms.contains(room) {
            return Ok(false);
        }
        // The personal room is one more.
        if rooms.len() > self.max_rooms {
            return Err(JoinError::TooManyRooms(self.max_rooms));
        }
        rooms.enter(room);
        self.add(room, member, told);
        Ok(true)
    }

    /// Takes a member out of a room, and says whether it was in it. If so, `told` reaches it after
    /// the room's last event, but for those that are being sent at this moment.
    pub fn leave(&self, member: &Arc<Member>, room: &RoomName, told: Option<Frame>) -> bool {
        // Held to the end: between two halves of a leaving, the member could enter again.
        let mut rooms = member.rooms();
        let was_in = rooms.leave(room);
        if was_in {
            self.remove(room, member);
            if let Some(told) = told {
                member.outbox().push(told);
            }
        }
        was_in
    }

    /// Sends an event, encoded once per room that it goes to, and says to how many connections.
    /// Each gets one copy at most: by the first of its rooms, else by its own name. `publisher` is
    /// who is meant by [`Target::itself`].
    pub fn publish(&self, event: &Event<'_>, publisher: Option<&Arc<Member>>) -> usize {
        let rooms = self.in_order(&event.to.rooms);
        let mut left_out = self.resolve(event.except, publisher);

        let _order_of_all = event.to.all.then(|| self.everyone.lock());
        let _order: Vec<_> = rooms.iter().map(|(_, room)| room.order()).collect();

        let one_room_only = rooms.len() == 1 && event.to.connections.is_empty() && !event.to.all && !event.to.itself;
        let mut reached = 0;
        for (name, room) in &rooms {
            let frame = encode(event, Some(name));
            for member in room.snapshot().iter() {
                if !left_out.contains(&member.id()) && member.outbox().push(frame.clone()) {
                    reached += 1;
                    if !one_room_only {
                        left_out.insert(member.id());
                    }
                }
            }
        }
        if !one_room_only {
            let frame = encode(event, None);
            for member in self.by_name(event.to, publisher) {
                if left_out.insert(member.id()) && member.outbox().push(frame.clone()) {
                    reached += 1;
                }
            }
        }
        reached
    }

    /// Asks all connections of a user to end, and says how many there were.
    pub fn close_user(&self, user: &UserId, close: &Close) -> usize {
        let connections = self.connections_of(user);
        connections.iter().filter(|member| member.outbox().close(close.clone())).count()
    }

    /// Asks all connections to end, those that come from now on included, because the gateway
    /// stops. Each is told its own time to come back.
    pub fn close_all(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for member in self.everyone() {
            member.outbox().close(self.restarting(member.id()));
        }
    }

    /// The connections of a user.
    pub fn connections_of(&self, user: &UserId) -> Arc<[Arc<Member>]> {
        self.members_of(&RoomName::personal(user))
    }

    /// The members of a room.
    pub fn members_of(&self, room: &RoomName) -> Arc<[Arc<Member>]> {
        self.room(room).map_or_else(|| Arc::from([]), |room| room.snapshot())
    }

    /// How much there is.
    pub fn census(&self) -> Census {
        Census { connections: self.connections.len(), rooms: self.rooms.len() }
    }

    /// The end of a connection because the gateway stops, with a time of its own to come back.
    pub fn restarting(&self, id: ConnectionId) -> Close {
        let mut close = Close::new(CloseCode::Restarting, "the gateway is restarting");
        close.retry_after = Some(self.return_spread.mul_f64(id.fraction()));
        close
    }

    fn room(&self, name: &RoomName) -> Option<Arc<Room>> {
        self.rooms.get(name).map(|room| Arc::clone(&room))
    }

    /// The rooms that there are of these, each once and in the order of their names: publishers
    /// that lock several keep to it, so that none waits for another in a circle.
    fn in_order<'a>(&self, names: &'a [RoomName]) -> Vec<(&'a RoomName, Arc<Room>)> {
        let mut names: Vec<&RoomName> = names.iter().collect();
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter_map(|name| Some((name, self.room(name)?))).collect()
    }

    /// The room is made, if need be, under the same lock of the table under which empty ones are
    /// removed: nobody enters a room that is no longer there.
    fn add(&self, name: &RoomName, member: &Arc<Member>, told: Option<Frame>) {
        self.rooms.entry(name.clone()).or_default().add(member, told);
    }

    fn remove(&self, name: &RoomName, member: &Arc<Member>) {
        let Some(room) = self.room(name) else { return };
        if room.remove(member.id()) {
            self.rooms.remove_if(name, |_, room| room.is_empty());
        }
    }

    /// Takes a member out of everything; called when its membership is dropped.
    fn leave_all(&self, member: &Arc<Member>) {
        let rooms = member.rooms().leave_all();
        for room in rooms {
            self.remove(&room, member);
        }
        self.connections.remove(&member.id());
    }

    /// A copy of the table, so that no lock of it is held while its members are dealt with.
    fn everyone(&self) -> Vec<Arc<Member>> {
        self.connections.iter().map(|entry| Arc::clone(&entry)).collect()
    }

    /// Those whom a target names otherwise than by a room.
    fn by_name(&self, target: &Target, publisher: Option<&Arc<Member>>) -> Vec<Arc<Member>> {
        if target.all {
            return self.everyone();
        }
        let named = target.connections.iter().filter_map(|id| self.connections.get(id).map(|it| Arc::clone(&it)));
        named.chain(publisher.filter(|_| target.itself).cloned()).collect()
    }

    /// The connections that a target stands for.
    fn resolve(&self, target: &Target, publisher: Option<&Arc<Member>>) -> HashSet<ConnectionId> {
        let by_name = self.by_name(target, publisher).into_iter().map(|member| member.id());
        let mut ids: HashSet<ConnectionId> = by_name.collect();
        for room in &target.rooms {
            ids.extend(self.members_of(room).iter().map(|member| member.id()));
        }
        ids
    }
}

fn encode(event: &Event<'_>, room: Option<&RoomName>) -> Frame {
    Response::Event { room, event: event.name, from: event.from, data: event.data }.frame()
}
