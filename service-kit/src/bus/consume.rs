//! Events for workers, and what a worker says about each when it is done.

use std::pin::Pin;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::WaitForCancellationFutureOwned;
use uuid::Uuid;

use super::{
    amqp::Delivered,
    memory::{Member, Taken},
};
use crate::tasks::Tasks;

/// One consumer of a group. Ends when it is dropped; what it had not settled goes to another.
pub struct Consumer {
    source: Source,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

pub(super) enum Source {
    Memory(Member),
    Amqp(mpsc::Receiver<Work>),
}

/// An event to work on. Dropped without a word it is delivered again, as after [`Work::retry`].
pub struct Work {
    /// The same in every delivery of an event.
    pub id: Uuid,
    /// As it was emitted.
    pub body: Bytes,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
    /// Whether it was delivered before, perhaps to another consumer.
    pub redelivered: bool,
    pub(super) ticket: Ticket,
}

pub(super) enum Ticket {
    Memory(Taken),
    Amqp(Delivered),
}

impl Consumer {
    pub(super) fn new(source: Source, tasks: &Tasks) -> Self {
        Self { source, stopping: Box::pin(tasks.stopping()) }
    }

    /// The next event, or `None` when the bus is stopping. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Work> {
        let next = async {
            match &mut self.source {
                Source::Memory(member) => Some(member.take().await),
                Source::Amqp(works) => works.recv().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut self.stopping => None,
            work = next => work,
        }
    }
}

impl Work {
    /// It is done. When the broker cannot be told within 2 s it is delivered again.
    pub async fn ack(self) {
        match self.ticket {
            Ticket::Memory(taken) => taken.ack(),
            Ticket::Amqp(delivered) => delivered.ack().await,
        }
    }

    /// It did not succeed: deliver it again, at once, so wait before calling this. It counts as a failed delivery:
    /// after the sixth the event is put aside as dead.
    pub async fn retry(self) {
        match self.ticket {
            Ticket::Memory(taken) => drop(taken),
            Ticket::Amqp(delivered) => delivered.retry().await,
        }
    }

    /// It can never succeed: it is put aside as dead.
    pub async fn reject(self) {
        match self.ticket {
            Ticket::Memory(taken) => taken.reject(),
            Ticket::Amqp(delivered) => delivered.reject().await,
        }
    }
}
