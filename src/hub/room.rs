//! One room: its members, the one order of its events, and those that are on their way.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use serde_json::value::RawValue;
use slab::Slab;

use crate::config::RoomTraits;
use crate::protocol::{ConnectionId, PresentUser, RoomName};
use crate::trace::FanOut;

use super::Entry;
use super::batch::{Batch, Except};
use super::expiry::Expiry;
use super::flusher::Flusher;
use super::member::Member;
use super::outbox::Outbox;
use super::presence::{Crowd, Data, Plan, Presence};

/// Events that go out together have so many bytes at most, unless a single one has more: a member
/// that takes only a part of a batch keeps the whole of it.
const BATCH_BYTES: usize = 64 * 1024;
/// A room with so many bytes on their way takes no more events until some have gone out.
const ROOM_BYTES: usize = 256 * 1024;

/// A room. Entering, leaving and publishing take the same time however many members there are:
/// the walk over them is the flusher's, a slice at a time.
pub(super) struct Room {
    /// None for the room that everyone is in.
    name: Option<RoomName>,
    flusher: Arc<Flusher>,
    /// Held while events go out, so that whoever needs to know that they have can wait for that.
    /// Taken before `state`, and before no other lock of the tables.
    sending: Mutex<()>,
    state: Mutex<State>,
}

pub(super) struct State {
    seats: Slab<Seat>,
    /// The number of the next event.
    next: u64,
    /// Boxed, because most rooms are idle.
    flow: Option<Box<Flow>>,
    /// Boxed, because most rooms have none of it: every user has a room.
    special: Option<Box<Special>>,
}

/// What only some rooms have.
#[derive(Default)]
struct Special {
    traits: RoomTraits,
    /// The users, if the room has presence.
    crowd: Option<Crowd>,
    /// What members show in this room, by their seats, where it has no presence.
    data: HashMap<u32, Arc<RawValue>>,
}

/// What is needed of a member to send to it, all in one place: the walk over a large room waits for
/// memory more than for anything else that is ours.
struct Seat {
    id: ConnectionId,
    outbox: Arc<Outbox>,
    /// The number of the next event that this member is to get.
    since: u64,
}

/// Events on their way. There is a flow as long as the room is with its flusher.
#[derive(Default)]
struct Flow {
    waiting: VecDeque<Batch<Vec<u8>>>,
    /// The bytes that wait and those that are being sent.
    bytes: usize,
    /// What is being sent, but for the time of each slice of the walk: then whoever sends has it.
    walk: Option<Walk>,
    /// Publishers that wait for room.
    publishers: Vec<Waker>,
}

/// How far a batch has come.
struct Walk {
    batch: Batch,
    /// The key of the next seat.
    next: usize,
}

/// Members of a room to send to: who, how, and from which event on.
pub(super) type Slice = Vec<(ConnectionId, Arc<Outbox>, u64)>;

/// Who is in a room: all of them, as many as were asked for, or none if there are more.
pub(super) enum Inside {
    /// By connection, with what each shows in this room.
    Connections(usize, Option<Vec<(ConnectionId, Data)>>),
    /// By user: how many, and the number of connections before them.
    Users(usize, usize, Option<Vec<PresentUser>>),
}

impl Room {
    pub(super) fn new(name: Option<RoomName>, flusher: Arc<Flusher>, traits: &RoomTraits, presence: &Presence) -> Self {
        let special = (*traits != RoomTraits::default()).then(|| {
            let crowd = traits.presence.then(|| presence.crowd(traits.presence_limit));
            Box::new(Special { traits: *traits, crowd, data: HashMap::new() })
        });
        // Most rooms are personal, and most users have one connection.
        let state = State { seats: Slab::with_capacity(1), next: 0, flow: None, special };
        Self { name, flusher, sending: Mutex::default(), state: Mutex::new(state) }
    }

    pub(super) fn name(&self) -> Option<&RoomName> {
        self.name.as_ref()
    }

    /// Adds a member, and gives the key of its seat. What it is told is in its outbox before any
    /// event of the room.
    ///
    /// # Errors
    /// As many members are in it as there may be: how many that are.
    pub(super) fn add(self: &Arc<Self>, member: &Member, entry: Entry, presence: &Presence) -> Result<u32, usize> {
        let mut state = self.state.lock();
        let max = state.traits().max_members;
        // Seats have numbers of 32 bits.
        if state.seats.len() >= u32::MAX as usize || state.seats.len() >= max {
            return Err(max);
        }
        if let Some(told) = entry.told {
            member.outbox().push(told);
        }
        let (seat, plan) = state.seat(member, entry.data, presence);
        drop(state);
        if let Some(plan) = plan {
            presence.plan(self, plan);
        }
        Ok(seat)
    }

