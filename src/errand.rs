//! What backends want of live connections: that they look again at the rooms they are in, or say what
//! they may do. Each connection answers for itself: it alone knows what it was let in with.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::oneshot;

use crate::auth::{Permission, Ruling};
use crate::hub::Member;
use crate::protocol::{ConnectionId, RoomName};

/// A connection is to look whether it may still be in its rooms.
pub(crate) const RECHECK: u8 = 1;
/// A connection is to look at the errands for it.
pub(crate) const ERRAND: u8 = 2;

/// Something that a connection is asked.
pub(crate) struct Question {
    /// What is to be done.
    pub(crate) permission: Permission,
    /// Where.
    pub(crate) room: RoomName,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Ruling>,
}

/// Forgets the questions to a connection for whose answers nobody waits any more.
struct Forgotten<'a> {
    errands: &'a Errands,
    id: ConnectionId,
}

impl Drop for Forgotten<'_> {
    fn drop(&mut self) {
        self.errands.0.remove_if_mut(&self.id, |_, questions| {
            questions.retain(|question| !question.answer.is_closed());
            questions.is_empty()
        });
    }
}

/// The questions that no connection has answered yet.
#[derive(Default)]
pub(crate) struct Errands(DashMap<ConnectionId, Vec<Question>>);

impl Errands {
    /// What a connection says of something to be done in a room; nothing if it goes away first.
    pub(crate) async fn ask(&self, member: &Arc<Member>, permission: Permission, room: RoomName) -> Option<Ruling> {
        // Whoever asks may give up, and whoever is asked may have gone before. Dropped after what waits for
        // the answer.
        let _forgotten = Forgotten { errands: self, id: member.id() };
        let (answer, answered) = oneshot::channel();
        self.0.entry(member.id()).or_default().push(Question { permission, room, answer });
        member.notify(ERRAND);
        answered.await.ok()
    }

    /// Takes what a connection is asked.
    pub(crate) fn take(&self, id: ConnectionId) -> Vec<Question> {
        self.0.remove(&id).map(|(_, questions)| questions).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::num::NonZeroUsize;
    use std::task::{Context, Poll};

    use futures_util::FutureExt;

    use super::*;
    use crate::Clock;
    use crate::config::{Limits, LiveLimits};
    use crate::hub::{Hub, Outbox, Presence, RoomTraits, Wire};

    struct Nowhere;

    impl Wire for Nowhere {
        fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn poll_write(&self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn nothing_is_left_of_a_question_that_nobody_waits_for_and_others_stay() {
        let limits = LiveLimits::new(Limits::DEFAULT);
        let presence = Presence::new(Clock::manual().0, limits.clone());
        let hub = Hub::new(limits, NonZeroUsize::MIN, Box::new(|_| RoomTraits::default()), presence);
        let (id, flusher) = (ConnectionId::random().unwrap(), Arc::clone(&hub.flushers()[0]));
        let outbox = Arc::new(Outbox::new(1000, Nowhere));
        let membership = hub.enter(id, "alice".parse().unwrap(), outbox, flusher, None);
        let (errands, room) = (Errands::default(), "chat".parse::<RoomName>().unwrap());
        let mut stays = Box::pin(errands.ask(membership.member(), Permission::Join, room.clone()));
        assert!((&mut stays).now_or_never().is_none());
        assert!(errands.ask(membership.member(), Permission::Publish, room).now_or_never().is_none());
        assert_eq!(errands.0.get(&id).map(|questions| questions.len()), Some(1));
        drop(stays);
        assert!(errands.0.is_empty());
    }
}
