//! What is measured: the work, the same for every server, and the one figure that comes of it.

use std::time::Duration;

/// A piece of work.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// As in `--only`.
    pub name: &'static str,
    /// How many connect, a publisher not counted.
    pub connections: usize,
    /// How many bytes of JSON a message is.
    pub payload: usize,
    /// What they do.
    pub work: Work,
    /// How long nothing happens after a server has started, and after the connections have come: what
    /// it still does then, such as compiling JavaScript, is not the work that is measured.
    pub settle: Duration,
    /// How long nothing happens before memory is measured.
    pub rest: Duration,
    /// How long it may take in all, for what is lost never comes.
    pub patience: Duration,
}

/// What the connections of a scenario do.
#[derive(Clone, Debug)]
pub enum Work {
    /// One more connection publishes to the rooms in turn, over which the others are spread.
    FanOut {
        /// The rooms.
        rooms: usize,
        /// Published in all.
        messages: usize,
        /// When the next one may go.
        pace: Pace,
    },
    /// Each sends to itself, through a room of its own, and waits for it.
    Echo {
        /// Sent in all.
        messages: usize,
    },
    /// They come, prove who they are, and join.
    Connect,
    /// They are there.
    Idle,
    /// They are there, after each has received this many messages, and then has sent one.
    IdleBurst {
        /// Messages received.
        messages: usize,
    },
}

/// When the next message is published.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// When fewer than this many are on their way to anybody.
    Window(usize),
    /// So many a second, whatever comes of them.
    PerSecond(u32),
}

/// The bytes of the message that each connection of [`Work::IdleBurst`] sends: close to the 64 KiB
/// that wsgate takes.
pub const BURST_SENT: usize = 60_000;

const MESSAGE: usize = 128;
/// Thrice what the slowest peer needs for the longest.
const PATIENCE: Duration = Duration::from_secs(180);
const PAUSE_IF_TINY: Duration = Duration::from_millis(50);
const PATIENCE_IF_TINY: Duration = Duration::from_secs(10);

impl Scenario {
    /// All, in the order of the table.
    pub fn all() -> Vec<Self> {
        let small = |name, connections, work| Self {
            name,
            connections,
            payload: MESSAGE,
            work,
            settle: Duration::from_millis(500),
            rest: Duration::from_secs(3),
            patience: PATIENCE,
        };
        let fan_out = |name, connections, messages, window, payload| {
            let pace = Pace::Window(window);
            Self { payload, ..small(name, connections, Work::FanOut { rooms: 1, messages, pace }) }
        };
        vec![
            fan_out("fanout-1", 1000, 300, 1, MESSAGE),
            fan_out("fanout-16", 1000, 3000, 16, MESSAGE),
            fan_out("fanout-64", 1000, 6000, 64, MESSAGE),
            small("rooms", 1000, Work::FanOut { rooms: 100, messages: 20_000, pace: Pace::Window(64) }),
            small("echo", 64, Work::Echo { messages: 60_000 }),
            small("connect", 3000, Work::Connect),
            small("rate", 1000, Work::FanOut { rooms: 1, messages: 250, pace: Pace::PerSecond(25) }),
            fan_out("big-4k", 500, 400, 4, 4096),
            fan_out("big-10k", 500, 400, 4, 10_240),
            // With its envelope, a message is just within wsgate's 64 KiB.
            fan_out("big-64k", 100, 200, 2, 65_000),
            small("idle", 10_000, Work::Idle),
            // 16 × 64 KiB make 1 MiB.
            Self {
                payload: 65_000,
                rest: Duration::from_secs(5),
                ..small("idle-burst", 1000, Work::IdleBurst { messages: 16 })
            },
        ]
    }

    /// The same work, tiny: it shows whether all arrives, and nothing about speed.
    pub fn tiny(mut self) -> Self {
        self.connections = self.connections.min(20);
        (self.settle, self.rest) = (PAUSE_IF_TINY, PAUSE_IF_TINY);
        self.patience = PATIENCE_IF_TINY;
        match &mut self.work {
            Work::FanOut { rooms, messages, .. } => {
                *rooms = (*rooms).min(10);
                *messages = (*messages).min(25);
            }
            Work::Echo { messages } => *messages = (*messages).min(200),
            Work::Connect | Work::Idle | Work::IdleBurst { .. } => {}
        }
        self
    }

    /// The rooms that a connection joins.
    pub fn rooms_of(&self, connection: usize) -> Vec<String> {
        match self.work {
            Work::FanOut { rooms, .. } => vec![room(connection % rooms)],
            Work::Echo { .. } => vec![own_room(connection)],
            Work::Connect | Work::Idle => vec![room(0)],
            Work::IdleBurst { .. } => vec![room(0), own_room(connection)],
        }
    }

    /// Whether it measures memory, which needs a process in which nothing has happened yet.
    pub fn needs_fresh_process(&self) -> bool {
        matches!(self.work, Work::Idle | Work::IdleBurst { .. })
    }

    /// What its figure is.
    pub fn unit(&self) -> &'static str {
        match self.work {
            Work::FanOut { pace: Pace::PerSecond(_), .. } => "ms p99",
            Work::FanOut { .. } => "µs/delivery",
            Work::Echo { .. } => "µs/round trip",
            Work::Connect => "µs/connection",
            Work::Idle | Work::IdleBurst { .. } => "B/connection",
        }
    }
}

/// A room that many are in.
pub fn room(number: usize) -> String {
    format!("room{number}")
}

/// A room that only this connection is in.
pub fn own_room(connection: usize) -> String {
    format!("own{connection}")
}
