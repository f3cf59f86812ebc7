//! What waits to be written to one connection: bounded in bytes, and the way to end it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::{Mutex, MutexGuard};

use crate::protocol::{Close, CloseCode, Frame, Response, end_of_frame};
use crate::trace::{FanOuts, Left};

use super::expiry::Expiry;

/// What waiting bytes take beside themselves.
const OVERHEAD: usize = size_of::<Piece>();
/// Pieces that one system call writes.
const PIECES_PER_WRITE: usize = 64;

/// The transport of one connection, which its own task and the flushers share.
pub trait Wire: Send + Sync {
    /// Writes as much as goes at once, and says how much. Whoever is told that nothing goes leaves
    /// it to the connection's task, and waits for nothing. If the wire has taken something that has not
    /// gone yet, it wakes whoever has polled [`Wire::poll_flush`].
    ///
    /// # Errors
    /// `WouldBlock` when nothing goes; anything else when nothing will ever go.
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as much of these pieces as goes in one system call. For the connection's task.
    ///
    /// # Errors
    /// When the connection is broken.
    fn poll_write(&self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Reads what there is, and says how much; 0 is the end. For the connection's task.
    ///
    /// # Errors
    /// When the connection is broken.
    fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes what the wire has taken and kept. Ready when all has gone, as ever where nothing is kept.
    /// For the connection's task.
    ///
    /// # Errors
    /// When the connection is broken.
    fn poll_flush(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends the writing direction: the peer reads what was written, and then the end. For the
    /// connection's task.
    ///
    /// # Errors
    /// When the connection is broken.
    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// The frames that wait to be written to one connection, and the wire itself: the only way to it.
/// Anyone may add; what is added to an empty outbox by [`Outbox::deliver`] goes out at once, the
/// rest is written by the connection's own task. Nobody waits for it: who reads too slowly is closed,
/// unless what waits are events that expire, of which the oldest are dropped.
pub struct Outbox<W: ?Sized = dyn Wire> {
    state: Mutex<State>,
    writer: AtomicWaker,
    max_bytes: usize,
    wire: W,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Piece>,
    /// How many of them may be dropped when their time has passed.
    expiring: usize,
    /// How much of the first piece is written already.
    written: usize,
    /// Bytes that wait, with what it costs to keep them; the first piece counts until it is written
    /// whole, as it is kept until then.
    bytes: usize,
    /// Why the connection is to end. From then on nothing is added.
    close: Option<Box<Close>>,
    /// The last frame is in.
    sealed: bool,
}

/// One or more whole frames; one event, if it expires.
struct Piece {
    frames: Bytes,
    fate: Fate,
    /// The traces of what is in it.
    _left: Left,
}

/// What may become of a piece before it is written.
enum Fate {
    /// It is written, whenever that may be.
    Kept,
    /// It is dropped when its time has passed, or when there is no room for what comes after it.
    Expires(Expiry),
    /// It says that so many events were dropped, and one more may be added to it.
    Lost(usize),
}

impl<W: Wire> Outbox<W> {
    /// An empty outbox for so many bytes.
    pub fn new(max_bytes: usize, wire: W) -> Self {
        Self { state: Mutex::default(), writer: AtomicWaker::new(), max_bytes, wire }
    }
}

impl<W: Wire + ?Sized> Outbox<W> {
    /// Adds a frame for the connection's task to write, and says whether it will be written unless
    /// the connection breaks. If it does not fit, the connection is closed as too slow, and what
    /// waits is dropped.
    pub fn push(&self, frame: Frame) -> bool {
        self.push_until(frame, None)
    }

    /// As [`Outbox::push`], for an event that is dropped instead of being sent too late. Then the
    /// client is told that one was.
    pub fn push_until(&self, frame: Frame, expires: Option<&Expiry>) -> bool {
        self.push_traced(frame, expires, &FanOuts::default())
    }

    /// As [`Outbox::push_until`], for an event that may belong to a trace.
    pub(crate) fn push_traced(&self, frame: Frame, expires: Option<&Expiry>, fan_outs: &FanOuts) -> bool {
        let state = self.state.lock();
        if !state.accepts() {
            return false;
        }
        self.add(state, Piece { frames: frame.into_bytes(), fate: Fate::of(expires), _left: fan_outs.leave() })
    }

    /// Writes whole frames at once if nothing waits before them; what does not go is added, as by
    /// [`Outbox::push`]. An error of the wire is left to the connection's task to find.
    pub fn deliver(&self, frames: &Bytes) -> bool {
        self.deliver_until(frames, None)
    }

    /// As [`Outbox::deliver`], for one event as in [`Outbox::push_until`].
    pub fn deliver_until(&self, frames: &Bytes, expires: Option<&Expiry>) -> bool {
        self.deliver_traced(frames, expires, &FanOuts::default())
    }

    /// As [`Outbox::deliver_until`], for events that may belong to traces.
    pub(super) fn deliver_traced(&self, frames: &Bytes, expires: Option<&Expiry>, fan_outs: &FanOuts) -> bool {
        if frames.is_empty() {
            return false;
        }
        self.deliver_or_add(self.state.lock(), frames, Fate::of(expires), fan_outs)
    }

    /// Tells the client that an event was dropped before it came here. What it is told of several in a
    /// row takes no more room than of one, while it waits.
    pub fn deliver_lost(&self) -> bool {
        let mut state = self.state.lock();
        let count = state.take_back_lost() + 1;
        let frame = Response::Lost { count }.frame().into_bytes();
        self.deliver_or_add(state, &frame, Fate::Lost(count), &FanOuts::default())
    }

    fn deliver_or_add(&self, mut state: MutexGuard<'_, State>, frames: &Bytes, fate: Fate, fan_outs: &FanOuts) -> bool {
        if !state.accepts() {
            return false;
        }
        let mut written = 0;
        if state.waiting.is_empty() {
            written = self.wire.try_send(frames).unwrap_or(0);
            if written == frames.len() {
                return true;
            }
        }
        if written > 0 {
            // What is begun is kept, or else a frame would be torn.
            state.written = written;
            state.keep(Piece { frames: frames.clone(), fate: Fate::Kept, _left: fan_outs.leave() });
            drop(state);
            self.writer.wake();
            return true;
        }
        self.add(state, Piece { frames: frames.clone(), fate, _left: fan_outs.leave() })
    }

    fn add(&self, mut state: MutexGuard<'_, State>, piece: Piece) -> bool {
        let added = state.add(piece, self.max_bytes);
        // Whoever finds something waiting has been woken by whoever put it there.
        let wake = state.waiting.len() == 1 || !added;
        drop(state);
        if wake {
            self.writer.wake();
        }
        added
    }

    /// Asks the connection to end. The first reason counts; says whether this was it.
    pub fn close(&self, close: Close) -> bool {
        let mut state = self.state.lock();
        let first = state.accepts();
        if first {
            state.close = Some(Box::new(close));
        }
        drop(state);
        if first {
            self.writer.wake();
        }
        first
    }

    /// Why the connection is to end, if it is.
    pub fn close_reason(&self) -> Option<Close> {
        self.state.lock().close.as_deref().cloned()
    }

    /// Adds the last frames, whatever waits before them; nothing follows.
    pub fn seal(&self, last: impl IntoIterator<Item = Frame>) {
        let mut state = self.state.lock();
        if state.sealed {
            return;
        }
        state.sealed = true;
        for frame in last {
            state.keep(Piece::untraced(frame.into_bytes(), Fate::Kept));
        }
    }

    /// Who is woken when there is something to write, or a reason to end.
    pub fn register(&self, waker: &Waker) {
        self.writer.register(waker);
    }

    /// Wakes whoever has registered.
    pub fn wake(&self) {
        self.writer.wake();
    }

    /// Writes what waits, here and in the wire. Ready when nothing does.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn poll_write(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.state.lock();
            if state.waiting.is_empty() {
                // An idle connection keeps no queue.
                state.waiting = VecDeque::new();
                return self.wire.poll_flush(cx);
            }
            state.drop_expired();
            let mut pieces = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let count = state.point(&mut pieces);
            match ready!(self.wire.poll_write(cx, pieces.get(..count).unwrap_or_default()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => state.account(written),
            }
        }
    }

    /// The bytes that wait, with what it costs to keep them.
    pub fn len(&self) -> usize {
        self.state.lock().bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The transport.
    pub fn wire(&self) -> &W {
        &self.wire
    }
}

impl Fate {
    fn of(expires: Option<&Expiry>) -> Self {
        expires.cloned().map_or(Self::Kept, Self::Expires)
    }
}

impl Piece {
    fn untraced(frames: Bytes, fate: Fate) -> Self {
        Self { frames, fate, _left: FanOuts::default().leave() }
    }

    fn cost(&self) -> usize {
        self.frames.len() + OVERHEAD
    }

    fn expires(&self) -> bool {
        matches!(self.fate, Fate::Expires(_))
    }
}

impl State {
    fn accepts(&self) -> bool {
        self.close.is_none() && !self.sealed
    }

    /// What expires makes room for what comes after it, and is lost itself where there is none. One word
    /// of what is lost may go beyond the bound: there are never two in a row.
    fn add(&mut self, piece: Piece, max_bytes: usize) -> bool {
        let fits = |state: &Self| state.bytes + piece.cost() <= max_bytes;
        if !fits(self) {
            self.drop_expired();
        }
        if !fits(self) {
            self.drop_oldest_expiring(max_bytes / 2);
        }
        match piece.fate {
            Fate::Kept if !fits(self) => {
                self.close = Some(Box::new(Close::new(CloseCode::TooSlow, "this client reads too slowly")));
                self.drop_unwritten();
                return false;
            }
            Fate::Expires(_) if !fits(self) => {
                let mut lost = self.take_back_lost() + 1;
                self.tell_lost(&mut lost);
            }
            _ => self.keep(piece),
        }
        true
    }

    fn keep(&mut self, piece: Piece) {
        self.bytes += piece.cost();
        self.expiring += usize::from(piece.expires());
        self.waiting.push_back(piece);
    }

    /// Drops the events whose time has passed.
    fn drop_expired(&mut self) {
        self.drop_expiring(|_, expiry| expiry.has_passed());
    }

    /// Drops events that expire, the oldest first, until no more than `goal` bytes wait: much less than
    /// may, so that not everything that comes after has to make room again.
    fn drop_oldest_expiring(&mut self, goal: usize) {
        let mut excess = self.bytes.saturating_sub(goal);
        self.drop_expiring(|cost, _| {
            let dropped = excess > 0;
            excess = excess.saturating_sub(cost);
            dropped
        });
    }

    /// Drops of the events that expire those that are chosen by their cost and their end, but for one
    /// that is begun, and leaves in their place how many they were. Words of that which come to stand
    /// side by side become one, or else they would fill the outbox of a client that never reads.
    fn drop_expiring(&mut self, mut chosen: impl FnMut(usize, &Expiry) -> bool) {
        if self.expiring == 0 {
            return;
        }
        let begun = usize::from(self.written > 0);
        let waiting = std::mem::take(&mut self.waiting);
        (self.bytes, self.expiring) = (0, 0);
        let mut lost = 0;
        for (index, piece) in waiting.into_iter().enumerate() {
            match &piece.fate {
                Fate::Expires(expiry) if index >= begun && chosen(piece.cost(), expiry) => lost += 1,
                Fate::Lost(count) if index >= begun => lost += count,
                _ => {
                    self.tell_lost(&mut lost);
                    self.keep(piece);
                }
            }
        }
        self.tell_lost(&mut lost);
    }

    fn tell_lost(&mut self, lost: &mut usize) {
        let count = std::mem::take(lost);
        if count > 0 {
            self.keep(Piece::untraced(Response::Lost { count }.frame().into_bytes(), Fate::Lost(count)));
        }
    }

    /// Takes back what was last to be told of events that are lost, unless that is begun, and says how
    /// many they are: whoever does tells it with more.
    fn take_back_lost(&mut self) -> usize {
        let begun = usize::from(self.written > 0);
        let Some(piece @ &Piece { fate: Fate::Lost(count), .. }) = self.waiting.back() else { return 0 };
        if self.waiting.len() <= begun || !self.accepts() {
            return 0;
        }
        self.bytes -= piece.cost();
        self.waiting.pop_back();
        count
    }

    /// Drops what a slow reader has not been sent, but for the rest of a frame it has a part of.
    fn drop_unwritten(&mut self) {
        let begun = self.waiting.pop_front().filter(|_| self.written > 0);
        self.waiting = VecDeque::new();
        (self.bytes, self.expiring) = (0, 0);
        if let Some(Piece { frames: mut begun, _left, .. }) = begun {
            begun.truncate(end_of_frame(&begun, self.written));
            if begun.len() > self.written {
                self.keep(Piece { frames: begun, fate: Fate::Kept, _left });
            } else {
                self.written = 0;
            }
        }
    }

    /// Points at what waits, but for what is written of the first piece, and says how many pieces.
    fn point<'a>(&'a self, pieces: &mut [IoSlice<'a>]) -> usize {
        let mut skip = self.written;
        let mut count = 0;
        for (slice, piece) in pieces.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(piece.frames.get(skip..).unwrap_or_default());
            skip = 0;
            count += 1;
        }
        count
    }

    /// Lets go of the pieces that have been written whole.
    fn account(&mut self, written: usize) {
        self.written += written;
        while let Some(first) = self.waiting.front()
            && self.written >= first.frames.len()
        {
            self.written -= first.frames.len();
            self.bytes -= first.cost();
            self.expiring -= usize::from(first.expires());
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Takes so many bytes, then no more until it is told to.
    #[derive(Default)]
    struct Narrow {
        room: AtomicUsize,
        calls: AtomicUsize,
        seen: Mutex<Vec<u8>>,
    }

    impl Wire for Narrow {
        fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
            self.calls.fetch_add(1, Relaxed);
            let taken = bytes.len().min(self.room.load(Relaxed));
            if taken == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room.fetch_sub(taken, Relaxed);
            self.seen.lock().extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn poll_write(&self, _: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            self.try_send(&all).map_or(Poll::Pending, |taken| Poll::Ready(Ok(taken)))
        }

        fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn frame(payload: usize) -> Frame {
        Frame::data(&vec![b'x'; payload], true)
    }

    fn outbox(room: usize) -> Outbox<Narrow> {
        let outbox = Outbox::new(1000, Narrow::default());
        outbox.wire.room.store(room, Relaxed);
        outbox
    }

    fn write(outbox: &Outbox<Narrow>, room: usize) -> bool {
        outbox.wire.room.store(room, Relaxed);
        outbox.poll_write(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn what_does_not_fit_closes_the_connection_and_frees_what_waits() {
        let outbox = outbox(0);
        assert!(outbox.push(frame(400)));
        assert!(outbox.push(frame(400)));
        assert!(!outbox.push(frame(400)));
        assert_eq!(outbox.close_reason().unwrap().code, CloseCode::TooSlow);
        assert!(outbox.is_empty());
        assert!(!outbox.push(frame(1)), "nothing is added to an outbox that is to end");
        assert!(!outbox.deliver(&frame(1).into_bytes()));
    }

    #[test]
    fn a_frame_that_is_begun_is_ended_before_a_slow_reader_is_closed() {
        let outbox = outbox(150);
        let frames = [frame(98).into_bytes(), frame(98).into_bytes(), frame(98).into_bytes()].concat();
        assert!(outbox.deliver(&frames.into()), "one and a half of three frames are written");
        assert!(!outbox.push(frame(900)));
        outbox.seal([frame(1)]);
        assert!(write(&outbox, 1000));
        let expected = [frame(98).into_bytes(), frame(98).into_bytes(), frame(1).into_bytes()].concat();
        assert_eq!(*outbox.wire.seen.lock(), expected);
    }

    #[test]
    fn frames_that_are_begun_are_not_torn_however_small_the_bound_is() {
        let outbox = outbox(150);
        let frames = frame(98).into_bytes().repeat(20);
        assert!(outbox.deliver(&frames.clone().into()), "2,000 bytes, where 1,000 may wait");
        assert!(write(&outbox, 2000));
        assert_eq!(*outbox.wire.seen.lock(), frames);
    }

    #[test]
    fn nothing_follows_the_last_frames() {
        let outbox = outbox(0);
        outbox.seal([frame(2)]);
        assert!(!outbox.push(frame(1)));
        outbox.seal([frame(3)]);
        assert!(write(&outbox, 100));
        assert_eq!(*outbox.wire.seen.lock(), frame(2).into_bytes());
    }

    #[test]
    fn what_is_delivered_to_an_empty_outbox_takes_one_call_and_is_not_kept() {
        let outbox = outbox(1000);
        assert!(outbox.deliver(&frame(100).into_bytes()));
        assert_eq!(outbox.wire.calls.load(Relaxed), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_delivered_never_overtakes_what_waits() {
        let outbox = outbox(0);
        outbox.push(frame(1));
        outbox.wire.room.store(1000, Relaxed);
        assert!(outbox.deliver(&frame(2).into_bytes()));
        assert!(outbox.wire.seen.lock().is_empty());
        assert!(write(&outbox, 1000));
        assert_eq!(*outbox.wire.seen.lock(), [frame(1).into_bytes(), frame(2).into_bytes()].concat());
    }

    #[test]
    fn what_is_half_written_counts_until_it_is_written() {
        let outbox = outbox(599);
        outbox.deliver(&frame(600).into_bytes());
        assert!(!outbox.push(frame(600)), "the piece is kept until the last of its bytes is written");
    }

    #[test]
    fn many_tiny_frames_are_bounded_by_what_they_cost() {
        let outbox = outbox(0);
        let accepted = (0..1000).filter(|_| outbox.push(frame(1))).count();
        assert!(accepted <= 1000 / OVERHEAD, "{accepted}");
    }

    #[test]
    fn the_first_reason_to_end_counts_and_the_last_frames_follow_what_waits() {
        let outbox = outbox(0);
        outbox.push(frame(1));
        assert!(outbox.close(Close::new(CloseCode::Kicked, "first")));
        assert!(!outbox.close(Close::new(CloseCode::Unavailable, "second")));
        assert_eq!(outbox.close_reason().unwrap().reason, "first");
        outbox.seal([frame(2)]);
        assert!(write(&outbox, 100));
        assert_eq!(*outbox.wire.seen.lock(), [frame(1).into_bytes(), frame(2).into_bytes()].concat());
    }

    #[test]
    fn events_whose_time_has_passed_make_room_and_leave_word_of_how_many_they_were() {
        let (clock, hands) = crate::Clock::manual();
        let soon = Expiry::after(&clock, std::time::Duration::from_secs(1));
        let outbox = outbox(0);
        assert!(outbox.push(frame(100)));
        assert!(outbox.push_until(frame(300), Some(&soon)));
        assert!(outbox.push_until(frame(300), Some(&soon)));
        // The beginning of the first is written: it is finished whatever happens.
        assert!(!write(&outbox, 10));
        hands.advance(std::time::Duration::from_secs(1));
        assert!(outbox.push(frame(500)), "what has expired makes room");
        assert!(write(&outbox, 10_000));
        let lost = Response::Lost { count: 2 }.frame().into_bytes();
        let expected = [frame(100).into_bytes(), lost, frame(500).into_bytes()].concat();
        assert_eq!(*outbox.wire.seen.lock(), expected);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn who_reads_nothing_survives_any_number_of_events_that_expire_and_is_told_their_number_once() {
        let (clock, hands) = crate::Clock::manual();
        let outbox = outbox(0);
        for _ in 0..1000 {
            let soon = Expiry::after(&clock, std::time::Duration::from_secs(1));
            assert!(outbox.push_until(frame(300), Some(&soon)), "{:?}", outbox.close_reason());
            assert!(outbox.push_until(frame(300), Some(&soon)), "{:?}", outbox.close_reason());
            hands.advance(std::time::Duration::from_secs(1));
        }
        assert!(write(&outbox, 10_000));
        assert_eq!(*outbox.wire.seen.lock(), Response::Lost { count: 2000 }.frame().into_bytes());
    }

    #[test]
    fn events_that_expire_later_make_room_and_the_newest_of_them_are_kept() {
        let (clock, _hands) = crate::Clock::manual();
        let outbox = outbox(0);
        let later = Expiry::after(&clock, std::time::Duration::from_secs(300));
        for _ in 0..1000 {
            assert!(outbox.push_until(frame(300), Some(&later)), "{:?}", outbox.close_reason());
        }
        let kept = outbox.len() / (300 + OVERHEAD);
        assert!(kept > 0);
        assert!(write(&outbox, 10_000));
        let seen = outbox.wire.seen.lock();
        let lost = Response::Lost { count: 1000 - kept }.frame().into_bytes();
        assert!(seen.starts_with(&lost), "what is lost is told first");
        assert_eq!(seen.len(), lost.len() + kept * frame(300).into_bytes().len());
    }

    #[test]
    fn where_nothing_can_make_room_an_event_that_expires_is_lost_and_the_connection_goes_on() {
        let (clock, _hands) = crate::Clock::manual();
        let outbox = outbox(0);
        let later = Expiry::after(&clock, std::time::Duration::from_secs(300));
        while outbox.len() + 300 + OVERHEAD < 1000 {
            assert!(outbox.push(frame(300)));
        }
        let full = outbox.len();
        for _ in 0..100 {
            assert!(outbox.push_until(frame(300), Some(&later)));
        }
        assert!(outbox.len() < full + 100);
        assert!(write(&outbox, 10_000));
        assert!(outbox.wire.seen.lock().ends_with(&Response::Lost { count: 100 }.frame().into_bytes()));
    }
}
