//! The load: does the work of a scenario with one server, and says what it cost the server.
//!
//! One epoll thread, as the floor is, so that on a core of its own it is never what is waited for.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mio::{Events, Poll, Token};

use crate::connection::{Connection, Deliveries};
use crate::dialect::{Dialect, token};
use crate::scenario::{BURST_SENT, Pace, Scenario, Work, own_room, room};
use crate::usage::{processor_time, resident};

const EVENTS_PER_TURN: usize = 512;
const BYTES_PER_READ: usize = 256 * 1024;
/// Connections that may be entering at a time.
const ENTERING: usize = 64;
/// How long a turn waits while there is something to do.
const TURN: Duration = Duration::from_millis(1);
/// How long to look out for messages too many.
const TOO_MUCH: Duration = Duration::from_millis(50);

/// Who is measured.
pub struct Target {
    /// How it is spoken to.
    pub dialect: Dialect,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// What tokens for it are signed with.
    pub secret: String,
}

/// Does the work, and returns the scenario's figure. It is an error if a connection ends, or if any
/// does not receive exactly what it should.
pub fn run(target: &Target, scenario: &Scenario) -> Result<f64> {
    let mut load = Load::new(target, scenario)?;
    let cpu_before = processor_time(target.pid)?;
    let memory_before = resident(target.pid)?;
    load.gather()?;
    match scenario.work {
        Work::FanOut { rooms, messages, pace } => load.fan_out(rooms, messages, pace),
        Work::Echo { messages } => load.echo(messages),
        Work::Connect => {
            load.rest(scenario.settle)?;
            Ok(microseconds_each(processor_time(target.pid)? - cpu_before, scenario.connections as u64))
        }
        Work::Idle => load.memory_each(memory_before),
        Work::IdleBurst { messages } => {
            // Two on their way are far from the 1 MiB that wsgate lets wait for a connection.
            load.fan_out(1, messages, Pace::Window(2))?;
            load.burst_back(messages as u64)?;
            load.memory_each(memory_before)
        }
    }
}

struct Load<'a> {
    target: &'a Target,
    scenario: &'a Scenario,
    poll: Poll,
    events: Events,
    space: Vec<u8>,
    connections: Vec<Connection>,
    /// How many of them are in.
    entered: usize,
    deliveries: Deliveries,
    began: Instant,
}

