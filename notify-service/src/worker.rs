//! Takes batches of events from the bus, and has the pushes of the messages that they bring planned.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parlance_proto::event::{Batch, Batches, Event};
use prost::Message as _;
use service_kit::{
    bus::{Consumer, Work},
    telemetry,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{news::News, plan::Planner};

/// Ids of batches that are remembered, in memory and by this process only, to count and plan each once. A batch that comes
/// again later than this many others, after a restart, or to another replica, counts twice; its pushes are planned already.
pub const REMEMBERED: usize = 65_536;
/// How long after a failure of the database it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

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

    fn add(&self, batches: u64, messages: u64) {
        self.batches.fetch_add(batches, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        metrics::counter!("notify_batches_total").increment(batches);
        metrics::counter!("notify_messages_total").increment(messages);
    }
}

/// What became of one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Some of its batches were new, and had this many messages.
    Counted(u64),
    /// All of it was counted before; nothing was done.
    Repeated,
    /// It cannot be understood and was put aside as dead.
    Rejected,
}

/// Why a delivery cannot be understood. Says nothing of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Poison {
    #[error("it holds no encoded batches")]
    Batches,
    #[error("one of its batches has no id")]
    Id,
    #[error("one of its events is not an encoded event")]
    Event,
}

/// Works on what is delivered to it.
#[derive(Debug)]
pub struct Worker {
    counts: Arc<Counts>,
    planner: Planner,
    remembered: Remembered,
}

impl Worker {
    /// A worker that remembers nothing yet.
    #[must_use]
    pub fn new(counts: Arc<Counts>, planner: Planner) -> Self {
        Self { counts, planner, remembered: Remembered::default() }
    }

    /// Deals with one delivery: plans its pushes, then acknowledges it, so that a crash in between delivers it again. While
    /// the database does not take them it waits, and the rest waits in the queue.
    pub async fn step(&mut self, work: Work) -> Outcome {
        let span = tracing::info_span!("notify", event.id = %work.id);
        telemetry::adopt(&span, work.traceparent.as_deref());
        self.settle(work).instrument(span).await
    }

    async fn settle(&mut self, work: Work) -> Outcome {
        let batches = match read(&work.body) {
            Ok(batches) => batches,
            Err(poison) => {
                tracing::error!(event.id = %work.id, error = %poison, "a delivery was put aside as dead");
                metrics::counter!("notify_rejected_total").increment(1);
                work.reject().await;
                return Outcome::Rejected;
            }
        };
        let new: Vec<_> = batches.into_iter().filter(|(id, _)| !self.remembered.contains(*id)).collect();
        if new.is_empty() {
            work.ack().await;
            return Outcome::Repeated;
        }
        let (ids, news): (Vec<Uuid>, Vec<Vec<News>>) = new.into_iter().unzip();
        let news = news.concat();
        while let Err(error) = self.planner.plan(&news).await {
            tracing::warn!(error = %error, "pushes could not be planned; trying again");
            tokio::time::sleep(PAUSE).await;
        }
        let counted = news.iter().filter_map(News::message).count() as u64;
        self.counts.add(ids.len() as u64, counted);
        ids.into_iter().for_each(|id| self.remembered.insert(id));
        work.ack().await;
        Outcome::Counted(counted)
    }
}

/// Steps through what the consumer yields until `stopping` resolves or the bus ends.
pub(crate) async fn run(mut worker: Worker, mut consumer: Consumer, stopping: impl Future<Output = ()>) {
    tokio::pin!(stopping);
    loop {
        let next = tokio::select! { biased; () = &mut stopping => None, work = consumer.next() => work };
        let Some(work) = next else { return };
        // What is not done when it stops is delivered again.
        tokio::select! { biased; () = &mut stopping => return, _ = worker.step(work) => {} }
    }
}

/// The id of each batch, with what is new in it.
fn read(body: &[u8]) -> Result<Vec<(Uuid, Vec<News>)>, Poison> {
    let Batches { batches } = Batches::decode(body).map_err(|_| Poison::Batches)?;
    if batches.is_empty() {
        return Err(Poison::Batches);
    }
    let id = |batch: &Batch| Uuid::from_slice(&batch.id).map_err(|_| Poison::Id);
    batches.iter().map(|batch| Ok((id(batch)?, news(batch)?))).collect()
}

fn news(batch: &Batch) -> Result<Vec<News>, Poison> {
    let mut news = Vec::new();
    for addressed in &batch.events {
        let event = Event::decode(addressed.event.as_ref()).map_err(|_| Poison::Event)?;
        news.extend(News::of(event));
    }
    Ok(news)
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
