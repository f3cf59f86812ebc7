//! An event's way into its rooms.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::protocol::{ConnectionId, EventName, Response, RoomName, Target, UserId};
use crate::trace::Trace;

use super::batch::Except;
use super::room::Room;
use super::{Expiry, Hub, Member};

/// About what an event's frame has beside its data.
const ENVELOPE_BYTES: usize = 128;

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
    /// When it is not to be sent any more.
    pub expires: Option<&'a Expiry>,
}

/// The rooms of one event: mostly one, and then without an allocation.
type Rooms = SmallVec<[Arc<Room>; 1]>;

/// A room has too many events on their way to take another.
pub struct Full(Arc<Room>);

/// An event on its way into its rooms: a future that is ready at once, unless one of them is full;
/// then it waits until some events have gone out. Its output is the number of connections that the
/// event goes to.
#[must_use = "an event is not published before this is polled"]
pub struct Publish<'a> {
    hub: &'a Hub,
    event: &'a Event<'a>,
    publisher: Option<&'a Arc<Member>>,
    trace: Trace,
}

impl Hub {
    /// Publishes an event, encoded once per room that it goes to. A connection gets one copy at
    /// most: by the first of its rooms, else by its own name. `publisher` is who is meant by
    /// [`Target::itself`].
    pub fn publish<'a>(&'a self, event: &'a Event<'a>, publisher: Option<&'a Arc<Member>>) -> Publish<'a> {
        Publish { hub: self, event, publisher, trace: Trace::default() }
    }

    /// Publishes at once, as [`Hub::publish`] does.
    ///
    /// # Errors
    /// One of the rooms is full; then nobody gets the event.
    pub fn try_publish(&self, event: &Event<'_>, publisher: Option<&Arc<Member>>) -> Result<usize, Full> {
        self.put(event, publisher, &Trace::default())
    }

    fn put(&self, event: &Event<'_>, publisher: Option<&Arc<Member>>, trace: &Trace) -> Result<usize, Full> {
        let rooms = self.in_order(event.to);
        let (except, mut inside) = self.resolve(event.except, publisher, rooms.first());
        // All of them at once, or else two events could be in one order here and in another there.
        let mut states: SmallVec<[_; 1]> = rooms.iter().map(|room| room.state()).collect();
        if let Some(full) = states.iter().position(|state| state.is_full()) {
            drop(states);
            return Err(Full(rooms.into_iter().nth(full).unwrap_or_else(|| Arc::clone(&self.everyone))));
        }
        let direct = self.by_name(event.to, publisher);
        let several = rooms.len() > 1 || !direct.is_empty();
        // Who has it by a room already; of no use where there is one room only.
        let mut reached_ids = HashSet::new();
        let mut reached = 0;
        let mut first: SmallVec<[bool; 1]> = SmallVec::new();
        for (room, state) in rooms.iter().zip(&mut states) {
            let (except, outside) = if reached_ids.is_empty() {
                let count = || state.ids().filter(|id| except.contains(*id)).count();
                (except.clone(), inside.take().unwrap_or_else(count))
            } else {
                // Only those of this room: with many rooms, all of all rooms before would be too many.
                let not = |id: &ConnectionId| except.contains(*id) || reached_ids.contains(id);
                let outside: SmallVec<[ConnectionId; 8]> = state.ids().filter(not).collect();
                (outside.iter().copied().collect(), outside.len())
            };
            // Whoever was counted as outside may have left since.
            let inside = state.len().saturating_sub(outside);
            reached += inside;
            if several {
                reached_ids.extend(state.ids());
            }
            let about = event.data.get().len() + ENVELOPE_BYTES;
            let expires = event.expires.cloned();
            let encode = |out: &mut _| response(event, room.name()).append_to(out);
            first.push(state.publish(about, except, expires, trace.fan_out(inside), encode));
        }
        for ((room, state), first) in rooms.iter().zip(states).zip(first) {
            room.flush_later(state, first);
        }
        let fresh = direct.iter().filter(|member| !except.contains(member.id()) && reached_ids.insert(member.id()));
        Ok(reached + deliver(event, trace, fresh))
    }

    /// The rooms that there are of a target's, each once and in the order of their names, everyone's
    /// last: publishers that lock several keep to it, so that none waits for another in a circle.
    fn in_order(&self, target: &Target) -> Rooms {
        let everyone = target.all.then(|| Arc::clone(&self.everyone));
        let mut rooms: Rooms = target.rooms.iter().filter_map(|name| self.room(name)).collect();
        if !target.patterns.is_empty() {
            let matches = |name: &RoomName| target.patterns.iter().any(|pattern| pattern.is_of_kind(name));
            let found = self.rooms.iter().filter(|room| matches(room.key()));
            rooms.extend(found.map(|room| Arc::clone(&room)));
        }
        rooms.sort_unstable_by(|one, other| one.name().cmp(&other.name()));
        rooms.dedup_by(|one, other| Arc::ptr_eq(one, other));
        rooms.into_iter().chain(everyone).collect()
    }

    /// Those whom a target names otherwise than by a room.
    fn by_name(&self, target: &Target, publisher: Option<&Arc<Member>>) -> Vec<Arc<Member>> {
        let mut named = self.named(&target.connections);
        named.extend(publisher.filter(|_| target.itself).cloned());
        named
    }

    /// The connections that a target stands for and, where that is cheap to know, how many of them
    /// are in a room.
    fn resolve(
        &self,
        target: &Target,
        publisher: Option<&Arc<Member>>,
        room: Option<&Arc<Room>>,
    ) -> (Except, Option<usize>) {
        let named = self.by_name(target, publisher);
        let except: Except = named.iter().map(|member| member.id()).collect();
        let rooms = self.in_order(target);
        if rooms.is_empty() && named.len() <= 1 {
            let inside = named.iter().filter(|member| room.is_some_and(|room| member.places().is_in(room)));
            return (except, Some(inside.count()));
        }
        (except.and(rooms.iter().flat_map(|room| room.members(usize::MAX).1)), None)
    }
}

impl Publish<'_> {
    /// The event belongs to a trace.
    pub fn traced(self, trace: Trace) -> Self {
        Self { trace, ..self }
    }
}

impl Full {
    /// Ready when it is worth trying again.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }
}

impl Future for Publish<'_> {
    type Output = usize;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<usize> {
        loop {
            match self.hub.put(self.event, self.publisher, &self.trace) {
                Ok(reached) => return Poll::Ready(reached),
                Err(full) => ready!(full.poll_ready(cx)),
            }
        }
    }
}

/// Gives an event to connections, and says to how many.
fn deliver<'m>(event: &Event<'_>, trace: &Trace, members: impl Iterator<Item = &'m Arc<Member>>) -> usize {
    let mut members = members.peekable();
    if members.peek().is_none() {
        return 0;
    }
    let (frame, fan_out) = (response(event, None).frame(), trace.by_name());
    let give = |member: &&Arc<Member>| member.outbox().push_traced(frame.clone(), event.expires, &fan_out);
    let reached = members.filter(give).count();
    fan_out.done(reached, frame.len());
    reached
}

fn response<'a>(event: &'a Event<'_>, room: Option<&'a RoomName>) -> Response<'a> {
    Response::Event { room, event: event.name, from: event.from, data: event.data, reply_to: None }
}
