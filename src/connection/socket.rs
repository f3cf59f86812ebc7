//! One WebSocket: reading, writing, liveness and the way it ends. Knows nothing of JSON or tokens.
//!
//! tungstenite decodes, and answers pings and Closes; all it writes goes into the outbox, as what
//! others write does. So there is one way to the wire, whole frames only, and one bound on what waits.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error, ProtocolError};
use tokio_tungstenite::tungstenite::{Message as Decoded, Utf8Bytes};

use crate::clock::{Clock, Timer};
use crate::config::{Limits, LiveLimits};
use crate::hub::{Outbox, Wire};
use crate::protocol::{Close, CloseCode, Frame};

use super::decoder::Decoder;
use super::duplex::Duplex;
use super::early::Early;
use super::flow::{Flow, Rates};

/// Frames that are handled before what they caused is written: a batch of answers is one write,
/// and a client that never stops sending still gets them.
const FRAMES_BETWEEN_WRITES: u16 = 32;

/// Bytes, about, that are decoded before it is looked at how fast they come: a message may have any number of
/// fragments, and be any number of bytes on the wire.
const BYTES_AT_ONCE: usize = 16 * 1024;

/// One WebSocket of a client, after the upgrade.
pub struct Socket {
    outbox: Arc<Outbox>,
    /// Only while a message is on its way.
    decoder: Option<Box<Decoder>>,
    /// Only until the peer has proven who it is.
    early: Option<Box<Early>>,
    max_message_bytes: u32,
    frames_since_write: u16,
    /// Whether the peer is on this machine.
    is_local: bool,
    /// Whether the peer has been held up since it was last asked.
    was_slowed: bool,
    /// How fast the peer sends, if there is a limit and it has sent anything lately.
    flow: Option<Box<Flow>>,
    liveness: Liveness,
    alarm: Alarm,
    limits: LiveLimits,
    clock: Clock,
}

/// A message of a client. It shares the socket's read buffer: whoever keeps it keeps that.
#[derive(Debug, Clone)]
pub enum Message {
    /// Text, which is UTF-8.
    Text(Utf8Bytes),
    /// Binary.
    Binary(Bytes),
}

impl Message {
    /// Its bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

/// Why there will be no more messages.
#[derive(Debug)]
pub enum Ended {
    /// The client has closed. The answer to its Close is in the outbox, as the last frame.
    ByPeer,
    /// The client is to be closed.
    ByUs(Close),
    /// The connection broke.
    Lost,
}

impl From<Close> for Ended {
    fn from(close: Close) -> Self {
        Self::ByUs(close)
    }
}

impl Socket {
    /// A server's socket over a transport that has been upgraded. `read_ahead` is what was read of
    /// it beyond the upgrade.
    pub fn new(wire: impl Wire + 'static, read_ahead: &[u8], limits: LiveLimits, clock: Clock) -> Self {
        let max_message_bytes = limits.get().max_message_bytes;
        Self {
            outbox: Arc::new(Outbox::new(limits.get().max_outbox_bytes, wire)),
            decoder: None,
            early: Early::of(read_ahead),
            max_message_bytes: bounded(max_message_bytes),
            frames_since_write: 0,
            is_local: true,
            was_slowed: false,
            flow: None,
            liveness: Liveness { heard: clock.now(), pinged: None },
            alarm: Alarm::default(),
            limits,
            clock,
        }
    }

    /// What waits to be written to this socket; whoever has it can add to it.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Changes how large a message may be, from the next frame on.
    pub fn set_max_message_bytes(&mut self, max: usize) {
        self.max_message_bytes = bounded(max);
        if let Some(decoder) = &mut self.decoder {
            decoder.set_max_message_bytes(max);
        }
    }

    /// Whether the peer is on this machine; some limits are not for those.
    pub(super) fn set_local(&mut self, is_local: bool) {
        self.is_local = is_local;
    }

    /// Whether the peer has been held up, because it sends too fast, since this was last asked.
    pub(super) fn take_slowed(&mut self) -> bool {
        std::mem::take(&mut self.was_slowed)
    }

    /// Whether frames are decoded only once they are whole, so that whoever has sent a little costs a
    /// little.
    pub fn set_patience(&mut self, patient: bool) {
        if patient || self.early.is_some() {
            self.early.get_or_insert_default().set_patient(patient, self.max_message_bytes as usize);
        }
    }

