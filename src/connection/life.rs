//! The life of one connection, from the upgrade to its last byte: it enters, runs and ends.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_util::future::BoxFuture;

use super::Door;
use super::session::{Session, enter, enter_with};
use super::socket::{Ended, Socket};

/// Whether a connection got in.
type Entered = Result<Box<Session>, Ended>;

/// What a connection's task does, written out so that it holds one part at a time: an idle
/// connection has nothing left of its entering, and nothing yet of its end.
pub(super) enum Life {
    /// Waiting for proof of identity.
    Entering(BoxFuture<'static, (Box<Socket>, Entered)>),
    /// In. None only while it is on to the next part.
    Running(Option<(Box<Socket>, Box<Session>)>),
    /// Saying goodbye.
    Ending(BoxFuture<'static, ()>),
}

impl Life {
    /// Begins with the token of the query, or waits for one in the first frame.
    pub(super) fn begin(mut socket: Box<Socket>, door: Arc<Door>, token: Option<Box<str>>) -> Self {
        match token {
            Some(token) => {
                let entered = enter_with(&socket, door, &token);
                Self::entered(socket, entered)
            }
            None => Self::Entering(Box::pin(async move {
                let entered = enter(&mut socket, door).await;
                (socket, entered)
            })),
        }
    }

    fn entered(socket: Box<Socket>, entered: Entered) -> Self {
        match entered {
            Ok(session) => Self::Running(Some((socket, session))),
            Err(ended) => Self::end(socket, ended),
        }
    }

    fn end(mut socket: Box<Socket>, ended: Ended) -> Self {
        let announcement = match &ended {
            Ended::ByUs(close) => {
                // Quoted: what it repeats of a stranger's text must add no line to the log.
                tracing::debug!(code = close.code.number(), reason = ?close.reason, "closing a connection");
                Some(close.announcement())
            }
            Ended::ByPeer | Ended::Lost => None,
        };
        Self::Ending(Box::pin(async move { socket.end(ended, announcement).await }))
    }
}

impl Future for Life {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            *self = match &mut *self {
                Self::Entering(entering) => {
                    let (socket, entered) = ready!(entering.as_mut().poll(cx));
                    Self::entered(socket, entered)
                }
                Self::Running(running) => {
                    let Some((socket, session)) = running else { return Poll::Ready(()) };
                    let ended = ready!(session.poll_run(cx, socket));
                    // The session leaves the hub here, before the goodbye.
                    let Some((socket, _session)) = running.take() else { return Poll::Ready(()) };
                    Self::end(socket, ended)
                }
                Self::Ending(ending) => return ending.as_mut().poll(cx),
            }
        }
    }
}
