//! What the frames of one connection mean: proof of identity first, then requests, until it ends.

mod pace;
mod pending;
mod proof;
mod rooms;

use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, ready};
use futures_util::{FutureExt, StreamExt, stream};
use serde_json::value::RawValue;

use crate::auth::{Identity, SECURITY, TokenError};
use crate::backend::{self, Event, Verdict};
use crate::errand::{ERRAND, RECHECK};
use crate::hub::{Full, Member, Membership};
use crate::protocol::{
    Action, Bounds, Close, CloseCode, ConnectionId, ErrorCode, InquiryId, Refusal, Request, RequestId, Response,
    RoomName, UserId,
};

use super::Door;
use super::address::Visit;
use super::socket::{Ended, Message, Socket};
use pace::Pace;
use pending::{Done, Pending};
use proof::expiry;

/// A connection that has proven who it is. Dropping it leaves the hub.
pub(super) struct Session {
    door: Arc<Door>,
    membership: Membership,
    identity: Identity,
    /// When the client is to be told that its token ends, as the time since the Unix epoch; none
    /// once it has been.
    warn_at: Option<Duration>,
    /// When to look at the clock next, for the warning or the end.
    look_at: Instant,
    /// When the connection has lived as long as one may, in milliseconds since the Unix epoch.
    lives_until: u64,
    bad_frames: u32,
    /// How often what is being asked of the backend was to be asked anew.
    changes: u32,
    busy: Option<Box<Busy>>,
    /// What had been revoked when it was last asked whether this is meant.
    revocations: u64,
    /// Its being counted among those of its address, if it is.
    visit: Option<Box<Visit>>,
}

/// What a connection has under way: an idle one has nothing, and keeps no room for it.
#[derive(Default)]
struct Busy {
    held: Option<Held>,
    /// What waits for the backend.
    pending: Vec<Pending>,
    pace: Pace,
}

/// What is to be done before anything further is heard.
enum Held {
    /// A message that waits for room.
    Full { message: Message, full: Full },
    /// An event of which the backend is asked whether it may be published. What else the client has
    /// published must not overtake it.
    Unasked { message: Message, asking: BoxFuture<'static, Vec<(RoomName, Verdict)>> },
    /// A renewal whose proof is being looked at, and the id under which that is to be answered.
    Renewal { id: Option<Box<RawValue>>, proving: BoxFuture<'static, Result<Identity, TokenError>> },
}

/// What can be done now.
enum Released {
    /// The message may be heard again, with what the backend has said of it.
    Message(Message, Vec<(RoomName, Verdict)>),
    /// The proof has been looked at.
    Renewal { id: Option<Box<RawValue>>, proof: Result<Identity, TokenError> },
}

/// Why a request is not done.
enum Undone {
    /// It is refused.
    Refused(Refusal),
    /// Not yet: a room is full.
    Later(Full),
    /// Not yet: the backend has to be asked about these rooms.
    Unasked(Vec<RoomName>),
}

impl Held {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Released> {
        match self {
            Self::Full { message, full } => {
                task::ready!(full.poll_ready(cx));
                Poll::Ready(Released::Message(message.clone(), Vec::new()))
            }
            Self::Unasked { message, asking } => {
                let verdicts = task::ready!(asking.poll_unpin(cx));
                Poll::Ready(Released::Message(message.clone(), verdicts))
            }
            Self::Renewal { id, proving } => {
                let proof = task::ready!(proving.as_mut().poll(cx));
                Poll::Ready(Released::Renewal { id: id.take(), proof })
            }
        }
    }
}

impl From<Refusal> for Undone {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Whoever asks is not to wait for somebody who has gone. It has left the hub first: whoever asks
        // from now on does not find it, or sees that it has left.
        self.membership.end();
        self.door.parts.inquiries.lose(self.member().id());
        if self.member().take_notices() & ERRAND != 0 {
            drop(self.door.parts.errands.take(self.member().id()));
        }
    }
}

/// The limit that a request is refused for, if it is.
fn limit_behind(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::TooManyRooms => Some("max_rooms"),
        ErrorCode::RoomFull => Some("max_members"),
        ErrorCode::TooManyPending => Some("max_pending"),
        ErrorCode::TooFast => Some("max_publishes_per_second"),
        ErrorCode::DataTooLarge => Some("max_data_bytes"),
        ErrorCode::TooDeep => Some("max_depth"),
        _ => None,
    }
}