    /// The next message; `None` when the deadline has come first, or has been checked: it may be
    /// early, so that whoever gave it looks at the clock. Meanwhile the outbox is written, and the
    /// peer is pinged when it has been silent.
    ///
    /// # Errors
    /// The reason why there will be no more messages; then [`Socket::end`] is what is left to do.
    pub async fn receive(&mut self, deadline: Instant) -> Result<Option<Message>, Ended> {
        poll_fn(|cx| self.poll_receive(cx, deadline)).await
    }

    /// Ends the connection so that the peer learns why: writes what waits, then `announcement` and
    /// a Close where the end is ours, then ends its half of TCP and reads on, unheard, until the
    /// peer ends the other. Closing with unread bytes would reset the connection, and the code
    /// would be lost. All of it is bounded in time and bytes.
    pub async fn end(&mut self, ended: Ended, announcement: Option<Frame>) {
        let last = match ended {
            Ended::Lost => return,
            Ended::ByPeer => Vec::new(),
            Ended::ByUs(close) => announcement.into_iter().chain([close.frame()]).collect(),
        };
        self.outbox.seal(last);
        let (limit, clock) = (self.limits.get().close_timeout, self.clock.clone());
        let mut linger = Linger { left: self.limits.get().max_linger_bytes, peer_done: false, written: false };
        let ending = poll_fn(|cx| self.poll_end(cx, &mut linger));
        if clock.timeout(limit, ending).await.is_none() {
            tracing::debug!("a peer did not end its connection in time");
        }
    }

