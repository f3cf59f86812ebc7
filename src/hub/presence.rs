//! Which users are in a room, and what its members have been told of that.
//!
//! Nothing here counts up and down: a [`Crowd`] knows the seats of each user, and what has been
//! announced; when a change is due, the two are compared. So whatever happens in between, and
//! however a connection ends, the announcements end with what is true.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::clock::Clock;
use crate::config::LiveLimits;
use crate::protocol::{ArrivedUser, PresentUser, Response, RoomName, UserId};

use super::room::Room;

/// How long a user has to be there before that is announced, and how long a room that is full of
/// events has to make room for an announcement.
const SETTLE_DELAY: Duration = Duration::from_millis(200);
/// Announcements of more bytes go out in several messages.
const MESSAGE_BYTES: usize = 16 * 1024;
/// About what one user takes in a message beside name and data.
const USER_BYTES: usize = 48;
/// Rooms that are looked at before others get their turn.
const ROOMS_PER_TURN: usize = 16;
/// Changes of users that one look at a room takes note of: as long as it takes, nobody can publish.
const CHANGES_PER_LOOK: usize = 512;

/// What a member shows of itself to the others of a room.
pub(super) type Data = Option<Arc<RawValue>>;

/// When to look at which room with presence. Whoever drives it calls [`Presence::turn`] at the times
/// that it says, and when [`Presence::poll_earlier`] is ready.
pub struct Presence {
    clock: Clock,
    limits: LiveLimits,
    schedule: Mutex<Schedule>,
    task: AtomicWaker,
}

#[derive(Default)]
struct Schedule {
    /// By the time, and by the number of the crowd.
    rooms: BTreeMap<(Instant, u64), Weak<Room>>,
    last_number: u64,
}

impl Presence {
    /// An empty schedule.
    pub fn new(clock: Clock, limits: LiveLimits) -> Self {
        Self { clock, limits, schedule: Mutex::default(), task: AtomicWaker::new() }
    }

    /// Does what is due, a little at a time, and says when there is more to do; none if there is
    /// nothing to wait for.
    pub fn turn(&self) -> Option<Instant> {
        let now = self.clock.now();
        for _ in 0..ROOMS_PER_TURN {
            let Some((at, room)) = self.schedule.lock().take_due(now) else { break };
            let Some(room) = room.upgrade() else { continue };
            if let Some(next) = room.announce(at, now) {
                self.plan(&room, next);
            }
        }
        self.schedule.lock().next()
    }