pub(super) fn bounds(door: &Door) -> Bounds {
    let limits = door.parts.limits.get();
    Bounds { max_depth: limits.max_depth, max_targets: limits.max_targets }
}

/// When a connection that begins now has lived as long as one may, in milliseconds since the Unix epoch.
fn lives_until(door: &Door) -> u64 {
    let lifetime = door.parts.limits.get().lifetime();
    let until = lifetime.and_then(|lifetime| u64::try_from((door.parts.clock.unix() + lifetime).as_millis()).ok());
    until.unwrap_or(u64::MAX)
}

pub(super) fn text_of(message: &Message) -> Result<&str, Close> {
    match message {
        Message::Text(text) => Ok(text),
        Message::Binary(_) => Err(Close::new(CloseCode::UnsupportedData, "only text is spoken here, not binary")),
    }
}

impl Session {
    /// Lets a connection in: the welcome is the first thing that it hears.
    pub(super) fn enter(
        socket: &Socket,
        door: Arc<Door>,
        id: ConnectionId,
        identity: Identity,
        answer_to: Option<RequestId<'_>>,
        visit: Option<Box<Visit>>,
    ) -> Box<Self> {
        let outbox = Arc::clone(socket.outbox());
        let (expires_at, expires_in) = expiry(&identity, &door);
        let rooms = [RoomName::personal(&identity.user)];
        let user = &identity.user;
        let max_message_bytes = door.parts.limits.get().max_message_bytes;
        let welcome =
            Response::Welcome { connection: id, user, expires_at, expires_in, rooms: &rooms, max_message_bytes };
        outbox.push(welcome.frame());
        if answer_to.is_some() {
            outbox.push(Response::renewed(answer_to, expires_at, expires_in).frame());
        }
        let membership =
            door.parts.hub.enter(id, identity.user.clone(), outbox, Arc::clone(&door.flusher), identity.profile());
        let mut session = Box::new(Self {
            warn_at: None,
            look_at: door.parts.clock.now(),
            lives_until: lives_until(&door),
            bad_frames: 0,
            changes: 0,
            busy: None,
            // None: what was revoked while it was being let in concerns it too.
            revocations: 0,
            visit,
            door,
            membership,
            identity,
        });
        session.mark();
        session.plan_warning();
        let (door, user, connection) = (&session.door, &session.identity.user, session.member().id());
        door.parts.backend.tell(|| {
            let (at, connections) = (door.parts.clock.unix().as_secs(), connections_of(user, door));
            Event::Connected { user: user.clone(), connection, at, connections }
        });
        session
    }

    /// Closes the oldest of the user's connections that are too many with this one.
    pub(super) fn replace_oldest(&self, is_local: bool) {
        let (door, personal) = (&self.door, RoomName::personal(&self.identity.user));
        let Some(max) = door.parts.limits.get().connections_per_user(is_local) else { return };
        if door.parts.hub.members_of(&personal, 0).0 <= max {
            return;
        }
        let mut connections = door.parts.hub.connections_of(&self.identity.user);
        connections.sort_by_key(|member| member.order());
        let excess = connections.len().saturating_sub(max);
        for member in connections.iter().take(excess) {
            let reason = "a newer connection of this user took its place";
            if door.parts.hub.close(member, Close::new(CloseCode::Replaced, reason)) {
                let user = self.identity.user.as_str();
                tracing::info!(target: SECURITY, reason = "max_connections_per_user", user, "the oldest connection was closed");
                door.parts.metrics.limit("max_connections_per_user");
            }
        }
    }

    /// The connection has come to its end: it leaves the hub, and the backend is told. It counts as one of its
    /// address until what is given back is dropped.
    pub(super) fn end(mut self: Box<Self>, ended: &Ended) -> Option<Box<Visit>> {
        let visit = self.visit.take();
        let (door, user, connection) = (Arc::clone(&self.door), self.identity.user.clone(), self.member().id());
        // It is not to be counted any more.
        drop(self);
        let close = if let Ended::ByUs(close) = ended { Some(close) } else { None };
        if let Some(close) = close
            .filter(|close| matches!(close.code, CloseCode::LimitExceeded | CloseCode::BadFrame | CloseCode::TooSlow))
        {
            let (code, user) = (close.code.number(), user.as_str());
            tracing::warn!(target: SECURITY, code, reason = &*close.reason, user, "a client was closed");
        }
        let (code, reason) = (close.map(|close| close.code.number()), close.map(|close| close.reason.to_string()));
        let at = door.parts.clock.unix().as_secs();
        door.parts.backend.tell(|| {
            let connections = connections_of(&user, &door);
            Event::Disconnected { user, connection, at, connections, code, reason }
        });
        visit
    }

