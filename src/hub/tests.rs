//! Fan-out as its members see it, over wires that count.

use std::io::{self, IoSlice};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::config::Limits;
use crate::protocol::Target;

/// A wire that keeps what is written to it, and counts the system calls that a socket would take.
#[derive(Default)]
struct Tape {
    calls: AtomicUsize,
    stuck: AtomicBool,
    written: Mutex<Vec<u8>>,
}

impl Wire for Arc<Tape> {
    fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.calls.fetch_add(1, Relaxed);
        if self.stuck.load(Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.written.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn poll_write(&self, _: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
        self.try_send(&all).map_or(Poll::Pending, |count| Poll::Ready(Ok(count)))
    }

    fn poll_read(&self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn end(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A member and what it hears.
struct Listener {
    membership: Membership,
    tape: Arc<Tape>,
}

impl Listener {
    /// The names of the events that it has been sent, in their order.
    fn heard(&self) -> Vec<String> {
        let _written = self.membership.member().outbox().poll_write(&mut context());
        let written = String::from_utf8_lossy(&self.tape.written.lock()).into_owned();
        let names = written.split(r#""event":""#).skip(1);
        names.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
    }

    fn member(&self) -> &Arc<Member> {
        self.membership.member()
    }
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn limits() -> LiveLimits {
    LiveLimits::new(Limits { max_rooms: 10, return_spread: Some(Duration::ZERO), ..Limits::DEFAULT })
}

fn hub() -> Arc<Hub> {
    let presence = Presence::new(Clock::system(), limits());
    Hub::new(limits(), NonZeroUsize::MIN, Box::new(|_| RoomTraits::default()), presence)
}

fn listener(hub: &Arc<Hub>, user: &str, rooms: &[&str]) -> Listener {
    let tape = Arc::<Tape>::default();
    let outbox = Arc::new(Outbox::new(1024 * 1024, Arc::clone(&tape)));
    let id = ConnectionId::random().unwrap();
    let membership = hub.enter(id, user.parse().unwrap(), outbox, Arc::clone(&hub.flushers()[0]), None);
    for room in rooms {
        assert!(hub.join(membership.member(), &room.parse().unwrap(), Entry::default()).unwrap());
    }
    Listener { membership, tape }
}

fn room(name: &str) -> Target {
    Target::room(name.parse().unwrap())
}

fn publish_except(hub: &Hub, to: &Target, except: &Target, name: &str) -> usize {
    let name = name.parse().unwrap();
    let event = Event { to, except, name: &name, from: None, data: RawValue::NULL, expires: None };
    hub.try_publish(&event, None).ok().unwrap()
}

fn publish(hub: &Hub, to: &Target, name: &str) -> usize {
    publish_except(hub, to, &Target::default(), name)
}

/// Sends all that is on its way.
fn flush(hub: &Hub) {
    while hub.flushers()[0].poll_turn(&mut context()).is_ready() {}
}

#[test]
fn a_burst_takes_one_system_call_a_member() {
    let hub = hub();
    let listeners: Vec<_> = (0..150).map(|number| listener(&hub, &format!("u{number}"), &["a"])).collect();
    for number in 0..64 {
        assert_eq!(publish(&hub, &room("a"), &number.to_string()), 150);
    }
    flush(&hub);
    let expected: Vec<String> = (0..64).map(|number| number.to_string()).collect();
    for listener in &listeners {
        assert_eq!(listener.tape.calls.load(Relaxed), 1);
        assert_eq!(listener.heard(), expected);
    }
}

#[test]
fn rooms_take_turns_so_that_a_small_one_waits_for_no_large_one() {
    let hub = hub();
    let large: Vec<_> = (0..200).map(|number| listener(&hub, &format!("u{number}"), &["large"])).collect();
    let small = listener(&hub, "alice", &["small"]);
    publish(&hub, &room("large"), "e");
    publish(&hub, &room("small"), "e");
    assert!(hub.flushers()[0].poll_turn(&mut context()).is_ready());
    assert!(hub.flushers()[0].poll_turn(&mut context()).is_ready());
    assert_eq!(small.heard(), ["e"]);
    let served = large.iter().filter(|listener| !listener.heard().is_empty()).count();
    assert!(served < 200, "the large room is not finished: {served}");
    flush(&hub);
    assert!(large.iter().all(|listener| listener.heard() == ["e"]));
}

#[test]
fn who_joins_hears_nothing_that_was_published_before_even_if_it_is_still_on_its_way() {
    let hub = hub();
    let _first = listener(&hub, "alice", &["a"]);
    publish(&hub, &room("a"), "before");
    let second = listener(&hub, "bob", &["a"]);
    publish(&hub, &room("a"), "after");
    flush(&hub);
    assert_eq!(second.heard(), ["after"]);
}

#[test]
fn who_leaves_has_heard_all_that_was_published_before_and_nothing_after() {
    let hub = hub();
    let mut listeners: Vec<_> = (0..200).map(|number| listener(&hub, &format!("u{number}"), &["a"])).collect();
    publish(&hub, &room("a"), "one");
    publish(&hub, &room("a"), "two");
    // In the midst of the walk: some have been served, and some have not.
    assert!(hub.flushers()[0].poll_turn(&mut context()).is_ready());
    publish(&hub, &room("a"), "three");
    for listener in &listeners {
        assert!(hub.leave(listener.member(), &"a".parse().unwrap(), None));
        assert_eq!(listener.heard(), ["one", "two", "three"]);
    }
    publish(&hub, &room("a"), "four");
    flush(&hub);
    assert!(listeners.iter().all(|listener| listener.heard().len() == 3));
    listeners.clear();
    assert_eq!(hub.census(), Census::default());
}

#[test]
fn what_was_published_before_a_close_is_sent_before_it() {
    let hub = hub();
    let alice = listener(&hub, "alice", &["a"]);
    publish(&hub, &room("a"), "to the room");
    publish(&hub, &Target::user(&"alice".parse().unwrap()), "to the user");
    publish(&hub, &Target { all: true, ..Target::default() }, "to all");
    let close = Close::new(CloseCode::Kicked, "out");
    assert_eq!(hub.close_user(&"alice".parse().unwrap(), &close), 1);
    let mut heard = alice.heard();
    heard.sort_unstable();
    assert_eq!(heard, ["to all", "to the room", "to the user"]);
}

#[test]
fn each_gets_one_copy_however_many_of_its_names_are_meant() {
    let hub = hub();
    let [both, one, other] =
        [&["a", "b"][..], &["b"], &[]].map(|rooms| listener(&hub, &format!("u{}", rooms.len()), rooms));
    let to = Target {
        rooms: vec!["a".parse().unwrap(), "b".parse().unwrap(), "a".parse().unwrap()],
        connections: vec![both.member().id(), other.member().id(), other.member().id()],
        ..Target::default()
    };
    assert_eq!(publish(&hub, &to, "e"), 3);
    assert_eq!(publish(&hub, &Target { all: true, ..to }, "f"), 3);
    flush(&hub);
    for listener in [both, one, other] {
        let mut heard = listener.heard();
        heard.sort_unstable();
        assert_eq!(heard, ["e", "f"]);
    }
}

#[test]
fn who_is_left_out_of_one_event_gets_the_others_of_the_same_batch() {
    let hub = hub();
    let [alice, bob] = ["alice", "bob"].map(|user| listener(&hub, user, &["a"]));
    let without = |listener: &Listener| Target { connections: vec![listener.member().id()], ..Target::default() };
    assert_eq!(publish(&hub, &room("a"), "one"), 2);
    assert_eq!(publish_except(&hub, &room("a"), &without(&alice), "two"), 1);
    assert_eq!(publish_except(&hub, &room("a"), &without(&bob), "three"), 1);
    assert_eq!(publish_except(&hub, &room("a"), &room("a"), "four"), 0);
    flush(&hub);
    assert_eq!(alice.heard(), ["one", "three"]);
    assert_eq!(bob.heard(), ["one", "two"]);
}

#[test]
fn a_full_room_makes_publishers_wait_until_events_have_gone_out() {
    let hub = hub();
    let alice = listener(&hub, "alice", &["a", "b"]);
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(60_000))).unwrap();
    let (to, both, nobody, name) = (room("a"), room("b"), Target::default(), "e".parse().unwrap());
    let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data, expires: None };
    let taken = (0..100).take_while(|_| hub.try_publish(&event, None).is_ok()).count();
    assert!((4..10).contains(&taken), "{taken} events of 60 KB");
    // One that goes to a full room goes nowhere else either.
    let rooms = [to.rooms.clone(), both.rooms].concat();
    let both = Target { rooms, ..Target::default() };
    assert!(hub.try_publish(&Event { to: &both, ..event }, None).is_err());

    let mut waiting = std::pin::pin!(hub.publish(&event, None));
    assert!(waiting.as_mut().poll(&mut context()).is_pending());
    flush(&hub);
    assert_eq!(waiting.as_mut().poll(&mut context()), Poll::Ready(1));
    flush(&hub);
    assert_eq!(alice.heard().len(), taken + 1);
}

#[test]
fn a_member_that_takes_nothing_holds_up_nobody_and_costs_its_bound() {
    let hub = hub();
    let [slow, fast] = ["slow", "fast"].map(|user| listener(&hub, user, &["a"]));
    slow.tape.stuck.store(true, Relaxed);
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(60_000))).unwrap();
    let (to, nobody, name) = (room("a"), Target::default(), "e".parse().unwrap());
    for _ in 0..100 {
        let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data, expires: None };
        hub.try_publish(&event, None).ok().unwrap();
        flush(&hub);
        assert!(slow.member().outbox().len() <= 1024 * 1024);
    }
    assert_eq!(fast.heard().len(), 100);
    assert_eq!(slow.member().outbox().close_reason().unwrap().code, CloseCode::TooSlow);
}

