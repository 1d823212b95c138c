//! The bus of a cluster: RabbitMQ over two connections, one to publish and one to consume, because a broker under an
//! alarm blocks whole connections that publish.
//!
//! lapin's own queues have no bound and its own recovery gives up, so neither is relied on: what is unconfirmed is
//! bounded here, deliveries by prefetch, and connections are kept by [`link`]. Every wait for the broker has a deadline.

mod dead;
mod link;
mod publisher;
mod ready;
mod subscription;
mod topology;
mod wire;
mod work;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use lapin::uri::AMQPUri;
use tokio::sync::{mpsc, oneshot, watch};
use uuid::Uuid;

pub(super) use self::work::Delivered;
use self::{
    link::Link,
    publisher::Publisher,
    ready::Ready,
    subscription::{InboxQueue, Subscription, WorkQueue},
    topology::Names,
};
use super::{Consumer, Depth, Inbox, Parcel, To, consume::Source, pending::Pending};
use crate::{id::BootId, tasks::Tasks};

/// How long any single word to the broker may take.
const BROKER: Duration = Duration::from_secs(5);
/// How long [`super::Bus::inbox`] waits until the inbox receives.
const FIRST_BIND: Duration = Duration::from_secs(10);
/// Parcels between the connection and the reader; what is not acknowledged yet is bounded by the prefetch besides.
const ITEMS: usize = 1_024;
/// Events between the connection and the consumer, beside those that it holds.
const WORKS: usize = 1;

/// A handle to the connections to the broker. They live until the tasks are stopped.
#[derive(Clone)]
pub struct Amqp(Arc<Shared>);

struct Shared {
    publisher: Publisher,
    reading: Link,
    ready: Ready,
    names: Arc<Names>,
    tasks: Tasks,
}

impl Amqp {
    pub(super) fn new(url: &str, name: &str, tasks: &Tasks) -> anyhow::Result<Self> {
        // The parser's error may repeat the URL, and with it the password.
        let uri: AMQPUri = url.parse().ok().context("the URL of the bus is not a valid amqp: URL")?;
        let names = Arc::new(Names::of(url)?);
        let ready = Ready::new();
        let publishing = Link::start(&uri, format!("{name} publish"), tasks);
        let publisher = Publisher::start(publishing, Arc::clone(&names), ready.part(), tasks);
        let reading = Link::start(&uri, format!("{name} consume"), tasks);
        Ok(Self(Arc::new(Shared { publisher, reading, ready, names, tasks: tasks.clone() })))
    }

    pub(super) fn publish(&self, to: To, parcel: Parcel) -> Pending {
        self.0.publisher.publish(to, parcel)
    }

    pub(super) fn emit(&self, id: Uuid, parcel: Parcel) -> Pending {
        self.0.publisher.emit(id, parcel)
    }

    pub(super) async fn inbox(&self, boot: BootId) -> Inbox {
        let (items, receiver) = mpsc::channel(ITEMS);
        let (bound, is_bound) = oneshot::channel();
        let inbox = InboxQueue { boot, names: Arc::clone(&self.0.names), items, bound: Some(bound), connections: 0 };
        let (link, part) = (self.0.reading.clone(), self.0.ready.part());
        self.0.tasks.spawn_until_stop(Subscription::Inbox(inbox).keep(link, part));
        // Too late or stopping: the reader is told by `Renewed`, or by the end.
        let _ = tokio::time::timeout(FIRST_BIND, is_bound).await;
        Inbox::new(receiver, &self.0.tasks)
    }

    pub(super) fn consume(&self, group: &'static str) -> Consumer {
        let (works, receiver) = mpsc::channel(WORKS);
        let queue = WorkQueue { group, names: Arc::clone(&self.0.names), works };
        let (link, part) = (self.0.reading.clone(), self.0.ready.part());
        self.0.tasks.spawn_until_stop(Subscription::Work(queue).keep(link, part));
        Consumer::new(Source::Amqp(receiver), &self.0.tasks)
    }

    pub(super) async fn depth(&self, group: &str) -> anyhow::Result<Depth> {
        dead::depth(self.0.reading.clone(), &self.0.names, group).await
    }

    pub(super) async fn replay(&self, group: &str) -> anyhow::Result<u64> {
        dead::replay(self.0.reading.clone(), &self.0.names, group).await
    }

    pub(super) fn ready_changes(&self) -> watch::Receiver<bool> {
        self.0.ready.changes()
    }

    pub(super) fn lose(&self, to: To) {
        self.0.publisher.lose(to);
    }
}
