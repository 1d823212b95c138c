//! Publishes to the inboxes of gateways what transactions have stored, in their order; then it goes on to the workers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future;
use parlance_proto::{
    event::{Batch, Parcel},
    presence::LookupRequest,
};
use prost::Message;
use service_kit::{
    bus::{self, To},
    id::BootId,
    tasks::Tasks,
};
use tokio::sync::{Semaphore, mpsc};

use super::{Outbox, Waiting, workers::Published};

/// Announcements that are published together.
const TOGETHER: usize = 64;
/// Groups of announcements whose confirms are outstanding.
const UNCONFIRMED: usize = 64;
/// How long the directory has to answer before events go to every gateway.
const LOOKUP: Duration = Duration::from_millis(700);

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
        let inboxes: Vec<_> = self
            .address(&batches)
            .await
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

    /// Sorts the events by the gateways that serve their topics: one read of the directory for all of them.
    async fn address(&self, batches: &[&Batch]) -> HashMap<To, Vec<Bytes>> {
        let mut index: HashMap<&Bytes, usize> = HashMap::new();
        let mut topics = Vec::new();
        for event in batches.iter().flat_map(|batch| &batch.events) {
            index.entry(&event.topic).or_insert_with(|| {
                topics.push(event.topic.clone());
                topics.len() - 1
            });
        }
        let mut directory = self.0.directory.clone();
        let answer = tokio::time::timeout(LOOKUP, directory.lookup(LookupRequest { topics })).await;
        let answer = answer.ok().and_then(std::result::Result::ok).map(tonic::Response::into_inner);
        let mut parcels: HashMap<To, Vec<Bytes>> = HashMap::new();
        let events = batches.iter().flat_map(|batch| &batch.events);
        match answer {
            Some(answer) if !answer.unknown => {
                let boots: Vec<Option<BootId>> =
                    answer.boots.iter().map(|boot| BootId::from_wire(boot, "boot").ok()).collect();
                for event in events {
                    let served = index.get(&event.topic).and_then(|place| answer.served.get(*place));
                    for boot in served.into_iter().flat_map(|served| &served.boots) {
                        if let Some(Some(boot)) = boots.get(*boot as usize) {
                            parcels.entry(To::Gateway(*boot)).or_default().push(event.event.clone());
                        }
                    }
                }
            }
            _ => {
                metrics::counter!("outbox_published_to_all_total").increment(1);
                parcels.insert(To::All, events.map(|event| event.event.clone()).collect());
            }
        }
        parcels
    }
}