/// A hub whose rooms have presence, and the clock that it goes by.
fn hub_with(traits: RoomTraits) -> (Arc<Hub>, Clock, ManualClock) {
    let (clock, time) = Clock::manual();
    let presence = Presence::new(clock.clone(), limits());
    (Hub::new(limits(), NonZeroUsize::MIN, Box::new(move |_| traits), presence), clock, time)
}

const PRESENCE: RoomTraits = RoomTraits { max_members: usize::MAX, presence: true, presence_limit: 100 };

impl Listener {
    /// The announcements that it has been sent, in their order.
    fn told(&self) -> Vec<serde_json::Value> {
        self.messages().into_iter().filter(|message| message["type"] == "presence").collect()
    }

    /// All that it has been sent.
    fn messages(&self) -> Vec<serde_json::Value> {
        let _written = self.membership.member().outbox().poll_write(&mut context());
        let written = self.tape.written.lock();
        let (mut rest, mut told) = (&written[..], Vec::new());
        while let [0x81, length, after @ ..] = rest {
            let (header, length) = match *length {
                126 => (2, usize::from(u16::from_be_bytes([after[0], after[1]]))),
                127 => (8, u64::from_be_bytes(after[..8].try_into().unwrap()) as usize),
                short => (0, usize::from(short)),
            };
            told.push(serde_json::from_slice(&after[header..header + length]).unwrap());
            rest = &after[header + length..];
        }
        told
    }
}

