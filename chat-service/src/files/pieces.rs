//! Resumable uploads: which pieces of a file have come. A piece counts with its row, after its bytes were stored; of two that
//! begin at the same place one counts.

use service_kit::{clock, db::Tx, fault::Fault, id::FileId, on_tx};
use uuid::Uuid;

use super::{FileRow, PENDING, UPLOAD_MS, file_columns, no_such_file};
use crate::{App, actor::Actor, error::Result};

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Piece {
    /// Name of the object that has the bytes.
    pub(crate) object: Uuid,
    pub(crate) length: i64,
}

/// How far an upload is.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) file: FileRow,
    pub(crate) expires_at: Option<i64>,
    /// In order.
    pub(crate) pieces: Vec<Piece>,
}

impl Progress {
    /// Whether bytes are still missing, or have not been put together yet. What is held has them all.
    pub(crate) fn is_pending(&self) -> bool {
        self.file.state == PENDING
    }

    /// Bytes that have come.
    pub(crate) fn offset(&self) -> i64 {
        if self.is_pending() { self.pieces.iter().map(|piece| piece.length).sum() } else { self.file.size }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    expires_at: Option<i64>,
    #[sqlx(flatten)]
    file: FileRow,
}

/// How far an upload of the actor is.
///
/// # Errors
/// `not_found` when there is none.
pub(crate) async fn progress(app: &App, actor: Actor, file: FileId) -> Result<Progress> {
    let mut tx = app.db.snapshot().await?;
    read(&mut tx, actor, file, false).await
}

async fn read(tx: &mut Tx, actor: Actor, file: FileId, lock: bool) -> Result<Progress> {
    let sql = if lock && tx.is_postgres() { OWN_LOCKED } else { OWN };
    let row: Option<Row> = on_tx!(tx, c => sqlx::query_as(sql).bind(file).bind(actor.user).fetch_optional(c).await)?;
    let Row { expires_at, file } = row.ok_or_else(no_such_file)?;
    let pieces = on_tx!(tx, c => sqlx::query_as(
        "select object, length from upload_pieces where file_id = $1 order by start",
    )
    .bind(file.id)
    .fetch_all(c)
    .await)?;
    Ok(Progress { file, expires_at, pieces })
}

/// Counts pieces that begin where the upload is.
///
/// # Errors
/// `conflict` when it is elsewhere by now, or complete; `bad_request` when they are more than what is missing; `not_found`
/// when there is no such upload.
pub(crate) async fn add(app: &App, actor: Actor, file: FileId, start: i64, new: Vec<Piece>) -> Result<Progress> {
    let mut tx = app.db.begin().await?;
    let mut progress = read(&mut tx, actor, file, true).await?;
    let mut offset = progress.offset();
    if !progress.is_pending() || offset != start {
        return Err(Fault::conflict(format!("Upload-Offset: the upload is at {offset}")).into());
    }
    for piece in new {
        let end = offset.checked_add(piece.length).filter(|end| piece.length > 0 && *end <= progress.file.size);
        let end = end.ok_or_else(|| Fault::bad_request("the upload has more bytes than Upload-Length"))?;
        on_tx!(&mut tx, c => sqlx::query(
            "insert into upload_pieces (file_id, start, length, object) values ($1, $2, $3, $4)",
        )
        .bind(file)
        .bind(offset)
        .bind(piece.length)
        .bind(piece.object)
        .execute(c)
        .await
        .map(|_| ()))?;
        offset = end;
        progress.pieces.push(piece);
    }
    let expires_at = clock::now_ms() + UPLOAD_MS.min(app.files.unattached_ms);
    on_tx!(&mut tx, c => sqlx::query("update files set expires_at = $2 where id = $1")
        .bind(file)
        .bind(expires_at)
        .execute(c)
        .await
        .map(|_| ()))?;
    tx.commit().await?;
    progress.expires_at = Some(expires_at);
    Ok(progress)
}

/// The pieces of a file are of no more use.
pub(super) async fn forget(tx: &mut Tx, file: FileId) -> Result<()> {
    on_tx!(tx, c => sqlx::query("delete from upload_pieces where file_id = $1").bind(file).execute(c).await.map(|_| ()))?;
    Ok(())
}

const OWN: &str = concat!(
    "select expires_at, ",
    file_columns!(),
    " from files where files.id = $1 and files.owner = $2 and files.state <> 4"
);
const OWN_LOCKED: &str = concat!(
    "select expires_at, ",
    file_columns!(),
    " from files where files.id = $1 and files.owner = $2 and files.state <> 4 for no key update"
);
