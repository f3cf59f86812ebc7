//! What the frames of one connection mean: proof of identity first, then requests, until it ends.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use crate::auth::{Identity, Permission};
use crate::hub::{Event, Full, JoinError, Member, Membership};
use crate::protocol::{
    Action, Bounds, Close, CloseCode, ConnectionId, ErrorCode, Frame, Publication, Refusal, Request, RequestId,
    Response, RoomName, Target,
};

use super::Door;
use super::socket::{Ended, Message, Socket};

/// What a first frame may have beside its token.
const AUTH_FRAME_BYTES: usize = 512;
/// The longest time between two looks at the system's clock, which may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

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
    bad_frames: usize,
    held: Option<Box<Held>>,
}

/// A message that waits for room.
struct Held {
    message: Message,
    full: Full,
}

/// Why a request is not done.
enum Undone {
    /// It is refused.
    Refused(Refusal),
    /// Not yet: a room is full.
    Later(Full),
}

impl From<Refusal> for Undone {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Lets a connection in whose token was in the query.
pub(super) fn enter_with(socket: &Socket, door: Arc<Door>, token: &str) -> Result<Box<Session>, Ended> {
    let (id, identity) = (new_id()?, verify(&door, token)?);
    Ok(Session::enter(socket, door, id, identity, None))
}

/// Waits for proof of identity and lets the connection in.
pub(super) async fn enter(socket: &mut Socket, door: Arc<Door>) -> Result<Box<Session>, Ended> {
    let id = new_id()?;
    socket.set_max_message_bytes(door.limits.max_token_bytes + AUTH_FRAME_BYTES);
    let first = tokio::select! {
        biased;
        () = door.stopping.cancelled() => Err(door.hub.restarting(id).into()),
        first = first_message(socket, &door) => first,
    }?;
    socket.set_max_message_bytes(door.limits.max_message_bytes);
    let (identity, answer_to) = prove(&door, text_of(&first)?)?;
    Ok(Session::enter(socket, door, id, identity, answer_to))
}

fn new_id() -> Result<ConnectionId, Close> {
    ConnectionId::random().map_err(|error| {
        tracing::error!(%error, "no randomness for a connection's id");
        Close::new(CloseCode::InternalError, "something went wrong here")
    })
}

/// Waits for the first message, within a time limit that no ping and no part of a frame extends.
async fn first_message(socket: &mut Socket, door: &Door) -> Result<Message, Ended> {
    let clock = &door.clock;
    let deadline = clock.now() + door.limits.auth_timeout;
    loop {
        match socket.receive(deadline).await? {
            Some(message) => return Ok(message),
            None if clock.now() < deadline => {}
            None => {
                let reason = "no token came in time: send it in the first frame, or use ?token=";
                return Err(Close::new(CloseCode::AuthTimeout, reason).into());
            }
        }
    }
}

/// The identity that the first frame proves, and the id under which that is to be answered.
fn prove<'a>(door: &Door, first: &'a str) -> Result<(Identity, Option<RequestId<'a>>), Close> {
    match Request::parse(first, bounds(door)) {
        Ok(Request { action: Action::Auth { token }, id }) => Ok((verify(door, &token)?, id)),
        Ok(_) => Err(Close::new(CloseCode::TokenRefused, "no token: the first frame must be auth, or use ?token=")),
        Err((_, refusal)) => Err(Close::new(CloseCode::BadFrame, refusal.message)),
    }
}

fn verify(door: &Door, token: &str) -> Result<Identity, Close> {
    door.verifier.verify(token, door.clock.unix()).map_err(|error| {
        // Quoted: what it repeats of a stranger's text must add no line to the log.
        tracing::info!(reason = ?error.to_string(), "a token was refused");
        Close::new(CloseCode::TokenRefused, error.to_string())
    })
}

fn bounds(door: &Door) -> Bounds {
    Bounds { max_depth: door.limits.max_depth, max_targets: door.limits.max_targets }
}

fn text_of(message: &Message) -> Result<&str, Close> {
    match message {
        Message::Text(text) => Ok(text),
        Message::Binary(_) => Err(Close::new(CloseCode::UnsupportedData, "only text is spoken here, not binary")),
    }
}

