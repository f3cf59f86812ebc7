//! What a client has asked for that waits for the backend. It holds up nothing else.

use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::value::RawValue;

use crate::backend::{Action, Backend, CallError, Verdict, Who};
use crate::protocol::{Call, ErrorCode, Refusal, RequestId, Response, RoomName};

use super::Session;

/// Something that waits for the backend.
pub(super) struct Pending {
    id: Option<Box<RawValue>>,
    what: What,
    /// How often it was to be asked anew before this was: an answer from before is worth nothing.
    changes: u32,
    outcome: BoxFuture<'static, Outcome>,
}

/// What it is.
pub(super) enum What {
    /// To join a room.
    Join(RoomName),
    /// To see who is in a room.
    Members(RoomName),
    /// To stay in a room.
    Stay(RoomName),
    /// A call.
    Call,
}

/// What the backend says.
pub(super) enum Outcome {
    /// Whether something may be done.
    Verdict(Verdict),
    /// The answer to a call.
    Answer(Result<Box<RawValue>, CallError>),
}

/// Something that waits no more.
pub(super) struct Done {
    pub(super) id: Option<Box<RawValue>>,
    pub(super) what: What,
    pub(super) outcome: Outcome,
    /// Whether it is to be asked anew.
    pub(super) outdated: bool,
}

impl Pending {
    /// Whether it is about a room that the connection is in, which no client has asked for.
    pub(super) fn is_to_stay(&self) -> bool {
        matches!(self.what, What::Stay(_))
    }
}

impl Session {
    /// Asks the backend, unless as much is waiting for it as may.
    pub(super) fn ask(&mut self, id: Option<RequestId<'_>>, what: What) -> Result<(), Refusal> {
        self.check_pending()?;
        self.ask_anyway(id, what);
        Ok(())
    }

    /// Asks the backend whether something may be done in a room; for what no client has asked for.
    pub(super) fn ask_anyway(&mut self, id: Option<RequestId<'_>>, what: What) {
        let (room, action) = match &what {
            What::Join(room) | What::Stay(room) => (room.clone(), Action::Join),
            What::Members(room) => (room.clone(), Action::Members),
            What::Call => return,
        };
        let verdict = self.verdict(room, action);
        self.wait_for(id, what, verdict.map(Outcome::Verdict).boxed());
    }

    /// What the backend says of something to be done in a room.
    pub(super) fn verdict(&self, room: RoomName, action: Action) -> BoxFuture<'static, Verdict> {
        let (backend, who) = (self.backend(), self.who());
        async move { backend.may(&who, &room, action).await }.boxed()
    }

    /// Passes a call on to the backend.
    pub(super) fn call(&mut self, id: Option<RequestId<'_>>, call: Call<'_>) -> Result<(), Refusal> {
        if self.identity.guest().is_some_and(|guest| !guest.calls) {
            let message = "connections without a token may not call";
            return Err(Refusal::of(ErrorCode::Forbidden, "type", message));
        }
        self.check_pending()?;
        let (backend, who) = (self.backend(), self.who());
        let (event, data) = (call.event, call.data.to_owned());
        let answer = async move { Outcome::Answer(backend.call(&who, &event, &data).await) };
        self.wait_for(id, What::Call, answer.boxed());
        Ok(())
    }

    fn check_pending(&self) -> Result<(), Refusal> {
        let max = self.door.parts.limits.get().max_pending;
        let pending = self.busy.iter().flat_map(|busy| &busy.pending);
        if pending.filter(|pending| !pending.is_to_stay()).count() < max {
            return Ok(());
        }
        let message = format!("{max} requests of this connection wait for the backend: wait for one of them");
        Err(Refusal::new(ErrorCode::TooManyPending, message))
    }

    fn wait_for(&mut self, id: Option<RequestId<'_>>, what: What, outcome: BoxFuture<'static, Outcome>) {
        let (id, changes) = (id.map(RequestId::to_owned), self.changes);
        self.busy().pending.push(Pending { id, what, changes, outcome });
    }

    /// The first of what waits that waits no more.
    pub(super) fn poll_pending(&mut self, cx: &mut Context<'_>) -> Option<Done> {
        let pending = &mut self.busy.as_mut()?.pending;
        let ready = |pending: &mut Pending| match pending.outcome.poll_unpin(cx) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        };
        let (index, outcome) = pending.iter_mut().map(ready).enumerate().find_map(|(at, it)| Some((at, it?)))?;
        let Pending { id, what, changes, .. } = pending.remove(index);
        self.settle();
        Some(Done { id, what, outcome, outdated: changes != self.changes })
    }

    /// Gives up what was asked about staying in a room.
    pub(super) fn give_up_staying(&mut self, room: &RoomName) {
        let Some(busy) = &mut self.busy else { return };
        busy.pending.retain(|pending| !matches!(&pending.what, What::Stay(stay) if stay == room));
    }

    /// Gives up waiting to join a room, and says whether the client did.
    pub(super) fn give_up_joining(&mut self, room: &RoomName) -> bool {
        let Some(busy) = &mut self.busy else { return false };
        let joins = |pending: &mut Pending| matches!(&pending.what, What::Join(joining) if joining == room);
        let given_up: Vec<Pending> = busy.pending.extract_if(.., joins).collect();
        let message = format!("{room} was left before it was decided whether it may be joined");
        let refusal = Refusal::of(ErrorCode::NotJoined, "room", message);
        for pending in &given_up {
            self.say(&Response::refused(pending.id.as_deref().map(RequestId::of), &refusal));
        }
        !given_up.is_empty()
    }

    /// Answers a call.
    pub(super) fn answer_call(&self, id: Option<RequestId<'_>>, answer: Result<Box<RawValue>, CallError>) {
        match answer {
            Ok(data) if id.is_some() => self.say(&Response::answer(id, &data)),
            Ok(_) => {}
            Err(error) => {
                let code = match &error {
                    CallError::NotConfigured => ErrorCode::NotConfigured,
                    CallError::Timeout => ErrorCode::BackendTimeout,
                    CallError::Overloaded | CallError::Unreachable | CallError::Busy => ErrorCode::BackendUnavailable,
                    CallError::Failed(_) => ErrorCode::BackendFailed,
                    CallError::Refused { .. } => ErrorCode::CallRefused,
                };
                let data = if let CallError::Refused { data, .. } = &error { data.as_deref() } else { None };
                self.say(&Response::refused_with(id, &Refusal::new(code, error.to_string()), data));
            }
        }
    }

    fn backend(&self) -> Arc<Backend> {
        Arc::clone(&self.door.parts.backend)
    }

    fn who(&self) -> Who {
        Who { user: self.identity.user.clone(), connection: self.member().id(), claims: self.identity.claims() }
    }
}

/// What a client is told whom the backend has not let do something.
pub(super) fn not_let(verdict: &Verdict, what: &str, room: &RoomName) -> Refusal {
    if verdict.is_temporary {
        let message = format!("the backend cannot say now whether you may {what} {room}: try again later");
        return Refusal::of(ErrorCode::BackendUnavailable, "room", message);
    }
    let message = verdict.reason.clone().unwrap_or_else(|| format!("the backend does not let you {what} {room}"));
    Refusal::of(ErrorCode::Forbidden, "room", message)
}
