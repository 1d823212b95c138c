//! How much room files take: one row for each owner and one for all, changed with the files in one transaction.

use service_kit::{db::Tx, fault::Fault, id::UserId, on_tx};
use uuid::Uuid;

use super::Limits;
use crate::error::Result;

/// Whose row counts everybody's files.
const EVERYBODY: UserId = UserId(Uuid::nil());

/// Locks the row of an owner, and makes it when it is the first time: uploads of one owner are noted one by one.
pub(super) async fn lock(tx: &mut Tx, owner: UserId) -> Result<()> {
    lock_all(tx).await?;
    lock_row(tx, owner).await
}

/// Locks the row of everybody, which comes before all others.
pub(super) async fn lock_all(tx: &mut Tx) -> Result<()> {
    lock_row(tx, EVERYBODY).await
}

async fn lock_row(tx: &mut Tx, owner: UserId) -> Result<()> {
    let sql = "insert into file_usage (owner, bytes) values ($1, 0)
         on conflict (owner) do update set bytes = file_usage.bytes";
    on_tx!(tx, c => sqlx::query(sql).bind(owner).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Takes room for a file.
///
/// # Errors
/// `unprocessable` when there is not enough.
pub(super) async fn take(tx: &mut Tx, owner: UserId, bytes: i64, limits: &Limits) -> Result<()> {
    let rows = [
        (EVERYBODY, limits.total_bytes, "the server's room for files is used up"),
        (owner, limits.user_bytes, "your room for files is used up; files go with the messages that hold them"),
    ];
    for (row, limit, refusal) in rows {
        let done = on_tx!(tx, c => sqlx::query("update file_usage set bytes = bytes + $2 where owner = $1 and bytes <= $3")
            .bind(row)
            .bind(bytes)
            .bind(limit.saturating_sub(bytes))
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        if done == 0 {
            return Err(Fault::unprocessable(refusal).into());
        }
    }
    Ok(())
}

/// Tells operators how much all files take.
pub(super) async fn tell(tx: &mut Tx) -> Result<()> {
    let all: Option<(i64,)> = on_tx!(tx, c => sqlx::query_as("select bytes from file_usage where owner = $1")
        .bind(EVERYBODY)
        .fetch_optional(c)
        .await)?;
    #[allow(clippy::cast_precision_loss, reason = "shown, not counted with")]
    metrics::gauge!("files_bytes").set(all.map_or(0.0, |(bytes,)| bytes as f64));
    Ok(())
}

/// Gives room back.
pub(super) async fn give_back(tx: &mut Tx, owner: UserId, bytes: i64) -> Result<()> {
    for row in [EVERYBODY, owner] {
        on_tx!(tx, c => sqlx::query("update file_usage set bytes = bytes - $2 where owner = $1")
            .bind(row)
            .bind(bytes)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}
