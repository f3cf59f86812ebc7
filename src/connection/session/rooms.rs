//! What a session does in rooms: joins, leaves, publishes, looks who is there, and looks again whether
//! it may stay.

use std::sync::Arc;

use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::auth::{Decision, Permission};
use crate::backend::Verdict;
use crate::config::RoomRule;
use crate::hub::{Entry, Event, JoinError};
use crate::protocol::{Echo, ErrorCode, Publication, Refusal, RequestId, Response, RoomName, Target};

use super::pending::{Done, Outcome, What, not_let};
use super::{Session, Undone};

impl Session {
    /// Puts the connection into a room, if that is allowed.
    pub(super) fn join(&mut self, id: Option<RequestId<'_>>, room: &RoomName) -> Result<(), Undone> {
        if !self.member().is_in(room) {
            if room.is_personal() {
                let message = "another user's personal room cannot be joined";
                return Err(Refusal::of(ErrorCode::Forbidden, "room", message).into());
            }
            match self.door.parts.rules.load().decide(&self.identity, Permission::Join, room) {
                Decision::Allowed => {}
                Decision::Denied(why) => return Err(Refusal::of(ErrorCode::Forbidden, "room", why).into()),
                Decision::Ask => return Ok(self.ask(id, What::Join(room.clone()))?),
            }
        }
        Ok(self.enter_room(id, room, None)?)
    }

    /// Puts the connection into a room that it may be in.
    fn enter_room(
        &self,
        id: Option<RequestId<'_>>,
        room: &RoomName,
        data: Option<Arc<RawValue>>,
    ) -> Result<(), Refusal> {
        let guest = self.identity.guest();
        if let Some(guest) =
            guest.filter(|guest| !self.member().is_in(room) && self.member().rooms() >= guest.max_rooms)
        {
            return Err(not_entered(JoinError::TooManyRooms(guest.max_rooms)));
        }
        let told = id.is_some().then(|| Response::room(id, room).frame());
        match self.membership.hub().join(self.member(), room, Entry { told, data, placed: false }) {
            Ok(true) => Ok(()),
            Ok(false) => {
                if id.is_some() {
                    self.say(&Response::room(id, room));
                }
                Ok(())
            }
            Err(error) => Err(not_entered(error)),
        }
    }

    /// Goes on with what the backend has decided.
    pub(super) fn go_on(&mut self, id: Option<RequestId<'_>>, done: Done) -> Result<(), Undone> {
        match (done.what, done.outcome) {
            (What::Join(room), _) if done.outdated => self.join(id, &room),
            (What::Join(room), Outcome::Verdict(verdict)) => {
                if !verdict.allowed {
                    return Err(not_let(&verdict, "join", &room).into());
                }
                Ok(self.enter_room(id, &room, verdict.data)?)
            }
            // It has been asked anew, if the connection is still there.
            (What::Stay(_), _) if done.outdated => Ok(()),
            (What::Stay(room), Outcome::Verdict(verdict)) => {
                // A backend may have put it there meanwhile.
                if !verdict.allowed && self.member().joined_rooms().contains(&room) {
                    self.put_out(&room, &not_let(&verdict, "stay in", &room).message, verdict.is_temporary);
                }
                Ok(())
            }
            (What::Members(room), _) if done.outdated => self.members(id, &room),
            (What::Members(room), Outcome::Verdict(verdict)) => {
                if !verdict.allowed {
                    return Err(not_let(&verdict, "list the members of", &room).into());
                }
                self.list_members(id, &room);
                Ok(())
            }
            (_, Outcome::Answer(answer)) => {
                self.answer_call(id, answer);
                Ok(())
            }
            // A call has no verdict.
            (What::Call, Outcome::Verdict(_)) => Ok(()),
        }
    }

    /// Says who is in a room, if that is allowed.
    pub(super) fn members(&mut self, id: Option<RequestId<'_>>, room: &RoomName) -> Result<(), Undone> {
        match self.door.parts.rules.load().decide(&self.identity, Permission::Members, room) {
            Decision::Allowed => {
                self.list_members(id, room);
                Ok(())
            }
            Decision::Denied(why) => Err(Refusal::of(ErrorCode::Forbidden, "room", why).into()),
            Decision::Ask => Ok(self.ask(id, What::Members(room.clone()))?),
        }
    }

    /// Says who is in a room. A list that would fill much of the outbox is left out: whoever asks for
    /// it is not to be closed as too slow for that.
    fn list_members(&self, id: Option<RequestId<'_>>, room: &RoomName) {
        if id.is_none() {
            return;
        }
        let present = self.membership.hub().list_for_member(room);
        let say = |members| {
            let (users, connections) = (present.users, present.connections);
            Response::Members { id, ok: true, room, users, connections, members }.frame()
        };
        let mut frame = say(present.members.as_deref());
        if frame.len() > self.door.parts.limits.get().max_outbox_bytes / 4 {
            frame = say(None);
        }
        self.member().outbox().push(frame);
    }

    /// Takes the connection out of a room.
    pub(super) fn leave(&mut self, id: Option<RequestId<'_>>, room: &RoomName) -> Result<(), Refusal> {
        if room.is_personal() {
            return Err(Refusal::of(ErrorCode::Forbidden, "room", "a personal room cannot be left"));
        }
        let told = || id.is_some().then(|| Response::room(id, room).frame());
        let gave_up = self.give_up_joining(room);
        if self.membership.hub().leave(self.member(), room, told()) {
            return Ok(());
        }
        if !gave_up {
            return Err(not_joined("room", room));
        }
        if id.is_some() {
            self.say(&Response::room(id, room));
        }
        Ok(())
    }

