//! What was given up, for operators: pushes that no provider took, listed and made due again.

use std::collections::HashSet;

use serde::Serialize;
use service_kit::{clock, db::Db, id::RoomId, on_db, on_tx};
use uuid::Uuid;

use crate::devices::Platform;

/// Rows that are made due again at once, so that other writers get their turn between.
const AT_ONCE: i64 = 500;

/// A push that was given up. Says nothing of where it went or what it said.
#[derive(Debug, sqlx::FromRow)]
pub struct DeadLetter {
    pub(crate) room_id: Uuid,
    pub(crate) seq: i64,
    pub(crate) user_id: Uuid,
    pub(crate) device_id: Uuid,
    pub(crate) platform: Platform,
    /// When it was given up, in milliseconds since the epoch.
    pub(crate) at: i64,
    pub(crate) attempts: i16,
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
}

/// The same as it is shown.
#[derive(Serialize)]
pub struct Shown<'a> {
    room: Uuid,
    seq: i64,
    user: Uuid,
    device: Uuid,
    platform: &'static str,
    at: i64,
    attempts: i16,
    reason: Option<&'a str>,
    detail: Option<&'a str>,
}

impl DeadLetter {
    /// As it is shown.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        Shown {
            room: self.room_id,
            seq: self.seq,
            user: self.user_id,
            device: self.device_id,
            platform: self.platform.word(),
            at: self.at,
            attempts: self.attempts,
            reason: self.reason.as_deref(),
            detail: self.detail.as_deref(),
        }
    }
}

/// Which of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Of this room: of these messages, or of all of them when there are none.
    Of(RoomId, Vec<i64>),
}

/// The newest of them, at most so many, and how many there are.
///
/// # Errors
/// When the database does not say.
pub async fn list(db: &Db, limit: i64) -> sqlx::Result<(Vec<DeadLetter>, i64)> {
    let newest = on_db!(db, pool => sqlx::query_as(
        "select room_id, seq, user_id, device_id, platform, at, attempts, reason, detail
         from pushes where outcome = 6 order by at desc limit $1",
    )
    .bind(limit)
    .fetch_all(pool)
    .await)?;
    Ok((newest, count(db).await?))
}

/// How many there are.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn count(db: &Db) -> sqlx::Result<i64> {
    let (number,): (i64,) =
        on_db!(db, pool => sqlx::query_as("select count(*) from pushes where outcome = 6").fetch_one(pool).await)?;
    Ok(number)
}

/// Makes them due at once, with all their tries before them, and tells how many there were. Whether each is still wanted is
/// decided anew.
///
/// # Errors
/// When the database does not do it; some may be due then.
pub async fn replay(db: &Db, which: &Which) -> sqlx::Result<u64> {
    let (mut replayed, until) = (0, clock::now_ms());
    loop {
        let some = match which {
            Which::All => replay_some(db, until, None, None).await?,
            Which::Of(room, seqs) if seqs.is_empty() => replay_some(db, until, Some(*room), None).await?,
            Which::Of(room, seqs) => {
                let mut some = 0;
                for seq in seqs.iter().collect::<HashSet<_>>() {
                    some += replay_some(db, until, Some(*room), Some(*seq)).await?;
                }
                some
            }
        };
        replayed += some;
        if some == 0 {
            return Ok(replayed);
        }
    }
}

/// What is given up again meanwhile is younger than `until`, and is not taken twice.
async fn replay_some(db: &Db, until: i64, room: Option<RoomId>, seq: Option<i64>) -> sqlx::Result<u64> {
    let mut tx = db.begin().await?;
    let replayed = on_tx!(&mut tx, c => sqlx::query(
        "update pushes
         set due_at = $1, at = $1, claim = null, attempts = 0, outcome = 5, detail = 'to be tried again: replayed'
         where (room_id, seq, user_id, device_id) in (
            select room_id, seq, user_id, device_id from pushes
            where outcome = 6 and at <= $5 and ($2 is null or room_id = $2) and ($3 is null or seq = $3)
            order by at limit $4
         )",
    )
    .bind(clock::now_ms())
    .bind(room)
    .bind(seq)
    .bind(AT_ONCE)
    .bind(until)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    tx.commit().await?;
    Ok(replayed)
}