    /// Ready when there is something to do before a time, or at all if that is none.
    pub fn poll_earlier(&self, cx: &mut Context<'_>, than: Option<Instant>) -> Poll<()> {
        self.task.register(cx.waker());
        match (self.schedule.lock().next(), than) {
            (Some(next), Some(than)) if next >= than => Poll::Pending,
            (None, _) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Whoever is in a new room.
    pub(super) fn crowd(&self, limit: usize) -> Crowd {
        let mut schedule = self.schedule.lock();
        schedule.last_number += 1;
        Crowd::new(schedule.last_number, limit, self.limits.get().presence_delay)
    }

    pub(super) fn now(&self) -> Instant {
        self.clock.now()
    }

    /// Has a room looked at.
    pub(super) fn plan(&self, room: &Arc<Room>, Plan { at, number }: Plan) {
        let mut schedule = self.schedule.lock();
        let earlier = schedule.next().is_none_or(|next| at < next);
        schedule.rooms.insert((at, number), Arc::downgrade(room));
        drop(schedule);
        if earlier {
            self.task.wake();
        }
    }
}

impl Schedule {
    fn next(&self) -> Option<Instant> {
        self.rooms.first_key_value().map(|((at, _), _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Option<(Instant, Weak<Room>)> {
        let first = self.rooms.first_entry().filter(|first| first.key().0 <= now)?;
        let at = first.key().0;
        Some((at, first.remove()))
    }
}

/// When to look at which crowd.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    at: Instant,
    number: u64,
}

/// The users in a room with presence.
pub(super) struct Crowd {
    number: u64,
    /// With more users than this, only their number is announced.
    limit: usize,
    /// How long a user has to be away before that is announced; the least time between two numbers.
    delay: Duration,
    /// The seats of each user, in the order in which they were taken, and what is shown there.
    here: HashMap<UserId, SmallVec<[(u32, Data); 1]>>,
    told: Told,
    /// The users that may not be as they were announced.
    changed: HashMap<UserId, Change>,
    /// The same by the time at which they are due.
    due: BTreeSet<(Instant, UserId)>,
    /// When a number can be announced that was held back.
    held_until: Option<Instant>,
    /// When this is to be looked at.
    planned: Option<Instant>,
    /// How many lists of those who are here have been given to members.
    lists: u64,
}

/// What the members have been told.
enum Told {
    /// Who is there, and what each shows.
    Users(HashMap<UserId, Data>),
    /// How many there are, and when that was told.
    Number(usize, Instant),
}

struct Change {
    at: Instant,
    /// The value of `lists` when the user began to differ. A list that was given since may say
    /// something of the user that is true no more when the change is due.
    lists: u64,
}

/// What is to be announced.
#[derive(Default)]
pub(super) struct News {
    joined: Vec<ArrivedUser>,
    left: Vec<UserId>,
    members: Option<Vec<PresentUser>>,
    users: usize,
    bytes: usize,
}

impl Crowd {
    fn new(number: u64, limit: usize, delay: Duration) -> Self {
        Self {
            number,
            limit,
            delay,
            here: HashMap::new(),
            told: Told::Users(HashMap::new()),
            changed: HashMap::new(),
            due: BTreeSet::new(),
            held_until: None,
            planned: None,
            lists: 0,
        }
    }

    /// Notes a seat of a user, and says when to look, if that is earlier than planned.
    pub(super) fn enter(&mut self, user: &UserId, seat: u32, data: Data, now: Instant) -> Option<Plan> {
        let seats = self.here.entry(user.clone()).or_default();
        let first = seats.is_empty();
        seats.push((seat, data));
        let due = now + SETTLE_DELAY.min(self.delay);
        self.mark(user, due, first);
        self.replan()
    }

    /// Notes that a seat is empty, and says when to look, if that is earlier than planned.
    pub(super) fn leave(&mut self, user: &UserId, seat: u32, now: Instant) -> Option<Plan> {
        let seats = self.here.get_mut(user)?;
        seats.retain(|(other, _)| *other != seat);
        let last = seats.is_empty();
        if last {
            self.here.remove(user);
        }
        if self.here.is_empty() {
            // There is nobody to tell, and whoever comes next has been told nothing.
            *self = Self { planned: self.planned, ..Self::new(self.number, self.limit, self.delay) };
            return None;
        }
        self.mark(user, now + self.delay, last);
        self.replan()
    }

    /// Has a user looked at. If it has come or gone, the time counts from now on; else something
    /// about it that is due already is not put off.
    fn mark(&mut self, user: &UserId, at: Instant, anew: bool) {
        let (mut at, mut lists) = (at, self.lists);
        if let Some(before) = self.changed.get(user) {
            lists = before.lists;
            self.due.remove(&(before.at, user.clone()));
            if !anew {
                at = at.min(before.at);
            }
        }
        self.changed.insert(user.clone(), Change { at, lists });
        self.due.insert((at, user.clone()));
    }

    fn replan(&mut self) -> Option<Plan> {
        let due = self.due.first().map(|(at, _)| *at);
        let at = due.into_iter().chain(self.held_until).min()?;
        if self.planned.is_some_and(|planned| planned <= at) {
            return None;
        }
        self.planned = Some(at);
        Some(Plan { at, number: self.number })
    }

    /// Looks, if that was planned for `at`: says what is to be announced, and when to look again.
    pub(super) fn look(&mut self, at: Instant, now: Instant, is_full: bool) -> (Option<News>, Option<Plan>) {
        if self.planned != Some(at) {
            return (None, None);
        }
        if is_full {
            let at = now + SETTLE_DELAY;
            self.planned = Some(at);
            return (None, Some(Plan { at, number: self.number }));
        }
        (self.planned, self.held_until) = (None, None);
        let news = match self.told {
            _ if self.here.len() > self.limit => self.number(now),
            Told::Number(_, at) => self.start_afresh(at, now),
            Told::Users(_) => self.compare(now),
        };
        (news, self.replan())
    }

    /// What has changed of the users that are due.
    fn compare(&mut self, now: Instant) -> Option<News> {
        let mut news = News::default();
        for _ in 0..CHANGES_PER_LOOK {
            if news.bytes >= MESSAGE_BYTES {
                break;
            }
            let Some((user, change)) = self.take_due(now) else { break };
            let Told::Users(told) = &mut self.told else { break };
            // Whoever has had a list meanwhile may know otherwise: it is said again.
            let certain = change.lists == self.lists;
            match self.here.get(&user).map(|seats| shown(seats)) {
                Some(data) if certain && told.get(&user).is_some_and(|before| is_same(before, &data)) => {}
                Some(data) => {
                    told.insert(user.clone(), data.clone());
                    news.arrive(user, data);
                }
                None => {
                    if told.remove(&user).is_some() || !certain {
                        news.bytes += user.as_str().len() + USER_BYTES;
                        news.left.push(user);
                    }
                }
            }
            news.users = told.len();
        }
        (news.bytes > 0).then_some(news)
    }

    /// How many there are, if that is not known, and not too soon after the last time.
    fn number(&mut self, now: Instant) -> Option<News> {
        let users = self.here.len();
        if self.pass_over_due(now) || matches!(self.told, Told::Number(told, _) if told == users) {
            return None;
        }
        if let Told::Number(_, at) = self.told
            && self.is_held(at, now)
        {
            return None;
        }
        self.told = Told::Number(users, now);
        Some(News { users, bytes: USER_BYTES, ..News::default() })
    }

    /// Who is there, after there were too many to say: as many as fit; the others come after them.
    fn start_afresh(&mut self, told_at: Instant, now: Instant) -> Option<News> {
        if self.pass_over_due(now) || self.is_held(told_at, now) {
            return None;
        }
        let mut news = News { bytes: USER_BYTES, ..News::default() };
        let (mut members, mut told, mut rest) = (Vec::new(), HashMap::new(), Vec::new());
        for member in by_name(self.list()) {
            if news.bytes < MESSAGE_BYTES {
                news.bytes += size_of_user(&member.user, &member.data);
                told.insert(member.user.clone(), member.data.clone());
                members.push(member);
            } else {
                rest.push(member.user);
            }
        }
        for user in rest {
            self.mark(&user, now, true);
        }
        news.users = members.len();
        news.members = Some(members);
        self.told = Told::Users(told);
        Some(news)
    }

    /// Passes over changes of users that are not told one by one. Says whether there are more: then
    /// this is looked at again at once.
    fn pass_over_due(&mut self, now: Instant) -> bool {
        let more = (0..CHANGES_PER_LOOK).all(|_| self.take_due(now).is_some());
        if more {
            self.held_until = Some(now);
        }
        more
    }

    /// Whether it is too soon after the last time; then this is looked at again when it is not.
    fn is_held(&mut self, told_at: Instant, now: Instant) -> bool {
        let until = told_at + self.delay;
        if now < until {
            self.held_until = Some(until);
        }
        now < until
    }

    fn take_due(&mut self, now: Instant) -> Option<(UserId, Change)> {
        if self.due.first()?.0 > now {
            return None;
        }
        let (_, user) = self.due.pop_first()?;
        let change = self.changed.remove(&user)?;
        Some((user, change))
    }

    /// How many users there are.
    pub(super) fn len(&self) -> usize {
        self.here.len()
    }

    /// The users that there are.
    pub(super) fn list(&self) -> Vec<PresentUser> {
        let present = |(user, seats): (&UserId, &SmallVec<_>)| PresentUser {
            user: user.clone(),
            connections: seats.len(),
            data: shown(seats),
        };
        self.here.iter().map(present).collect()
    }

    /// Notes that a member has been given a list.
    pub(super) fn has_listed(&mut self) {
        self.lists += 1;
    }
}

impl News {
    fn arrive(&mut self, user: UserId, data: Data) {
        self.bytes += size_of_user(&user, &data);
        self.joined.push(ArrivedUser { user, data });
    }

    /// About how large the message is.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// As it is told.
    pub(super) fn response<'a>(&'a self, room: &'a RoomName) -> Response<'a> {
        Response::Presence {
            room,
            joined: &self.joined,
            left: &self.left,
            members: self.members.as_deref(),
            users: self.users,
        }
    }
}

/// What a user shows who has several seats: where it sat down last, of those where it shows something.
fn shown(seats: &[(u32, Data)]) -> Data {
    seats.iter().rev().find_map(|(_, data)| data.clone())
}

/// Users in the order of their names.
pub(super) fn by_name(mut users: Vec<PresentUser>) -> Vec<PresentUser> {
    users.sort_unstable_by(|one, other| one.user.cmp(&other.user));
    users
}

fn is_same(one: &Data, other: &Data) -> bool {
    one.as_ref().map(|data| data.get()) == other.as_ref().map(|data| data.get())
}

fn size_of_user(user: &UserId, data: &Data) -> usize {
    user.as_str().len() + USER_BYTES + data.as_ref().map_or(0, |data| data.get().len())
}