    /// Sends an event, if all that it names may have it. `verdicts` is what the backend has said of
    /// rooms for which it has to be asked.
    pub(super) fn publish(
        &mut self,
        id: Option<RequestId<'_>>,
        publication: &Publication<'_>,
        verdicts: &[(RoomName, Verdict)],
    ) -> Result<(), Undone> {
        let limited = self.may_publish(publication, verdicts)?;
        let except = match publication.echo {
            Echo::Yes => Target::default(),
            Echo::NotHere => Target { itself: true, ..Target::default() },
            Echo::Nowhere => Target::user(&self.identity.user),
        };
        let event = Event {
            to: &publication.to,
            except: &except,
            name: &publication.event,
            from: Some(&self.identity.user),
            data: publication.data,
            expires: None,
        };
        self.membership.hub().try_publish(&event, Some(self.member())).map_err(Undone::Later)?;
        for (rule, max) in limited {
            let now = self.door.parts.clock.now();
            self.busy().pace.count(rule, max, now);
        }
        if id.is_some() {
            self.say(&Response::done(id));
        }
        Ok(())
    }

    /// Whether all that a target names is allowed, or else nothing is sent; and the rules that limit how
    /// fast, by number.
    fn may_publish(
        &self,
        publication: &Publication<'_>,
        verdicts: &[(RoomName, Verdict)],
    ) -> Result<SmallVec<[(usize, u32); 1]>, Undone> {
        let to = &publication.to;
        let (mut unasked, mut limited) = (Vec::new(), SmallVec::new());
        if to.all && !self.identity.grants.allow_everywhere(Permission::Publish) {
            let message = "publishing to all needs a grant to publish in `*`";
            return Err(Refusal::of(ErrorCode::Forbidden, "to.all", message).into());
        }
        for room in &to.rooms {
            let rules = self.door.parts.rules.load();
            let rule = rules.rule(&self.identity, room);
            match rules.decide_by(rule, &self.identity, Permission::Publish, room) {
                Decision::Allowed => {}
                Decision::Denied(why) => return Err(Refusal::of(ErrorCode::Forbidden, "to", why).into()),
                Decision::Ask => match verdicts.iter().find(|(asked, _)| asked == room) {
                    Some((_, verdict)) if verdict.allowed => {}
                    Some((_, verdict)) => {
                        let refusal = not_let(verdict, "publish in", room);
                        return Err(Refusal { field: Some("to".into()), ..refusal }.into());
                    }
                    None => unasked.push(room.clone()),
                },
            }
            let Some((number, rule)) = rule else { continue };
            if !(room.is_personal() || rule.publish_from_outside || self.member().is_in(room)) {
                return Err(not_joined("to", room).into());
            }
            self.check_limits(number, rule, publication, room)?;
            // One event, in however many rooms of the rule.
            if let Some(max) = rule.max_publishes_per_second.filter(|max| !limited.contains(&(number, *max))) {
                limited.push((number, max));
            }
        }
        if unasked.is_empty() { Ok(limited) } else { Err(Undone::Unasked(unasked)) }
    }

    fn check_limits(
        &self,
        number: usize,
        rule: &RoomRule,
        publication: &Publication<'_>,
        room: &RoomName,
    ) -> Result<(), Refusal> {
        let bytes = publication.data.get().len();
        if let Some(max) = rule.max_data_bytes.filter(|max| bytes > *max) {
            let message = format!("in {room}, `data` may have {max} bytes at most, and has {bytes}");
            return Err(Refusal::of(ErrorCode::DataTooLarge, "data", message));
        }
        if let Some(max) = rule.max_publishes_per_second
            && !self.busy.as_ref().is_none_or(|busy| busy.pace.allows(number, max, self.door.parts.clock.now()))
        {
            let message = format!("{max} events a second may be published in {room} by one connection");
            return Err(Refusal::of(ErrorCode::TooFast, "to", message));
        }
        Ok(())
    }

    /// Looks again at all rooms that the connection has joined, and leaves those that it may be in no
    /// more. Rooms that a backend has put it into are for the backend.
    pub(super) fn recheck(&mut self) {
        for room in self.member().joined_rooms() {
            self.recheck_room(&room);
        }
    }

    fn recheck_room(&mut self, room: &RoomName) {
        // What counts is what is said from now on; and one question a room is enough.
        self.give_up_staying(room);
        match self.door.parts.rules.load().decide(&self.identity, Permission::Join, room) {
            Decision::Allowed => {}
            Decision::Denied(why) => self.put_out(room, &why, false),
            Decision::Ask => self.ask_anyway(None, What::Stay(room.clone())),
        }
    }

    /// Takes the connection out of a room that it may be in no more, and says why.
    fn put_out(&self, room: &RoomName, why: &str, temporary: bool) {
        let told = Response::Left { room, reason: Some(why), temporary: Some(temporary) };
        self.membership.hub().leave(self.member(), room, Some(told.frame()));
    }
}

fn not_entered(error: JoinError) -> Refusal {
    let code = match error {
        JoinError::TooManyRooms(_) => ErrorCode::TooManyRooms,
        JoinError::RoomFull(_) => ErrorCode::RoomFull,
        JoinError::Gone => ErrorCode::NotJoined,
    };
    Refusal::of(code, "room", error.to_string())
}

fn not_joined(field: &'static str, room: &RoomName) -> Refusal {
    Refusal::of(ErrorCode::NotJoined, field, format!("this connection is not in {room}"))
}