    /// As [`Socket::receive`].
    ///
    /// # Errors
    /// As there.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<Option<Message>, Ended>> {
        self.outbox.register(cx.waker());
        if let Some(close) = self.outbox.close_reason() {
            return Poll::Ready(Err(Ended::ByUs(close)));
        }
        loop {
            if self.frames_since_write >= FRAMES_BETWEEN_WRITES
                && let Poll::Ready(Err(_)) = self.poll_write(cx)
            {
                return Poll::Ready(Err(Ended::Lost));
            }
            match self.check_flow() {
                Ok(None) => {}
                Ok(Some(resumes)) => {
                    // It cannot show that it is there while nobody listens.
                    self.liveness.hear(self.clock.now());
                    if let Poll::Ready(Err(_)) = self.poll_write(cx) {
                        return Poll::Ready(Err(Ended::Lost));
                    }
                    match ready!(self.poll_time(cx, deadline.min(resumes))) {
                        Ok(None) if self.clock.now() < deadline => continue,
                        other => return Poll::Ready(other),
                    }
                }
                Err(close) => return Poll::Ready(Err(close.into())),
            }
            let Poll::Ready(read) = self.poll_read(cx) else { break };
            self.frames_since_write += 1;
            if let Some(message) = read? {
                return Poll::Ready(Ok(Some(message)));
            }
        }
        // Reading may have put pongs into the outbox, or overfilled it with them.
        if let Some(close) = self.outbox.close_reason() {
            return Poll::Ready(Err(Ended::ByUs(close)));
        }
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            return Poll::Ready(Err(Ended::Lost));
        }
        self.poll_time(cx, deadline)
    }

    /// Waits for something else, and meanwhile writes what waits, and nothing is read.
    ///
    /// # Errors
    /// The reason why there will be no more messages.
    pub async fn meanwhile<T>(&mut self, other: impl Future<Output = T>) -> Result<T, Ended> {
        let mut other = pin!(other);
        poll_fn(|cx| match other.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => {
                self.outbox.register(cx.waker());
                match self.poll_write(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(Err(Ended::Lost)),
                    _ => Poll::Pending,
                }
            }
        })
        .await
    }

    /// As [`Socket::poll_receive`], without hearing what the peer says: for as long as there is
    /// something else to be done first. The peer's silence does not count meanwhile.
    ///
    /// # Errors
    /// As there.
    pub fn poll_deadline(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<(), Ended>> {
        self.outbox.register(cx.waker());
        if let Some(close) = self.outbox.close_reason() {
            return Poll::Ready(Err(Ended::ByUs(close)));
        }
        if let Poll::Ready(Err(_)) = self.poll_write(cx) {
            return Poll::Ready(Err(Ended::Lost));
        }
        self.liveness.hear(self.clock.now());
        while self.clock.now() < deadline {
            ready!(self.alarm.poll(cx, &self.clock, deadline));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads one message, or one control frame, which is dealt with here.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>, Ended>> {
        // Every frame is charged to the task's share of the scheduler, or else a client that sends
        // much at once would hold up those that share its thread.
        let share = ready!(tokio::task::coop::poll_proceed(cx));
        let decoder = self.decoder.get_or_insert_with(|| Decoder::lend(self.max_message_bytes as usize));
        let (mut left, max_bytes) = (BYTES_AT_ONCE, self.max_message_bytes as usize);
        let duplex = Duplex { outbox: &self.outbox, early: &mut self.early, max_bytes, left: &mut left, cx };
        let decoded = decoder.read(duplex);
        let (fragments, whole, now) = (decoder.take_fragments(), decoded.as_ref().ok(), self.clock.now());
        if fragments > 0 || whole.is_some() {
            let rates = Rates::of(&self.limits.get(), self.is_local);
            let (frames, bytes) = (fragments.saturating_add(u32::from(whole.is_some())), whole.map_or(0, Decoded::len));
            if let Some(rates) = rates {
                self.flow.get_or_insert_with(|| Box::new(Flow::new(now))).count(rates, frames, bytes, now);
            }
        }
        let decoded = match decoded {
            Ok(decoded) => decoded,
            // There is more of it, but how fast it comes has to be looked at.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock && left == 0 => {
                share.made_progress();
                return Poll::Ready(Ok(None));
            }
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if let Some(decoder) = self.decoder.take_if(|decoder| decoder.is_between_messages()) {
                    decoder.give_back();
                }
                return Poll::Pending;
            }
            Err(error) => return Poll::Ready(Err(ended(&error))),
        };
        share.made_progress();
        self.liveness.hear(now);
        Poll::Ready(match decoded {
            Decoded::Text(text) => Ok(Some(Message::Text(text))),
            Decoded::Binary(bytes) => Ok(Some(Message::Binary(bytes))),
            Decoded::Ping(_) | Decoded::Pong(_) | Decoded::Frame(_) => Ok(None),
            Decoded::Close(_) => {
                // The answer is the last thing that is said: no event may follow it.
                self.outbox.seal([Frame::whole(Bytes::from(decoder.answer_to_close()))]);
                Err(Ended::ByPeer)
            }
        })
    }

    /// When the peer is to be heard again, if not now.
    fn check_flow(&mut self) -> Result<Option<Instant>, Close> {
        let Some(flow) = &mut self.flow else { return Ok(None) };
        let (now, rates) = (self.clock.now(), Rates::of(&self.limits.get(), self.is_local));
        let Some(rates) = rates.filter(|_| !flow.is_full(now)) else {
            self.flow = None;
            return Ok(None);
        };
        let resumes = flow.resumes(now);
        self.was_slowed |= resumes.is_some();
        if resumes.is_some() && flow.is_abuse(rates, now) {
            return Err(Close::new(CloseCode::LimitExceeded, "this client sends too fast, and goes on doing so"));
        }
        Ok(resumes)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.frames_since_write = 0;
        self.outbox.poll_write(cx)
    }

    /// Waits for the deadline, or for the time to ping or to give up. The clock is asked before the
    /// timer is: a timer does not fire for a task that has used up its share of the scheduler, as
    /// one does whose peer never stops sending.
    fn poll_time(&mut self, cx: &mut Context<'_>, deadline: Instant) -> Poll<Result<Option<Message>, Ended>> {
        loop {
            let (now, due) = (self.clock.now(), self.liveness.due(&self.limits.get()));
            if now >= due {
                if self.liveness.pinged.is_some() {
                    let close = Close::new(CloseCode::NoPong, "this client no longer answers pings");
                    return Poll::Ready(Err(Ended::ByUs(close)));
                }
                self.liveness.pinged = Some(now);
                self.outbox.push(Frame::ping());
                if let Poll::Ready(Err(_)) = self.poll_write(cx) {
                    return Poll::Ready(Err(Ended::Lost));
                }
                continue;
            }
            if now >= deadline {
                return Poll::Ready(Ok(None));
            }
            ready!(self.alarm.poll(cx, &self.clock, due.min(deadline)));
        }
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, linger: &mut Linger) -> Poll<()> {
        // Read even while writing: a peer that is stuck in writing to us reads nothing.
        while !linger.peer_done {
            let mut space = [0; 4096];
            match self.outbox.wire().poll_read(cx, &mut space) {
                Poll::Ready(Ok(count)) => linger.read(count),
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        if !linger.written {
            if ready!(self.poll_write(cx)).is_err() {
                return Poll::Ready(());
            }
            if ready!(self.outbox.wire().poll_end(cx)).is_err() {
                return Poll::Ready(());
            }
            linger.written = true;
        }
        if linger.peer_done { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// No limit in bytes is larger than this holds.
fn bounded(max: usize) -> u32 {
    u32::try_from(max).unwrap_or(u32::MAX)
}

/// How far the end of a connection has come.
struct Linger {
    /// Bytes that the peer may still send.
    left: usize,
    /// The peer has ended its half, or has sent too much.
    peer_done: bool,
    /// All is written, and our half is ended.
    written: bool,
}

impl Linger {
    fn read(&mut self, bytes: usize) {
        self.peer_done = bytes == 0 || bytes > self.left;
        self.left = self.left.saturating_sub(bytes);
    }
}

/// When the peer was last heard, and whether it has been asked since.
struct Liveness {
    heard: Instant,
    pinged: Option<Instant>,
}

impl Liveness {
    fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.pinged = None;
    }

    /// When the peer is to be pinged or, if it has been, given up.
    fn due(&self, limits: &Limits) -> Instant {
        match self.pinged {
            None => self.heard + limits.ping_interval,
            Some(pinged) => pinged + limits.pong_timeout,
        }
    }
}

/// Wakes a task at a time, or earlier: a time that moves away leaves the timer as it is.
#[derive(Default)]
struct Alarm(Option<(Instant, Timer)>);

impl Alarm {
    /// Ready once `at` has come.
    fn poll(&mut self, cx: &mut Context<'_>, clock: &Clock, at: Instant) -> Poll<()> {
        loop {
            match &mut self.0 {
                Some((set, timer)) if *set <= at => {
                    let set = *set;
                    ready!(timer.as_mut().poll(cx));
                    self.0 = None;
                    if set == at {
                        return Poll::Ready(());
                    }
                }
                _ => self.0 = Some((at, clock.timer(at))),
            }
        }
    }
}

/// What a client is told of an error that tungstenite has found. It sends nothing itself.
fn ended(error: &Error) -> Ended {
    let close = match error {
        Error::Capacity(CapacityError::MessageTooLong { max_size, .. }) => {
            Close::new(CloseCode::MessageTooBig, format!("a message may have {max_size} bytes at most"))
        }
        Error::Utf8(_) => Close::new(CloseCode::InvalidText, "text must be UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Close::new(CloseCode::ProtocolError, "the connection ended without a Close")
        }
        Error::Protocol(broken) => Close::new(CloseCode::ProtocolError, broken.to_string()),
        Error::ConnectionClosed | Error::AlreadyClosed | Error::Io(_) => return Ended::Lost,
        other => {
            tracing::error!(error = %other, "an error that cannot happen on an upgraded connection");
            Close::new(CloseCode::InternalError, "something went wrong here")
        }
    };
    Ended::ByUs(close)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::IoSlice;
    use std::time::Duration;

    /// A peer that never stops sending: there is always more to read, as far as the scheduler lets
    /// one task go on.
    struct Endless(&'static [u8]);

    impl Wire for Endless {
        fn poll_read(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<io::Result<usize>> {
            let budget = ready!(tokio::task::coop::poll_proceed(cx));
            let mut chunks = space.chunks_exact_mut(self.0.len());
            let read = chunks.len() * self.0.len();
            chunks.by_ref().for_each(|chunk| chunk.copy_from_slice(self.0));
            budget.made_progress();
            Poll::Ready(Ok(read))
        }

        fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn poll_write(&self, _: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn poll_end(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deadline_comes_however_much_there_is_to_read() {
        let pong: &[u8] = &[0x8A, 0x80, 0, 0, 0, 0];
        let empty_fragment: &[u8] = &[0x00, 0x80, 0, 0, 0, 0];
        for (read_ahead, endless) in [(&[][..], pong), (&[0x01, 0x80, 0, 0, 0, 0][..], empty_fragment)] {
            let waiting = tokio::spawn(async move {
                let mut socket =
                    Socket::new(Endless(endless), read_ahead, LiveLimits::new(Limits::DEFAULT), Clock::system());
                socket.receive(Instant::now() + Duration::from_millis(20)).await.is_ok_and(|message| message.is_none())
            });
            let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
            assert!(waited.expect("the deadline to come").unwrap());
        }
    }
}
