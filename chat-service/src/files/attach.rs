//! What holds files, messages and avatars: who may have which held, and what goes with the last that holds it.

use std::collections::HashMap;

use parlance_proto::{files::Attached, v1};
use prost::Message;
use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{FileId, RoomId, UserId},
    on_tx,
};
use uuid::Uuid;

use super::{FileRow, READY, REJECTED, file_columns, no_such_file};
use crate::error::Result;

/// In place of a seq: it is the avatar of a room, for its members.
pub(crate) const AVATAR: i64 = 0;
/// The same of a user or of a channel, for everybody.
pub(crate) const OPEN_AVATAR: i64 = -1;

/// Whether a file is shown to `$user`: by a message of a room that the user is in, above what was before that, or as an
/// avatar.
macro_rules! is_shown_to {
    ($user:literal) => {
        concat!(
            "files.state = 2 and exists (
                 select 1 from file_refs r left join members m on m.room_id = r.room_id and m.user_id = ",
            $user,
            " where r.file_id = files.id
                 and (r.seq = -1 or (m.present and (r.seq = 0 or r.seq > m.visible_from_seq))))"
        )
    };
}
pub(crate) use is_shown_to;

/// The columns of a [`FoundRow`].
macro_rules! found_columns {
    () => {
        "files.id as f_id, files.name as f_name, files.media_type as f_media_type, files.size as f_size, files.width as f_width, files.height as f_height, files.blurhash as f_blurhash, files.thumbnails as f_thumbnails, files.state as f_state, files.reason as f_reason, files.at as f_at"
    };
}
pub(crate) use found_columns;

/// Files by who wants to attach them: all that this user may know of.
pub(crate) type Known = HashMap<(UserId, FileId), FileRow>;

#[derive(sqlx::FromRow)]
struct KnownRow {
    sender: UserId,
    #[sqlx(flatten)]
    file: FileRow,
}

/// A file, or none, beside what else a row holds.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct FoundRow {
    f_id: Option<FileId>,
    f_name: Option<String>,
    f_media_type: Option<String>,
    f_size: Option<i64>,
    f_width: Option<i64>,
    f_height: Option<i64>,
    f_blurhash: Option<String>,
    f_thumbnails: Option<i16>,
    f_state: Option<i16>,
    f_reason: Option<String>,
    f_at: Option<i64>,
}

impl FoundRow {
    /// The file, when there is one.
    pub(crate) fn into_file(self) -> Option<FileRow> {
        Some(FileRow {
            id: self.f_id?,
            name: self.f_name?,
            media_type: self.f_media_type,
            size: self.f_size?,
            width: self.f_width,
            height: self.f_height,
            blurhash: self.f_blurhash,
            thumbnails: self.f_thumbnails?,
            state: self.f_state?,
            reason: self.f_reason,
            at: self.f_at?,
        })
    }
}

/// Reads the files that these senders want to attach, and locks them: none of them is swept before they are held. Asks
/// nothing when there are none. The group commit on PostgreSQL does it in its own statement.
///
/// # Errors
/// When the database does not answer.
pub(crate) async fn known<'a>(
    tx: &mut Tx,
    wanted: impl Iterator<Item = (UserId, &'a [FileId])>,
) -> sqlx::Result<Known> {
    let (senders, files): (Vec<_>, Vec<_>) =
        wanted.flat_map(|(sender, files)| files.iter().map(move |file| (sender.0, file.0))).unzip();
    if files.is_empty() {
        return Ok(Known::new());
    }
    let mut rows: Vec<KnownRow> = Vec::new();
    match tx {
        Tx::Postgres(tx) => {
            rows = sqlx::query_as(KNOWN_POSTGRES).bind(senders).bind(files).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            for (sender, file) in senders.into_iter().zip(files) {
                rows.extend(sqlx::query_as(KNOWN_SQLITE).bind(sender).bind(file).fetch_optional(&mut **tx).await?);
            }
        }
    }
    Ok(rows.into_iter().map(|row| ((row.sender, row.file.id), row.file)).collect())
}

