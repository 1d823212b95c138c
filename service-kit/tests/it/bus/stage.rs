//! Where a story takes place: a backend of its own, and verbs to tell it with.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use lapin::{Connection, ConnectionProperties, options, uri::AMQPUri};
use service_kit::{
    bus::{Arrival, Bus, Consumer, Inbox, Parcel, To, Unpublished, Work},
    id::BootId,
    tasks::Tasks,
};
use tokio::time::timeout;
use uuid::Uuid;

/// How long a story waits for something that is to happen. Generous: it is only waited for in full by failures.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Parcels that a story has on their way at a time, far below what a bus holds.
const WINDOW: u64 = 1_000;

/// One story's bus, apart from those of the stories beside it.
pub(super) struct Stage {
    pub(super) url: String,
    pub(super) tasks: Tasks,
}

impl Stage {
    pub(super) fn memory() -> Self {
        Self { url: "memory:".to_owned(), tasks: Tasks::new() }
    }

    /// `None` when no broker is given, which fails where backends are required.
    #[allow(clippy::disallowed_methods, reason = "tests are switched on by the environment")]
    pub(super) fn amqp() -> Option<Self> {
        let Ok(url) = std::env::var("PARLANCE_TEST_AMQP_URL") else {
            assert!(std::env::var("PARLANCE_TEST_REQUIRED").is_err(), "PARLANCE_TEST_AMQP_URL is not set");
            return None;
        };
        let glue = if url.contains('?') { '&' } else { '?' };
        let url = format!("{url}{glue}prefix=test-{}", Uuid::new_v4().simple());
        Some(Self { url, tasks: Tasks::new() })
    }

    /// The same broker seen through `port` of this machine, with a heartbeat that notices a frozen one in seconds.
    pub(super) fn url_through(&self, port: u16) -> String {
        let uri: AMQPUri = self.url.parse().unwrap();
        let (user, vhost) = (&uri.authority.userinfo, uri.vhost.replace('/', "%2f"));
        let prefix = self.prefix();
        format!("amqp://{}:{}@127.0.0.1:{port}/{vhost}?heartbeat=1&prefix={prefix}", user.username, user.password)
    }

    pub(super) fn prefix(&self) -> &str {
        self.url.split_once("prefix=").unwrap().1
    }

    /// A bus that is ready.
    pub(super) async fn bus(&self) -> Bus {
        self.bus_at(&self.url, &self.tasks).await
    }

    pub(super) async fn bus_at(&self, url: &str, tasks: &Tasks) -> Bus {
        let bus = Bus::connect(url, "story", tasks).await.unwrap();
        is_ready(&bus, true).await;
        bus
    }

    /// A channel to look at the broker with.
    pub(super) async fn channel(&self) -> lapin::Channel {
        let connection = Connection::connect(&self.url, ConnectionProperties::default()).await.unwrap();
        connection.create_channel().await.unwrap()
    }

    /// Ends everything and leaves nothing at the broker.
    pub(super) async fn end(self) {
        assert!(self.tasks.shutdown(PATIENCE).await, "the bus did not stop");
        if self.url.starts_with("memory") {
            return;
        }
        let (channel, prefix) = (self.channel().await, self.prefix());
        for group in ["notify", "workers"] {
            for kind in ["work", "dead"] {
                let queue = format!("{prefix}.{kind}.{group}");
                channel.queue_delete(queue.into(), options::QueueDeleteOptions::default()).await.unwrap();
            }
        }
        for exchange in ["inbox", "events", "dead"] {
            let exchange = format!("{prefix}.{exchange}");
            channel.exchange_delete(exchange.into(), options::ExchangeDeleteOptions::default()).await.unwrap();
        }
    }
}

/// Waits until the bus is ready, or is not.
pub(super) async fn is_ready(bus: &Bus, ready: bool) {
    let mut changes = bus.ready_changes();
    timeout(PATIENCE, changes.wait_for(|now| *now == ready)).await.expect("readiness").unwrap();
}

pub(super) fn parcel(text: &str) -> Parcel {
    Parcel { body: Bytes::copy_from_slice(text.as_bytes()), traceparent: Some(format!("trace of {text}")) }
}

pub(super) async fn publishes(bus: &Bus, to: To, text: &str) {
    bus.publish(to, parcel(text)).await.unwrap();
}

/// Publishes these numbers, all of them before the first is confirmed.
pub(super) async fn publishes_all(bus: &Bus, to: To, numbers: Range<u64>) {
    let sent: Vec<_> = numbers.map(|number| bus.publish(to, parcel(&number.to_string()))).collect();
    let outcomes: Result<Vec<()>, Unpublished> = join_all(sent).await.into_iter().collect();
    outcomes.unwrap();
}

/// Publishes 0, 1, 2… to one gateway, a thousand at a time, and reads them in this order with nothing between.
pub(super) async fn publishes_and_receives(bus: &Bus, boot: BootId, inbox: &mut Inbox, count: u64) {
    for start in (0..count).step_by(usize::try_from(WINDOW).unwrap()) {
        let numbers = start..count.min(start + WINDOW);
        tokio::join!(publishes_all(bus, To::Gateway(boot), numbers.clone()), async {
            for number in numbers {
                receives(inbox, &number.to_string()).await;
            }
        });
    }
}

pub(super) async fn next(inbox: &mut Inbox) -> Arrival {
    timeout(PATIENCE, inbox.next()).await.expect("nothing arrived").expect("the bus stopped")
}

pub(super) async fn receives(inbox: &mut Inbox, text: &str) {
    assert_eq!(next(inbox).await, Arrival::Parcel(parcel(text)));
}

/// Nothing is in the inbox: what is published to it next is what comes next.
pub(super) async fn has_nothing(bus: &Bus, inbox: &mut Inbox, of: To) {
    publishes(bus, of, "the next").await;
    receives(inbox, "the next").await;
}

pub(super) async fn works(consumer: &mut Consumer) -> Work {
    timeout(PATIENCE, consumer.next()).await.expect("no event arrived").expect("the bus stopped")
}
