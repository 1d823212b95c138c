//! Tells the workers (push) of what was published. They are in no hurry, and each emission costs the broker a write to its
//! disk: what comes within a moment goes in one.

use std::{mem, sync::PoisonError, time::Duration};

use parlance_proto::event::Batches;
use prost::Message;
use service_kit::{bus, tasks::Tasks};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use uuid::Uuid;

use super::{Outbox, Waiting, row_id};

/// Announcements that wait to be emitted; of more the rows stay for the sweeper.
pub(super) const QUEUED: usize = 4_096;
/// How long the first announcement of an emission waits for others: far less than a row is claimed for.
const LINGER: Duration = Duration::from_millis(25);
/// Announcements of one emission, at most.
const TOGETHER: usize = 64;
/// Their weight in KiB, at which it goes at once.
const TOGETHER_KIB: usize = 256;

/// What the inboxes of the gateways were told.
pub(super) struct Published {
    pub(super) waiting: Waiting,
    /// All of them have it. If not, workers are told, and its row stays.
    pub(super) is_confirmed: bool,
}

impl Outbox {
    /// Emits what comes until the process stops.
    pub(super) async fn emit_all(self, mut queue: mpsc::Receiver<Published>) {
        let confirms = Tasks::new();
        while let Some(first) = queue.recv().await {
            let mut gathered = vec![first];
            let until = Instant::now() + LINGER;
            while gathered.len() < TOGETHER && weight(&gathered) < TOGETHER_KIB {
                let Ok(Some(next)) = timeout_at(until, queue.recv()).await else { break };
                gathered.push(next);
            }
            confirms.spawn(self.emit(gathered));
        }
    }

    /// Hands them to the broker; the future that comes back waits for the confirm, and then lets the rows go.
    fn emit(&self, gathered: Vec<Published>) -> impl Future<Output = ()> + Send + use<> {
        let ids: Vec<_> =
            gathered.iter().map(|published| (row_id(&published.waiting.batch), published.is_confirmed)).collect();
        // The weight of each is free again when the bus has it.
        let batches = gathered.into_iter().map(|mut published| mem::take(&mut published.waiting.batch)).collect();
        let batches = Batches { batches };
        let traceparent = batches.batches.iter().map(|batch| &batch.traceparent).find(|text| !text.is_empty()).cloned();
        let parcel = bus::Parcel { body: batches.encode_to_vec().into(), traceparent };
        let confirmed = self.0.bus.emit(id_of(ids.iter().map(|(id, _)| *id)), parcel);
        let outbox = self.clone();
        async move {
            if confirmed.await.is_ok() {
                let done = ids.into_iter().filter(|(_, is_confirmed)| *is_confirmed).map(|(id, _)| id);
                outbox.0.published.lock().unwrap_or_else(PoisonError::into_inner).extend(done);
            }
        }
    }
}

/// What an emission goes by: the same for the same announcements, another one for others.
fn id_of(ids: impl Iterator<Item = Uuid>) -> Uuid {
    Uuid::from_u128(ids.fold(0, |sum, id| sum.wrapping_add(id.as_u128())))
}

fn weight(gathered: &[Published]) -> usize {
    gathered.iter().map(|published| published.waiting.room.num_permits()).sum()
}