impl Session {
    /// Lets a connection in: the welcome is the first thing that it hears.
    fn enter(
        socket: &Socket,
        door: Arc<Door>,
        id: ConnectionId,
        identity: Identity,
        answer_to: Option<RequestId<'_>>,
    ) -> Box<Self> {
        let outbox = Arc::clone(socket.outbox());
        let (expires_at, expires_in) = expiry(&identity, &door);
        let rooms = [RoomName::personal(&identity.user)];
        let user = &identity.user;
        let max_message_bytes = door.limits.max_message_bytes;
        let welcome =
            Response::Welcome { connection: id, user, expires_at, expires_in, rooms: &rooms, max_message_bytes };
        outbox.push(welcome.frame());
        if answer_to.is_some() {
            outbox.push(Response::renewed(answer_to, expires_at, expires_in).frame());
        }
        let membership = door.hub.enter(id, identity.user.clone(), outbox, Arc::clone(&door.flusher));
        let look_at = door.clock.now();
        let mut session =
            Box::new(Self { door, membership, identity, warn_at: None, look_at, bad_frames: 0, held: None });
        session.plan_warning();
        session
    }

    /// Acts on what the client sends until one of the two has had enough.
    pub(super) fn poll_run(&mut self, cx: &mut Context<'_>, socket: &mut Socket) -> Poll<Ended> {
        loop {
            let acted = if let Some(held) = &self.held {
                ready!(held.full.poll_ready(cx));
                let held = self.held.take();
                held.map_or(Ok(()), |held| self.hear(held.message))
            } else {
                match ready!(socket.poll_receive(cx, self.look_at)) {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => self.look_at_clock(),
                    Err(ended) => return Poll::Ready(ended),
                }
            };
            if let Err(close) = acted {
                return Poll::Ready(close.into());
            }
        }
    }

    /// Acts on one message, unless the token has ended. Nothing further is heard of a client whose
    /// event has no room yet: it is held, and heard again when there is.
    fn hear(&mut self, message: Message) -> Result<(), Close> {
        self.check_expiry()?;
        let (id, undone) = match Request::parse(text_of(&message)?, bounds(&self.door)) {
            Ok(Request { id, action }) => match self.act(id, action) {
                Ok(()) => return Ok(()),
                Err(undone) => (id, undone),
            },
            Err((id, refusal)) => (id, refusal.into()),
        };
        match undone {
            Undone::Refused(refusal) => self.refuse(id, &refusal),
            Undone::Later(full) => {
                self.held = Some(Box::new(Held { message, full }));
                Ok(())
            }
        }
    }

    fn act(&mut self, id: Option<RequestId<'_>>, action: Action<'_>) -> Result<(), Undone> {
        match action {
            Action::Auth { token } => Ok(self.renew(id, &token)?),
            Action::Join { room } => Ok(self.join(id, &room)?),
            Action::Leave { room } => Ok(self.leave(id, &room)?),
            Action::Publish(publication) => self.publish(id, &publication),
            Action::Ping => {
                self.say(&Response::done(id));
                Ok(())
            }
        }
    }

    /// Takes another token of the same user in place of the one that the connection has.
    fn renew(&mut self, id: Option<RequestId<'_>>, token: &str) -> Result<(), Refusal> {
        let identity = verify(&self.door, token)
            .map_err(|close| Refusal::of(ErrorCode::TokenRefused, "token", close.reason.into_owned()))?;
        if identity.user != self.identity.user {
            let message = format!("this token is not of {}: open another connection for it", self.identity.user);
            return Err(Refusal::of(ErrorCode::WrongUser, "token", message));
        }
        let replaced = std::mem::replace(&mut self.identity, identity);
        // Who renews with the token whose end has just been announced is not told again: that client
        // would renew again with the same, and so on.
        if self.warn_at.is_some() || self.identity.expires_at > replaced.expires_at {
            self.plan_warning();
        } else {
            self.plan_look();
        }
        if id.is_some() {
            let (expires_at, expires_in) = expiry(&self.identity, &self.door);
            self.say(&Response::renewed(id, expires_at, expires_in));
        }
        Ok(())
    }

    fn join(&self, id: Option<RequestId<'_>>, room: &RoomName) -> Result<(), Refusal> {
        if !self.member().is_in(room) {
            if room.is_personal() {
                return Err(Refusal::of(ErrorCode::Forbidden, "room", "another user's personal room cannot be joined"));
            }
            if !self.identity.grants.allow(Permission::Join, room) {
                return Err(self.forbidden("room", "join", room));
            }
        }
        match self.membership.hub().join(self.member(), room, answer_about(id, room)) {
            Ok(true) => Ok(()),
            Ok(false) => {
                if id.is_some() {
                    self.say(&Response::room(id, room));
                }
                Ok(())
            }
            Err(error @ JoinError::TooManyRooms(_)) => {
                Err(Refusal::of(ErrorCode::TooManyRooms, "room", error.to_string()))
            }
            Err(error @ JoinError::Gone) => Err(Refusal::of(ErrorCode::NotJoined, "room", error.to_string())),
        }
    }

