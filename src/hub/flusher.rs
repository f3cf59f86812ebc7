//! Who sends the rooms' events to their members.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::metrics::Traffic;

use super::room::{Room, Slice};

/// Members that are written to before others get their turn. At some microseconds each, whoever
/// shares the thread waits a fraction of a millisecond.
const MEMBERS_PER_TURN: usize = 64;

/// Sends the events of its rooms, which take turns, so that a small room never waits for the whole
/// of a large one. A room stays with one flusher: that of the member who came first.
#[derive(Default)]
pub struct Flusher {
    rooms: Mutex<VecDeque<Arc<Room>>>,
    task: AtomicWaker,
    traffic: Traffic,
}

impl Flusher {
    /// What went through its worker.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Adds a room that is not in the queue.
    pub(super) fn queue(&self, room: Arc<Room>) {
        let mut rooms = self.rooms.lock();
        let first = rooms.is_empty();
        rooms.push_back(room);
        drop(rooms);
        if first {
            self.task.wake();
        }
    }

    /// Does one turn, which is short. Pending when there is nothing to do; whoever drives it lets
    /// others go first when it is ready.
    pub fn poll_turn(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.task.register(cx.waker());
        let mut slice = Slice::with_capacity(MEMBERS_PER_TURN);
        let mut left = MEMBERS_PER_TURN;
        while left > 0 {
            let Some(room) = self.rooms.lock().pop_front() else { return Poll::Pending };
            let more = room.flush(&mut slice, left);
            // A room costs something even if nobody is in it any more.
            left -= slice.len().max(1);
            slice.clear();
            if more {
                self.rooms.lock().push_back(room);
            }
        }
        Poll::Ready(())
    }
}
