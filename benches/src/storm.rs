//! What bystanders notice while thousands of connections close, join and leave, or come to the end of
//! their tokens; and how soon a revocation ends a connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};

use crate::dialect::{Dialect, token, token_until};
use crate::frame::put_masked;
use crate::load::Target;
use crate::server::{API_KEY, Server};
use crate::usage::processor_time;

/// Members of the large room, while others join and leave it.
const AUDIENCE: usize = 10_000;
/// Who joins and leaves.
const RESTLESS: usize = 1000;
const ROUNDS: usize = 5;
/// Tokens that end in the same second, and the time for all of them to enter.
const EXPIRING: usize = 5000;
const ENTERING_SECONDS: u64 = 8;
/// Users whose tokens are revoked, one after the other.
const REVOKED: usize = 500;

/// A storm, and the longest time that a bystander waited in it.
pub struct Finding {
    what: String,
    connect: Vec<Duration>,
    round_trip: Vec<Duration>,
}

impl Finding {
    /// One line for a person.
    pub fn line(&self) -> String {
        let show = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
            format!("half within {:.1?}, 99 of 100 within {:.1?}, longest {:.1?}", at(50), at(99), at(100))
        };
        let (connect, round_trip) = (show(&self.connect), show(&self.round_trip));
        format!("{}: connect {connect}; round trip {round_trip}; {} of each", self.what, self.connect.len())
    }
}

/// Closes so many connections at once, lets the tokens of others end in one second, lets a thousand
/// join and leave a large room, and revokes; a line for each.
pub fn run(server: &Server, closing: usize) -> Result<Vec<String>> {
    let target = &server.target;
    let quiet = watch(target, "quiet", || Ok(()))?;
    let mut crowd = Crowd::gather(target, closing, None)?;
    let closed = watch(target, &format!("{closing} connections closing at once"), || Ok(crowd.0.kill()?))?;
    drop(crowd);
    let mut lines = vec![quiet.line(), closed.line()];
    lines.extend(expire(target)?);

    let _audience = Crowd::gather(target, AUDIENCE, None)?;
    let mut guests =
        (0..RESTLESS).map(|user| Guest::enter(target, user, &format!("restless{user}"))).collect::<Result<Vec<_>>>()?;
    let what = format!("{RESTLESS} joining and leaving a room of {AUDIENCE}, {ROUNDS} times");
    lines.push(watch(target, &what, || guests.iter_mut().try_for_each(Guest::come_and_go))?.line());
    lines.push(revoke(server)?);
    Ok(lines)
}

/// Lets thousands of tokens end in the same second.
fn expire(target: &Target) -> Result<Vec<String>> {
    let end = unix_now()?.as_secs() + ENTERING_SECONDS;
    let mut crowd = Crowd::gather(target, EXPIRING, Some(end))?;
    let left = Duration::from_secs(end).saturating_sub(unix_now()?);
    thread::sleep(left.saturating_sub(Duration::from_millis(500)));
    let mut said = String::new();
    let before = processor_time(target.pid)?;
    let what = format!("{EXPIRING} tokens ending in the same second");
    let finding = watch(target, &what, || {
        let output = crowd.0.stdout.take().context("a process without an output")?;
        BufReader::new(output).read_line(&mut said)?;
        Ok(())
    })?;
    let cpu = processor_time(target.pid)?.saturating_sub(before).as_secs_f64() * 1000.0;
    Ok(vec![finding.line(), format!("  {}; {cpu:.0} ms of processor time meanwhile, bystanders included", said.trim())])
}

/// How soon a connection is closed whose user's tokens are revoked.
fn revoke(server: &Server) -> Result<String> {
    let mut api = TcpStream::connect(server.backend)?;
    api.set_nodelay(true)?;
    let mut times = Vec::new();
    for user in 0..REVOKED {
        let mut guest = Guest::enter(&server.target, 2_000_000 + user, "aside")?;
        let body = format!(r#"{{"user":"user-{}"}}"#, 2_000_000 + user);
        let head = format!("POST /v1/revocations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\n");
        let began = Instant::now();
        api.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        guest.read_until("4403")?;
        times.push(began.elapsed());
        // The answer: small, and whole by now or soon.
        ensure!(api.read(&mut [0; 4096])? > 0, "the API has closed");
    }
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    Ok(format!(
        "from a revocation to the close, {REVOKED} times: half within {:.1?}, 99 of 100 within {:.1?}",
        at(50),
        at(99)
    ))
}

fn unix_now() -> Result<Duration> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?)
}

