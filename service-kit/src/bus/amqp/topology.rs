//! What is declared at the broker, and how it is called.

use anyhow::Context;
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, ShortString},
};
use tokio::time::timeout;

use super::BROKER;
use crate::{
    bus::{DELIVERY_LIMIT, Depth, MAX_INBOX_BYTES},
    id::BootId,
};

/// First word of all names, unless the URL says otherwise.
const PREFIX: &str = "parlance";
/// Longest first word.
const MAX_PREFIX: usize = 64;
/// Routing key of everything that is emitted.
pub(super) const BATCH: &str = "batch";
/// Routing key that every inbox is bound with besides its boot.
pub(super) const ALL: &str = "all";
/// The group whose queue senders declare too, so that an event is never without one.
pub(super) const FIRST_GROUP: &str = "notify";
/// Dead events that are kept for the operator; the oldest go first.
const MAX_DEAD: i32 = 100_000;

/// The names of one deployment at a broker.
pub(super) struct Names {
    prefix: String,
    pub(super) inbox: ShortString,
    pub(super) events: ShortString,
    dead: ShortString,
}

impl Names {
    /// Reads `prefix` from the query of the URL.
    ///
    /// # Errors
    /// When it has other characters than letters, digits, `-` and `_`, or too many.
    pub(super) fn of(url: &str) -> anyhow::Result<Self> {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix=")).unwrap_or(PREFIX);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        anyhow::ensure!(
            (1..=MAX_PREFIX).contains(&prefix.len()) && prefix.chars().all(plain),
            "the prefix in the URL of the bus is not made of at most {MAX_PREFIX} letters, digits, - and _"
        );
        Ok(Self {
            prefix: prefix.to_owned(),
            inbox: format!("{prefix}.inbox").into(),
            events: format!("{prefix}.events").into(),
            dead: format!("{prefix}.dead").into(),
        })
    }

    pub(super) fn work_queue(&self, group: &str) -> ShortString {
        format!("{}.work.{group}", self.prefix).into()
    }

    pub(super) fn dead_queue(&self, group: &str) -> ShortString {
        format!("{}.dead.{group}", self.prefix).into()
    }

    fn inbox_queue(&self, boot: BootId, connection: u32) -> ShortString {
        format!("{}.inbox.{boot}.{connection}", self.prefix).into()
    }
}

/// Declares the exchanges and the queue of the first group: what a sender needs.
///
/// # Errors
/// When the broker refuses, or does not answer in time.
pub(super) async fn declare(channel: &Channel, names: &Names) -> anyhow::Result<()> {
    exchange(channel, &names.inbox, ExchangeKind::Direct).await?;
    declare_group(channel, names, FIRST_GROUP).await?;
    Ok(())
}

/// Declares the queue of a group of consumers and where its dead go. Gives its name.
///
/// # Errors
/// As [`declare`].
pub(super) async fn declare_group(channel: &Channel, names: &Names, group: &str) -> anyhow::Result<ShortString> {
    exchange(channel, &names.events, ExchangeKind::Topic).await?;
    exchange(channel, &names.dead, ExchangeKind::Direct).await?;

    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MAX_DEAD));
    let dead = names.dead_queue(group);
    queue(channel, &dead, durable, arguments).await?;
    bind(channel, &dead, &names.dead, group).await?;

    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(i32::try_from(DELIVERY_LIMIT)?));
    arguments.insert("x-dead-letter-exchange".into(), text(names.dead.as_str()));
    arguments.insert("x-dead-letter-routing-key".into(), text(group));
    // The broker keeps a dead event until its queue has it; this strategy asks for this overflow.
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    let work = names.work_queue(group);
    queue(channel, &work, durable, arguments).await?;
    bind(channel, &work, &names.events, "#").await?;
    Ok(work)
}

/// Counts what is in the queues of a group.
///
/// # Errors
/// As [`declare`], and when there are none.
pub(super) async fn depth(channel: &Channel, names: &Names, group: &str) -> anyhow::Result<Depth> {
    let count = async |name: ShortString| {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let declared = channel.queue_declare(name.clone(), options, FieldTable::default());
        let queue = timeout(BROKER, declared).await?.with_context(|| format!("looking at the queue {name}"))?;
        anyhow::Ok(u64::from(queue.message_count()))
    };
    Ok(Depth { waiting: count(names.work_queue(group)).await?, dead: count(names.dead_queue(group)).await? })
}

/// Declares the inbox of a boot for one connection; it ends with it. Receives when this returns.
///
/// # Errors
/// As [`declare`].
pub(super) async fn declare_inbox(
    channel: &Channel,
    names: &Names,
    boot: BootId,
    connection: u32,
) -> anyhow::Result<ShortString> {
    exchange(channel, &names.inbox, ExchangeKind::Direct).await?;
    let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("classic"));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(i64::try_from(MAX_INBOX_BYTES)?));
    arguments.insert("x-overflow".into(), text("drop-head"));
    let inbox = names.inbox_queue(boot, connection);
    queue(channel, &inbox, options, arguments).await?;
    bind(channel, &inbox, &names.inbox, &boot.to_string()).await?;
    bind(channel, &inbox, &names.inbox, ALL).await?;
    Ok(inbox)
}

async fn exchange(channel: &Channel, name: &ShortString, kind: ExchangeKind) -> anyhow::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(name.clone(), kind, options, FieldTable::default());
    timeout(BROKER, declared).await?.with_context(|| format!("declaring the exchange {name}"))
}

async fn queue(
    channel: &Channel,
    name: &ShortString,
    options: QueueDeclareOptions,
    arguments: FieldTable,
) -> anyhow::Result<()> {
    let declared = channel.queue_declare(name.clone(), options, arguments);
    timeout(BROKER, declared).await?.with_context(|| format!("declaring the queue {name}"))?;
    Ok(())
}

async fn bind(channel: &Channel, queue: &ShortString, exchange: &ShortString, key: &str) -> anyhow::Result<()> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.clone(), exchange.clone(), key.into(), options, FieldTable::default());
    timeout(BROKER, bound).await?.with_context(|| format!("binding the queue {queue}"))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_is_read_from_the_url() {
        let name = |url| Names::of(url).map(|names| names.inbox.to_string()).ok();
        assert_eq!(name("amqp://host/%2f").as_deref(), Some("parlance.inbox"));
        assert_eq!(name("amqp://host/%2f?heartbeat=5&prefix=t-1").as_deref(), Some("t-1.inbox"));
        assert_eq!(name("amqp://host/%2f?prefix="), None);
        assert_eq!(name("amqp://host/%2f?prefix=a.b"), None);
    }
}
