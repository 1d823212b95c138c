//! Messages: how they are stored and shown, editing and deleting. `history` reads pages of them.

pub(crate) mod history;
pub(crate) mod mentions;

use std::sync::Arc;

use parlance_proto::{event::room_event, v1};
use service_kit::{
    clock,
    db::{Db, Tx},
    fault::{Fault, Kind},
    id::{ClientId, MessageId, RoomId, UserId},
    on_tx,
};

use crate::{
    App,
    accounts::blocks,
    actor::Actor,
    error::Result,
    files::{self, attach::attached},
    outbox::Announcement,
    rooms::{self, MemberRow, Role},
};

/// Longest text, in characters.
pub(crate) const MAX_TEXT: usize = 8_000;
/// Messages that are asked for by their places at once.
const MOST_AT_ONCE: usize = 200;
/// `messages.kind` of what people write, and of notices.
pub(crate) const KIND_TEXT: i16 = 1;
pub(crate) const KIND_SYSTEM: i16 = 2;

/// The columns of [`MessageRow`].
macro_rules! message_columns {
    () => {
        "room_id, seq, rev, id, client_id, sender, kind, text, reply_to, meta, at, edited_at, deleted_at, attachments,
         mentions"
    };
}
pub(crate) use message_columns;

/// That the user $1 may see a row of `messages`.
macro_rules! is_visible {
    () => {
        "exists (select 1 from members m where m.room_id = messages.room_id and m.user_id = $1 and m.present
             and messages.seq > m.visible_from_seq)"
    };
}

/// A row of `messages`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct MessageRow {
    pub(crate) room_id: RoomId,
    pub(crate) seq: i64,
    pub(crate) rev: i64,
    pub(crate) id: MessageId,
    pub(crate) client_id: ClientId,
    pub(crate) sender: UserId,
    pub(crate) kind: i16,
    pub(crate) text: String,
    pub(crate) reply_to: Option<i64>,
    pub(crate) meta: Option<String>,
    pub(crate) at: i64,
    pub(crate) edited_at: Option<i64>,
    pub(crate) deleted_at: Option<i64>,
    /// An encoded `Attached`; absent without files.
    pub(crate) attachments: Option<Vec<u8>>,
    /// As [`mentions`] stores them.
    pub(crate) mentions: Option<Vec<u8>>,
}

impl MessageRow {
    /// The Message object of the contract.
    pub(crate) fn into_wire(self) -> v1::Message {
        let kind = if self.kind == KIND_SYSTEM { v1::MessageKind::System } else { v1::MessageKind::Text };
        let (mentions, mentions_all) = mentions::to_wire(self.mentions.as_deref());
        v1::Message {
            room: self.room_id.to_wire(),
            seq: self.seq,
            rev: self.rev,
            id: self.id.to_wire(),
            client_id: self.client_id.to_wire(),
            sender: self.sender.to_wire(),
            kind: kind.into(),
            text: self.text,
            reply_to: self.reply_to,
            meta: self.meta,
            at: self.at,
            edited_at: self.edited_at,
            deleted_at: self.deleted_at,
            attachments: self.attachments.as_deref().map(attached).unwrap_or_default(),
            mentions,
            mentions_all,
        }
    }
}

/// Checks a text that is to be shown. One that goes with files may be empty.
pub(crate) fn check_text(text: &str, with_files: bool) -> Result<(), Fault> {
    if (text.is_empty() && !with_files) || text.chars().count() > MAX_TEXT {
        return Err(Fault::bad_request(format!("text: must have 1 to {MAX_TEXT} characters")));
    }
    if text.contains('\0') {
        return Err(Fault::bad_request("text: must not contain U+0000"));
    }
    Ok(())
}

/// Inserts one message. The group commit inserts many in one statement of its own.
pub(crate) async fn insert(tx: &mut Tx, message: &MessageRow) -> sqlx::Result<()> {
    on_tx!(tx, c => sqlx::query(
        "insert into messages (room_id, seq, rev, id, client_id, sender, kind, text, reply_to, meta, at, attachments,
             mentions)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    )
    .bind(message.room_id)
    .bind(message.seq)
    .bind(message.rev)
    .bind(message.id)
    .bind(message.client_id)
    .bind(message.sender)
    .bind(message.kind)
    .bind(&message.text)
    .bind(message.reply_to)
    .bind(&message.meta)
    .bind(message.at)
    .bind(&message.attachments)
    .bind(&message.mentions)
    .execute(c)
    .await
    .map(|_| ()))?;
    mentions::insert(tx, message).await
}

/// One message, as a member may see it.
pub(crate) async fn read(tx: &mut Tx, member: &MemberRow, seq: i64) -> Result<MessageRow> {
    let row: Option<MessageRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq = $2"
    ))
    .bind(member.room_id)
    .bind(seq)
    .fetch_optional(c)
    .await)?;
    Ok(row
        .filter(|message| message.seq > member.visible_from_seq)
        .ok_or_else(|| Fault::not_found("there is no such message in this room"))?)
}

/// One message of a room that the actor is in.
pub(crate) async fn get(app: &Arc<App>, actor: Actor, room: RoomId, seq: i64) -> Result<MessageRow> {
    let mut tx = app.db.snapshot().await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    read(&mut tx, &member, seq).await
}