impl<'a> Load<'a> {
    fn new(target: &'a Target, scenario: &'a Scenario) -> Result<Self> {
        Ok(Self {
            target,
            scenario,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_PER_TURN),
            space: vec![0; BYTES_PER_READ],
            connections: Vec::new(),
            entered: 0,
            deliveries: Deliveries::none(),
            began: Instant::now(),
        })
    }

    /// Connects all but a publisher.
    fn gather(&mut self) -> Result<()> {
        while self.entered < self.scenario.connections {
            while self.connections.len() < self.scenario.connections.min(self.entered + ENTERING) {
                self.open(&self.scenario.rooms_of(self.connections.len()))?;
            }
            self.turn(TURN)?;
        }
        Ok(())
    }

    /// Connects one more, that publishes to so many rooms.
    fn add_publisher(&mut self, rooms: usize) -> Result<usize> {
        let publisher = self.connections.len();
        let rooms: Vec<_> =
            if self.target.dialect.publishers_join() { (0..rooms).map(room).collect() } else { Vec::new() };
        self.open(&rooms)?;
        while self.entered <= publisher {
            self.turn(TURN)?;
        }
        Ok(publisher)
    }

    fn open(&mut self, rooms: &[String]) -> Result<()> {
        let index = self.connections.len();
        let token = token(&self.target.secret, index)?;
        let mut connection = Connection::open(self.target.address, self.target.dialect, &token, rooms)
            .context("cannot connect; is the limit on open files high enough?")?;
        connection.register(self.poll.registry(), Token(index))?;
        self.connections.push(connection);
        Ok(())
    }

    /// Waits for events, for so long at most, and does what they ask for.
    fn turn(&mut self, wait: Duration) -> Result<()> {
        if self.began.elapsed() > self.scenario.patience {
            let stuck = self.connections.iter().find(|connection| !connection.is_in());
            let stuck = stuck.map_or_else(String::new, |stuck| format!("; one is stuck{}", stuck.waiting_for()));
            let (patience, number) = (self.scenario.patience, self.deliveries.number);
            bail!("not done after {patience:?}, with {} in and {number} deliveries{stuck}", self.entered);
        }
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &self.events {
            let Token(index) = event.token();
            let connection = &mut self.connections[index];
            let was_in = connection.is_in();
            connection
                .attend(event, &mut self.space, &mut self.deliveries)
                .with_context(|| format!("lost connection {index}"))?;
            self.entered += usize::from(connection.is_in() && !was_in);
        }
        Ok(())
    }

    /// Lets time pass, with nothing to send.
    fn rest(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.turn(time / 10)?;
        }
        Ok(())
    }

    fn fan_out(&mut self, rooms: usize, messages: usize, pace: Pace) -> Result<f64> {
        self.rest(self.scenario.settle)?;
        let publisher = self.add_publisher(rooms)?;
        if let Pace::PerSecond(_) = pace {
            self.deliveries.latencies = Some(Vec::new());
        }
        let members = self.scenario.connections / rooms;
        let cpu_before = processor_time(self.target.pid)?;
        let began = Instant::now();
        let mut sent = 0;
        while self.deliveries.number < (messages * members) as u64 {
            while sent < messages && self.may_publish(sent, members, pace, began) {
                self.publish(publisher, &room(sent % rooms), self.scenario.payload, false);
                sent += 1;
            }
            self.connections[publisher].flush()?;
            self.turn(TURN)?;
        }
        let cpu = processor_time(self.target.pid)? - cpu_before;
        self.check_receipts(|index| {
            let room = index % rooms;
            if index == publisher { 0 } else { (messages / rooms + usize::from(room < messages % rooms)) as u64 }
        })?;
        match self.deliveries.latencies.take() {
            Some(latencies) => milliseconds_at_99_percent(latencies),
            None => Ok(microseconds_each(cpu, self.deliveries.number)),
        }
    }

    fn may_publish(&self, sent: usize, members: usize, pace: Pace, began: Instant) -> bool {
        match pace {
            Pace::Window(window) => sent < self.deliveries.number as usize / members + window,
            Pace::PerSecond(rate) => began.elapsed() >= Duration::from_secs(sent as u64) / rate,
        }
    }

    fn publish(&mut self, index: usize, room: &str, payload: usize, echo: bool) {
        let data = self.deliveries.message(payload);
        self.connections[index].say(&self.target.dialect.publish(room, &data, echo));
    }

    /// Each connection has one message on its way to itself, until all are sent.
    fn echo(&mut self, messages: usize) -> Result<f64> {
        self.rest(self.scenario.settle)?;
        let cpu_before = processor_time(self.target.pid)?;
        let mut sent_by = vec![0; self.connections.len()];
        let mut sent = 0;
        while self.deliveries.number < messages as u64 {
            for (index, sent_by_it) in sent_by.iter_mut().enumerate() {
                if sent < messages && self.connections[index].received == *sent_by_it {
                    self.publish(index, &own_room(index), self.scenario.payload, true);
                    self.connections[index].flush()?;
                    *sent_by_it += 1;
                    sent += 1;
                }
            }
            self.turn(TURN)?;
        }
        let cpu = processor_time(self.target.pid)? - cpu_before;
        self.check_receipts(|index| sent_by[index])?;
        Ok(microseconds_each(cpu, self.deliveries.number))
    }

    /// One connection after another sends a large message to itself, having received so many.
    fn burst_back(&mut self, received: u64) -> Result<()> {
        for index in 0..self.scenario.connections {
            self.publish(index, &own_room(index), BURST_SENT, true);
            self.connections[index].flush()?;
            while self.connections[index].received == received {
                self.turn(TURN)?;
            }
        }
        let connections = self.scenario.connections;
        self.check_receipts(|index| if index < connections { received + 1 } else { 0 })
    }

    /// That every connection has received what it should, and nothing comes after it.
    fn check_receipts(&mut self, expected: impl Fn(usize) -> u64) -> Result<()> {
        self.rest(TOO_MUCH)?;
        for (index, connection) in self.connections.iter().enumerate() {
            let (received, expected) = (connection.received, expected(index));
            ensure!(received == expected, "connection {index} has received {received} messages instead of {expected}");
        }
        Ok(())
    }

    fn memory_each(&mut self, before: u64) -> Result<f64> {
        self.rest(self.scenario.rest)?;
        let grown = resident(self.target.pid)? as f64 - before as f64;
        Ok(grown / self.scenario.connections as f64)
    }
}

fn microseconds_each(cpu: Duration, number: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / number as f64
}

fn milliseconds_at_99_percent(mut latencies: Vec<Duration>) -> Result<f64> {
    latencies.sort_unstable();
    let p99 = latencies.get((latencies.len().saturating_sub(1)) * 99 / 100).context("nothing was delivered")?;
    Ok(p99.as_secs_f64() * 1e3)
}
