//! Which gateways events are for.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use parlance_proto::{
    event::Addressed,
    presence::{LookupRequest, directory_client::DirectoryClient},
};

use crate::{bus::To, id::BootId, rpc::Client};

/// How long the directory has to answer before events go to every gateway.
const LOOKUP: Duration = Duration::from_millis(700);

/// Sorts events by the gateways that serve their topics, each gateway's in their order: one read of the delivery directory for
/// all of them. When that does not say, all of them are for [`To::All`].
pub async fn by_gateway(directory: &DirectoryClient<Client>, events: &[&Addressed]) -> HashMap<To, Vec<Bytes>> {
    let mut index: HashMap<&Bytes, usize> = HashMap::new();
    let mut topics = Vec::new();
    for event in events {
        index.entry(&event.topic).or_insert_with(|| {
            topics.push(event.topic.clone());
            topics.len() - 1
        });
    }
    let mut directory = directory.clone();
    let answer = tokio::time::timeout(LOOKUP, directory.lookup(LookupRequest { topics })).await;
    let answer = answer.ok().and_then(Result::ok).map(tonic::Response::into_inner);
    let mut parcels: HashMap<To, Vec<Bytes>> = HashMap::new();
    let Some(answer) = answer.filter(|answer| !answer.unknown) else {
        parcels.insert(To::All, events.iter().map(|event| event.event.clone()).collect());
        return parcels;
    };
    let boots: Vec<Option<BootId>> = answer.boots.iter().map(|boot| BootId::from_wire(boot, "boot").ok()).collect();
    for event in events {
        let served = index.get(&event.topic).and_then(|place| answer.served.get(*place));
        for boot in served.into_iter().flat_map(|served| &served.boots) {
            if let Some(Some(boot)) = boots.get(*boot as usize) {
                parcels.entry(To::Gateway(*boot)).or_default().push(event.event.clone());
            }
        }
    }
    parcels
}
