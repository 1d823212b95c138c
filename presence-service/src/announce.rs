//! Tells the gateways whose users watch somebody that this somebody's presence has changed.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures_util::future::join_all;
use parlance_proto::{event, v1};
use prost::Message as _;
use service_kit::{
    bus::{self, Bus, To},
    id::{BootId, Topic, UserId},
    tasks::Tasks,
};
use tokio::sync::mpsc;

use crate::{
    grpc,
    presence::{Status, Transition},
    store::Store,
};

/// Groups of transitions that wait to be told; whoever makes more waits for a place.
const QUEUE: usize = 256;
/// Groups that are told together, with one lookup.
const TOGETHER: usize = 32;
/// Events in one parcel.
const PARCEL: usize = 512;

/// Where transitions go to be told: cheap to clone.
#[derive(Clone)]
pub struct Announcer(mpsc::Sender<Vec<Transition>>);

impl Announcer {
    /// Starts the task that tells. When the tasks are stopped it tells what waits, and ends.
    #[must_use]
    pub fn start(store: Store, bus: Bus, tasks: &Tasks) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        tasks.spawn(run(store, bus, receiver, tasks.stopping()));
        Self(sender)
    }

    /// An announcer whose transitions come out of the receiver, for tests.
    #[must_use]
    pub fn to_channel() -> (Self, mpsc::Receiver<Vec<Transition>>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self(sender), receiver)
    }

    /// Has transitions told, in their order. Waits while too many others do.
    pub async fn tell(&self, transitions: Vec<Transition>) {
        for transition in &transitions {
            metrics::counter!("presence_transitions_total", "state" => transition.status.state.as_str()).increment(1);
        }
        // Fails only when the process is stopping; then the store hands them out again.
        if !transitions.is_empty() && self.0.send(transitions).await.is_err() {
            tracing::debug!("presence changes were not told: the service is stopping");
        }
    }
}

async fn run(
    store: Store,
    bus: Bus,
    mut receiver: mpsc::Receiver<Vec<Transition>>,
    stopping: impl Future<Output = ()>,
) {
    tokio::pin!(stopping);
    let mut stopped = false;
    loop {
        let mut groups = Vec::new();
        tokio::select! {
            count = receiver.recv_many(&mut groups, TOGETHER) => {
                if count == 0 {
                    return;
                }
                let transitions = newest(groups.into_iter().flatten());
                for chunk in transitions.chunks(PARCEL) {
                    tell(&store, &bus, chunk).await;
                }
            }
            () = &mut stopping, if !stopped => {
                stopped = true;
                receiver.close();
            }
        }
    }
}

/// The newest transition of each user: an older one says nothing any more.
fn newest(transitions: impl Iterator<Item = Transition>) -> Vec<Transition> {
    let mut newest: BTreeMap<UserId, Status> = BTreeMap::new();
    for Transition { user, status } in transitions {
        let known = newest.entry(user).or_insert(status);
        if known.version < status.version {
            *known = status;
        }
    }
    newest.into_iter().map(|(user, status)| Transition { user, status }).collect()
}

async fn tell(store: &Store, bus: &Bus, transitions: &[Transition]) {
    let topics: Vec<Topic> = transitions.iter().map(|transition| Topic::Presence(transition.user)).collect();
    let parcels = match store.lookup(&topics).await {
        Ok(located) if !located.unknown => parcels(transitions, &located.served),
        // Nobody can say who watches them.
        _ => vec![(To::All, transitions.iter().map(encode).collect())],
    };
    let publishes = parcels.into_iter().map(|(to, events)| {
        let body = event::Parcel { events }.encode_to_vec().into();
        bus.publish(to, bus::Parcel { body, traceparent: None })
    });
    // All are handed over before the first is waited for: the order of calls is the order of arrival.
    let published = join_all(publishes.collect::<Vec<_>>()).await;
    let outcome = match published.into_iter().find_map(Result::err) {
        None => store.said(transitions).await,
        Some(error) => {
            let users = transitions.len();
            tracing::warn!(error = %error, users, "presence changes were not published; they come again");
            store.unsaid(transitions).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, "the store does not know which presence changes were published");
    }
}

/// One parcel per gateway that watches any of them.
fn parcels(transitions: &[Transition], served: &[Vec<BootId>]) -> Vec<(To, Vec<Bytes>)> {
    let mut by_boot: HashMap<BootId, Vec<Bytes>> = HashMap::new();
    for (transition, boots) in transitions.iter().zip(served).filter(|(_, boots)| !boots.is_empty()) {
        let event = encode(transition);
        for boot in boots {
            by_boot.entry(*boot).or_default().push(event.clone());
        }
    }
    by_boot.into_iter().map(|(boot, events)| (To::Gateway(boot), events)).collect()
}

fn encode(transition: &Transition) -> Bytes {
    let presence: v1::Presence = grpc::presence(transition.user, &transition.status);
    event::Event { kind: Some(event::event::Kind::Presence(presence)) }.encode_to_vec().into()
}
