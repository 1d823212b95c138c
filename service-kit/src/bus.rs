//! Four verbs between services: publish to the inboxes of gateways, emit to workers, read one's inbox, consume.
//!
//! The contract, the same on both backends (`tests/it/bus.rs` runs on each):
//! - **publish** is fast and may lose. It reaches the inboxes that exist at that moment, in the order of the calls; nobody
//!   there is no failure. Whatever a reader did not get it hears of as [`Arrival::Lost`] within seconds: every sender
//!   numbers what it sends to a destination, and repeats the last number every 2 s while it has nothing to say.
//! - **emit** is durable on `amqp:`, lives as long as the process on `memory:`, and reaches one consumer of each group
//!   at least once. Consumers know an event by its id.
//! - **inbox** belongs to one boot of one gateway and ends with it. After a broken connection it is a new one, which
//!   [`Arrival::Renewed`] says once it receives again.
//! - Nothing waits without a deadline and nothing queues without a bound.

mod amqp;
mod consume;
mod counters;
mod inbox;
mod memory;
mod numbers;
mod pending;

use std::{future::Future, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use self::{amqp::Amqp, memory::Memory};
pub use self::{
    consume::{Consumer, Work},
    inbox::Inbox,
};
use crate::{id::BootId, tasks::Tasks};

/// How long a publish or an emit may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// Parcels and events that are sent and not confirmed, per process. One more fails at once.
const MAX_UNCONFIRMED: usize = 8_192;
/// Their bytes.
const MAX_UNCONFIRMED_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that wait in one inbox before the oldest, or newest on `memory:`, are dropped.
const MAX_INBOX_BYTES: usize = 64 * 1024 * 1024;
/// Parcels on their way into one reader.
const MAX_INBOX: usize = 8_192;
/// Failed deliveries of an event before it is put aside as dead: it is delivered once more often than this.
const DELIVERY_LIMIT: u32 = 5;

/// A way between services: cheap to clone, the same numbers in every clone.
#[derive(Clone)]
pub enum Bus {
    /// Inside one process: clones reach each other, two connects do not.
    Memory(Memory),
    /// RabbitMQ 3.10 or newer.
    Amqp(Amqp),
}

/// Who is to get a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum To {
    /// The inbox of this boot of a gateway.
    Gateway(BootId),
    /// Every inbox.
    All,
}

/// What is sent to inboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parcel {
    /// Encoded by the sender; the bus does not look inside.
    pub body: Bytes,
    /// The trace that it belongs to.
    pub traceparent: Option<String>,
}

/// What an inbox yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A parcel.
    Parcel(Parcel),
    /// Something may be missing before what comes next: a jump of the numbers, 6 s of silence of a known sender.
    Lost,
    /// The inbox is a new one and receives from now on: everything since the last arrival may be missing.
    Renewed,
}

/// What is in the queues of a group of consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Events that wait, those that are with a consumer not counted on `amqp:`.
    pub waiting: u64,
    /// Events that no consumer could handle. None are kept on `memory:`.
    pub dead: u64,
}

/// Why something was not published. Whether it arrived nevertheless is not known, but after `Overloaded`: it did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpublished {
    /// Too much is unconfirmed; nothing was sent.
    #[error("too much is waiting for the broker")]
    Overloaded,
    /// Not confirmed within the deadline.
    #[error("the broker did not confirm in time")]
    TimedOut,
    /// The broker said no, or no queue takes the event.
    #[error("the broker refused it")]
    Refused,
    /// The connection broke before the confirmation.
    #[error("the connection to the broker broke")]
    Disconnected,
}