/// Announces all that is due, and sends it.
fn announce(hub: &Hub, clock: &Clock) {
    while hub.presence().turn().is_some_and(|next| next <= clock.now()) {}
    flush(hub);
}

fn raw(json: &str) -> Option<Arc<RawValue>> {
    Some(RawValue::from_string(json.to_owned()).unwrap().into())
}

/// A set of users as a client keeps it that believes what it is told.
#[derive(Default)]
struct Believer {
    users: std::collections::BTreeSet<String>,
    count: usize,
    heard: usize,
}

impl Believer {
    fn hear(&mut self, told: &[serde_json::Value]) {
        let name = |user: &serde_json::Value| user.as_str().unwrap().to_owned();
        for message in &told[self.heard..] {
            if let Some(members) = message["members"].as_array() {
                self.users = members.iter().map(|member| name(&member["user"])).collect();
            }
            let none = Vec::new();
            self.users.extend(message["joined"].as_array().unwrap_or(&none).iter().map(|user| name(&user["user"])));
            for user in message["left"].as_array().unwrap_or(&none) {
                self.users.remove(user.as_str().unwrap());
            }
            self.count = message["users"].as_u64().unwrap() as usize;
        }
        self.heard = told.len();
    }
}

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[test]
fn whatever_happens_who_believes_the_announcements_ends_with_what_is_true() {
    for seed in 1..200 {
        let mut dice = Dice(seed);
        let (hub, clock, time) = hub_with(RoomTraits { presence_limit: 4, ..PRESENCE });
        let room: RoomName = "a".parse().unwrap();
        let observer = listener(&hub, "observer", &["a"]);
        let (mut believer, mut others) = (Believer::default(), Vec::new());
        for _ in 0..20 + dice.throw(80) {
            match dice.throw(6) {
                0 | 1 => others.push(listener(&hub, &format!("u{}", dice.throw(5)), &["a"])),
                2 if !others.is_empty() => drop(others.swap_remove(dice.throw(others.len() as u64) as usize)),
                3 => time.advance(Duration::from_millis(dice.throw(300))),
                4 => time.advance(Duration::from_millis(dice.throw(3000))),
                5 => {
                    flush(&hub);
                    believer.hear(&observer.told());
                    if let Some(members) = hub.list_for_member(&room).members {
                        believer.users = members.iter().map(|member| member.user.to_string()).collect();
                    }
                }
                _ => announce(&hub, &clock),
            }
        }
        others.truncate(dice.throw(12) as usize);
        for _ in 0..10 {
            time.advance(Duration::from_secs(1));
            announce(&hub, &clock);
        }
        believer.hear(&observer.told());
        let there = others.iter().chain([&observer]).map(|other| other.member().user().to_string());
        let there: std::collections::BTreeSet<String> = there.collect();
        assert_eq!(believer.count, there.len(), "with seed {seed}");
        if there.len() <= 4 {
            assert_eq!(believer.users, there, "with seed {seed}");
        }
        assert_eq!(hub.presence().turn(), None, "nothing is left to be done");
    }
}