/// Those of these messages that the actor may see.
pub(crate) async fn some(app: &Arc<App>, actor: Actor, places: &[(RoomId, i64)]) -> Result<Vec<MessageRow>> {
    if places.len() > MOST_AT_ONCE {
        return Err(Fault::bad_request(format!("places: at most {MOST_AT_ONCE}")).into());
    }
    Ok(match &app.db {
        Db::Postgres(pool) => {
            sqlx::query_as(concat!(
                "select ",
                message_columns!(),
                " from messages
                 where (room_id, seq) in (select room_id, seq from unnest($2::uuid[], $3::bigint[]) as p (room_id, seq))
                   and ",
                is_visible!()
            ))
            .bind(actor.user)
            .bind(places.iter().map(|(room, _)| room.0).collect::<Vec<_>>())
            .bind(places.iter().map(|(_, seq)| *seq).collect::<Vec<_>>())
            .fetch_all(pool)
            .await?
        }
        Db::Sqlite(_) => {
            let mut found = Vec::with_capacity(places.len());
            let mut tx = app.db.snapshot().await?;
            for (room, seq) in places {
                let row: Option<MessageRow> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
                    "select ", message_columns!(), " from messages where room_id = $2 and seq = $3 and ", is_visible!()
                ))
                .bind(actor.user)
                .bind(room)
                .bind(seq)
                .fetch_optional(c)
                .await)?;
                found.extend(row);
            }
            found
        }
    })
}

/// A message that its sender has stored before: given to the sender even after having left the room.
pub(crate) async fn stored(app: &Arc<App>, room: RoomId, seq: i64) -> Result<MessageRow> {
    let mut tx = app.db.snapshot().await?;
    Ok(on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq = $2"
    ))
    .bind(room)
    .bind(seq)
    .fetch_one(c)
    .await)?)
}

/// Gives a message another text. Only its sender may; the same text takes no rev.
pub(crate) async fn edit(app: &Arc<App>, actor: Actor, room: RoomId, seq: i64, text: String) -> Result<MessageRow> {
    // Whether it may be empty is known when the message is read.
    check_text(&text, true)?;
    let mut tx = app.db.begin().await?;
    let mut row = rooms::lock(&mut tx, room).await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let mut message = read(&mut tx, &member, seq).await?;
    if message.sender != actor.user || message.kind != KIND_TEXT {
        return Err(Fault::forbidden("only its sender edits a message").into());
    }
    if row.kind() == rooms::Kind::Direct {
        blocks::refuse_in(&mut tx, room, actor.user).await?;
    }
    if message.deleted_at.is_some() {
        return Err(Fault::new(Kind::Gone, "the message was deleted").into());
    }
    check_text(&text, message.attachments.is_some())?;
    row.refuse_archived()?;
    if message.text == text {
        return Ok(message);
    }
    message.text = text;
    message.edited_at = Some(clock::now_ms());
    message.rev = row.next_rev();
    update(app, tx, &row, &message).await?;
    Ok(message)
}

/// Deletes a message for all: its text and its files go, its place and whom it mentioned stay, so that a client can count
/// them out. Gives the message's rev.
pub(crate) async fn delete(app: &Arc<App>, actor: Actor, room: RoomId, seq: i64) -> Result<i64> {
    let mut tx = app.db.begin().await?;
    let mut row = rooms::lock(&mut tx, room).await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let mut message = read(&mut tx, &member, seq).await?;
    let own = message.sender == actor.user && message.kind == KIND_TEXT;
    if !own && member.role() < Role::Admin {
        return Err(Fault::forbidden("only its sender, admins and the owner delete a message").into());
    }
    if message.deleted_at.is_some() {
        return Ok(message.rev);
    }
    row.refuse_archived()?;
    message.text = String::new();
    message.meta = None;
    if message.attachments.take().is_some() {
        files::attach::release(&mut tx, room, seq).await?;
    }
    message.deleted_at = Some(clock::now_ms());
    message.rev = row.next_rev();
    mentions::remove(&mut tx, &message).await?;
    update(app, tx, &row, &message).await?;
    Ok(message.rev)
}

/// Writes a changed message and its room, commits, and tells everybody.
async fn update(app: &App, mut tx: Tx, room: &rooms::RoomRow, message: &MessageRow) -> Result<()> {
    on_tx!(&mut tx, c => sqlx::query(
        "update messages set rev = $3, text = $4, meta = $5, edited_at = $6, deleted_at = $7, attachments = $8
         where room_id = $1 and seq = $2",
    )
    .bind(message.room_id)
    .bind(message.seq)
    .bind(message.rev)
    .bind(&message.text)
    .bind(&message.meta)
    .bind(message.edited_at)
    .bind(message.deleted_at)
    .bind(&message.attachments)
    .execute(c)
    .await
    .map(|_| ()))?;
    rooms::save(&mut tx, room).await?;
    let mut announcement = Announcement::new();
    announcement.room(room.id, room.event(message.rev, room_event::Kind::Message(message.clone().into_wire())));
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(())
}
