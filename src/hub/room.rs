//! One room: its members, the one order of its events, and those that are on their way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::{Mutex, MutexGuard};
use slab::Slab;

use crate::protocol::{ConnectionId, Frame, RoomName};

use super::batch::{Batch, Except};
use super::flusher::Flusher;
use super::member::Member;

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

#[derive(Default)]
pub(super) struct State {
    seats: Slab<Seat>,
    /// The number of the next event.
    next: u64,
    /// Boxed, because most rooms are idle.
    flow: Option<Box<Flow>>,
}

struct Seat {
    member: Arc<Member>,
    /// The number of the next event that this member is to get.
    since: u64,
}

/// Events on their way. There is a flow as long as the room is with its flusher.
#[derive(Default)]
struct Flow {
    waiting: VecDeque<Batch<Vec<u8>>>,
    /// The bytes that wait and those that are being sent.
    bytes: usize,
    walk: Option<Walk>,
    /// Publishers that wait for room.
    publishers: Vec<Waker>,
}

/// How far a batch has come.
struct Walk {
    batch: Arc<Batch>,
    /// The key of the next seat.
    next: usize,
}

/// Members and the number of the first event of a batch that each is to get.
pub(super) type Slice = Vec<(Arc<Member>, u64)>;

impl Room {
    pub(super) fn new(name: Option<RoomName>, flusher: Arc<Flusher>) -> Self {
        Self { name, flusher, sending: Mutex::default(), state: Mutex::default() }
    }

    pub(super) fn name(&self) -> Option<&RoomName> {
        self.name.as_ref()
    }

    /// Adds a member, and gives the key of its seat. What it is told is in its outbox before any
    /// event of the room.
    pub(super) fn add(&self, member: &Arc<Member>, told: Option<Frame>) -> usize {
        let mut state = self.state.lock();
        if let Some(told) = told {
            member.outbox().push(told);
        }
        let since = state.next;
        state.seats.insert(Seat { member: Arc::clone(member), since })
    }

    /// Takes a member from its seat, and says whether the room is empty now. Events that are on
    /// their way to it are lost: see [`Room::catch_up`].
    pub(super) fn remove(&self, seat: usize) -> bool {
        let mut state = self.state.lock();
        // Dropped when the lock is not held any more: it may be the last of its connection.
        let left = state.seats.try_remove(seat);
        let empty = state.seats.is_empty();
        drop(state);
        drop(left);
        empty
    }

    /// Sends one member what is on its way to it now, before anything else happens to it.
    pub(super) fn catch_up(&self, seat: usize) {
        if self.state.lock().flow.is_none() {
            return;
        }
        let _nothing_is_being_sent = self.sending.lock();
        let mut state = self.state.lock();
        let State { seats, next, flow: Some(flow) } = &mut *state else { return };
        let Some(Seat { member, since }) = seats.get_mut(seat) else { return };
        if let Some(Walk { batch, .. }) = &flow.walk
            && *since < batch.end()
        {
            member.deliver(&batch.part_for(member.id(), *since));
        }
        for batch in &flow.waiting {
            member.deliver(&batch.excerpt(member.id(), *since));
        }
        *since = *next;
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
        let Some((batch, finished)) = self.state.lock().next_slice(slice, members) else { return false };
        for (member, since) in slice.iter() {
            member.deliver(&batch.part_for(member.id(), *since));
        }
        !finished || self.state.lock().finish(batch.len())
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

    /// How many members there are, and as many of them as are asked for.
    pub(super) fn members(&self, max: usize) -> (usize, Vec<Arc<Member>>) {
        let state = self.state.lock();
        let members = state.seats.iter().take(max).map(|(_, seat)| Arc::clone(&seat.member));
        (state.seats.len(), members.collect())
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

    pub(super) fn ids(&self) -> impl Iterator<Item = ConnectionId> {
        self.seats.iter().map(|(_, seat)| seat.member.id())
    }

    /// Adds an event of `about` so many bytes to those that wait to go out, and says whether it is
    /// the first.
    pub(super) fn publish(&mut self, about: usize, except: Except, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.seats.is_empty() {
            return false;
        }
        let first = self.flow.is_none();
        let flow = self.flow.get_or_insert_default();
        if flow.waiting.back().is_none_or(|batch| batch.len() + about > BATCH_BYTES) {
            flow.waiting.push_back(Batch::starting_at(self.next));
        }
        if let Some(batch) = flow.waiting.back_mut() {
            flow.bytes += batch.add(about, except, encode);
        }
        self.next += 1;
        first
    }

    /// The next members of the batch that is being sent, or of the next one; and whether they are
    /// the last.
    fn next_slice(&mut self, slice: &mut Slice, members: usize) -> Option<(Arc<Batch>, bool)> {
        let flow = self.flow.as_mut()?;
        if flow.walk.is_none() {
            let batch = flow.waiting.pop_front()?.complete();
            flow.walk = Some(Walk { batch: Arc::new(batch), next: 0 });
        }
        let Walk { batch, next } = flow.walk.as_mut()?;
        let (keys, end) = (self.seats.capacity(), batch.end());
        while slice.len() < members && *next < keys {
            if let Some(seat) = self.seats.get_mut(*next)
                && seat.since < end
            {
                slice.push((Arc::clone(&seat.member), seat.since));
                seat.since = end;
            }
            *next += 1;
        }
        Some((Arc::clone(batch), *next >= keys))
    }

    /// A batch of so many bytes has been sent to all. Says whether there is another.
    fn finish(&mut self, bytes: usize) -> bool {
        let Some(flow) = &mut self.flow else { return false };
        flow.walk = None;
        flow.bytes -= bytes;
        if !flow.is_full() {
            flow.publishers.drain(..).for_each(Waker::wake);
        }
        let more = !flow.waiting.is_empty();
        if !more {
            self.flow = None;
        }
        more
    }
}

impl Flow {
    fn is_full(&self) -> bool {
        self.bytes >= ROOM_BYTES
    }
}