impl Bus {
    /// Makes a bus of the backend that `url` names: `memory:`, or `amqp://` and `amqps://` of RabbitMQ, where `?prefix=x`
    /// puts another word than `parlance` before the names of exchanges and queues. `name` is shown in the broker's
    /// list of connections.
    ///
    /// Connects in the background, for ever: a process may start before its broker, and is not ready until then.
    ///
    /// # Errors
    /// When the URL is not one of these.
    pub async fn connect(url: &str, name: &str, tasks: &Tasks) -> anyhow::Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("memory") => Ok(Self::Memory(Memory::new(tasks))),
            Some("amqp" | "amqps") => Ok(Self::Amqp(Amqp::new(url, name, tasks)?)),
            // The URL may carry a password: it is not repeated.
            _ => anyhow::bail!("the URL of the bus is neither memory: nor amqp: nor amqps:"),
        }
    }

    /// Sends a parcel to inboxes. The call itself gives it its number and hands it over, so that the order of calls
    /// is the order of arrival; the future resolves once the broker has it. Nobody there is no failure.
    ///
    /// # Errors
    /// See [`Unpublished`]; `Overloaded` above 8,192 parcels or 64 MiB unconfirmed, `TimedOut` after 2 s.
    pub fn publish(&self, to: To, parcel: Parcel) -> impl Future<Output = Result<(), Unpublished>> + Send + use<> {
        match self {
            Self::Memory(memory) => memory.publish(to, parcel),
            Self::Amqp(amqp) => amqp.publish(to, parcel),
        }
        .outcome()
    }

    /// Gives an event to workers: to one consumer of every group. On `amqp:` resolves once it is stored. On `memory:`
    /// once the consumers have settled it, at once when there is no group; emitting an id anew that is still waiting
    /// joins it.
    ///
    /// # Errors
    /// As [`Bus::publish`], and `Refused` when no queue takes it.
    pub fn emit(&self, id: Uuid, parcel: Parcel) -> impl Future<Output = Result<(), Unpublished>> + Send + use<> {
        match self {
            Self::Memory(memory) => memory.emit(id, parcel),
            Self::Amqp(amqp) => amqp.emit(id, parcel),
        }
        .outcome()
    }

    /// Opens the inbox of this boot. Returns when it receives; on a broker that is away for longer than 10 s it returns
    /// nevertheless, and [`Arrival::Renewed`] tells when it does.
    ///
    /// # Errors
    /// When this bus has an inbox for this boot already (`memory:` only; a broker ends the older one).
    pub async fn inbox(&self, boot: BootId) -> anyhow::Result<Inbox> {
        match self {
            Self::Memory(memory) => memory.inbox(boot).context("there is an inbox for this boot already"),
            Self::Amqp(amqp) => Ok(amqp.inbox(boot).await),
        }
    }

    /// Consumes events as one of `group`; each event goes to one of them. Returns at once; on `amqp:` events of a time
    /// before the first consumer of the group are lost unless the group is `notify`, whose queue is made by senders too.
    ///
    /// # Errors
    /// None so far.
    pub async fn consume(&self, group: &'static str) -> anyhow::Result<Consumer> {
        match self {
            Self::Memory(memory) => Ok(memory.consume(group)),
            Self::Amqp(amqp) => Ok(amqp.consume(group)),
        }
    }

    /// Counts what is in the queues of a group.
    ///
    /// # Errors
    /// When the broker does not answer within seconds, or has no such group.
    pub async fn depth(&self, group: &str) -> anyhow::Result<Depth> {
        match self {
            Self::Memory(memory) => Ok(memory.depth(group)),
            Self::Amqp(amqp) => amqp.depth(group).await,
        }
    }

    /// Gives the dead events of a group back to its workers, and tells how many there were. One that dies again is dead
    /// again.
    ///
    /// # Errors
    /// When the broker does not do it; what was moved before stays so.
    pub async fn replay(&self, group: &str) -> anyhow::Result<u64> {
        match self {
            Self::Memory(_) => Ok(0),
            Self::Amqp(amqp) => amqp.replay(group).await,
        }
    }

    /// Whether everything is connected: what publishes, every inbox, every consumer.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready_changes().borrow()
    }

    /// Follows [`Bus::is_ready`].
    #[must_use]
    pub fn ready_changes(&self) -> watch::Receiver<bool> {
        match self {
            Self::Memory(memory) => memory.ready_changes(),
            Self::Amqp(amqp) => amqp.ready_changes(),
        }
    }

    /// Takes a number and sends nothing, as if the parcel had been lost on its way. For tests of the repair.
    #[doc(hidden)]
    pub fn lose(&self, to: To) {
        match self {
            Self::Memory(memory) => memory.lose(to),
            Self::Amqp(amqp) => amqp.lose(to),
        }
    }
}
