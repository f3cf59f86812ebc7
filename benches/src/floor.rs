//! The floor: what fan-out over TCP costs on this machine, whoever does it.
//!
//! One epoll thread that speaks just enough WebSocket to send `pub:ROOM:TEXT` to whoever said
//! `sub:ROOM`. No authentication and no limits. All that a turn of the loop has for a connection goes
//! out in one write, the frames one after another, so that many in flight cost less each.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::frame;

const LISTENER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;
const BYTES_PER_READ: usize = 256 * 1024;
/// The accept key is not computed: who connects here does not check it.
const UPGRADE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Serves until the process is killed.
pub fn serve(listen: SocketAddr) -> io::Result<()> {
    let mut floor = Floor::bind(listen)?;
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    let mut space = vec![0; BYTES_PER_READ];
    loop {
        match floor.poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept()?,
                Token(key) => {
                    if event.is_writable() {
                        floor.send_backlog(key);
                    }
                    if event.is_readable() {
                        floor.read(key, &mut space, event.is_read_closed());
                    }
                }
            }
        }
        floor.fan_out();
    }
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    members: HashMap<usize, Member>,
    /// The key of the next member. None is used twice: an event may be late.
    next: usize,
    rooms: Vec<Vec<usize>>,
    names: HashMap<Vec<u8>, usize>,
    /// What this turn of the loop has for the members of a room.
    pending: HashMap<usize, Vec<u8>>,
    /// What a full socket did not take. Not in [`Member`], since hardly any has it.
    backlogs: HashMap<usize, Vec<u8>>,
}

struct Member {
    stream: TcpStream,
    received: Vec<u8>,
    rooms: Vec<usize>,
    upgraded: bool,
}

impl Floor {
    fn bind(listen: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(listen)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            members: HashMap::new(),
            next: 0,
            rooms: Vec::new(),
            names: HashMap::new(),
            pending: HashMap::new(),
            backlogs: HashMap::new(),
        })
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            self.poll.registry().register(&mut stream, Token(self.next), Interest::READABLE | Interest::WRITABLE)?;
            let member = Member { stream, received: Vec::new(), rooms: Vec::new(), upgraded: false };
            self.members.insert(self.next, member);
            self.next += 1;
        }
    }

    /// Reads what there is. A read that does not fill the space has emptied the socket, which saves
    /// asking again, unless its end is there too.
    fn read(&mut self, key: usize, space: &mut [u8], ending: bool) {
        while let Some(member) = self.members.get_mut(&key) {
            match member.stream.read(space) {
                Ok(0) => self.remove(key),
                Ok(length) => {
                    member.received.extend_from_slice(&space[..length]);
                    let received = std::mem::take(&mut member.received);
                    self.understand(key, received);
                    if length < space.len() && !ending {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.remove(key),
            }
        }
    }

    /// Does what whole frames ask for, and keeps the rest. Of an idle connection that is an empty Vec,
    /// which holds no memory.
    fn understand(&mut self, key: usize, mut received: Vec<u8>) {
        let Some(member) = self.members.get_mut(&key) else { return };
        let mut at = 0;
        if !member.upgraded {
            let Some(end) = memchr::memmem::find(&received, b"\r\n\r\n") else {
                member.received = received;
                return;
            };
            member.upgraded = true;
            at = end + 4;
            self.send(key, UPGRADE);
        }
        while let Some((text, length)) = frame::take_masked(&received[at..]) {
            at += length;
            self.obey(key, &text);
        }
        if at < received.len()
            && let Some(member) = self.members.get_mut(&key)
        {
            received.drain(..at);
            member.received = received;
        }
    }

    fn obey(&mut self, key: usize, text: &[u8]) {
        if let Some(name) = text.strip_prefix(b"sub:") {
            let room = self.room(name);
            self.rooms[room].push(key);
            if let Some(member) = self.members.get_mut(&key) {
                member.rooms.push(room);
            }
            let mut answer = Vec::new();
            frame::put_plain(b"ok", &mut answer);
            self.send(key, &answer);
        } else if let Some(rest) = text.strip_prefix(b"pub:")
            && let Some(colon) = memchr::memchr(b':', rest)
            && let Some(room) = self.names.get(&rest[..colon])
        {
            frame::put_plain(&rest[colon + 1..], self.pending.entry(*room).or_default());
        }
    }

    fn room(&mut self, name: &[u8]) -> usize {
        *self.names.entry(name.to_vec()).or_insert_with(|| {
            self.rooms.push(Vec::new());
            self.rooms.len() - 1
        })
    }

    fn fan_out(&mut self) {
        let mut pending = std::mem::take(&mut self.pending);
        for (room, bytes) in pending.drain() {
            let members = std::mem::take(&mut self.rooms[room]);
            for &key in &members {
                self.send(key, &bytes);
            }
            self.rooms[room] = members;
        }
        self.pending = pending;
    }

    /// Writes, and keeps what does not go for when the socket is writable. Errors are left to
    /// reading, which finds them too.
    fn send(&mut self, key: usize, bytes: &[u8]) {
        if let Some(backlog) = self.backlogs.get_mut(&key) {
            backlog.extend_from_slice(bytes);
            return;
        }
        let Some(member) = self.members.get_mut(&key) else { return };
        let sent = write_all(&mut member.stream, bytes);
        if sent < bytes.len() {
            self.backlogs.insert(key, bytes[sent..].to_vec());
        }
    }

    fn send_backlog(&mut self, key: usize) {
        if let Some(backlog) = self.backlogs.remove(&key) {
            self.send(key, &backlog);
        }
    }

    fn remove(&mut self, key: usize) {
        for room in self.members.remove(&key).map(|member| member.rooms).unwrap_or_default() {
            self.rooms[room].retain(|&member| member != key);
        }
        self.backlogs.remove(&key);
    }
}

/// How much of it the socket took.
fn write_all(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(length) => sent += length,
            Err(_) => break,
        }
    }
    sent
}
