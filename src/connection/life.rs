//! The life of one connection, from the upgrade to its last byte: it enters, runs and ends.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::protocol::CloseCode;

use super::Door;
use super::entrance::{Arrival, Refused, enter};
use super::session::Session;
use super::socket::{Ended, Socket};

/// Whether a connection got in.
type Entered = Result<Box<Session>, Refused>;

/// What a connection's task does.
pub(super) struct Life {
    door: Arc<Door>,
    stage: Stage,
}

/// One part at a time: an idle connection has nothing left of its entering, and nothing yet of its end.
enum Stage {
    /// Waiting for proof of identity.
    Entering(BoxFuture<'static, (Box<Socket>, Entered)>),
    /// In. None only while it is on to the next part.
    Running(Option<(Box<Socket>, Box<Session>)>),
    /// Saying goodbye.
    Ending(BoxFuture<'static, ()>),
}

impl Life {
    /// Begins with proof of identity: what the request has shown, or the first frame.
    pub(super) fn begin(mut socket: Box<Socket>, door: Arc<Door>, arrival: Arrival) -> Self {
        let entering = {
            let door = Arc::clone(&door);
            async move {
                let entered = enter(&mut socket, door, arrival).await;
                (socket, entered)
            }
        };
        Self { door, stage: Stage::Entering(Box::pin(entering)) }
    }
}

impl Stage {
    fn entered(socket: Box<Socket>, entered: Entered, door: &Arc<Door>) -> Self {
        match entered {
            Ok(session) => Self::Running(Some((socket, session))),
            Err(Refused(ended, place)) => {
                let ending = end(socket, ended, Arc::clone(door));
                Self::Ending(Box::pin(ending.map(|()| drop(place))))
            }
        }
    }
}

/// Says goodbye. Thousands may go at once; they take turns, so that whoever comes or speaks meanwhile
/// waits for a few of them and not for all.
async fn end(mut socket: Box<Socket>, ended: Ended, door: Arc<Door>) {
    let _closing = door.parts.metrics.closing(match &ended {
        Ended::ByUs(close) => close.code.word(),
        Ended::ByPeer => "peer",
        Ended::Lost => "lost",
    });
    if let Ended::ByUs(close) = &ended
        && let Some(limit) = limit_behind(close.code)
    {
        door.parts.metrics.limit(limit);
    }
    let turn = door.goodbyes.acquire().await;
    let announcement = match &ended {
        Ended::ByUs(close) => {
            // Quoted: what it repeats of a stranger's text must add no line to the log.
            tracing::debug!(code = close.code.number(), reason = ?close.reason, "closing a connection");
            Some(close.announcement())
        }
        Ended::ByPeer | Ended::Lost => None,
    };
    let mut ending = pin!(socket.end(ended, announcement));
    // The turn is for what can be said at once, not for a peer that takes its time to answer.
    let over = poll_fn(|cx| Poll::Ready(ending.as_mut().poll(cx))).await;
    drop(turn);
    if over.is_pending() {
        ending.await;
    }
}

/// The limit that a connection was closed for, if it was.
fn limit_behind(code: CloseCode) -> Option<&'static str> {
    match code {
        CloseCode::TooSlow => Some("max_outbox_bytes"),
        CloseCode::MessageTooBig => Some("max_message_bytes"),
        CloseCode::AuthTimeout => Some("auth_timeout"),
        CloseCode::NoPong => Some("pong_timeout"),
        CloseCode::TooOld => Some("max_lifetime"),
        _ => None,
    }
}

impl Future for Life {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { door, stage } = self.get_mut();
        loop {
            *stage = match stage {
                Stage::Entering(entering) => {
                    let (socket, entered) = ready!(entering.as_mut().poll(cx));
                    Stage::entered(socket, entered, door)
                }
                Stage::Running(running) => {
                    let Some((socket, session)) = running else { return Poll::Ready(()) };
                    let ended = ready!(session.poll_run(cx, socket));
                    // The session leaves the hub here, before the goodbye.
                    let Some((socket, session)) = running.take() else { return Poll::Ready(()) };
                    let visit = session.end(&ended);
                    let ending = end(socket, ended, Arc::clone(door));
                    Stage::Ending(Box::pin(ending.map(|()| drop(visit))))
                }
                Stage::Ending(ending) => return ending.as_mut().poll(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an idle connection has beside its outbox and its place in the hub. The runtime rounds the
    /// task up to a multiple of 128 bytes, with 160 of its own.
    #[test]
    fn the_parts_of_an_idle_connection_are_small() {
        assert!(size_of::<Life>() <= 40, "{}", size_of::<Life>());
        assert!(size_of::<Socket>() <= 128, "{}", size_of::<Socket>());
        assert!(size_of::<Session>() <= 192, "{}", size_of::<Session>());
    }
}
