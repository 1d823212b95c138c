//! What a transaction has to tell gateways and workers: stored with it, published after it, never lost.
//!
//! A row is inserted as claimed by its maker for [`CLAIM_MS`]; it goes when everything was confirmed. Whatever dies in
//! between, a sweeper of any replica takes the row when the claim has run out. In chat-service only this file and those
//! below it publish: `publisher` to gateways, then `workers`.

mod publisher;
mod sweeper;
mod workers;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use parlance_proto::{
    event::{Addressed, Batch, Event, MeChanged, Privacy, Receipt, RoomEvent, UserEvent, event},
    presence::directory_client::DirectoryClient,
};
use prost::Message;
use service_kit::{
    bus::Bus,
    db::{Db, Tx},
    id::{RoomId, Topic, UserId},
    on_tx,
    rpc::Client,
    tasks::Tasks,
    telemetry,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use crate::error::Result;

/// How long the maker of a row, or who took it over, has for publishing it.
pub(crate) const CLAIM_MS: i64 = 2_000;
/// Announcements that wait to be published; more stay in their rows for the sweeper.
const WAITING: usize = 4_096;
/// Their bytes, in KiB.
const WAITING_KIB: usize = 32 * 1024;

/// The events of one transaction, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announcement {
    events: Vec<Addressed>,
}

impl Announcement {
    /// Nothing to tell yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A durable change of a room, for its members.
    pub(crate) fn room(&mut self, room: RoomId, event: RoomEvent) {
        self.push(Topic::Room(room), event::Kind::Room(event));
    }

    /// A change of a user's own affairs, for that user's connections.
    pub(crate) fn user(&mut self, user: UserId, event: UserEvent) {
        self.push(Topic::User(user), event::Kind::User(event));
    }

    /// A member's cursor moved, for the room.
    pub(crate) fn receipt(&mut self, room: RoomId, receipt: Receipt) {
        self.push(Topic::Room(room), event::Kind::Receipt(receipt));
    }

    /// A member's own state in a room changed, for that user's connections.
    pub(crate) fn me(&mut self, user: UserId, me: MeChanged) {
        let kind = Some(parlance_proto::event::user_event::Kind::Me(me));
        self.user(user, UserEvent { user: user.to_wire(), kind, ..UserEvent::default() });
    }

    /// Who may follow a user's presence has changed, for those who do.
    pub(crate) fn privacy(&mut self, user: UserId) {
        self.push(Topic::Presence(user), event::Kind::Privacy(Privacy { user: user.to_wire() }));
    }

    /// Whether there is nothing to tell.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    fn push(&mut self, topic: Topic, kind: event::Kind) {
        let event = Event { kind: Some(kind) }.encode_to_vec();
        self.events.push(Addressed { topic: topic.to_wire(), event: event.into() });
    }
}

/// An announcement that its transaction has stored and that is to be published once that has committed.
#[derive(Debug)]
#[must_use = "publish it after the commit, or the sweeper has to"]
pub(crate) struct Stored {
    batch: Batch,
}

/// The outbox row of an announcement.
#[derive(Debug)]
pub(crate) struct Row {
    /// Also the id of the event for workers.
    pub(crate) id: Uuid,
    /// An encoded `Batch`.
    pub(crate) encoded: Vec<u8>,
}

/// Publishes announcements. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox(Arc<Inner>);

struct Inner {
    db: Db,
    bus: Bus,
    directory: DirectoryClient<Client>,
    waiting: mpsc::Sender<Waiting>,
    /// One permit for each KiB that may wait.
    room: Arc<Semaphore>,
    /// Rows that are published and may go. A plain lock, held for a push or a take.
    published: Mutex<Vec<Uuid>>,
    /// While this file exists nothing is published: tests stop here between commit and publish.
    hold: Option<PathBuf>,
}

/// An announcement on its way to the publisher.
struct Waiting {
    batch: Batch,
    room: OwnedSemaphorePermit,
}

impl Outbox {
    /// Starts the publishers and the sweeper.
    #[must_use]
    pub(crate) fn start(
        db: Db,
        bus: Bus,
        directory: DirectoryClient<Client>,
        hold: Option<PathBuf>,
        tasks: &Tasks,
    ) -> Self {
        let (waiting, queue) = mpsc::channel(WAITING);
        let room = Arc::new(Semaphore::new(WAITING_KIB));
        let outbox = Self(Arc::new(Inner { db, bus, directory, waiting, room, published: Mutex::default(), hold }));
        let (published, workers) = mpsc::channel(workers::QUEUED);
        tasks.spawn_until_stop(outbox.clone().publish_all(queue, published));
        tasks.spawn_until_stop(outbox.clone().emit_all(workers));
        tasks.spawn_until_stop(outbox.clone().sweep_all());
        outbox
    }

