//! One client of a server under load.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use memchr::memmem::{self, Finder};
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::dialect::{Dialect, Step};
use crate::frame;

/// Stands in each message once, with the time of sending behind it. To count these, in whatever they
/// are wrapped, is to count deliveries, and costs the same for every server.
const MARKER: &[u8] = b"~m~";
/// Digits of nanoseconds.
const DIGITS: usize = 19;
const MARKED: usize = MARKER.len() + DIGITS;
/// The first byte of a frame, and so of a ping.
const FRAME: u8 = 0x81;

static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(MARKER));

/// What all connections have received.
pub struct Deliveries {
    /// How many.
    pub number: u64,
    /// How long each took, if that is asked for: half a million that nobody looks at would cost time.
    pub latencies: Option<Vec<Duration>>,
    epoch: Instant,
}

impl Deliveries {
    /// None yet.
    pub fn none() -> Self {
        Self { number: 0, latencies: None, epoch: Instant::now() }
    }

    /// JSON of this many bytes, which says when it was made.
    pub fn message(&self, bytes: usize) -> String {
        let start = format!(r#"{{"m":"~m~{:0DIGITS$}~","p":""#, self.epoch.elapsed().as_nanos());
        let padding = bytes.saturating_sub(start.len() + 2);
        format!(r#"{start}{:x<padding$}"}}"#, "")
    }

    fn add(&mut self, sent: &[u8], now: Option<Duration>) {
        self.number += 1;
        if let (Some(latencies), Some(now)) = (&mut self.latencies, now) {
            let sent = sent.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')));
            latencies.push(now.saturating_sub(Duration::from_nanos(sent)));
        }
    }
}

/// A client: first it enters, step by step, then it counts what it receives.
pub struct Connection {
    stream: TcpStream,
    dialect: Dialect,
    steps: VecDeque<Step>,
    /// What the socket has not taken yet.
    out: Vec<u8>,
    /// What may be the beginning of something that is waited for.
    held: Vec<u8>,
    /// How many messages it has received.
    pub received: u64,
}

impl Connection {
    /// Begins to connect; the rest is [`Connection::attend`].
    pub fn open(address: SocketAddr, dialect: Dialect, token: &str, rooms: &[String]) -> Result<Self> {
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            dialect.path(token),
        );
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let steps = dialect.entering(token, rooms).into();
        Ok(Self { stream, dialect, steps, out: request.into_bytes(), held: Vec::new(), received: 0 })
    }

    /// Has its events come with this token.
    pub fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        registry.register(&mut self.stream, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether it is in all its rooms.
    pub fn is_in(&self) -> bool {
        self.steps.is_empty()
    }

    /// Does what an event asks for. An error is the end of the connection.
    pub fn attend(&mut self, event: &Event, space: &mut [u8], deliveries: &mut Deliveries) -> Result<()> {
        if event.is_writable() {
            self.flush()?;
        }
        if event.is_readable() {
            self.read(space, event.is_read_closed(), deliveries)?;
        }
        Ok(())
    }

    /// Adds a message to what is to be sent.
    pub fn say(&mut self, text: &str) {
        frame::put_masked(text.as_bytes(), &mut self.out);
    }

    /// Sends what the socket takes.
    pub fn flush(&mut self) -> Result<()> {
        while !self.out.is_empty() {
            match self.stream.write(&self.out) {
                Ok(length) => drop(self.out.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("cannot write"),
            }
        }
        Ok(())
    }

    /// Reads what there is. A read that does not fill the space has emptied the socket, which saves
    /// asking again, unless its end is there too.
    fn read(&mut self, space: &mut [u8], ending: bool, deliveries: &mut Deliveries) -> Result<()> {
        loop {
            match self.stream.read(space) {
                Ok(0) => bail!("the server ended it{}", self.waiting_for()),
                Ok(length) => {
                    self.hear(&space[..length], deliveries)?;
                    if length < space.len() && !ending {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("cannot read{}", self.waiting_for())),
            }
        }
    }

    /// What is missing for it to be in, for people.
    pub fn waiting_for(&self) -> String {
        let Some(step) = self.steps.front() else { return String::new() };
        format!(", which waits for {:?} and has heard {:?}", step.hear, String::from_utf8_lossy(&self.held))
    }

    fn hear(&mut self, bytes: &[u8], deliveries: &mut Deliveries) -> Result<()> {
        if self.held.is_empty() && self.is_in() {
            return self.count(bytes, deliveries);
        }
        self.held.extend_from_slice(bytes);
        self.enter()?;
        if self.is_in() {
            let held = std::mem::take(&mut self.held);
            self.count(&held, deliveries)?;
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        while let Some(step) = self.steps.front()
            && let Some(at) = memmem::find(&self.held, step.hear.as_bytes())
        {
            self.held.drain(..at + step.hear.len());
            self.steps.pop_front();
            if let Some(text) = self.steps.front_mut().and_then(|step| step.say.take()) {
                self.say(&text);
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Counts the messages in this, and keeps what may be the beginning of another.
    fn count(&mut self, bytes: &[u8], deliveries: &mut Deliveries) -> Result<()> {
        let now = deliveries.latencies.is_some().then(|| deliveries.epoch.elapsed());
        let mut done = 0;
        while let Some(at) = FINDER.find(&bytes[done..])
            && let Some(marked) = bytes.get(done + at..done + at + MARKED)
        {
            deliveries.add(&marked[MARKER.len()..], now);
            self.received += 1;
            done += at + MARKED;
        }
        if let Some((ping, pong)) = self.dialect.ping()
            && let Some(at) = memmem::rfind(bytes, ping)
        {
            done = done.max(at + ping.len());
            self.say(pong);
            self.flush()?;
        }
        let tail = &bytes[done.max(bytes.len().saturating_sub(MARKED - 1))..];
        if let Some(at) = memchr::memchr2(MARKER[0], FRAME, tail) {
            self.held.extend_from_slice(&tail[at..]);
        }
        Ok(())
    }
}
