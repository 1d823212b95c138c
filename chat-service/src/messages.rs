//! Messages: how they are stored and shown, history, editing and deleting.

use std::sync::Arc;

use parlance_proto::{event::room_event, v1};
use service_kit::{
    clock,
    db::Tx,
    fault::{Fault, Kind},
    id::{ClientId, MessageId, RoomId, UserId},
    on_tx,
};

use crate::{
    App,
    actor::Actor,
    error::Result,
    outbox::Announcement,
    rooms::{self, MemberRow, Role},
};

/// Longest text, in characters.
pub(crate) const MAX_TEXT: usize = 8_000;
/// Messages of a page when the caller does not say, and at most.
const PAGE: (i64, i64) = (50, 200);
/// `messages.kind` of what people write, and of notices.
pub(crate) const KIND_TEXT: i16 = 1;
pub(crate) const KIND_SYSTEM: i16 = 2;

/// The columns of [`MessageRow`].
macro_rules! message_columns {
    () => {
        "room_id, seq, rev, id, client_id, sender, kind, text, reply_to, meta, at, edited_at, deleted_at"
    };
}
pub(crate) use message_columns;

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
}

impl MessageRow {
    /// The Message object of the contract.
    pub(crate) fn into_wire(self) -> v1::Message {
        let kind = if self.kind == KIND_SYSTEM { v1::MessageKind::System } else { v1::MessageKind::Text };
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
        }
    }
}

/// Which part of a history is asked for; the given seq is excluded, but for `Around`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Newest,
    Before(i64),
    After(i64),
    Around(i64),
}

/// A page of a history, ascending.
#[derive(Debug)]
pub(crate) struct History {
    pub(crate) items: Vec<MessageRow>,
    /// Whether there is more in the direction asked; for `Around` towards older ones.
    pub(crate) has_more: bool,
    /// The room's rev in the same snapshot.
    pub(crate) rev: i64,
}

/// Checks a text that is to be shown.
pub(crate) fn check_text(text: &str) -> Result<(), Fault> {
    if text.is_empty() || text.chars().count() > MAX_TEXT {
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
        "insert into messages (room_id, seq, rev, id, client_id, sender, kind, text, reply_to, meta, at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
    .execute(c)
    .await
    .map(|_| ()))
}

/// A page of a room's history, as its member may see it.
pub(crate) async fn history(app: &Arc<App>, actor: Actor, room: RoomId, window: Window, limit: i64) -> Result<History> {
    let limit = match limit {
        0 => PAGE.0,
        limit if (1..=PAGE.1).contains(&limit) => limit,
        _ => return Err(Fault::bad_request(format!("limit: must be 1 to {}", PAGE.1)).into()),
    };
    let mut tx = app.db.snapshot().await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let (rev,): (i64,) = on_tx!(&mut tx, c => sqlx::query_as("select rev from rooms where id = $1")
        .bind(room)
        .fetch_one(c)
        .await)?;
    let from = member.visible_from_seq;
    let (items, has_more) = match window {
        Window::Newest => older(&mut tx, room, from, i64::MAX, limit).await?,
        Window::Before(seq) => older(&mut tx, room, from, seq, limit).await?,
        Window::After(seq) => newer(&mut tx, room, from.max(seq), limit).await?,
        Window::Around(seq) => around(&mut tx, room, from, seq, limit).await?,
    };
    Ok(History { items, has_more, rev })
}

/// Up to `limit` messages above `from` and below `seq`, and whether there are older ones.
async fn older(tx: &mut Tx, room: RoomId, from: i64, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let mut rows: Vec<MessageRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq > $2 and seq < $3
         order by seq desc limit $4"
    ))
    .bind(room)
    .bind(from)
    .bind(seq)
    .bind(limit + 1)
    .fetch_all(c)
    .await)?;
    let more = cut(&mut rows, limit);
    rows.reverse();
    Ok((rows, more))
}

/// Up to `limit` messages above `seq`, and whether there are newer ones.
async fn newer(tx: &mut Tx, room: RoomId, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let mut rows: Vec<MessageRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq > $2 order by seq limit $3"
    ))
    .bind(room)
    .bind(seq)
    .bind(limit + 1)
    .fetch_all(c)
    .await)?;
    let more = cut(&mut rows, limit);
    Ok((rows, more))
}

/// `limit` messages in all, `seq` among them, as evenly on both sides as there are.
async fn around(tx: &mut Tx, room: RoomId, from: i64, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let (below, _) = older(tx, room, from, seq, limit).await?;
    let (above, _) = newer(tx, room, from.max(seq - 1), limit).await?;
    let (take_below, take_above) = share(below.len(), above.len(), usize::try_from(limit).unwrap_or(0));
    let has_more = match below.get(below.len().wrapping_sub(take_below)) {
        Some(first) => exists_below(tx, room, from, first.seq).await?,
        None => !below.is_empty() || exists_below(tx, room, from, seq).await?,
    };
    let items = below.iter().skip(below.len() - take_below).chain(above.iter().take(take_above));
    Ok((items.cloned().collect(), has_more))
}

async fn exists_below(tx: &mut Tx, room: RoomId, from: i64, seq: i64) -> Result<bool> {
    Ok(!older(tx, room, from, seq, 1).await?.0.is_empty())
}

/// How many of `below` and of `above` (which begins with the one in the middle) make `limit`. What one side does not
/// have the other gets.
fn share(below: usize, above: usize, limit: usize) -> (usize, usize) {
    // The one in the middle counts to neither half.
    let half_below = (limit.saturating_sub(1)) / 2;
    let take_above = above.min(limit - half_below.min(below));
    let take_below = below.min(limit - take_above);
    (take_below, take_above)
}

fn cut(rows: &mut Vec<MessageRow>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
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
    check_text(&text)?;
    let mut tx = app.db.begin().await?;
    let mut row = rooms::lock(&mut tx, room).await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let mut message = read(&mut tx, &member, seq).await?;
    if message.sender != actor.user || message.kind != KIND_TEXT {
        return Err(Fault::forbidden("only its sender edits a message").into());
    }
    if message.deleted_at.is_some() {
        return Err(Fault::new(Kind::Gone, "the message was deleted").into());
    }
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

/// Deletes a message for all: its text goes, its place stays. Gives the message's rev.
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
    message.deleted_at = Some(clock::now_ms());
    message.rev = row.next_rev();
    update(app, tx, &row, &message).await?;
    Ok(message.rev)
}

/// Writes a changed message and its room, commits, and tells everybody.
async fn update(app: &App, mut tx: Tx, room: &rooms::RoomRow, message: &MessageRow) -> Result<()> {
    on_tx!(&mut tx, c => sqlx::query(
        "update messages set rev = $3, text = $4, meta = $5, edited_at = $6, deleted_at = $7
         where room_id = $1 and seq = $2",
    )
    .bind(message.room_id)
    .bind(message.seq)
    .bind(message.rev)
    .bind(&message.text)
    .bind(&message.meta)
    .bind(message.edited_at)
    .bind(message.deleted_at)
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

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_window_is_shared_evenly_and_filled_from_the_longer_side() {
        // (older ones, the middle one and newer ones, limit) -> taken
        for (below, above, limit, expected) in [
            (10, 10, 5, (2, 3)),
            (10, 10, 4, (1, 3)),
            (0, 10, 5, (0, 5)),
            (10, 1, 5, (4, 1)),
            (1, 2, 10, (1, 2)),
            (10, 10, 1, (0, 1)),
        ] {
            assert_eq!(share(below, above, limit), expected, "{below} {above} {limit}");
        }
    }
}