/// Enters the large room with so many connections, says so, and holds them until it is killed; or until
/// their tokens have ended, which is told too.
pub fn hold(target: &Target, connections: usize, until: Option<u64>) -> Result<()> {
    let token = |user| until.map_or_else(|| token(&target.secret, user), |end| token_until(&target.secret, user, end));
    let guests =
        (0..connections).map(|user| Guest::enter_with(target, &token(user)?, "large")).collect::<Result<Vec<_>>>();
    let mut guests = guests?;
    println!("{} are in", guests.len());
    let Some(end) = until else {
        loop {
            thread::park();
        }
    };
    for guest in &mut guests {
        guest.read_until(r#""code":4401"#)?;
    }
    let late = unix_now()?.saturating_sub(Duration::from_secs(end));
    println!("{} closed with 4401, the last {late:.1?} after the end", guests.len());
    Ok(())
}

/// A process that holds connections.
struct Crowd(Child);

impl Crowd {
    fn gather(target: &Target, connections: usize, until: Option<u64>) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["hold", &target.address.to_string(), &target.secret, &connections.to_string()]);
        command.args(until.map(|end| end.to_string()));
        let mut crowd = Self(command.stdout(Stdio::piped()).spawn()?);
        let said = crowd.0.stdout.as_mut().context("a process without an output")?;
        // Byte by byte: what comes after the line is for somebody else.
        let mut byte = [0];
        while byte != *b"\n" {
            ensure!(said.read(&mut byte)? > 0, "the crowd did not get in");
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It may be dead already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

/// Measures how long it takes to connect, and for an event to come back in another room, over and
/// over while something happens and for a second after.
fn watch(target: &Target, what: &str, happens: impl FnOnce() -> Result<()>) -> Result<Finding> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watching = scope.spawn(|| -> Result<Finding> {
            let mut bystander = Guest::enter(target, 1_000_000, "aside")?;
            let mut finding = Finding { what: what.to_owned(), connect: Vec::new(), round_trip: Vec::new() };
            while !over.load(Relaxed) {
                let began = Instant::now();
                bystander.say(&Dialect::Wsgate.publish("aside", r#""there and back""#, true))?;
                bystander.read_until("there and back")?;
                finding.round_trip.push(began.elapsed());
                let began = Instant::now();
                drop(Guest::enter(target, 1_000_001, "beside")?);
                finding.connect.push(began.elapsed());
                thread::sleep(Duration::from_millis(1));
            }
            Ok(finding)
        });
        thread::sleep(Duration::from_millis(300));
        let happened = happens();
        thread::sleep(Duration::from_secs(1));
        over.store(true, Relaxed);
        let finding = watching.join().map_err(|_| anyhow!("the bystander panicked"))?;
        happened.and(finding)
    })
}

/// A client that waits for its answers.
struct Guest {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Guest {
    fn enter(target: &Target, user: usize, room: &str) -> Result<Self> {
        Self::enter_with(target, &token(&target.secret, user)?, room)
    }

    fn enter_with(target: &Target, token: &str, room: &str) -> Result<Self> {
        let stream = TcpStream::connect(target.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut guest = Self { stream, read: Vec::new() };
        guest.stream.write_all(upgrade(&Dialect::Wsgate.path(token)).as_bytes())?;
        for step in Dialect::Wsgate.entering(token, &[room.to_owned()]) {
            if let Some(text) = &step.say {
                guest.say(text)?;
            }
            guest.read_until(&step.hear)?;
        }
        Ok(guest)
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let mut frame = Vec::new();
        put_masked(text.as_bytes(), &mut frame);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Reads on until this has come, and forgets what was up to there.
    fn read_until(&mut self, text: &str) -> Result<()> {
        let mut space = [0; 4096];
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, text.as_bytes()) {
                self.read.drain(..at + text.len());
                return Ok(());
            }
            let count = self.stream.read(&mut space)?;
            ensure!(count > 0, "closed: {}", String::from_utf8_lossy(&self.read));
            self.read.extend_from_slice(space.get(..count).unwrap_or_default());
        }
    }

    /// Joins the large room and leaves it again, some times.
    fn come_and_go(&mut self) -> Result<()> {
        for _ in 0..ROUNDS {
            self.say(r#"{"type":"join","room":"large"}"#)?;
            self.say(r#"{"type":"leave","room":"large"}"#)?;
        }
        self.say(r#"{"type":"ping","id":"done"}"#)?;
        self.read_until(r#""done""#)
    }
}

fn upgrade(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}
