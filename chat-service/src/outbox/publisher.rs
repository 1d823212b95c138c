//! Publishes to the inboxes of gateways what transactions have stored, in their order; then it goes on to the workers.

use std::{sync::Arc, time::Duration};

use futures_util::future;
use parlance_proto::event::{Addressed, Batch, Parcel};
use prost::Message;
use service_kit::{
    address,
    bus::{self, To},
    tasks::Tasks,
};
use tokio::sync::{Semaphore, mpsc};

use super::{Outbox, Waiting, workers::Published};

/// Announcements that are published together.
const TOGETHER: usize = 64;
/// Groups of announcements whose confirms are outstanding.
const UNCONFIRMED: usize = 64;

impl Outbox {
    /// Publishes what is queued until the process stops, and passes it on to `workers`.
    pub(super) async fn publish_all(self, mut queue: mpsc::Receiver<Waiting>, workers: mpsc::Sender<Published>) {
        let unconfirmed = Arc::new(Semaphore::new(UNCONFIRMED));
        let mut waiting = Vec::with_capacity(TOGETHER);
        let confirms = Tasks::new();
        while queue.recv_many(&mut waiting, TOGETHER).await > 0 {
            self.hold().await;
            let Ok(permit) = Arc::clone(&unconfirmed).acquire_owned().await else { return };
            let confirmed = self.publish_together(&waiting).await;
            // Nobody waits for a row that there is none of; from here on the bus bounds what is on its way.
            let stored: Vec<Waiting> = waiting.drain(..).filter(|waiting| !waiting.batch.id.is_empty()).collect();
            let workers = workers.clone();
            confirms.spawn(async move {
                let is_confirmed = confirmed.await;
                for waiting in stored {
                    if workers.try_send(Published { waiting, is_confirmed }).is_err() {
                        metrics::counter!("outbox_left_to_sweeper_total").increment(1);
                    }
                }
                drop(permit);
            });
        }
    }

    /// While the file of the test hook exists, waits.
    async fn hold(&self) {
        while self.0.hold.as_ref().is_some_and(|file| file.exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Hands everything to the broker in order; the future that comes back waits for the confirms and tells whether all
    /// have come.
    async fn publish_together(&self, waiting: &[Waiting]) -> impl Future<Output = bool> + Send + use<> {
        let batches: Vec<&Batch> = waiting.iter().map(|waiting| &waiting.batch).collect();
        let traceparent = batches.iter().map(|batch| &batch.traceparent).find(|text| !text.is_empty()).cloned();
        let events: Vec<&Addressed> = batches.iter().flat_map(|batch| &batch.events).collect();
        let addressed = address::by_gateway(&self.0.directory, &events).await;
        if addressed.contains_key(&To::All) {
            metrics::counter!("outbox_published_to_all_total").increment(1);
        }
        let inboxes: Vec<_> = addressed
            .into_iter()
            .map(|(to, events)| {
                let body = Parcel { events }.encode_to_vec().into();
                self.0.bus.publish(to, bus::Parcel { body, traceparent: traceparent.clone() })
            })
            .collect();
        async move {
            let is_confirmed = future::join_all(inboxes).await.iter().all(Result::is_ok);
            if !is_confirmed {
                metrics::counter!("outbox_unconfirmed_total").increment(1);
            }
            is_confirmed
        }
    }
}