    fn leave(&self, id: Option<RequestId<'_>>, room: &RoomName) -> Result<(), Refusal> {
        if room.is_personal() {
            return Err(Refusal::of(ErrorCode::Forbidden, "room", "a personal room cannot be left"));
        }
        if !self.membership.hub().leave(self.member(), room, answer_about(id, room)) {
            return Err(not_joined("room", room));
        }
        Ok(())
    }

    fn publish(&self, id: Option<RequestId<'_>>, publication: &Publication<'_>) -> Result<(), Undone> {
        self.may_publish(&publication.to)?;
        let event = Event {
            to: &publication.to,
            except: &Target { itself: !publication.echo, ..Target::default() },
            name: &publication.event,
            from: Some(&self.identity.user),
            data: publication.data,
        };
        self.membership.hub().try_publish(&event, Some(self.member())).map_err(Undone::Later)?;
        if id.is_some() {
            self.say(&Response::done(id));
        }
        Ok(())
    }

    /// All that a target names must be allowed, or nothing is sent.
    fn may_publish(&self, to: &Target) -> Result<(), Refusal> {
        let grants = &self.identity.grants;
        if to.all && !grants.allow_everywhere(Permission::Publish) {
            let message = "publishing to all needs a grant to publish in `*`";
            return Err(Refusal::of(ErrorCode::Forbidden, "to.all", message));
        }
        for room in &to.rooms {
            if !grants.allow(Permission::Publish, room) {
                return Err(self.forbidden("to", "publish in", room));
            }
            if !room.is_personal() && !self.member().is_in(room) {
                return Err(not_joined("to", room));
            }
        }
        Ok(())
    }

    /// Answers what is not done. Only so many frames that make no sense are answered, and only so
    /// many tokens tried: each of those costs a signature and a line in the log.
    fn refuse(&mut self, id: Option<RequestId<'_>>, refusal: &Refusal) -> Result<(), Close> {
        self.say(&Response::refused(id, refusal));
        self.bad_frames += usize::from(refusal.code.is_counted());
        if self.bad_frames > self.door.limits.max_bad_frames {
            let reason = format!("too many bad frames, the last because {}", refusal.message);
            return Err(Close::new(CloseCode::BadFrame, reason));
        }
        Ok(())
    }

    /// Plans the warning of a token that is new here. A short-lived token is warned of when half of
    /// its time is left, so that a client that renews when it is warned never does so in a loop.
    fn plan_warning(&mut self) {
        let now = self.door.clock.unix();
        let left = self.identity.expires_at.saturating_sub(now);
        let warning = self.door.limits.expiry_warning.min(left / 2);
        self.warn_at = (!warning.is_zero()).then(|| self.identity.expires_at.saturating_sub(warning));
        self.plan_look();
    }

    fn plan_look(&mut self) {
        let now = self.door.clock.unix();
        let next = self.warn_at.unwrap_or(self.identity.expires_at);
        self.look_at = self.door.clock.now() + next.saturating_sub(now).min(LOOK_INTERVAL);
    }

    fn look_at_clock(&mut self) -> Result<(), Close> {
        self.check_expiry()?;
        let now = self.door.clock.unix();
        if self.warn_at.is_some_and(|warn_at| now >= warn_at) {
            self.warn_at = None;
            let left = self.identity.expires_at.saturating_sub(now);
            self.say(&Response::Expiring { seconds: left.as_secs() });
        }
        self.plan_look();
        Ok(())
    }

    fn check_expiry(&self) -> Result<(), Close> {
        if self.door.clock.unix() < self.identity.expires_at {
            return Ok(());
        }
        Err(Close::new(CloseCode::TokenRefused, "the token has expired"))
    }

    fn say(&self, response: &Response<'_>) {
        // If it does not fit, the outbox has kept the reason, and the connection ends.
        self.member().outbox().push(response.frame());
    }

    fn member(&self) -> &Arc<Member> {
        self.membership.member()
    }

    fn forbidden(&self, field: &'static str, what: &str, room: &RoomName) -> Refusal {
        let message = format!("the token of {} has no grant to {what} {room}", self.identity.user);
        Refusal::of(ErrorCode::Forbidden, field, message)
    }
}

fn not_joined(field: &'static str, room: &RoomName) -> Refusal {
    Refusal::of(ErrorCode::NotJoined, field, format!("this connection is not in {room}"))
}

fn answer_about(id: Option<RequestId<'_>>, room: &RoomName) -> Option<Frame> {
    id.is_some().then(|| Response::room(id, room).frame())
}

/// When a token ends, in Unix seconds, and in how many seconds that is.
fn expiry(identity: &Identity, door: &Door) -> (u64, u64) {
    let left = identity.expires_at.saturating_sub(door.clock.unix());
    (identity.expires_at.as_secs(), left.as_secs())
}