    /// Acts on what the client sends until one of the two has had enough.
    pub(super) fn poll_run(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<Ended> {
        loop {
            if let Err(close) = self.check_revoked() {
                return Poll::Ready(close.into());
            }
            self.heed_notices();
            if let Some(done) = self.poll_pending(cx) {
                match self.finish(done) {
                    Ok(()) => continue,
                    Err(close) => return Poll::Ready(close.into()),
                }
            }
            let acted = match self.poll_held(cx) {
                Some(Poll::Ready(released)) => self.release(released),
                Some(Poll::Pending) => match task::ready!(socket.poll_deadline(cx, self.look_at)) {
                    Ok(()) => self.look_at_clock(),
                    Err(ended) => return Poll::Ready(ended),
                },
                None => match task::ready!(self.poll_receive(cx, socket)) {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => self.look_at_clock(),
                    Err(ended) => return Poll::Ready(ended),
                },
            };
            if let Err(close) = acted {
                return Poll::Ready(close.into());
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<Result<Option<Message>, Ended>> {
        let received = socket.poll_receive(cx, self.look_at);
        if let Poll::Ready(Ok(Some(message))) = &received {
            self.door.flusher.traffic().heard(message.len());
        }
        if socket.take_slowed() {
            self.door.parts.metrics.limit("max_frames_per_second");
        }
        received
    }

    /// Whether something is held, and whether it still has to be.
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Option<Poll<Released>> {
        let busy = self.busy.as_mut()?;
        // A renewal waits for them: who renews again and again would else put off every no.
        let stays = busy.pending.iter().any(Pending::is_to_stay);
        let held = busy.held.as_mut()?;
        if stays && matches!(held, Held::Renewal { .. }) {
            return Some(Poll::Pending);
        }
        let polled = held.poll(cx);
        if polled.is_ready() {
            busy.held = None;
            self.settle();
        }
        Some(polled)
    }

    fn hold(&mut self, held: Held) {
        self.busy().held = Some(held);
    }

    fn busy(&mut self) -> &mut Busy {
        self.busy.get_or_insert_default()
    }

    /// Gives back the room for what is under way, if nothing is.
    fn settle(&mut self) {
        let now = self.door.parts.clock.now();
        self.busy.take_if(|busy| busy.held.is_none() && busy.pending.is_empty() && busy.pace.is_idle(now));
    }

    /// Goes on with what was held.
    fn release(&mut self, released: Released) -> Result<(), Close> {
        match released {
            Released::Message(message, verdicts) => self.hear_again(message, &verdicts),
            Released::Renewal { id, proof } => {
                self.check_expiry()?;
                let id = id.as_deref().map(RequestId::of);
                match self.renew(id, proof) {
                    Ok(()) => Ok(()),
                    Err(refusal) => self.refuse(id, &refusal),
                }
            }
        }
    }

    /// Acts on one message, unless the token has ended. Nothing further is heard of a client whose
    /// event has no room yet: it is held, and heard again when there is.
    fn hear(&mut self, message: Message) -> Result<(), Close> {
        self.hear_again(message, &[])
    }

    fn hear_again(&mut self, message: Message, verdicts: &[(RoomName, Verdict)]) -> Result<(), Close> {
        self.check_expiry()?;
        self.check_revoked()?;
        let (id, undone) = match Request::parse(text_of(&message)?, bounds(&self.door)) {
            Ok(Request { id, action }) => match self.act(id, action, verdicts) {
                Ok(()) => return Ok(()),
                Err(undone) => (id, undone),
            },
            Err((id, refusal)) => (id, refusal.into()),
        };
        match undone {
            Undone::Refused(refusal) => self.refuse(id, &refusal),
            Undone::Later(full) => {
                self.hold(Held::Full { message, full });
                Ok(())
            }
            Undone::Unasked(rooms) => {
                let ask =
                    |room: RoomName| self.verdict(room.clone(), backend::Action::Publish).map(|said| (room, said));
                // Asked when they are polled: one event must not take the turns of everybody.
                let questions: Vec<_> = rooms.into_iter().map(ask).collect();
                let asking =
                    stream::iter(questions).buffered(self.door.parts.limits.get().max_pending.max(1)).collect().boxed();
                self.hold(Held::Unasked { message, asking });
                Ok(())
            }
        }
    }

    /// Goes on with what has waited for the backend.
    fn finish(&mut self, mut done: Done) -> Result<(), Close> {
        self.check_expiry()?;
        let id = done.id.take();
        let id = id.as_deref().map(RequestId::of);
        match self.go_on(id, done) {
            Err(Undone::Refused(refusal)) => self.refuse(id, &refusal),
            // Nothing that waits publishes.
            Ok(()) | Err(Undone::Later(_) | Undone::Unasked(_)) => Ok(()),
        }
    }

    fn act(
        &mut self,
        id: Option<RequestId<'_>>,
        action: Action<'_>,
        verdicts: &[(RoomName, Verdict)],
    ) -> Result<(), Undone> {
        match action {
            Action::Auth(proof) => {
                self.look_into(id, proof.into());
                Ok(())
            }
            Action::Join { room } => self.join(id, &room),
            Action::Leave { room } => Ok(self.leave(id, &room)?),
            Action::Publish(publication) => self.publish(id, &publication, verdicts),
            Action::Members { room } => self.members(id, &room),
            Action::Call(call) => Ok(self.call(id, call)?),
            Action::Answer { reply_to, data } => Ok(self.answer(id, reply_to, data)?),
            Action::Ping => {
                self.say(&Response::done(id));
                Ok(())
            }
        }
    }

    /// Hands an answer to the backend that has asked.
    fn answer(&self, id: Option<RequestId<'_>>, reply_to: InquiryId, data: &RawValue) -> Result<(), Refusal> {
        self.door
            .parts
            .inquiries
            .answer(reply_to, self.member().id(), data)
            .map_err(|error| Refusal::of(ErrorCode::NotAsked, "reply_to", error.to_string()))?;
        if id.is_some() {
            self.say(&Response::done(id));
        }
        Ok(())
    }

    /// Has everything decided anew that has been left to the backend, whether it has been answered or not:
    /// an answer may be from before whatever has changed.
    fn decide_anew(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        if let Some(Held::Unasked { asking, .. }) = self.busy.as_mut().and_then(|busy| busy.held.as_mut()) {
            // Without an answer the message is heard as if for the first time.
            *asking = ready(Vec::new()).boxed();
        }
        self.recheck();
    }

    /// Does what backends want of this connection.
    fn heed_notices(&mut self) {
        let notices = self.member().take_notices();
        if notices & RECHECK != 0 {
            self.decide_anew();
        }
        if notices & ERRAND != 0 {
            for question in self.door.parts.errands.take(self.member().id()) {
                let ruling = self.door.parts.rules.load().explain(&self.identity, question.permission, &question.room);
                // Whoever asked may have gone.
                let _gone = question.answer.send(ruling);
            }
        }
    }

    /// Answers what is not done. Only so many frames that make no sense are answered, and only so
    /// many tokens tried: each of those costs a signature and a line in the log.
    fn refuse(&mut self, id: Option<RequestId<'_>>, refusal: &Refusal) -> Result<(), Close> {
        if let Some(limit) = limit_behind(refusal.code) {
            self.door.parts.metrics.limit(limit);
        }
        self.say(&Response::refused(id, refusal));
        self.bad_frames += u32::from(refusal.code.is_counted());
        if self.bad_frames as usize > self.door.parts.limits.get().max_bad_frames {
            self.door.parts.metrics.limit("max_bad_frames");
            let reason = format!("too many bad frames, the last because {}", refusal.message);
            return Err(Close::new(CloseCode::BadFrame, reason));
        }
        Ok(())
    }

    fn say(&self, response: &Response<'_>) {
        // If it does not fit, the outbox has kept the reason, and the connection ends.
        self.member().outbox().push(response.frame());
    }

    fn member(&self) -> &Arc<Member> {
        self.membership.member()
    }
}

/// How many connections a user has.
fn connections_of(user: &UserId, door: &Door) -> usize {
    // Not those themselves: this is counted while no other event can be made.
    door.parts.hub.members_of(&RoomName::personal(user), 0).0
}
