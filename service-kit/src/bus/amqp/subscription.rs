//! What consumes: a queue for an inbox or for a group of workers, opened anew after whatever broke it.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Consumer,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions},
    types::{DeliveryTag, FieldTable, ShortString},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, error::Elapsed, timeout},
};
use uuid::Uuid;

use super::{
    BROKER, Delivered,
    link::{Backoff, Link, Live},
    ready::Part,
    topology::{self, Names},
    wire,
};
use crate::{
    bus::{Work, consume::Ticket, inbox::Item},
    id::BootId,
};

/// Deliveries that the broker sends ahead of acknowledgements. lapin holds them in a queue without a bound of its own.
const INBOX_PREFETCH: u16 = 4_096;
/// Events that one consumer works on and has waiting.
const WORK_PREFETCH: u16 = 64;
/// An inbox acknowledges after this many deliveries, or after this long.
const ACK_EVERY: u32 = 64;
const ACK_AFTER: Duration = Duration::from_millis(50);

/// What is consumed.
pub(super) enum Subscription {
    Inbox(InboxQueue),
    Work(WorkQueue),
}

pub(super) struct InboxQueue {
    pub(super) boot: BootId,
    pub(super) names: Arc<Names>,
    pub(super) items: mpsc::Sender<Item>,
    /// Told at the first bind, unless nobody waits any more.
    pub(super) bound: Option<oneshot::Sender<()>>,
    /// Counts the queues, so that a new one never meets the one of a connection that the broker still believes in.
    pub(super) connections: u32,
}

pub(super) struct WorkQueue {
    pub(super) group: &'static str,
    pub(super) names: Arc<Names>,
    pub(super) works: mpsc::Sender<Work>,
}

impl Subscription {
    /// Consumes until the reader is gone or the link is.
    pub(super) async fn keep(mut self, link: Link, ready: Part) {
        match &self {
            Self::Inbox(inbox) => {
                let items = inbox.items.clone();
                tokio::select! {
                    () = items.closed() => {}
                    () = self.consume_all(link, ready) => {}
                }
            }
            Self::Work(work) => {
                let works = work.works.clone();
                tokio::select! {
                    () = works.closed() => {}
                    () = self.consume_all(link, ready) => {}
                }
            }
        }
    }

    /// Consumes on one connection after the other.
    async fn consume_all(&mut self, mut link: Link, ready: Part) {
        let mut backoff = Backoff::new();
        while let Some(live) = link.live().await {
            let consumed = match self {
                Self::Inbox(inbox) => inbox.consume(&live, &ready).await,
                Self::Work(work) => work.consume(&live, &ready).await,
            };
            ready.set(false);
            match consumed {
                Ok(()) => backoff = Backoff::new(),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "cannot consume; trying on");
                    // Another channel may do better, unless the connection itself is stuck.
                    if error.is::<Elapsed>() {
                        live.give_up();
                    }
                }
            }
            drop(live);
            backoff.pause().await;
        }
    }
}

impl InboxQueue {
    /// Until its channel ends, or the broker does not take an acknowledgement in time.
    async fn consume(&mut self, live: &Arc<Live>, ready: &Part) -> anyhow::Result<()> {
        self.connections += 1;
        let channel = live.channel().await?;
        let queue = topology::declare_inbox(&channel, &self.names, self.boot, self.connections).await?;
        let consumer = start(&channel, queue, INBOX_PREFETCH).await?;
        // Whoever waits for the first bind knows nothing of a time before. All others are told that there was one.
        let awaited = self.bound.take().is_some_and(|bound| bound.send(()).is_ok());
        if !awaited && self.items.send(Item::Renewed).await.is_err() {
            return Ok(());
        }
        ready.set(true);
        self.forward(&channel, consumer).await
    }

    async fn forward(&self, channel: &Channel, mut consumer: Consumer) -> anyhow::Result<()> {
        let mut unacknowledged: u32 = 0;
        let mut last: DeliveryTag = 0;
        let mut flush = tokio::time::interval(ACK_AFTER);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = flush.tick() => {}
                delivery = consumer.next() => {
                    let Some(Ok(delivery)) = delivery else { return Ok(()) };
                    last = delivery.delivery_tag;
                    unacknowledged += 1;
                    let Some(frame) = wire::frame(delivery) else {
                        tracing::warn!("something that is not of this bus arrived in an inbox");
                        continue;
                    };
                    if self.items.send(Item::Frame(frame)).await.is_err() {
                        return Ok(());
                    }
                    if unacknowledged < ACK_EVERY {
                        continue;
                    }
                }
            }
            if unacknowledged > 0 {
                timeout(BROKER, channel.basic_ack(last, BasicAckOptions { multiple: true })).await??;
                unacknowledged = 0;
            }
        }
    }
}

impl WorkQueue {
    /// Until its channel ends.
    async fn consume(&self, live: &Arc<Live>, ready: &Part) -> anyhow::Result<()> {
        let channel = live.channel().await?;
        let queue = topology::declare_group(&channel, &self.names, self.group).await?;
        let mut consumer = start(&channel, queue, WORK_PREFETCH).await?;
        ready.set(true);
        while let Some(Ok(delivery)) = consumer.next().await {
            let Some(id) = wire::event_id(&delivery.properties) else {
                tracing::error!("something that is not an event arrived and is put aside as dead");
                timeout(BROKER, delivery.reject(BasicRejectOptions { requeue: false })).await??;
                continue;
            };
            if self.works.send(work(id, delivery, &channel, live)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn work(id: Uuid, delivery: Delivery, channel: &Channel, live: &Arc<Live>) -> Work {
    let traceparent = wire::traceparent(&delivery.properties);
    Work {
        id,
        body: delivery.data.into(),
        traceparent,
        redelivered: delivery.redelivered,
        ticket: Ticket::Amqp(Delivered::new(delivery.acker, channel.clone(), Arc::clone(live))),
    }
}

async fn start(channel: &Channel, queue: ShortString, prefetch: u16) -> anyhow::Result<Consumer> {
    timeout(BROKER, channel.basic_qos(prefetch, BasicQosOptions::default())).await??;
    // Without a tag the broker makes one.
    let consume = channel.basic_consume(queue, "".into(), BasicConsumeOptions::default(), FieldTable::default());
    Ok(timeout(BROKER, consume).await??)
}
