//! Takes batches of events from the bus, and counts the messages that they bring, each batch once.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parlance_proto::{
    event::{Batch, Event, event, room_event},
    v1::{Message, MessageKind},
};
use prost::Message as _;
use service_kit::{
    bus::{Consumer, Work},
    telemetry,
};
use tracing::Instrument as _;
use uuid::Uuid;

/// Ids of batches that are remembered, in memory and by this process only. A batch that comes again later than this many
/// others, after a restart, or to another replica, counts twice: the limit of this step.
pub const REMEMBERED: usize = 65_536;

/// What this process has counted since it started.
#[derive(Debug, Default)]
pub struct Counts {
    batches: AtomicU64,
    messages: AtomicU64,
}

impl Counts {
    /// Batches taken from the queue, each counted once.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }

    /// New messages of people in them.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }

    fn add(&self, messages: u64) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        metrics::counter!("notify_batches_total").increment(1);
        metrics::counter!("notify_messages_total").increment(messages);
    }
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The batch was new and had this many messages.
    Counted(u64),
    /// It was counted before; nothing was done.
    Repeated,
    /// It cannot be understood and was put aside as dead.
    Rejected,
}

/// Why a batch cannot be understood. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Poison {
    #[error("it is not an encoded batch")]
    Batch,
    #[error("its id is not the one that it was delivered with")]
    Id,
    #[error("one of its events is not an encoded event")]
    Event,
}

/// Counts what is delivered to it.
#[derive(Debug)]
pub struct Worker {
    counts: Arc<Counts>,
    remembered: Remembered,
}

impl Worker {
    /// A worker that remembers nothing yet.
    #[must_use]
    pub fn new(counts: Arc<Counts>) -> Self {
        Self { counts, remembered: Remembered::default() }
    }

    /// Deals with one delivery: counts it, then acknowledges it, so that a crash in between delivers it again.
    pub async fn step(&mut self, work: Work) -> Outcome {
        let span = tracing::info_span!("notify", event.id = %work.id);
        telemetry::adopt(&span, work.traceparent.as_deref());
        self.settle(work).instrument(span).await
    }

    async fn settle(&mut self, work: Work) -> Outcome {
        if self.remembered.contains(work.id) {
            work.ack().await;
            return Outcome::Repeated;
        }
        match count(work.id, &work.body) {
            Ok(messages) => {
                self.remembered.insert(work.id);
                self.counts.add(messages);
                work.ack().await;
                Outcome::Counted(messages)
            }
            Err(poison) => {
                tracing::error!(event.id = %work.id, error = %poison, "a batch was put aside as dead");
                metrics::counter!("notify_rejected_total").increment(1);
                work.reject().await;
                Outcome::Rejected
            }
        }
    }
}

/// Steps through what the consumer yields until `stopping` resolves or the bus ends.
pub(crate) async fn run(mut worker: Worker, mut consumer: Consumer, stopping: impl Future<Output = ()>) {
    tokio::pin!(stopping);
    loop {
        let next = tokio::select! { biased; () = &mut stopping => None, work = consumer.next() => work };
        let Some(work) = next else { return };
        worker.step(work).await;
    }
}

/// The new messages in an encoded batch.
fn count(id: Uuid, body: &[u8]) -> Result<u64, Poison> {
    let batch = Batch::decode(body).map_err(|_| Poison::Batch)?;
    if batch.id.as_ref() != id.as_bytes().as_slice() {
        return Err(Poison::Id);
    }
    let mut messages = 0;
    for addressed in &batch.events {
        let event = Event::decode(addressed.event.as_ref()).map_err(|_| Poison::Event)?;
        messages += u64::from(is_new_message(&event));
    }
    Ok(messages)
}

/// Whether it tells of a message that a person has just sent, not of an edit, a removal, or a line of the system.
fn is_new_message(event: &Event) -> bool {
    let Some(event::Kind::Room(room)) = &event.kind else { return false };
    let Some(room_event::Kind::Message(message)) = &room.kind else { return false };
    let Message { edited_at, deleted_at, .. } = message;
    message.kind() == MessageKind::Text && edited_at.is_none() && deleted_at.is_none()
}

/// The newest [`REMEMBERED`] ids.
#[derive(Debug, Default)]
struct Remembered {
    ids: HashSet<Uuid>,
    order: VecDeque<Uuid>,
}

impl Remembered {
    fn contains(&self, id: Uuid) -> bool {
        self.ids.contains(&id)
    }

    fn insert(&mut self, id: Uuid) {
        if !self.ids.insert(id) {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_has_a_bound_and_the_oldest_goes_first() {
        let mut remembered = Remembered::default();
        let ids: Vec<_> = (0..=REMEMBERED as u128).map(Uuid::from_u128).collect();
        ids.iter().for_each(|id| remembered.insert(*id));
        assert_eq!((remembered.ids.len(), remembered.order.len()), (REMEMBERED, REMEMBERED));
        assert!(!remembered.contains(ids[0]) && remembered.contains(ids[1]) && remembered.contains(ids[REMEMBERED]));
    }
}
