//! What the backend has said, for as long as it says so; and what it is being asked, once for all who
//! want to know the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use futures_util::future::{BoxFuture, Shared};
use serde_json::{Map, Value};

use crate::protocol::{RoomName, UserId};

use super::{Action, Verdict};

/// How many answers are remembered; those that lapse first go first.
const MAX_ANSWERS: usize = 10_000;

/// What is asked. Two who ask the same are told the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key(Arc<Asked>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Asked {
    user: UserId,
    room: RoomName,
    action: Action,
    /// A digest of the claims, without those that every token has its own of. The claims themselves would
    /// be kept once for each answer, and a user may have many.
    claims: Box<[u8]>,
}

/// An answer that is on its way, for as many as want it.
pub(super) type Flight = Shared<BoxFuture<'static, Verdict>>;

#[derive(Default)]
pub(super) struct Memory {
    answers: HashMap<Key, (Instant, u64, Verdict)>,
    /// When each lapses.
    lapses: BTreeSet<(Instant, u64)>,
    keys: HashMap<u64, Key>,
    flights: HashMap<Key, (u64, Flight)>,
    /// Numbers for what has to be told apart.
    next: u64,
}

/// What is known of a question.
pub(super) enum Known {
    /// The answer.
    Answer(Verdict),
    /// It is being asked.
    Flight(Flight),
    /// Nothing: it is to be asked, under this number.
    Nothing(u64),
}

impl Key {
    pub(super) fn new(user: &UserId, room: &RoomName, action: Action, claims: &Map<String, Value>) -> Self {
        let lasting = |(name, _): &(&String, &Value)| !matches!(name.as_str(), "exp" | "iat" | "nbf" | "jti");
        // In order, so that the same claims are always written in the same way.
        let claims: BTreeMap<&String, &Value> = claims.iter().filter(lasting).collect();
        let written = serde_json::to_vec(&claims).unwrap_or_default();
        let claims = digest(&SHA256, &written).as_ref().into();
        Self(Arc::new(Asked { user: user.clone(), room: room.clone(), action, claims }))
    }
}

impl Memory {
    pub(super) fn look_up(&mut self, key: &Key, now: Instant) -> Known {
        self.drop_lapsed(now);
        if let Some((_, _, verdict)) = self.answers.get(key) {
            return Known::Answer(verdict.clone());
        }
        // One that is over and has not landed has failed: its task is no more.
        if let Some((_, flight)) = self.flights.get(key).filter(|(_, flight)| flight.peek().is_none()) {
            return Known::Flight(flight.clone());
        }
        self.next += 1;
        Known::Nothing(self.next)
    }

    pub(super) fn begin(&mut self, key: Key, number: u64, flight: Flight) {
        self.flights.insert(key, (number, flight));
    }

    /// Notes the answer to what was asked under a number, until a time. What has been forgotten
    /// meanwhile is not remembered: it may be from before whatever it was forgotten for.
    pub(super) fn land(&mut self, key: &Key, number: u64, remember: Option<(Instant, Verdict)>) {
        if self.flights.get(key).is_none_or(|(flying, _)| *flying != number) {
            return;
        }
        self.flights.remove(key);
        if let Some((until, verdict)) = remember {
            if self.answers.len() >= MAX_ANSWERS
                && let Some((_, number)) = self.lapses.first().copied()
            {
                self.drop_answer(number);
            }
            self.lapses.insert((until, number));
            self.keys.insert(number, key.clone());
            self.answers.insert(key.clone(), (until, number, verdict));
        }
    }

    /// Forgets all that concerns a user.
    pub(super) fn forget(&mut self, user: &UserId) {
        self.flights.retain(|key, _| key.0.user != *user);
        let of_user = self.answers.iter().filter(|(key, _)| key.0.user == *user);
        let numbers: Vec<u64> = of_user.map(|(_, (_, number, _))| *number).collect();
        numbers.into_iter().for_each(|number| self.drop_answer(number));
    }

    /// Forgets everything.
    pub(super) fn forget_all(&mut self) {
        self.flights.clear();
        let numbers: Vec<u64> = self.keys.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.drop_answer(number));
    }

    fn drop_lapsed(&mut self, now: Instant) {
        while let Some((_, number)) = self.lapses.first().copied().filter(|(until, _)| *until <= now) {
            self.drop_answer(number);
        }
    }

    fn drop_answer(&mut self, number: u64) {
        let answer = self.keys.remove(&number).and_then(|key| self.answers.remove(&key));
        if let Some((until, number, _)) = answer {
            self.lapses.remove(&(until, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_question_tells_claims_apart_and_keeps_none_of_them() {
        let key = |claims: Value| {
            let Value::Object(claims) = claims else { unreachable!() };
            Key::new(&"alice".parse().unwrap(), &"chat".parse().unwrap(), Action::Join, &claims)
        };
        let one = key(json!({"org": "acme", "role": {"b": 1, "a": 2}, "exp": 1}));
        assert_eq!(one, key(json!({"exp": 2, "role": {"a": 2, "b": 1}, "org": "acme", "jti": "x"})));
        assert_ne!(one, key(json!({"org": "acme", "role": {"b": 1}})));
        assert_ne!(one, key(json!({})));
        assert!(!format!("{one:?}").contains("acme"));
    }
}
