//! Events of one room that go out together: one system call a member, however many they are.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::protocol::ConnectionId;
use crate::trace::{FanOut, FanOuts};

use super::expiry::Expiry;
use super::outbox::Outbox;

/// Who does not get an event.
#[derive(Debug, Clone, Default)]
pub(super) enum Except {
    #[default]
    Nobody,
    One(ConnectionId),
    Many(Arc<HashSet<ConnectionId>>),
}

impl Except {
    pub(super) fn contains(&self, id: ConnectionId) -> bool {
        match self {
            Self::Nobody => false,
            Self::One(one) => *one == id,
            Self::Many(many) => many.contains(&id),
        }
    }

    /// The same, and these.
    pub(super) fn and(&self, ids: impl Iterator<Item = ConnectionId>) -> Self {
        let mut many: HashSet<ConnectionId> = ids.collect();
        match self {
            Self::Nobody => {}
            Self::One(one) => {
                many.insert(*one);
            }
            Self::Many(others) => many.extend(others.iter()),
        }
        Self::Many(Arc::new(many))
    }
}

impl FromIterator<ConnectionId> for Except {
    fn from_iter<T: IntoIterator<Item = ConnectionId>>(ids: T) -> Self {
        let mut ids = ids.into_iter();
        match (ids.next(), ids.next()) {
            (None, _) => Self::Nobody,
            (Some(one), None) => Self::One(one),
            (Some(one), Some(other)) => Self::Many(Arc::new([one, other].into_iter().chain(ids).collect())),
        }
    }
}

/// Whole frames one after another, numbered as the room counts its events.
#[derive(Debug)]
pub(super) struct Batch<Frames = Bytes> {
    /// The number of the first.
    first: u64,
    frames: Frames,
    marks: SmallVec<[Mark; 1]>,
    /// All who do not get some of it.
    excluded: HashSet<ConnectionId>,
    /// When it is not to be sent any more: then it has one event only.
    expires: Option<Expiry>,
    fan_outs: FanOuts,
}

#[derive(Debug)]
struct Mark {
    /// Where the frame ends.
    end: usize,
    except: Except,
}

impl Batch<Vec<u8>> {
    pub(super) fn starting_at(first: u64, expires: Option<Expiry>) -> Self {
        Self {
            first,
            frames: Vec::new(),
            marks: SmallVec::new(),
            excluded: HashSet::new(),
            expires,
            fan_outs: FanOuts::default(),
        }
    }

    /// Whether more events may be added: they would be lost with this one.
    pub(super) fn takes_more(&self) -> bool {
        self.expires.is_none()
    }

    /// Adds the frame that `encode` appends, and says how many bytes it has; `about` so many.
    pub(super) fn add(
        &mut self,
        about: usize,
        except: Except,
        fan_out: FanOut,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = self.frames.len();
        self.frames.reserve(about);
        encode(&mut self.frames);
        match &except {
            Except::Nobody => {}
            Except::One(one) => {
                self.excluded.insert(*one);
            }
            Except::Many(many) => self.excluded.extend(many.iter()),
        }
        self.marks.push(Mark { end: self.frames.len(), except });
        let bytes = self.frames.len() - start;
        self.fan_outs.add(fan_out, bytes);
        bytes
    }

    /// The batch as it will be sent: nothing is added any more.
    pub(super) fn complete(self) -> Batch {
        let Self { first, frames, marks, excluded, expires, fan_outs } = self;
        Batch { first, frames: frames.into(), marks, excluded, expires, fan_outs }
    }
}

impl<Frames: AsRef<[u8]>> Batch<Frames> {
    /// The number of the event after the last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.marks.len() as u64
    }

    /// How many bytes are in it.
    pub(super) fn len(&self) -> usize {
        self.frames.as_ref().len()
    }

    /// A copy of the frames that a connection gets. A slice would keep the whole batch for a reader
    /// that is slow and gets little of it, and nothing would count that.
    fn excerpt(&self, id: ConnectionId, since: u64) -> Bytes {
        let mut excerpt = Vec::new();
        let mut start = 0;
        for (number, mark) in (self.first..).zip(&self.marks) {
            if number >= since && !mark.except.contains(id) {
                excerpt.extend_from_slice(self.frames.as_ref().get(start..mark.end).unwrap_or_default());
            }
            start = mark.end;
        }
        excerpt.into()
    }
}

impl<Frames: AsRef<[u8]>> Batch<Frames> {
    /// Sends a connection a copy of what it gets that is to have all from the event `since` on.
    pub(super) fn send_copy(&self, id: ConnectionId, outbox: &Outbox, since: u64) {
        let excerpt = self.excerpt(id, since);
        if !excerpt.is_empty() {
            self.give(outbox, &excerpt);
        }
    }

    /// Gives frames of this batch to a connection, unless their time has passed. If they do not fit,
    /// the outbox has kept the reason, and the connection ends.
    fn give(&self, outbox: &Outbox, frames: &Bytes) {
        match &self.expires {
            Some(expires) if expires.has_passed() => outbox.deliver_lost(),
            expires => outbox.deliver_traced(frames, expires.as_ref(), &self.fan_outs),
        };
    }
}

impl Batch {
    /// As [`Batch::send_copy`], without a copy where that is possible.
    pub(super) fn send(&self, id: ConnectionId, outbox: &Outbox, since: u64) {
        let whole = since <= self.first && (self.excluded.is_empty() || !self.excluded.contains(&id));
        if whole {
            self.give(outbox, &self.frames);
        } else {
            self.send_copy(id, outbox, since);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, IoSlice};
    use std::task::{Context, Poll};
    use std::time::Duration;

    use super::*;
    use crate::hub::outbox::Wire;

    /// Takes nothing.
    struct Stuck;

    impl Wire for Stuck {
        fn try_send(&self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
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
    fn an_event_that_expires_is_kept_once_for_all_who_are_slow() {
        let (clock, _time) = crate::Clock::manual();
        for expires in [None, Some(Expiry::after(&clock, Duration::from_secs(1)))] {
            let mut batch = Batch::starting_at(0, expires);
            batch.add(100, Except::Nobody, FanOut::default(), |out| out.extend_from_slice(&[b'x'; 100]));
            let batch = batch.complete();
            let outbox: Arc<Outbox> = Arc::new(Outbox::new(1000, Stuck));
            batch.send(ConnectionId::random().unwrap(), &outbox, 0);
            assert!(!outbox.is_empty());
            assert!(!batch.frames.is_unique(), "what waits is the event itself, not a copy of it");
        }
    }
}
