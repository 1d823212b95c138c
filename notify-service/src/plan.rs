//! What becomes of a new message: one row for each device of each other member, looked at after the delay.
//!
//! One statement does it, however large the room, and gives the same rows when it is told of a message twice. Who is
//! online, muted or has read is not asked here but when the row is due: most have read by then.

use std::{sync::Arc, time::Duration};

use parlance_proto::v1::Message;
use service_kit::{
    clock,
    db::{Db, Tx},
    id::{RoomId, UserId},
    on_tx,
};
use tokio::sync::Notify;

use crate::webpush::in_future;

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
        if messages.is_empty() {
            return Ok(0);
        }
        let (now, due) = (clock::now_ms(), in_future(self.delay));
        let mut tx = self.db.begin().await?;
        let mut rows = 0;
        for message in messages {
            rows += insert(&mut tx, message, now, due).await?;
        }
        tx.commit().await?;
        if rows > 0 {
            self.planned.notify_one();
        }
        Ok(rows)
    }

    /// Resolves when this process has planned something since the last call.
    pub(crate) async fn planned(&self) {
        self.planned.notified().await;
    }
}

async fn insert(tx: &mut Tx, message: &Message, now: i64, due: i64) -> sqlx::Result<u64> {
    let (Ok(room), Ok(sender)) =
        (RoomId::from_wire(&message.room, "room"), UserId::from_wire(&message.sender, "sender"))
    else {
        return Ok(0);
    };
    on_tx!(tx, c => sqlx::query(
        "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
         select m.room_id, cast($2 as bigint), m.user_id, d.id, d.platform, cast($4 as bigint), cast($5 as bigint), 0
         from members m
         join push_devices d on d.user_id = m.user_id
         where m.room_id = $1 and m.present and m.user_id <> $3
         on conflict (room_id, seq, user_id, device_id) do nothing",
    )
    .bind(room)
    .bind(message.seq)
    .bind(sender)
    .bind(now)
    .bind(due)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))
}