    /// Takes a member from its seat, and says whether the room is empty now. Events that are on
    /// their way to it are lost: for a connection that has ended.
    pub(super) fn remove(self: &Arc<Self>, seat: u32, member: &Member, presence: &Presence) -> bool {
        let mut state = self.state.lock();
        // Dropped when the lock is not held any more: it may be the last of its connection.
        let (left, plan) = state.unseat(seat, member, presence);
        let empty = state.seats.is_empty();
        drop(state);
        drop(left);
        if let Some(plan) = plan {
            presence.plan(self, plan);
        }
        empty
    }

    /// Sends a member what is on its way to it, takes it from its seat, and says whether the room is
    /// empty now. Nothing of the room comes to it any more.
    pub(super) fn leave(self: &Arc<Self>, seat: u32, member: &Member, presence: &Presence) -> bool {
        let mut state = self.state.lock();
        let mut sending = None;
        if state.flow.is_some() {
            drop(state);
            sending = Some(self.sending.lock());
            state = self.state.lock();
            state.catch_up(seat);
        }
        let (_left, plan) = state.unseat(seat, member, presence);
        drop(sending);
        let empty = state.seats.is_empty();
        drop(state);
        if let Some(plan) = plan {
            presence.plan(self, plan);
        }
        empty
    }

    /// Announces who has come and gone, if that was planned for `at`, and says when to come again.
    pub(super) fn announce(self: &Arc<Self>, at: Instant, now: Instant) -> Option<Plan> {
        let mut state = self.state.lock();
        let is_full = state.is_full();
        let (news, plan) = state.special.as_mut()?.crowd.as_mut()?.look(at, now, is_full);
        if let (Some(news), Some(name)) = (news, self.name()) {
            let encode = |out: &mut _| news.response(name).append_to(out);
            let first = state.publish(news.bytes(), Except::Nobody, None, FanOut::default(), encode);
            self.flush_later(state, first);
        }
        plan
    }

    /// Who is in the room, if there are no more than `max` users; without it, as many as a member
    /// may be given, who is given it now.
    pub(super) fn inside(&self, max: Option<usize>) -> Inside {
        let mut state = self.state.lock();
        let connections = state.len();
        let limit = max.unwrap_or(state.traits().presence_limit);
        let State { seats, special, .. } = &mut *state;
        let (crowd, data) = special.as_deref_mut().map(|special| (&mut special.crowd, &special.data)).unzip();
        let Some(crowd) = crowd.and_then(Option::as_mut) else {
            let shown = |seat| data.and_then(|data| data.get(&seat).cloned());
            let list = || seats.iter().map(|(key, seat)| (seat.id, shown(key as u32))).collect();
            return Inside::Connections(connections, (connections <= limit.saturating_mul(4)).then(list));
        };
        let list = (crowd.len() <= limit).then(|| crowd.list());
        if max.is_none() && list.is_some() {
            crowd.has_listed();
        }
        Inside::Users(connections, crowd.len(), list)
    }

    /// How many users a member gets listed who asks.
    pub(super) fn max_listed(&self) -> usize {
        self.state.lock().traits().presence_limit
    }

    /// Sends one member what is on its way to it now, before anything else happens to it.
    pub(super) fn catch_up(&self, seat: u32) {
        if self.state.lock().flow.is_none() {
            return;
        }
        let _nothing_is_being_sent = self.sending.lock();
        self.state.lock().catch_up(seat);
    }

    /// The room's table, for whoever publishes: [`State::publish`] and then [`Room::flush_later`].
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Gives the room to its flusher, unless it is there already.
    pub(super) fn flush_later(self: &Arc<Self>, state: MutexGuard<'_, State>, first: bool) {
        drop(state);
        if first {
            self.flusher.queue(Arc::clone(self));
        }
    }

    /// Sends the events that come next to as many members, at most, as `slice` has room for. Says
    /// whether there are more to send.
    pub(super) fn flush(&self, slice: &mut Slice, members: usize) -> bool {
        let _sending = self.sending.lock();
        let Some(walk) = self.state.lock().next_slice(slice, members) else { return false };
        for (id, outbox, since) in slice.iter() {
            walk.batch.send(*id, outbox, *since);
        }
        let (more, done) = self.state.lock().resume(walk);
        // Not while anybody waits for the room: with the last batch, memory is freed and spans end.
        drop(done);
        more
    }

    /// Ready when the room takes events.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        match &mut state.flow {
            Some(flow) if flow.is_full() => {
                if !flow.publishers.iter().any(|waker| waker.will_wake(cx.waker())) {
                    flow.publishers.push(cx.waker().clone());
                }
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().seats.is_empty()
    }