    /// Stores an announcement in the transaction that it tells of.
    ///
    /// # Errors
    /// When the database does not take it.
    pub(crate) async fn store(&self, tx: &mut Tx, announcement: Announcement) -> Result<Stored> {
        let (stored, row) = prepare(announcement);
        insert(tx, &row).await?;
        Ok(stored)
    }

    /// Publishes what a committed transaction has stored, in the order of the calls. Does not wait: what cannot be
    /// taken now stays in its row.
    pub(crate) fn publish(&self, stored: Stored) {
        if !self.queue(stored.batch) {
            metrics::counter!("outbox_left_to_sweeper_total").increment(1);
        }
    }

    /// Publishes what nobody misses when it is lost: receipts, own cursors.
    pub(crate) fn publish_droppable(&self, announcement: Announcement) {
        if announcement.is_empty() {
            return;
        }
        let batch = Batch { id: Bytes::new(), events: announcement.events, traceparent: String::new() };
        if !self.queue(batch) {
            metrics::counter!("outbox_dropped_total").increment(1);
        }
    }

    /// Queues it for the publisher, when there is room for it.
    fn queue(&self, batch: Batch) -> bool {
        let room = Arc::clone(&self.0.room).try_acquire_many_owned(kib(&batch));
        room.is_ok_and(|room| self.0.waiting.try_send(Waiting { batch, room }).is_ok())
    }

    /// Rows that are published and may be deleted; give them back with [`Outbox::give_back`] when that fails.
    #[must_use]
    pub(crate) fn take_published(&self) -> Vec<Uuid> {
        std::mem::take(&mut *self.0.published.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns rows that could not be deleted.
    pub(crate) fn give_back(&self, mut rows: Vec<Uuid>) {
        self.0.published.lock().unwrap_or_else(PoisonError::into_inner).append(&mut rows);
    }
}

/// Makes the row of an announcement, and what is to be published once that row is committed.
pub(crate) fn prepare(announcement: Announcement) -> (Stored, Row) {
    let id = Uuid::now_v7();
    let batch = Batch {
        id: Bytes::copy_from_slice(id.as_bytes()),
        events: announcement.events,
        traceparent: telemetry::current_traceparent().unwrap_or_default(),
    };
    let encoded = batch.encode_to_vec();
    (Stored { batch }, Row { id, encoded })
}

/// Inserts a row, claimed by its maker.
///
/// # Errors
/// When the database does not take it.
pub(crate) async fn insert(tx: &mut Tx, row: &Row) -> sqlx::Result<()> {
    let sql = if tx.is_postgres() { INSERT_POSTGRES } else { INSERT_SQLITE };
    on_tx!(tx, c => sqlx::query(sql).bind(row.id).bind(CLAIM_MS).bind(&row.encoded).execute(c).await.map(|_| ()))
}

/// Deletes published rows inside a transaction.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn delete(tx: &mut Tx, rows: &[Uuid]) -> sqlx::Result<()> {
    match tx {
        Tx::Postgres(tx) => {
            sqlx::query("delete from outbox where id = any($1)").bind(rows).execute(&mut **tx).await?;
        }
        Tx::Sqlite(tx) => {
            for row in rows {
                sqlx::query("delete from outbox where id = $1").bind(row).execute(&mut **tx).await?;
            }
        }
    }
    Ok(())
}

/// What a batch weighs, rounded up. One that is larger than all that may wait, waits alone.
fn kib(batch: &Batch) -> u32 {
    let bytes: usize = batch.events.iter().map(|event| event.event.len() + event.topic.len()).sum();
    u32::try_from((bytes / 1024 + 1).min(WAITING_KIB)).unwrap_or(u32::MAX)
}

fn row_id(batch: &Batch) -> Uuid {
    Uuid::from_slice(&batch.id).unwrap_or_default()
}

const INSERT_POSTGRES: &str = "insert into outbox (id, claimed_until, batch)
    values ($1, (extract(epoch from clock_timestamp()) * 1000)::bigint + $2, $3)";
const INSERT_SQLITE: &str = "insert into outbox (id, claimed_until, batch)
    values ($1, cast(unixepoch('subsec') * 1000 as integer) + $2, $3)";
