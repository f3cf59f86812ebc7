//! What waits to be written to one connection: bounded in bytes, and the way to end it.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::protocol::{Close, CloseCode, Frame};

/// What a waiting frame takes beside its bytes.
const OVERHEAD: usize = size_of::<Bytes>();

/// The frames that wait to be written to one connection. Anyone may add to it; the connection's
/// own task writes. It is never waited for: who reads too slowly is closed.
#[derive(Debug)]
pub struct Outbox {
    state: Mutex<State>,
    writer: AtomicWaker,
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Bytes>,
    /// Bytes that wait, those that the writer has taken and not yet written included.
    bytes: usize,
    /// Why the connection is to end. From then on nothing is added.
    close: Option<Close>,
    /// The last frame is in.
    sealed: bool,
}

impl Outbox {
    /// An empty outbox for so many bytes.
    pub fn new(max_bytes: usize) -> Self {
        Self { state: Mutex::default(), writer: AtomicWaker::new(), max_bytes }
    }

    /// Adds a frame, and says whether it will be written unless the connection breaks. If it does
    /// not fit, the connection is closed as too slow, and what waits is dropped.
    pub fn push(&self, frame: Frame) -> bool {
        let mut state = self.state.lock();
        if state.close.is_some() || state.sealed {
            return false;
        }
        let cost = frame.len() + OVERHEAD;
        if state.bytes + cost > self.max_bytes {
            state.close = Some(Close::new(CloseCode::TooSlow, "this client reads too slowly"));
            let dropped: usize = state.waiting.iter().map(|bytes| bytes.len() + OVERHEAD).sum();
            state.bytes -= dropped;
            state.waiting = VecDeque::new();
            drop(state);
            self.writer.wake();
            return false;
        }
        state.bytes += cost;
        state.waiting.push_back(frame.into_bytes());
        // Whoever finds something waiting has been woken by whoever put it there.
        let first = state.waiting.len() == 1;
        drop(state);
        if first {
            self.writer.wake();
        }
        true
    }

    /// Asks the connection to end. The first reason counts; says whether this was it.
    pub fn close(&self, close: Close) -> bool {
        let mut state = self.state.lock();
        let first = state.close.is_none() && !state.sealed;
        if first {
            state.close = Some(close);
        }
        drop(state);
        if first {
            self.writer.wake();
        }
        first
    }

    /// Why the connection is to end, if it is.
    pub fn close_reason(&self) -> Option<Close> {
        self.state.lock().close.clone()
    }

    /// Adds the last frames, whatever waits before them; nothing follows.
    pub fn seal(&self, last: impl IntoIterator<Item = Frame>) {
        let mut state = self.state.lock();
        if state.sealed {
            return;
        }
        state.sealed = true;
        for frame in last {
            state.bytes += frame.len() + OVERHEAD;
            state.waiting.push_back(frame.into_bytes());
        }
    }

    /// Who is woken when there is something to write, or a reason to end.
    pub fn register(&self, waker: &Waker) {
        self.writer.register(waker);
    }

    /// Gives the writer what waits; `into` must be empty.
    pub fn take(&self, into: &mut VecDeque<Bytes>) {
        std::mem::swap(&mut self.state.lock().waiting, into);
    }

    /// The writer has written, or dropped, a frame of so many bytes.
    pub fn written(&self, frame_bytes: usize) {
        self.state.lock().bytes -= frame_bytes + OVERHEAD;
    }

    /// The bytes that wait, with what it costs to keep them.
    pub fn len(&self) -> usize {
        self.state.lock().bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: usize) -> Frame {
        Frame::whole(Bytes::from(vec![b'x'; bytes]))
    }

    #[test]
    fn what_does_not_fit_closes_the_connection_and_frees_what_waits() {
        let outbox = Outbox::new(1000);
        assert!(outbox.push(frame(400)));
        assert!(outbox.push(frame(400)));
        assert!(!outbox.push(frame(400)));
        assert_eq!(outbox.close_reason().unwrap().code, CloseCode::TooSlow);
        assert!(outbox.is_empty());
        assert!(!outbox.push(frame(1)), "nothing is added to an outbox that is to end");
    }

    #[test]
    fn nothing_follows_the_last_frames() {
        let outbox = Outbox::new(1000);
        outbox.seal([frame(2)]);
        assert!(!outbox.push(frame(1)));
        outbox.seal([frame(3)]);
        let mut writing = VecDeque::new();
        outbox.take(&mut writing);
        assert_eq!(writing.iter().map(Bytes::len).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_the_writer_holds_counts_until_it_is_written() {
        let outbox = Outbox::new(1000);
        let mut writing = VecDeque::new();
        outbox.push(frame(600));
        outbox.take(&mut writing);
        assert!(!outbox.push(frame(600)), "600 of 1000 bytes are still being written");
        outbox.written(writing.pop_front().unwrap().len());
        assert!(outbox.is_empty());
    }

    #[test]
    fn many_tiny_frames_are_bounded_by_what_they_cost() {
        let outbox = Outbox::new(1000);
        let accepted = (0..1000).filter(|_| outbox.push(frame(1))).count();
        assert!(accepted <= 1000 / OVERHEAD, "{accepted}");
    }

    #[test]
    fn the_first_reason_to_end_counts_and_the_last_frames_follow_what_waits() {
        let outbox = Outbox::new(1000);
        outbox.push(frame(1));
        assert!(outbox.close(Close::new(CloseCode::Kicked, "first")));
        assert!(!outbox.close(Close::new(CloseCode::Restarting, "second")));
        assert_eq!(outbox.close_reason().unwrap().reason, "first");
        outbox.seal([frame(2)]);
        let mut writing = VecDeque::new();
        outbox.take(&mut writing);
        assert_eq!(writing.iter().map(Bytes::len).collect::<Vec<_>>(), [1, 2]);
    }
}
