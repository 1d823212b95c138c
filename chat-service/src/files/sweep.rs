//! What is to be removed: uploads that never ended, files that nothing refers to, files whose last reference went, and the
//! bytes of rejected files.

use service_kit::{
    clock,
    id::{FileId, UserId},
    on_tx,
};

use super::{pieces, usage};
use crate::{App, error::Result};

/// How long whoever took a file has for removing its bytes, in milliseconds; then it is handed out again.
pub(super) const LEASE_MS: i64 = 60_000;
/// Files that are handed out at once.
const MOST: i64 = 256;

/// Takes files whose time is over. Nobody can read them or refer to them from here on.
pub(crate) async fn take(app: &App, limit: i64) -> Result<Vec<FileId>> {
    let (now, limit) = (clock::now_ms(), limit.clamp(1, MOST));
    let mut tx = app.db.begin().await?;
    let taken = if tx.is_postgres() { [TAKE_POSTGRES, REJECTED_POSTGRES] } else { [TAKE_SQLITE, REJECTED_SQLITE] };
    let mut files = Vec::new();
    for sql in taken {
        let rows: Vec<(FileId,)> = on_tx!(&mut tx, c => sqlx::query_as(sql)
            .bind(now)
            .bind(now + LEASE_MS)
            .bind(limit)
            .fetch_all(c)
            .await)?;
        files.extend(rows.into_iter().map(|(file,)| file));
    }
    // Every gateway asks now and then, so this is as fresh as an operator needs it.
    usage::tell(&mut tx).await?;
    tx.commit().await?;
    Ok(files)
}

/// The bytes of these are gone: so is what was known of them, but for why one was rejected.
pub(crate) async fn removed(app: &App, files: &[FileId]) -> Result<()> {
    let mut tx = app.db.begin().await?;
    // Before any file, as everybody else who changes both does.
    usage::lock_all(&mut tx).await?;
    let mut freed: Vec<(UserId, i64)> = Vec::new();
    for file in files {
        let row: Option<(UserId, i64)> = on_tx!(&mut tx, c => sqlx::query_as(
            "delete from files where id = $1 and state = 4 returning owner, size",
        )
        .bind(file)
        .fetch_optional(c)
        .await)?;
        if let Some(row) = row {
            pieces::forget(&mut tx, *file).await?;
            freed.push(row);
            continue;
        }
        on_tx!(&mut tx, c => sqlx::query("update files set due_at = null where id = $1 and state = 3")
            .bind(file)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    // In the order of the owners, so that two sweeps never wait for each other in a circle.
    freed.sort_unstable_by_key(|(owner, _)| owner.0);
    for (owner, bytes) in freed {
        usage::give_back(&mut tx, owner, bytes).await?;
    }
    Ok(tx.commit().await?)
}

macro_rules! take {
    ($skip:literal) => {
        concat!(
            "update files set state = 4, expires_at = $2 where id in
                 (select id from files where expires_at <= $1 order by expires_at limit $3",
            $skip,
            ") and not exists (select 1 from file_refs r where r.file_id = files.id)
             returning id"
        )
    };
}
/// What another transaction is referring to right now is looked at the next time.
const TAKE_POSTGRES: &str = take!(" for update skip locked");
const TAKE_SQLITE: &str = take!("");

macro_rules! take_rejected {
    ($skip:literal) => {
        concat!(
            "update files set due_at = $2 where id in
                 (select id from files where due_at <= $1 and state = 3 order by due_at limit $3",
            $skip,
            ") returning id"
        )
    };
}
const REJECTED_POSTGRES: &str = take_rejected!(" for update skip locked");
const REJECTED_SQLITE: &str = take_rejected!("");