const KNOWN_POSTGRES: &str = concat!(
    "select w.sender, ",
    file_columns!(),
    " from unnest($1::uuid[], $2::uuid[]) as w (sender, file) join files on files.id = w.file
     where files.state <> 4 and (files.owner = w.sender or ",
    is_shown_to!("w.sender"),
    ") order by files.id for no key update of files"
);
const KNOWN_SQLITE: &str = concat!(
    "select $1 as sender, ",
    file_columns!(),
    " from files where files.id = $2 and files.state <> 4 and (files.owner = $1 or ",
    is_shown_to!("$1"),
    ")"
);

/// The attachments of a message as they are stored with it; absent without any.
///
/// # Errors
/// `not_found` for a file that the sender may not know of, `unprocessable` for one that cannot be attached.
pub(crate) fn judge(known: &Known, sender: UserId, files: &[FileId]) -> Result<Option<Vec<u8>>, Fault> {
    if files.is_empty() {
        return Ok(None);
    }
    let mut attached = Attached::default();
    for file in files {
        let row = known.get(&(sender, *file)).ok_or_else(no_such_file)?;
        match row.state {
            READY => attached.files.push(row.clone().into_wire()),
            REJECTED => return Err(Fault::unprocessable("attachments: a file was rejected")),
            _ => return Err(Fault::unprocessable("attachments: a file is not ready yet")),
        }
    }
    Ok(Some(attached.encode_to_vec()))
}

/// What [`judge`] has made, read again.
pub(crate) fn attached(encoded: &[u8]) -> Vec<v1::File> {
    Attached::decode(encoded).map(|attached| attached.files).unwrap_or_else(|error| {
        tracing::error!(error = %error, "the attachments of a message cannot be read");
        Vec::new()
    })
}

/// Notes that messages hold files, which have no time to go from then on. The group commit on PostgreSQL does it in its own
/// statement.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn hold(tx: &mut Tx, refs: &[(FileId, RoomId, i64)]) -> sqlx::Result<()> {
    for (file, room, seq) in refs {
        on_tx!(tx, c => sqlx::query("insert into file_refs (file_id, room_id, seq) values ($1, $2, $3)")
            .bind(file)
            .bind(room)
            .bind(seq)
            .execute(c)
            .await
            .map(|_| ()))?;
        on_tx!(tx, c => sqlx::query("update files set expires_at = null where id = $1")
            .bind(file)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}

/// Gives what is called `holder` another avatar, or none.
///
/// # Errors
/// `not_found` for a file that the actor may not know of, `unprocessable` for one that is no picture.
pub(crate) async fn change_avatar(
    tx: &mut Tx,
    actor: UserId,
    (holder, seq): (Uuid, i64),
    new: Option<FileId>,
) -> Result<()> {
    let wanted: Vec<FileId> = new.into_iter().collect();
    if let Tx::Postgres(tx) = tx {
        // The new and the old one in one order: of two who swap theirs neither waits for the other.
        sqlx::query(SWAPPED_LOCKED).bind(new).bind(holder).bind(seq).fetch_all(&mut **tx).await?;
    }
    let known = known(tx, [(actor, wanted.as_slice())].into_iter()).await?;
    for file in &wanted {
        let row = known.get(&(actor, *file)).ok_or_else(no_such_file)?;
        match row.state {
            READY if row.thumbnails != 0 => {}
            READY | REJECTED => return Err(Fault::unprocessable("avatar: is no picture").into()),
            _ => return Err(Fault::unprocessable("avatar: the file is not ready yet").into()),
        }
    }
    let held: Vec<(FileId,)> = on_tx!(tx, c => sqlx::query_as(HELD).bind(holder).bind(seq).fetch_all(c).await)?;
    if held.iter().map(|(file,)| *file).eq(wanted.iter().copied()) {
        return Ok(());
    }
    release(tx, RoomId(holder), seq).await?;
    let refs: Vec<_> = wanted.into_iter().map(|file| (file, RoomId(holder), seq)).collect();
    Ok(hold(tx, &refs).await?)
}

/// A message holds its files no more. Those that no other one holds are nobody's to read from the commit on.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn release(tx: &mut Tx, room: RoomId, seq: i64) -> sqlx::Result<()> {
    // Locked before it is looked who else holds them: a message that takes one at this moment is seen, or waits.
    let lock = if tx.is_postgres() { HELD_LOCKED } else { HELD };
    let files: Vec<(FileId,)> = on_tx!(tx, c => sqlx::query_as(lock).bind(room).bind(seq).fetch_all(c).await)?;
    on_tx!(tx, c => sqlx::query("delete from file_refs where room_id = $1 and seq = $2")
        .bind(room)
        .bind(seq)
        .execute(c)
        .await
        .map(|_| ()))?;
    for (file,) in files {
        on_tx!(tx, c => sqlx::query(
            "update files set state = 4, expires_at = $2
             where id = $1 and not exists (select 1 from file_refs r where r.file_id = files.id)",
        )
        .bind(file)
        .bind(clock::now_ms())
        .execute(c)
        .await
        .map(|_| ()))?;
    }
    Ok(())
}

const SWAPPED_LOCKED: &str = "select id from files
    where id = $1 or id in (select file_id from file_refs where room_id = $2 and seq = $3) order by id for no key update";
const HELD: &str = "select file_id from file_refs where room_id = $1 and seq = $2";
const HELD_LOCKED: &str = "select id from files
    where id in (select file_id from file_refs where room_id = $1 and seq = $2) order by id for no key update";
