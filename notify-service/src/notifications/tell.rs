//! Tells the connections of users what is new in their lists. Whoever is not connected sees it in the list later; so does
//! whoever is told nothing because the broker or the directory had trouble at that moment.

use std::time::Duration;

use futures_util::future::join_all;
use parlance_proto::{
    event::{Addressed, Event, Parcel, UserEvent, event, user_event},
    presence::directory_client::DirectoryClient,
};
use prost::Message as _;
use service_kit::{
    address,
    bus::{self, Bus},
    id::{Topic, UserId},
    rpc::Client,
    tasks::Tasks,
};
use tokio::sync::mpsc;

/// Groups that wait to be told; of more, nobody is told.
const QUEUE: usize = 256;
/// Events in one parcel.
const PARCEL: usize = 512;
/// How long the broker has to take a parcel.
const PUBLISH: Duration = Duration::from_secs(5);

/// What is new for a user.
pub(crate) type Told = (UserId, user_event::Kind);

/// Where what is new goes to be told. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Teller(mpsc::Sender<Vec<Told>>);

impl Teller {
    /// Starts the task that tells.
    pub(crate) fn start(bus: Bus, directory: DirectoryClient<Client>, tasks: &Tasks) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Vec<Told>>(QUEUE);
        tasks.spawn_until_stop(async move {
            while let Some(group) = receiver.recv().await {
                for chunk in group.chunks(PARCEL) {
                    publish(&bus, &directory, chunk).await;
                }
            }
        });
        Self(sender)
    }

    /// Tells nobody.
    #[must_use]
    pub fn silent() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Has it told. Does not wait.
    pub(crate) fn tell(&self, group: Vec<Told>) {
        if !group.is_empty() && self.0.try_send(group).is_err() {
            metrics::counter!("notify_untold_total").increment(1);
        }
    }
}

async fn publish(bus: &Bus, directory: &DirectoryClient<Client>, group: &[Told]) {
    let events: Vec<Addressed> = group.iter().map(addressed).collect();
    let parcels = address::by_gateway(directory, &events.iter().collect::<Vec<_>>()).await;
    let published = parcels.into_iter().map(|(to, events)| {
        let body = Parcel { events }.encode_to_vec().into();
        bus.publish(to, bus::Parcel { body, traceparent: None })
    });
    let published = join_all(published.collect::<Vec<_>>());
    let told =
        tokio::time::timeout(PUBLISH, published).await.is_ok_and(|published| published.iter().all(Result::is_ok));
    if !told {
        metrics::counter!("notify_untold_total").increment(1);
    }
}

fn addressed((user, kind): &Told) -> Addressed {
    let event = UserEvent { user: user.to_wire(), kind: Some(kind.clone()), ..UserEvent::default() };
    let event = Event { kind: Some(event::Kind::User(event)) }.encode_to_vec().into();
    Addressed { topic: Topic::User(*user).to_wire(), event }
}
