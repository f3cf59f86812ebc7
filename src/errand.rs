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

/// The questions that no connection has answered yet.
#[derive(Default)]
pub(crate) struct Errands(DashMap<ConnectionId, Vec<Question>>);

impl Errands {
    /// What a connection says of something to be done in a room; nothing if it goes away first.
    pub(crate) async fn ask(&self, member: &Arc<Member>, permission: Permission, room: RoomName) -> Option<Ruling> {
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
