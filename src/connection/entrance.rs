//! How a connection gets in: it shows something with its request or in its first frame, and that is
//! looked into.

use std::sync::Arc;

use crate::auth::{Credential, Identity};
use crate::config::WhenFull;
use crate::protocol::{Action, Close, CloseCode, ConnectionId, Proof, Request, RoomName};

use super::address::{Visit, is_local};
use super::credential::{Shown, Visitor};
use super::place::Place;
use super::session::{Session, bounds, text_of};
use super::socket::{Ended, Message, Socket};
use super::{Door, FULL};

/// What a first frame may have beside its token.
const AUTH_FRAME_BYTES: usize = 512;

/// A connection that has just been upgraded.
pub(super) struct Arrival {
    /// What its request has shown.
    pub(super) shown: Shown,
    /// Where it comes from.
    pub(super) visitor: Visitor,
    /// Its place among those that have not proven who they are.
    pub(super) place: Place,
    /// Its being counted among those of its address, if it is.
    pub(super) visit: Option<Box<Visit>>,
}

/// A connection that did not get in: why, and its place, which it has until it has gone.
pub(super) struct Refused(pub(super) Ended, pub(super) Place);

/// Waits for proof of identity and lets the connection in.
pub(super) async fn enter(socket: &mut Socket, door: Arc<Door>, arrival: Arrival) -> Result<Box<Session>, Refused> {
    let Arrival { shown, visitor, place, visit } = arrival;
    let id = match new_id() {
        Ok(id) => id,
        Err(close) => return Err(Refused(close.into(), place)),
    };
    let entered = tokio::select! {
        biased;
        () = door.stopping.cancelled() => Err(door.parts.hub.restarting(id).into()),
        entered = prove(socket, &door, shown, &visitor) => entered,
    };
    let (identity, first) = match entered {
        Ok(proven) => proven,
        Err(ended) => return Err(Refused(ended, place)),
    };
    let admitted = check_room(&door, &visitor).and_then(|()| check_user(&door, &identity, &visitor));
    if let Err(close) = admitted {
        return Err(Refused(close.into(), place));
    }
    drop(place);
    let answer_to = first.as_ref().and_then(|first| Request::parse(text_of(first).ok()?, bounds(&door)).ok()?.id);
    let session = Session::enter(socket, Arc::clone(&door), id, identity, answer_to, visit);
    session.replace_oldest(is_local(visitor.address));
    Ok(session)
}

/// Who it is, by what the request has shown or else by the first frame, which is then answered.
async fn prove(
    socket: &mut Socket,
    door: &Arc<Door>,
    shown: Shown,
    visitor: &Visitor,
) -> Result<(Identity, Option<Message>), Ended> {
    let (credential, first) = match shown {
        Ok(Some(credential)) => (credential, None),
        Ok(None) => {
            socket.set_max_message_bytes(door.parts.limits.get().max_token_bytes + AUTH_FRAME_BYTES);
            socket.set_patience(true);
            let first = first_message(socket, door, visitor).await?;
            socket.set_max_message_bytes(door.parts.limits.get().max_message_bytes);
            socket.set_patience(false);
            let credential = credential_in(door, text_of(&first)?, visitor)?;
            (credential, Some(first))
        }
        Err(error) => return Err(door.refuse(&error, Some(visitor)).into()),
    };
    // In a box: what waits for its first frame is to take no room for this.
    let authenticating = Box::pin(door.parts.authenticator.authenticate(&credential, visitor.origin.as_deref()));
    let proof = socket.meanwhile(authenticating).await?;
    match proof {
        Ok(identity) => {
            door.parts.metrics.accept();
            Ok((identity, first))
        }
        Err(error) => Err(door.refuse(&error, Some(visitor)).into()),
    }
}

/// Whether there is room for one more: it was looked at when they came, but many may have come by then and
/// proven who they are since.
fn check_room(door: &Door, visitor: &Visitor) -> Result<(), Close> {
    if !door.is_full() {
        return Ok(());
    }
    door.count_limit("max_connections", visitor);
    Err(Close::new(CloseCode::Unavailable, FULL))
}

/// Whether a user may have one more connection. If the oldest is to go instead, that is done later.
fn check_user(door: &Door, identity: &Identity, visitor: &Visitor) -> Result<(), Close> {
    let limits = door.parts.limits.get();
    let max = limits.connections_per_user(is_local(visitor.address));
    let (Some(max), WhenFull::Refuse) = (max, limits.when_user_is_full) else { return Ok(()) };
    if door.parts.hub.members_of(&RoomName::personal(&identity.user), 0).0 < max {
        return Ok(());
    }
    door.count_limit("max_connections_per_user", visitor);
    Err(Close::new(CloseCode::LimitExceeded, "this user has as many connections as one may have"))
}

fn new_id() -> Result<ConnectionId, Close> {
    ConnectionId::random().map_err(|error| {
        tracing::error!(%error, "no randomness for a connection's id");
        Close::new(CloseCode::InternalError, "something went wrong here")
    })
}

/// Waits for the first message, within a time limit that no ping and no part of a frame extends.
async fn first_message(socket: &mut Socket, door: &Door, visitor: &Visitor) -> Result<Message, Ended> {
    let clock = &door.parts.clock;
    let deadline = clock.now() + door.parts.limits.get().auth_timeout;
    loop {
        match socket.receive(deadline).await? {
            Some(message) => return Ok(message),
            None if clock.now() < deadline => {}
            None => {
                door.count_refusal("no_token", visitor);
                let reason = "no token came in time: send it in the first frame, or use ?token=";
                return Err(Close::new(CloseCode::AuthTimeout, reason).into());
            }
        }
    }
}

/// What the first frame shows.
fn credential_in(door: &Door, first: &str, visitor: &Visitor) -> Result<Credential, Close> {
    match Request::parse(first, bounds(door)) {
        Ok(Request { action: Action::Auth(proof), .. }) => Ok(proof.into()),
        Ok(_) => {
            door.count_refusal("no_token", visitor);
            Err(Close::new(CloseCode::TokenRefused, "no token: the first frame must be auth, or use ?token="))
        }
        Err((_, refusal)) => {
            door.count_refusal("bad_frame", visitor);
            Err(Close::new(CloseCode::BadFrame, refusal.message))
        }
    }
}

impl From<Proof<'_>> for Credential {
    fn from(proof: Proof<'_>) -> Self {
        match proof {
            Proof::Token(token) => Self::Token(token.into()),
            Proof::Ticket(ticket) => Self::Ticket(ticket.into()),
            Proof::Anonymous => Self::Anonymous,
        }
    }
}
