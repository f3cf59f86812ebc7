//! One room: its members, and the one order of its events.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::protocol::{ConnectionId, Frame};

use super::member::Member;

/// The members of a room. Entering and leaving take the same time however many there are.
#[derive(Debug, Default)]
pub(super) struct Room {
    members: Mutex<Members>,
    /// Held by whoever publishes, so that all members see all events in one order.
    order: Mutex<()>,
}

#[derive(Debug, Default)]
struct Members {
    by_id: HashMap<ConnectionId, Arc<Member>>,
    /// A list of the members to be walked without a lock, made by the first publisher after a
    /// change: at most one per publish, which walks as many members anyway.
    snapshot: Option<Arc<[Arc<Member>]>>,
}

impl Room {
    /// Adds a member. What it is told is put into its outbox before any publisher can see it here,
    /// so that no event of the room comes first.
    pub(super) fn add(&self, member: &Arc<Member>, told: Option<Frame>) {
        let mut members = self.members.lock();
        members.by_id.insert(member.id(), Arc::clone(member));
        members.snapshot = None;
        if let Some(told) = told {
            member.outbox().push(told);
        }
    }

    /// Removes a member, and says whether the room is empty now.
    pub(super) fn remove(&self, id: ConnectionId) -> bool {
        let mut members = self.members.lock();
        members.by_id.remove(&id);
        members.snapshot = None;
        members.by_id.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.lock().by_id.is_empty()
    }

    pub(super) fn snapshot(&self) -> Arc<[Arc<Member>]> {
        let mut members = self.members.lock();
        let Members { by_id, snapshot } = &mut *members;
        Arc::clone(snapshot.get_or_insert_with(|| by_id.values().cloned().collect()))
    }

    pub(super) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock()
    }
}
