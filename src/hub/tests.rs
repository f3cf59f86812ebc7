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

fn hub() -> Arc<Hub> {
    let presence = Presence::new(crate::clock::Clock::system(), Duration::from_secs(3));
    Hub::new(10, Duration::ZERO, NonZeroUsize::MIN, Box::new(|_| RoomTraits::default()), presence)
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
    let event = Event { to, except, name: &name, from: None, data: RawValue::NULL };
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
    let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data };
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
        let event = Event { to: &to, except: &nobody, name: &name, from: None, data: &data };
        hub.try_publish(&event, None).ok().unwrap();
        flush(&hub);
        assert!(slow.member().outbox().len() <= 1024 * 1024);
    }
    assert_eq!(fast.heard().len(), 100);
    assert_eq!(slow.member().outbox().close_reason().unwrap().code, CloseCode::TooSlow);
}
