//! Files: what is known of them, who may read them, and how much room they take. The bytes are the gateways' affair.
//!
//! An upload is noted before its first byte is stored and made ready after its last, so a crash in between leaves a row
//! that says what to remove. `sweep` hands out what is to be removed.

pub(crate) mod attach;
pub(crate) mod held;
pub(crate) mod pieces;
pub(crate) mod sweep;
mod usage;

use parlance_proto::v1;
use service_kit::{
    clock,
    db::Tx,
    env::{self, Get, Invalid},
    fault::Fault,
    id::{FileId, UserId},
    on_db, on_tx,
};

use crate::{App, actor::Actor, error::Result};

/// Longest name, in characters.
const MAX_NAME: usize = 255;
/// Longest media type, and longest reason, in bytes.
const MAX_WORDS: usize = 255;
/// Bytes that a file may have more than came: what is taken out of a picture leaves a note of how it is turned.
const NOTE: i64 = 64;
/// How long an upload may take, in milliseconds: what is not ready then is removed.
const UPLOAD_MS: i64 = 3_600_000;

/// `files.state`; 4 is what is being removed. Pending to everybody are both what still comes and what is held.
const PENDING: i16 = 1;
const READY: i16 = 2;
const REJECTED: i16 = 3;
/// All bytes are stored, and an antivirus has not found them clean yet.
const HELD: i16 = 5;

/// How much and how long is kept.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes that the files of one user may take.
    pub user_bytes: i64,
    /// Bytes that all files may take.
    pub total_bytes: i64,
    /// How long a file stays that nothing refers to, in milliseconds.
    pub unattached_ms: i64,
}

impl Limits {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn from_get(get: &impl Get) -> Result<Self, Invalid> {
        let total: i64 = env::value(get, "PARLANCE_FILES_TOTAL_QUOTA_BYTES")?;
        let unattached_s: i64 = env::value(get, "PARLANCE_FILES_UNATTACHED_S")?;
        Ok(Self {
            user_bytes: env::value(get, "PARLANCE_FILES_USER_QUOTA_BYTES")?,
            total_bytes: if total == 0 { i64::MAX } else { total },
            unattached_ms: unattached_s.saturating_mul(1000),
        })
    }
}

/// The columns of a [`FileRow`].
macro_rules! file_columns {
    () => {
        "files.id, files.name, files.media_type, files.size, files.width, files.height, files.blurhash, files.thumbnails, files.state, files.reason, files.at"
    };
}

pub(super) use file_columns;

/// A row of `files`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct FileRow {
    pub(crate) id: FileId,
    pub(crate) name: String,
    pub(crate) media_type: Option<String>,
    pub(crate) size: i64,
    pub(crate) width: Option<i64>,
    pub(crate) height: Option<i64>,
    pub(crate) blurhash: Option<String>,
    /// As `wire::Thumbnails`.
    pub(crate) thumbnails: i16,
    pub(crate) state: i16,
    pub(crate) reason: Option<String>,
    pub(crate) at: i64,
}

impl FileRow {
    /// The File object of the contract.
    pub(crate) fn into_wire(self) -> v1::File {
        let state = match self.state {
            READY => v1::FileState::Ready,
            REJECTED => v1::FileState::Rejected,
            _ => v1::FileState::Pending,
        };
        v1::File {
            id: self.id.to_wire(),
            name: self.name,
            media_type: self.media_type.unwrap_or_default(),
            size: self.size,
            width: self.width,
            height: self.height,
            blurhash: self.blurhash,
            state: state.into(),
            at: self.at,
            reason: self.reason,
        }
    }
}

/// What an upload begins with.
pub(crate) struct New {
    pub(crate) name: String,
    /// Bytes that are kept free for it.
    pub(crate) most: i64,
    pub(crate) idempotency_key: Option<String>,
    /// It will come in pieces.
    pub(crate) resumable: bool,
}

/// What the stored bytes turned out to be.
pub(crate) struct Found {
    pub(crate) media_type: String,
    pub(crate) size: i64,
    pub(crate) width: Option<i64>,
    pub(crate) height: Option<i64>,
    pub(crate) blurhash: Option<String>,
    pub(crate) thumbnails: i16,
    pub(crate) rejected: Option<String>,
}

/// An upload that may begin, or what the same key has made before.
pub(crate) enum Begun {
    Fresh(FileId),
    Made(FileRow),
}

fn no_such_file() -> Fault {
    Fault::not_found("there is no such file, or you may not read it")
}

/// Notes an upload and keeps room for it.
///
/// # Errors
/// `bad_request` for a name that is none; `conflict` while the same key is uploading; `unprocessable` when the quota is
/// used up.
pub(crate) async fn begin(app: &App, actor: Actor, new: New) -> Result<Begun> {
    let odd = |character: char| character.is_control() || matches!(character, '/' | '\\');
    if new.name.is_empty() || new.name.chars().count() > MAX_NAME || new.name.contains(odd) {
        return Err(Fault::bad_request(format!(
            "file: its name must have 1 to {MAX_NAME} characters, none of / \\ or control characters"
        ))
        .into());
    }
    if new.most < 1 {
        return Err(Fault::bad_request("file: must not be empty").into());
    }
    let now = clock::now_ms();
    let mut tx = app.db.begin().await?;
    usage::lock(&mut tx, actor.user).await?;
    if let Some(key) = &new.idempotency_key
        && let Some(made) = by_key(&mut tx, actor.user, key).await?
    {
        return match made.state {
            PENDING if !new.resumable => {
                Err(Fault::conflict("an upload with this Idempotency-Key has not ended yet").into())
            }
            _ => Ok(Begun::Made(made)),
        };
    }
    usage::take(&mut tx, actor.user, new.most, &app.files).await?;
    let id = FileId::generate();
    // One that comes in one piece has its time whatever operators want of files that nothing refers to.
    let keep_ms = if new.resumable { UPLOAD_MS.min(app.files.unattached_ms) } else { UPLOAD_MS };
    on_tx!(&mut tx, c => sqlx::query(
        "insert into files (id, owner, name, size, thumbnails, state, idempotency_key, at, expires_at)
         values ($1, $2, $3, $4, 0, 1, $5, $6, $7)",
    )
    .bind(id)
    .bind(actor.user)
    .bind(&new.name)
    .bind(new.most)
    .bind(&new.idempotency_key)
    .bind(now)
    .bind(now + keep_ms)
    .execute(c)
    .await
    .map(|_| ()))?;
    tx.commit().await?;
    Ok(Begun::Fresh(id))
}

