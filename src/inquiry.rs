//! Asks clients, and waits for their answers: a backend asks, connections answer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;
use thiserror::Error;
use tokio::sync::Notify;
use utoipa::ToSchema;

use crate::hub::Member;
use crate::protocol::{ConnectionId, EventName, InquiryId, Response, UserId, Wait};
use crate::trace::Trace;

/// Inquiries under way at once.
const MAX_INQUIRIES: usize = 1000;
/// Bytes of the answers to all of them together.
const MAX_ANSWERS_BYTES: usize = 64 * 1024 * 1024;

/// Why nobody was asked.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// There are as many inquiries as there may be.
    #[error("there are {MAX_INQUIRIES} requests under way already")]
    TooMany,
    /// There is no randomness for an id.
    #[error("no id could be made")]
    Random(#[from] getrandom::Error),
}

/// Why an answer is not taken.
#[derive(Debug, Error)]
pub(crate) enum AnswerError {
    /// Nobody waits for it.
    #[error("nobody waits for this answer: it was given, came too late, or was asked of others")]
    NotAsked,
    /// So much has been answered that nobody has taken yet.
    #[error("there are too many answers under way to take this one")]
    TooLarge,
}

/// What is asked of clients at the moment.
#[derive(Default)]
pub(crate) struct Inquiries(Mutex<Open>);

#[derive(Default)]
struct Open {
    inquiries: HashMap<InquiryId, Inquiry>,
    /// What each connection has not answered.
    asked: HashMap<ConnectionId, SmallVec<[InquiryId; 1]>>,
    /// Of all answers.
    bytes: usize,
}

struct Inquiry {
    wait: Wait,
    waiting: HashSet<ConnectionId>,
    answers: Vec<(ConnectionId, Box<RawValue>)>,
    done: Arc<Notify>,
}

/// An inquiry that is under way. Dropping it forgets it.
pub(crate) struct Asking {
    inquiries: Arc<Inquiries>,
    id: InquiryId,
    members: Vec<Arc<Member>>,
    done: Arc<Notify>,
}

/// What has come of an inquiry.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InquiryAnswers)]
pub(crate) struct Answers {
    /// In the order in which they came.
    replies: Vec<Reply>,
    /// Who has not answered.
    missing: Vec<Missing>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InquiryReply)]
struct Reply {
    user: UserId,
    connection: ConnectionId,
    #[schema(value_type = serde_json::Value)]
    data: Box<RawValue>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InquiryMissing)]
struct Missing {
    user: UserId,
    connection: ConnectionId,
}

impl Inquiries {
    /// Sends an event to connections that they are to answer.
    pub(crate) fn ask(
        self: &Arc<Self>,
        members: Vec<Arc<Member>>,
        event: &EventName,
        data: &RawValue,
        wait: Wait,
        trace: &Trace,
    ) -> Result<Asking, AskError> {
        let (id, done) = (InquiryId::random()?, Arc::<Notify>::default());
        self.open(id, &members, wait, &done)?;
        let asking = Asking { inquiries: Arc::clone(self), id, members, done };
        let frame = Response::Event { room: None, event, from: None, data, reply_to: Some(id) }.frame();
        let (fan_out, mut lost) = (trace.by_name(), 0);
        for member in &asking.members {
            // Whoever has left before it was entered above is not told of again.
            if !member.outbox().push_traced(frame.clone(), None, &fan_out) || member.has_left() {
                self.lose(member.id());
                lost += 1;
            }
        }
        fan_out.done(asking.members.len() - lost, frame.len());
        Ok(asking)
    }

    fn open(&self, id: InquiryId, members: &[Arc<Member>], wait: Wait, done: &Arc<Notify>) -> Result<(), AskError> {
        let mut open = self.0.lock();
        if open.inquiries.len() >= MAX_INQUIRIES {
            return Err(AskError::TooMany);
        }
        let waiting = members.iter().map(|member| member.id()).collect();
        let inquiry = Inquiry { wait, waiting, answers: Vec::new(), done: Arc::clone(done) };
        inquiry.tell_if_done();
        open.inquiries.insert(id, inquiry);
        for member in members {
            open.asked.entry(member.id()).or_default().push(id);
        }
        Ok(())
    }

    /// Takes the answer of a connection.
    pub(crate) fn answer(&self, id: InquiryId, from: ConnectionId, data: &RawValue) -> Result<(), AnswerError> {
        let mut open = self.0.lock();
        let Open { inquiries, asked, bytes } = &mut *open;
        let inquiry = inquiries.get_mut(&id).filter(|inquiry| inquiry.waiting.contains(&from));
        let inquiry = inquiry.ok_or(AnswerError::NotAsked)?;
        if *bytes + data.get().len() > MAX_ANSWERS_BYTES {
            return Err(AnswerError::TooLarge);
        }
        *bytes += data.get().len();
        inquiry.waiting.remove(&from);
        inquiry.answers.push((from, data.to_owned()));
        inquiry.tell_if_done();
        forget(asked, id, from);
        Ok(())
    }

    /// Notes that a connection will answer nothing any more.
    pub(crate) fn lose(&self, connection: ConnectionId) {
        let mut open = self.0.lock();
        for id in open.asked.remove(&connection).unwrap_or_default() {
            if let Some(inquiry) = open.inquiries.get_mut(&id) {
                inquiry.waiting.remove(&connection);
                inquiry.tell_if_done();
            }
        }
    }

    fn close(&self, id: InquiryId) -> Vec<(ConnectionId, Box<RawValue>)> {
        let mut open = self.0.lock();
        let Some(inquiry) = open.inquiries.remove(&id) else { return Vec::new() };
        for connection in inquiry.waiting {
            forget(&mut open.asked, id, connection);
        }
        open.bytes -= inquiry.answers.iter().map(|(_, data)| data.get().len()).sum::<usize>();
        inquiry.answers
    }
}

fn forget(asked: &mut HashMap<ConnectionId, SmallVec<[InquiryId; 1]>>, id: InquiryId, connection: ConnectionId) {
    if let Some(ids) = asked.get_mut(&connection) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            asked.remove(&connection);
        }
    }
}

impl Inquiry {
    fn tell_if_done(&self) {
        if self.waiting.is_empty() || (self.wait == Wait::First && !self.answers.is_empty()) {
            self.done.notify_one();
        }
    }
}

impl Asking {
    /// Waits for as many answers as are wanted, or until no more can come.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// What has been answered so far. What comes later is not asked for any more.
    pub(crate) fn answers(&self) -> Answers {
        let answers = self.inquiries.close(self.id);
        let mut missing: HashMap<ConnectionId, &UserId> =
            self.members.iter().map(|member| (member.id(), member.user())).collect();
        let reply = |(connection, data)| {
            let user = missing.remove(&connection)?;
            Some(Reply { user: user.clone(), connection, data })
        };
        let replies = answers.into_iter().filter_map(reply).collect();
        let left = self.members.iter().filter(|member| missing.contains_key(&member.id()));
        let missing = left.map(|member| Missing { user: member.user().clone(), connection: member.id() }).collect();
        Answers { replies, missing }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.inquiries.close(self.id);
    }
}
