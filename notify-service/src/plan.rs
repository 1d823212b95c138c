//! What becomes of a new message: one row for each device of each other member, looked at after the delay.
//!
//! One statement does it for a batch, however large the rooms, and gives the same rows when it is told of a message twice. Who is
//! online, muted or has read is not asked here but when the row is due: most have read by then.

use std::{sync::Arc, time::Duration};

use parlance_proto::v1::Message;
use service_kit::{
    clock,
    db::{Db, Tx},
    on_db,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::attempt::in_future;

/// Plans pushes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Planner {
    db: Db,
    delay: Duration,
    planned: Arc<Notify>,
}

impl Planner {
    /// For this database, where a push waits so long for a read elsewhere.
    #[must_use]
    pub fn new(db: Db, delay: Duration) -> Self {
        Self { db, delay, planned: Arc::default() }
    }

    /// Writes the rows of these messages. Tells how many are new.
    ///
    /// # Errors
    /// When the database does not do it; then none is written.
    pub async fn plan(&self, messages: &[Message]) -> sqlx::Result<u64> {
        let new: Vec<New> = messages.iter().filter_map(New::of).collect();
        if new.is_empty() || !self.has_devices().await? {
            return Ok(0);
        }
        let (now, due) = (clock::now_ms(), in_future(self.delay));
        let mut tx = self.db.begin().await?;
        let rows = match &mut tx {
            Tx::Postgres(tx) => sqlx::query(INSERT_POSTGRES)
                .bind(new.iter().map(|new| new.room).collect::<Vec<_>>())
                .bind(new.iter().map(|new| new.seq).collect::<Vec<_>>())
                .bind(new.iter().map(|new| new.sender).collect::<Vec<_>>())
                .bind(now)
                .bind(due)
                .execute(&mut **tx)
                .await?
                .rows_affected(),
            Tx::Sqlite(tx) => {
                let mut rows = 0;
                for New { room, seq, sender } in &new {
                    let insert = sqlx::query(INSERT_SQLITE).bind(room).bind(seq).bind(sender).bind(now).bind(due);
                    rows += insert.execute(&mut **tx).await?.rows_affected();
                }
                rows
            }
        };
        tx.commit().await?;
        if rows > 0 {
            self.planned.notify_one();
        }
        Ok(rows)
    }

    /// Whether anybody has a device: where push is not used, a message costs this look, whatever the room's size.
    async fn has_devices(&self) -> sqlx::Result<bool> {
        let first: Option<(Uuid,)> =
            on_db!(&self.db, pool => sqlx::query_as("select id from push_devices limit 1").fetch_optional(pool).await)?;
        Ok(first.is_some())
    }

    /// Resolves when this process has planned something since the last call.
    pub(crate) async fn planned(&self) {
        self.planned.notified().await;
    }
}

/// What of a message decides whom it is pushed to.
struct New {
    room: Uuid,
    seq: i64,
    sender: Uuid,
}

impl New {
    fn of(message: &Message) -> Option<Self> {
        let room = Uuid::from_slice(&message.room).ok()?;
        Some(Self { room, seq: message.seq, sender: Uuid::from_slice(&message.sender).ok()? })
    }
}

/// `offset 0` keeps the look at each room apart, whatever the planner believes of so many.
const INSERT_POSTGRES: &str = "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
    select n.room_id, n.seq, w.user_id, w.device_id, w.platform, $4, $5, 0
    from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as n (room_id, seq, sender)
    cross join lateral (
        select m.user_id, d.id as device_id, d.platform
        from members m
        join push_devices d on d.user_id = m.user_id
        where m.room_id = n.room_id and m.present and m.user_id <> n.sender
        offset 0
    ) w
    on conflict (room_id, seq, user_id, device_id) do nothing";
const INSERT_SQLITE: &str = "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
    select m.room_id, $2, m.user_id, d.id, d.platform, $4, $5, 0
    from members m
    join push_devices d on d.user_id = m.user_id
    where m.room_id = $1 and m.present and m.user_id <> $3
    on conflict (room_id, seq, user_id, device_id) do nothing";