async fn by_key(tx: &mut Tx, owner: UserId, key: &str) -> Result<Option<FileRow>> {
    // What is being removed frees its key.
    on_tx!(tx, c => sqlx::query(
        "update files set idempotency_key = null where owner = $1 and idempotency_key = $2 and state = 4",
    )
    .bind(owner)
    .bind(key)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", file_columns!(), " from files where files.owner = $1 and files.idempotency_key = $2"
    ))
    .bind(owner)
    .bind(key)
    .fetch_optional(c)
    .await)?)
}

/// Makes an upload ready, or rejected, when its bytes are stored: one of the actor, or, without an actor, one that is held.
/// Doing it again answers the same, and of two that say different things the first one counts.
///
/// # Errors
/// `not_found` when the upload was given up meanwhile.
pub(crate) async fn finish(app: &App, actor: Option<Actor>, file: FileId, found: Found) -> Result<FileRow> {
    check_words(&found.media_type)?;
    found.rejected.as_deref().map_or(Ok(()), check_words)?;
    let mut tx = app.db.begin().await?;
    let (owner, from) = match actor {
        Some(actor) => (actor.user, PENDING),
        None => (held::owner(&mut tx, file).await?, HELD),
    };
    usage::lock(&mut tx, owner).await?;
    let row = own(&mut tx, owner, file).await?;
    if row.state != from {
        return Ok(row);
    }
    let rejected = found.rejected.is_some();
    let size = if rejected { 0 } else { found.size };
    settle(&mut tx, owner, &row, size).await?;
    let now = clock::now_ms();
    // It may have been given up, or its time been over, since it was read.
    let row: Option<FileRow> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "update files set media_type = $2, size = $3, width = $4, height = $5, blurhash = $6, thumbnails = $7,
             state = $8, reason = $9, expires_at = $10, due_at = $11
         where files.id = $1 and files.state = $12 returning ", file_columns!()
    ))
    .bind(file)
    .bind(&found.media_type)
    .bind(size)
    .bind(found.width)
    .bind(found.height)
    .bind(&found.blurhash)
    .bind(found.thumbnails)
    .bind(if rejected { REJECTED } else { READY })
    .bind(&found.rejected)
    .bind(now + app.files.unattached_ms)
    // Whoever rejects it removes its bytes now.
    .bind(rejected.then_some(now + sweep::LEASE_MS))
    .bind(from)
    .fetch_optional(c)
    .await)?;
    let row = row.ok_or_else(no_such_file)?;
    pieces::forget(&mut tx, file).await?;
    tx.commit().await?;
    Ok(row)
}

/// Gives back what of the room that was kept free for a file it does not need. It may need [`NOTE`] more.
///
/// # Errors
/// `bad_request` when it needs more than that.
async fn settle(tx: &mut Tx, owner: UserId, row: &FileRow, size: i64) -> Result<()> {
    if size < 0 || size > row.size.saturating_add(NOTE) {
        return Err(Fault::bad_request("size: is more than was kept free").into());
    }
    usage::give_back(tx, owner, row.size - size).await
}

/// Refuses a media type or a reason that is no short text.
fn check_words(text: &str) -> Result<()> {
    if text.len() > MAX_WORDS || text.contains('\0') {
        return Err(Fault::bad_request("media_type: is too long").into());
    }
    Ok(())
}

/// Gives an upload up: it is not to be had any more, and its bytes may go.
///
/// # Errors
/// `not_found` when it is not an upload of the actor that goes on.
pub(crate) async fn abort(app: &App, actor: Actor, file: FileId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let ended = on_tx!(&mut tx, c => sqlx::query(
        "update files set state = 4, expires_at = $3 where id = $1 and owner = $2 and state in (1, 5)",
    )
    .bind(file)
    .bind(actor.user)
    .bind(clock::now_ms())
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if ended == 0 {
        return Err(no_such_file().into());
    }
    Ok(tx.commit().await?)
}

/// A file that the actor may read: an own one in any state, or a ready one that a message shows to the actor.
///
/// # Errors
/// `not_found` for every other one.
pub(crate) async fn get(app: &App, actor: Actor, file: FileId) -> Result<FileRow> {
    let row: Option<FileRow> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", file_columns!(), " from files where files.id = $1 and files.state <> 4 and (files.owner = $2 or ",
        attach::is_shown_to!("$2"), ")"
    ))
    .bind(file)
    .bind(actor.user)
    .fetch_optional(pool)
    .await)?;
    Ok(row.ok_or_else(no_such_file)?)
}

async fn own(tx: &mut Tx, owner: UserId, file: FileId) -> Result<FileRow> {
    let row: Option<FileRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", file_columns!(), " from files where files.id = $1 and files.owner = $2 and files.state <> 4"
    ))
    .bind(file)
    .bind(owner)
    .fetch_optional(c)
    .await)?;
    Ok(row.ok_or_else(no_such_file)?)
}