    /// How many members there are, and the ids of as many of them as are asked for.
    pub(super) fn members(&self, max: usize) -> (usize, Vec<ConnectionId>) {
        let state = self.state.lock();
        (state.len(), state.ids().take(max).collect())
    }
}

impl State {
    /// Whether there is room for another event.
    pub(super) fn is_full(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.is_full())
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    fn traits(&self) -> RoomTraits {
        self.special.as_ref().map(|special| special.traits).unwrap_or_default()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.seats.iter().map(|(_, seat)| seat.id)
    }

    /// Adds an event of `about` so many bytes to those that wait to go out, and says whether it is
    /// the first.
    pub(super) fn publish(
        &mut self,
        about: usize,
        except: Except,
        expires: Option<Expiry>,
        fan_out: FanOut,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        if self.seats.is_empty() {
            return false;
        }
        let first = self.flow.is_none();
        let flow = self.flow.get_or_insert_default();
        let fits = |batch: &Batch<Vec<u8>>| batch.takes_more() && batch.len() + about <= BATCH_BYTES;
        if expires.is_some() || !flow.waiting.back().is_some_and(fits) {
            flow.waiting.push_back(Batch::starting_at(self.next, expires));
        }
        if let Some(batch) = flow.waiting.back_mut() {
            flow.bytes += batch.add(about, except, fan_out, encode);
        }
        self.next += 1;
        first
    }

    /// Gives a member a seat, and says when the crowd is to be looked at, if it is.
    fn seat(&mut self, member: &Member, data: Data, presence: &Presence) -> (u32, Option<Plan>) {
        let since = self.next;
        // A key is below the largest number of seats that there ever were, and that is bounded.
        let seat = self.seats.insert(Seat { id: member.id(), outbox: Arc::clone(member.outbox()), since }) as u32;
        if self.special.is_none() && data.is_none() {
            return (seat, None);
        }
        let special = self.special.get_or_insert_default();
        if let Some(crowd) = &mut special.crowd {
            let data = data.or_else(|| member.profile().cloned());
            return (seat, crowd.enter(member.user(), seat, data, presence.now()));
        }
        special.data.extend(data.map(|data| (seat, data)));
        (seat, None)
    }

    /// Takes a member from its seat, and says when the crowd is to be looked at, if it is.
    fn unseat(&mut self, seat: u32, member: &Member, presence: &Presence) -> (Option<Seat>, Option<Plan>) {
        let left = self.seats.try_remove(seat as usize);
        let Some(special) = &mut self.special else { return (left, None) };
        special.data.remove(&seat);
        let plan = special.crowd.as_mut().and_then(|crowd| crowd.leave(member.user(), seat, presence.now()));
        (left, plan)
    }

    /// Sends one member what is on its way to it; nothing must be being sent.
    fn catch_up(&mut self, seat: u32) {
        let Self { seats, next, flow: Some(flow), .. } = self else { return };
        let Some(Seat { id, outbox, since }) = seats.get_mut(seat as usize) else { return };
        if let Some(Walk { batch, .. }) = &flow.walk
            && *since < batch.end()
        {
            batch.send(*id, outbox, *since);
        }
        for batch in &flow.waiting {
            batch.send_copy(*id, outbox, *since);
        }
        *since = *next;
    }

    /// The next members of the batch that is being sent, or of the next one, and the walk over it.
    fn next_slice(&mut self, slice: &mut Slice, members: usize) -> Option<Walk> {
        let flow = self.flow.as_mut()?;
        let mut walk = match flow.walk.take() {
            Some(walk) => walk,
            None => Walk { batch: flow.waiting.pop_front()?.complete(), next: 0 },
        };
        let (keys, end) = (self.seats.capacity(), walk.batch.end());
        while slice.len() < members && walk.next < keys {
            if let Some(seat) = self.seats.get_mut(walk.next)
                && seat.since < end
            {
                slice.push((seat.id, Arc::clone(&seat.outbox), seat.since));
                seat.since = end;
            }
            walk.next += 1;
        }
        Some(walk)
    }

    /// A slice of the walk has been sent. Says whether there is more to send, and gives back the walk
    /// if it is done.
    fn resume(&mut self, walk: Walk) -> (bool, Option<Walk>) {
        let Some(flow) = &mut self.flow else { return (false, Some(walk)) };
        if walk.next < self.seats.capacity() {
            flow.walk = Some(walk);
            return (true, None);
        }
        flow.bytes -= walk.batch.len();
        if !flow.is_full() {
            flow.publishers.drain(..).for_each(Waker::wake);
        }
        let more = !flow.waiting.is_empty();
        if !more {
            self.flow = None;
        }
        (more, Some(walk))
    }
}

impl Flow {
    fn is_full(&self) -> bool {
        self.bytes >= ROOM_BYTES
    }
}
