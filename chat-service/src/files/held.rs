//! Files that are held until an antivirus has found them clean: each is handed out to one gateway at a time, and again when
//! that one does not say in time what it has found.

use service_kit::{
    clock,
    db::Tx,
    id::{FileId, UserId},
    on_tx,
};

use super::{FileRow, PENDING, check_words, file_columns, no_such_file, own, pieces, settle, usage};
use crate::{App, actor::Actor, error::Result};

/// Files that are handed out at once.
const MOST: i64 = 64;
/// How long whoever took a file may have for it, in milliseconds.
const MOST_LEASE_MS: i64 = 600_000;

/// A file to be scanned.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Held {
    pub(crate) id: FileId,
    pub(crate) media_type: String,
    pub(crate) size: i64,
}

/// Holds an upload whose bytes are all stored. Doing it again answers the same.
///
/// # Errors
/// `not_found` when the upload was given up meanwhile.
pub(crate) async fn hold(app: &App, actor: Actor, file: FileId, media_type: &str, size: i64) -> Result<FileRow> {
    check_words(media_type)?;
    let mut tx = app.db.begin().await?;
    usage::lock(&mut tx, actor.user).await?;
    let row = own(&mut tx, actor.user, file).await?;
    if row.state != PENDING {
        return Ok(row);
    }
    settle(&mut tx, actor.user, &row, size).await?;
    let now = clock::now_ms();
    // However long the antivirus is away, nobody can refer to the file until it has come back.
    let row: Option<FileRow> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "update files set media_type = $2, size = $3, state = 5, due_at = $4, scans = 0, expires_at = $5
         where files.id = $1 and files.state = 1 returning ", file_columns!()
    ))
    .bind(file)
    .bind(media_type)
    .bind(size)
    .bind(now)
    .bind(now + app.files.unattached_ms)
    .fetch_optional(c)
    .await)?;
    let row = row.ok_or_else(no_such_file)?;
    pieces::forget(&mut tx, file).await?;
    tx.commit().await?;
    Ok(row)
}

/// Takes files that nobody is scanning, those that wait the longest first. One that was taken without an end comes back after
/// `lease_ms`, and each time that much later: a file that no scan gets through leaves room for the others.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn take(app: &App, limit: i64, lease_ms: i64) -> Result<Vec<Held>> {
    let (now, limit) = (clock::now_ms(), limit.clamp(0, MOST));
    let mut tx = app.db.begin().await?;
    let sql = if tx.is_postgres() { TAKE_POSTGRES } else { TAKE_SQLITE };
    let taken = on_tx!(&mut tx, c => sqlx::query_as(sql)
        .bind(now)
        .bind(lease_ms.clamp(1, MOST_LEASE_MS))
        .bind(limit)
        .fetch_all(c)
        .await)?;
    tell(&mut tx).await?;
    tx.commit().await?;
    Ok(taken)
}

/// Tells operators how many are held, those that are being scanned included.
async fn tell(tx: &mut Tx) -> Result<()> {
    let (held,): (i64,) = on_tx!(tx, c => sqlx::query_as(
        "select count(*) from files where due_at is not null and state = 5",
    )
    .fetch_one(c)
    .await)?;
    #[allow(clippy::cast_precision_loss, reason = "shown, not counted with")]
    metrics::gauge!("files_held").set(held as f64);
    Ok(())
}

/// Whose a file is, whatever has become of it.
pub(super) async fn owner(tx: &mut Tx, file: FileId) -> Result<UserId> {
    let row: Option<(UserId,)> =
        on_tx!(tx, c => sqlx::query_as("select owner from files where id = $1").bind(file).fetch_optional(c).await)?;
    let (owner,) = row.ok_or_else(no_such_file)?;
    Ok(owner)
}

macro_rules! take {
    ($skip:literal) => {
        concat!(
            "update files set due_at = $1 + $2 * (1 + coalesce(scans, 0)), scans = coalesce(scans, 0) + 1
             where id in (select id from files where due_at <= $1 and state = 5 order by due_at limit $3",
            $skip,
            ") returning id, media_type, size"
        )
    };
}
const TAKE_POSTGRES: &str = take!(" for update skip locked");
const TAKE_SQLITE: &str = take!("");