#[test]
fn those_who_come_and_go_on_many_threads_are_announced_as_they_are_in_the_end() {
    let (hub, clock, time) = hub_with(PRESENCE);
    let observer = listener(&hub, "observer", &["a"]);
    let done = AtomicUsize::new(0);
    let mut stay = Vec::new();
    std::thread::scope(|scope| {
        let come_and_go = |thread: u64| {
            let (hub, done) = (&hub, &done);
            move || {
                let (mut dice, mut others) = (Dice(thread + 1), Vec::new());
                for _ in 0..500 {
                    match dice.throw(3) {
                        0 | 1 => others.push(listener(hub, &format!("u{}", dice.throw(40)), &["a", "b"])),
                        _ if others.is_empty() => {}
                        _ => drop(others.swap_remove(dice.throw(others.len() as u64) as usize)),
                    }
                    others.truncate(10);
                }
                done.fetch_add(1, Relaxed);
                others
            }
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(come_and_go(thread))).collect();
        while done.load(Relaxed) < 3 {
            time.advance(Duration::from_millis(40));
            announce(&hub, &clock);
        }
        stay.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    for _ in 0..5 {
        time.advance(Duration::from_secs(1));
        announce(&hub, &clock);
    }
    let mut believer = Believer::default();
    believer.hear(&observer.told());
    let there = stay.iter().chain([&observer]).map(|other| other.member().user().to_string());
    assert_eq!(believer.users, there.collect());
    assert_eq!(hub.presence().turn(), None, "nothing is left to be done");
}

#[test]
fn what_a_full_room_cannot_take_is_announced_later() {
    let (hub, clock, time) = hub_with(PRESENCE);
    let [alice, _bob] = ["alice", "bob"].map(|user| listener(&hub, user, &["a"]));
    let data = RawValue::from_string(format!("\"{}\"", "x".repeat(60_000))).unwrap();
    let (to, nobody, name) = (room("a"), Target::default(), "e".parse().unwrap());
    let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data, expires: None };
    while hub.try_publish(&event, None).is_ok() {}
    time.advance(Duration::from_millis(200));
    let next = hub.presence().turn();
    assert_eq!(next, Some(clock.now() + Duration::from_millis(200)), "it comes again");
    flush(&hub);
    assert!(alice.told().is_empty());
    time.advance(Duration::from_millis(200));
    announce(&hub, &clock);
    assert_eq!(alice.told()[0]["joined"].as_array().unwrap().len(), 2);
}

#[test]
fn users_who_show_much_are_announced_in_several_messages() {
    let (hub, clock, time) = hub_with(RoomTraits { presence_limit: 20, ..PRESENCE });
    let alice = listener(&hub, "alice", &["a"]);
    let large = raw(&format!("\"{}\"", "x".repeat(6000)));
    let join = |number: u32| {
        let bob = listener(&hub, &format!("bob{number}"), &[]);
        let entry = Entry { data: large.clone(), ..Entry::default() };
        assert!(hub.join(bob.member(), &"a".parse().unwrap(), entry).unwrap());
        bob
    };
    let mut others: Vec<Listener> = (0..19).map(join).collect();
    time.advance(Duration::from_millis(200));
    announce(&hub, &clock);
    let mut believer = Believer::default();
    believer.hear(&alice.told());
    assert_eq!((believer.users.len(), believer.count), (20, 20));
    assert!(believer.heard > 4, "{} messages", believer.heard);
    // The same after there were too many.
    others.push(join(20));
    time.advance(Duration::from_secs(1));
    announce(&hub, &clock);
    others.pop();
    time.advance(Duration::from_secs(4));
    announce(&hub, &clock);
    let told = alice.told();
    assert!(told.iter().all(|message| message.to_string().len() < 32 * 1024));
    assert_eq!(told.iter().filter(|message| message["members"].is_array()).count(), 1);
    believer.users.clear();
    believer.hear(&told);
    assert_eq!((believer.users.len(), believer.count), (20, 20));
}

#[test]
fn a_room_is_full_at_its_limit_and_a_room_for_nobody_is_not_kept() {
    let (hub, ..) = hub_with(RoomTraits { max_members: 2, ..RoomTraits::default() });
    let mut listeners = ["alice", "bob", "carol"].map(|user| Some(listener(&hub, user, &[])));
    let join = |listener: &Option<Listener>| {
        hub.join(listener.as_ref().unwrap().member(), &"a".parse().unwrap(), Entry::default())
    };
    assert_eq!((join(&listeners[0]), join(&listeners[1])), (Ok(true), Ok(true)));
    assert_eq!(join(&listeners[2]), Err(JoinError::RoomFull(2)));
    assert_eq!(join(&listeners[0]), Ok(false), "who is in stays in");
    listeners[0] = None;
    assert_eq!(join(&listeners[2]), Ok(true));

    let (hub, ..) = hub_with(RoomTraits { max_members: 0, ..PRESENCE });
    let alice = listener(&hub, "alice", &[]);
    assert_eq!(hub.join(alice.member(), &"a".parse().unwrap(), Entry::default()), Err(JoinError::RoomFull(0)));
    assert_eq!(hub.census().rooms, 1, "the personal room");
    assert_eq!(alice.member().rooms(), 0);
}

#[test]
fn rooms_that_a_backend_chose_are_told_from_those_that_the_client_joined() {
    let hub = hub();
    let alice = listener(&hub, "alice", &["own", "both"]);
    let placed = || Entry { placed: true, ..Entry::default() };
    for room in ["placed", "both"] {
        hub.join(alice.member(), &room.parse().unwrap(), placed()).unwrap();
    }
    // Whatever the client does then, the backend's word counts.
    assert!(!hub.join(alice.member(), &"placed".parse().unwrap(), Entry::default()).unwrap());
    assert_eq!(alice.member().joined_rooms(), ["own".parse().unwrap()]);
    assert_eq!(alice.member().rooms(), 3);
}

#[test]
fn what_is_shown_is_that_of_the_room_or_else_the_profile_with_presence_or_without() {
    for traits in [PRESENCE, RoomTraits::default()] {
        let (hub, ..) = hub_with(traits);
        let tape = Arc::<Tape>::default();
        let outbox = Arc::new(Outbox::new(1024, tape));
        let id = ConnectionId::random().unwrap();
        let flusher = Arc::clone(&hub.flushers()[0]);
        let membership = hub.enter(id, "alice".parse().unwrap(), outbox, flusher, raw(r#"{"of":"all"}"#));
        let alice = membership.member();
        hub.join(alice, &"a".parse().unwrap(), Entry::default()).unwrap();
        hub.join(alice, &"b".parse().unwrap(), Entry { data: raw(r#"{"of":"b"}"#), ..Entry::default() }).unwrap();
        for (room, data) in [("a", r#"{"of":"all"}"#), ("b", r#"{"of":"b"}"#), ("user:alice", r#"{"of":"all"}"#)] {
            let present = hub.users_in(&room.parse().unwrap(), 10);
            let members = present.members.unwrap();
            assert_eq!((present.users, present.connections, members.len()), (Some(1), 1, 1));
            assert_eq!(members[0].data.as_ref().unwrap().get(), data, "{room}");
        }
        hub.leave(alice, &"b".parse().unwrap(), None);
        hub.join(alice, &"b".parse().unwrap(), Entry::default()).unwrap();
        let members = hub.users_in(&"b".parse().unwrap(), 10).members.unwrap();
        assert_eq!(members[0].data.as_ref().unwrap().get(), r#"{"of":"all"}"#, "nothing is left of a seat");
    }
}

#[test]
fn a_room_that_is_too_large_is_not_listed() {
    for (traits, users) in [(PRESENCE, Some(5)), (RoomTraits::default(), None)] {
        let (hub, ..) = hub_with(traits);
        let mut others: Vec<_> = (0..5).map(|number| listener(&hub, &format!("u{number}"), &["a"])).collect();
        let a = "a".parse().unwrap();
        assert_eq!(hub.users_in(&a, 5).members.unwrap().len(), 5);
        let present = hub.users_in(&a, 4);
        assert_eq!((present.users, present.connections, present.members.is_none()), (Some(5), 5, true));
        let present = hub.users_in(&a, 1);
        assert_eq!((present.users, present.connections, present.members.is_none()), (users, 5, true));
        others.clear();
        let present = hub.users_in(&a, 1);
        assert_eq!((present.users, present.connections, present.members.unwrap().len()), (Some(0), 0, 0));
    }
}

/// The time that it takes when so many members of a room with presence go at once, and to announce it.
fn time_of_a_mass_disconnect(members: u32, limit: usize) -> Duration {
    let (hub, clock, time) = hub_with(RoomTraits { presence_limit: limit, ..PRESENCE });
    let alice = listener(&hub, "alice", &["a"]);
    let others: Vec<_> = (0..members).map(|number| listener(&hub, &format!("u{number}"), &["a"])).collect();
    time.advance(Duration::from_secs(10));
    announce(&hub, &clock);
    let heard = alice.told().len();
    let began = std::time::Instant::now();
    drop(others);
    time.advance(Duration::from_secs(10));
    announce(&hub, &clock);
    let taken = began.elapsed();
    let told = alice.told();
    assert!(told.len() > heard, "it was announced");
    assert_eq!(told.last().unwrap()["users"], 1);
    taken
}

/// Eight times as many take about eight times as long, and 64 times if each looked at all others.
#[test]
fn a_mass_disconnect_takes_time_for_each_who_goes_and_not_for_each_pair() {
    for limit in [10, usize::MAX] {
        let fastest = |members| (0..2).map(|_| time_of_a_mass_disconnect(members, limit)).min().unwrap();
        let (few, many) = (fastest(625), fastest(5000));
        assert!(many < few * 30, "{few:?} for 625 members, {many:?} for 5,000");
    }
}

#[test]
fn a_union_of_many_rooms_reaches_each_once_but_for_those_who_are_left_out() {
    let hub = hub();
    // Each is in three of sixty rooms, beside each other.
    let name = |number: usize| format!("r{}", number % 60);
    let listeners: Vec<_> =
        (0..60).map(|n| listener(&hub, &format!("u{n}"), &[&name(n), &name(n + 1), &name(n + 2)])).collect();
    let rooms = (0..60).map(|number| name(number).parse().unwrap()).collect();
    let connections = vec![listeners[7].member().id(), listeners[8].member().id()];
    let to = Target { rooms, connections, patterns: vec!["r*".parse().unwrap()], all: true, itself: false };
    let except = ["r5", "user:u7"].map(|name| name.parse().unwrap());
    let except = Target { rooms: except.into(), ..Target::default() };
    assert_eq!(publish_except(&hub, &to, &except, "once"), 56, "u3, u4 and u5 are in r5, and u7 is named");
    flush(&hub);
    for (number, listener) in listeners.iter().enumerate() {
        let expected: &[&str] = if matches!(number, 3..=5 | 7) { &[] } else { &["once"] };
        assert_eq!(listener.heard(), expected, "u{number}");
    }
    let direct = Target { connections: to.connections.clone(), ..Target::default() };
    assert_eq!(publish_except(&hub, &direct, &except, "direct"), 1);
}

#[test]
fn who_leaves_while_left_out_of_an_event_is_not_counted_twice() {
    let hub = hub();
    let alice = listener(&hub, "alice", &[]);
    let (to, except) = (room("a"), Target { connections: vec![alice.member().id()], ..Target::default() });
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    assert!(publish_except(&hub, &to, &except, "e") <= 1);
                    flush(&hub);
                }
            });
        }
        let name = "a".parse().unwrap();
        for _ in 0..50_000 {
            hub.join(alice.member(), &name, Entry::default()).unwrap();
            hub.leave(alice.member(), &name, None);
        }
        done.store(true, Relaxed);
    });
}

#[test]
fn a_pattern_means_personal_rooms_only_if_it_says_so() {
    let hub = hub();
    let _listeners = [listener(&hub, "alice", &["a:1", "a:2"]), listener(&hub, "bob", &["b:1"])];
    let reaches = |pattern: &str| {
        let to = Target { patterns: vec![pattern.parse().unwrap()], ..Target::default() };
        publish(&hub, &to, "e")
    };
    for (pattern, expected) in
        [("a:*", 1), ("*:1", 2), ("*", 2), ("user:*", 2), ("user:a*", 1), ("*alice", 0), ("c*", 0)]
    {
        assert_eq!(reaches(pattern), expected, "{pattern}");
    }
}

/// An event that is worth something for a minute.
fn publish_for_a_minute(hub: &Hub, clock: &Clock, to: &Target, name: &str) {
    let (name, nobody) = (name.parse().unwrap(), Target::default());
    let expires = Expiry::after(clock, Duration::from_secs(60));
    let event = Event { to, except: &nobody, name: &name, from: None, data: RawValue::NULL, expires: Some(&expires) };
    assert!(hub.try_publish(&event, None).is_ok());
}

#[test]
fn an_event_that_waits_too_long_for_its_turn_is_not_sent_and_its_members_are_told() {
    let (hub, clock, hands) = hub_with(RoomTraits::default());
    let alice = listener(&hub, "alice", &["a"]);
    publish(&hub, &room("a"), "before");
    publish_for_a_minute(&hub, &clock, &room("a"), "late");
    publish(&hub, &room("a"), "after");
    hands.advance(Duration::from_secs(60));
    publish_for_a_minute(&hub, &clock, &room("a"), "in time");
    flush(&hub);
    let told = alice.messages();
    let events: Vec<&str> = told.iter().map(|told| told["event"].as_str().unwrap_or("lost")).collect();
    assert_eq!(events, ["before", "lost", "after", "in time"]);
    assert_eq!(told[1], serde_json::json!({"type": "lost", "count": 1}));
}
