//! Group commit: everything that waits to be sent goes into one transaction, room by room in order.
//!
//! `queue` keeps what waits and which rooms a worker holds; `decide` is the pure judgement of a batch; `postgres` and
//! `sqlite` are its statements. The work belongs to the worker, never to a request: a caller that goes away skips nothing.

mod decide;
mod postgres;
mod queue;
mod sqlite;
mod worker;

pub(crate) use decide::check_form;
pub(crate) use queue::Committer;
pub(crate) use worker::stopped;

use service_kit::{
    fault::Fault,
    id::{ClientId, FileId, MessageId, RoomId, UserId},
};
use tokio::sync::{mpsc, oneshot};

/// A message to be stored.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) room: RoomId,
    pub(crate) sender: UserId,
    pub(crate) client_id: ClientId,
    pub(crate) text: String,
    pub(crate) reply_to: Option<i64>,
    /// A JSON object.
    pub(crate) meta: Option<String>,
    /// Files that go with it, each once.
    pub(crate) attachments: Vec<FileId>,
    /// As [`crate::messages::mentions`] stores them.
    pub(crate) mentions: Option<Vec<u8>>,
    /// Fields that are not built yet were given.
    pub(crate) unbuilt: bool,
    /// The trace that it belongs to; empty without one.
    pub(crate) traceparent: String,
    pub(crate) reply: Reply,
}

impl Item {
    /// What it takes in memory, about.
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + self.meta.as_ref().map_or(0, String::len)
            + self.attachments.len() * size_of::<FileId>()
            + self.mentions.as_ref().map_or(0, Vec::len)
    }
}

/// Where the answer goes.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To one call.
    Call(oneshot::Sender<Result<Accepted, Fault>>),
    /// To a stream of many. It has room for every answer that is outstanding.
    Stream(u64, mpsc::Sender<(u64, Result<Accepted, Fault>)>),
}

impl Reply {
    /// Refuses without having queued.
    pub(crate) fn refuse(self, fault: Fault) {
        self.send(Err(fault));
    }

    fn send(self, answer: Result<Accepted, Fault>) {
        // Whoever asked may have gone; the message is stored all the same, and a repeat answers it.
        match self {
            Self::Call(reply) => drop(reply.send(answer)),
            Self::Stream(id, reply) => drop(reply.try_send((id, answer))),
        }
    }
}

/// A message that is stored: committed, and not before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) id: MessageId,
    pub(crate) seq: i64,
    pub(crate) rev: i64,
    pub(crate) at: i64,
    /// It had been stored before.
    pub(crate) duplicate: bool,
}
