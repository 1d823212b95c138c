//! What a transaction has to tell gateways and workers: stored with it, published after it, never lost.
//!
//! A row is inserted as claimed by its maker for [`CLAIM_MS`]; it goes when everything was confirmed. Whatever dies in
//! between, a sweeper of any replica takes the row when the claim has run out. In chat-service only this file publishes.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future;
use parlance_proto::{
    event::{Addressed, Batch, Event, MeChanged, Parcel, Privacy, Receipt, RoomEvent, UserEvent, event},
    presence::{LookupRequest, directory_client::DirectoryClient},
};
use prost::Message;
use service_kit::{
    bus::{self, Bus, To},
    db::{Db, Tx},
    id::{BootId, RoomId, Topic, UserId},
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
/// How often rows with an expired claim are looked for, and published ones are deleted at the latest.
const SWEEP: Duration = Duration::from_secs(1);
/// Rows that one sweep takes.
const SWEEP_ROWS: i64 = 64;
/// Announcements that wait to be published; more stay in their rows for the sweeper.
const WAITING: usize = 4_096;
/// Their bytes, in KiB.
const WAITING_KIB: usize = 32 * 1024;
/// Announcements that are published together.
const TOGETHER: usize = 64;
/// Groups of announcements whose confirms are outstanding.
const UNCONFIRMED: usize = 64;
/// How long the directory has to answer before events go to every gateway.
const LOOKUP: Duration = Duration::from_millis(700);

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
        self.user(user, UserEvent { user: user.to_wire(), rev: 0, kind });
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
    /// Starts the publisher and the sweeper.
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
        tasks.spawn_until_stop(outbox.clone().publish_all(queue));
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

    async fn publish_all(self, mut queue: mpsc::Receiver<Waiting>) {
        let unconfirmed = Arc::new(Semaphore::new(UNCONFIRMED));
        let mut waiting = Vec::with_capacity(TOGETHER);
        let confirms = Tasks::new();
        while queue.recv_many(&mut waiting, TOGETHER).await > 0 {
            self.hold().await;
            let Ok(permit) = Arc::clone(&unconfirmed).acquire_owned().await else { return };
            let (batches, rooms): (Vec<Batch>, Vec<_>) =
                waiting.drain(..).map(|waiting| (waiting.batch, waiting.room)).unzip();
            let confirmed = self.publish_together(batches).await;
            // From here on the bus bounds what is on its way.
            drop(rooms);
            let outbox = self.clone();
            confirms.spawn(async move {
                let rows = confirmed.await;
                outbox.0.published.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
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

    /// Hands everything to the broker in order; the future that comes back waits for the confirms and gives the rows
    /// that are done.
    async fn publish_together(&self, batches: Vec<Batch>) -> impl Future<Output = Vec<Uuid>> + Send + use<> {
        let traceparent = batches.iter().map(|batch| &batch.traceparent).find(|text| !text.is_empty()).cloned();
        let parcels = self.address(&batches).await;
        let inboxes: Vec<_> = parcels
            .into_iter()
            .map(|(to, events)| {
                let body = Parcel { events }.encode_to_vec().into();
                self.0.bus.publish(to, bus::Parcel { body, traceparent: traceparent.clone() })
            })
            .collect();
        let rows: Vec<Uuid> = batches.iter().filter(|batch| !batch.id.is_empty()).map(row_id).collect();
        let workers: Vec<_> = batches
            .iter()
            .filter(|batch| !batch.id.is_empty())
            .map(|batch| {
                let parcel = bus::Parcel { body: batch.encode_to_vec().into(), traceparent: traceparent.clone() };
                self.0.bus.emit(row_id(batch), parcel)
            })
            .collect();
        async move {
            let (inboxes, workers) = future::join(future::join_all(inboxes), future::join_all(workers)).await;
            if inboxes.iter().any(Result::is_err) {
                metrics::counter!("outbox_unconfirmed_total").increment(1);
                return Vec::new();
            }
            rows.into_iter().zip(workers).filter(|(_, confirmed)| confirmed.is_ok()).map(|(row, _)| row).collect()
        }
    }

    /// Sorts the events by the gateways that serve their topics: one read of the directory for all of them.
    async fn address(&self, batches: &[Batch]) -> HashMap<To, Vec<Bytes>> {
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

    async fn sweep_all(self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            loop {
                match self.sweep().await {
                    // A backlog goes at once, as long as the publisher keeps up.
                    Ok(SWEEP_ROWS) if self.0.waiting.capacity() > WAITING / 2 => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(error = %error, "the outbox could not be swept; trying again");
                        break;
                    }
                }
            }
        }
    }

    /// Deletes what is published and no transaction has taken along, then takes over rows whose claim has run out.
    /// Tells how many.
    async fn sweep(&self) -> Result<i64> {
        let rows = self.take_published();
        if !rows.is_empty()
            && let Err(error) = self.delete(&rows).await
        {
            self.give_back(rows);
            return Err(error);
        }
        if !self.0.bus.is_ready() {
            return Ok(0);
        }
        let mut tx = self.0.db.begin().await?;
        let sql = if tx.is_postgres() { CLAIM_POSTGRES } else { CLAIM_SQLITE };
        let taken: Vec<(Vec<u8>,)> =
            on_tx!(&mut tx, c => sqlx::query_as(sql).bind(CLAIM_MS).bind(SWEEP_ROWS).fetch_all(c).await)?;
        tx.commit().await?;
        let rows = i64::try_from(taken.len()).unwrap_or(SWEEP_ROWS);
        for (encoded,) in taken {
            metrics::counter!("outbox_swept_total").increment(1);
            match Batch::decode(encoded.as_slice()) {
                Ok(batch) => {
                    let Ok(room) = Arc::clone(&self.0.room).acquire_many_owned(kib(&batch)).await else {
                        return Ok(0);
                    };
                    if self.0.waiting.send(Waiting { batch, room }).await.is_err() {
                        return Ok(0);
                    }
                }
                Err(error) => tracing::error!(error = %error, "an outbox row cannot be read; it stays"),
            }
        }
        Ok(rows)
    }

    async fn delete(&self, rows: &[Uuid]) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        delete(&mut tx, rows).await?;
        tx.commit().await?;
        Ok(())
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
const CLAIM_POSTGRES: &str = "update outbox
    set claimed_until = (extract(epoch from clock_timestamp()) * 1000)::bigint + $1
    where id in (
        select id from outbox where claimed_until < (extract(epoch from clock_timestamp()) * 1000)::bigint
        order by id limit $2 for update skip locked
    )
    returning batch";
const CLAIM_SQLITE: &str = "update outbox
    set claimed_until = cast(unixepoch('subsec') * 1000 as integer) + $1
    where id in (
        select id from outbox where claimed_until < cast(unixepoch('subsec') * 1000 as integer) order by id limit $2
    )
    returning batch";
