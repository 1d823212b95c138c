//! Rooms and memberships: how they are read and written, and the lock that orders every change of a room.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod members;
mod row;
pub(crate) mod settings;
pub(crate) mod view;

use parlance_proto::event::{UserEvent, user_event};
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    on_tx,
};

pub(crate) use self::row::{Kind, MemberRow, Role, RoomRow, member_columns, room_columns};
use crate::{
    accounts::{UserRow, user_columns},
    error::Result,
    outbox::Announcement,
};

/// How long a change waits for a room that another transaction holds.
const LOCK_WAIT: &str = "set local lock_timeout = '3s'";

/// Locks a room: from here on its `seq` and `rev` are the caller's to advance. Everything else about it is read after.
///
/// # Errors
/// `not_found` when there is no such room; `unavailable` when another transaction holds it too long.
pub(crate) async fn lock(tx: &mut Tx, room: RoomId) -> Result<RoomRow> {
    let row: Option<RoomRow> = match tx {
        Tx::Postgres(tx) => {
            sqlx::query(LOCK_WAIT).execute(&mut **tx).await?;
            sqlx::query("select id from rooms where id = $1 for no key update").bind(room).execute(&mut **tx).await?;
            // A second statement: what a snapshot from before the lock shows is stale.
            sqlx::query_as(concat!("select ", room_columns!(), " from rooms where id = $1"))
                .bind(room)
                .fetch_optional(&mut **tx)
                .await?
        }
        Tx::Sqlite(tx) => {
            sqlx::query_as(concat!("select ", room_columns!(), " from rooms where id = $1"))
                .bind(room)
                .fetch_optional(&mut **tx)
                .await?
        }
    };
    row.ok_or_else(no_such_room)
}

/// What whoever may not know of a room is told.
pub(crate) fn no_such_room() -> crate::error::Error {
    Fault::not_found("there is no such room, or you are not in it").into()
}

/// Writes back what changed of a locked room.
pub(crate) async fn save(tx: &mut Tx, room: &RoomRow) -> Result<()> {
    on_tx!(tx, c => sqlx::query(
        "update rooms set name = $2, name_folded = $3, topic = $4, active_at = $5, seq = $6, rev = $7, info_rev = $8,
             member_count = $9, archived = $10, history_joined = $11, announcement = $12, slow_mode_s = $13,
             retention_days = $14, avatar = $15
         where id = $1",
    )
    .bind(room.id)
    .bind(&room.name)
    .bind(room.name.as_deref().map(str::to_lowercase))
    .bind(&room.topic)
    .bind(room.active_at)
    .bind(room.seq)
    .bind(room.rev)
    .bind(room.info_rev)
    .bind(room.member_count)
    .bind(room.archived)
    .bind(room.history_joined)
    .bind(room.announcement)
    .bind(room.slow_mode_s)
    .bind(room.retention_days)
    .bind(room.avatar)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// A membership, present or past.
pub(crate) async fn membership(tx: &mut Tx, room: RoomId, user: UserId) -> Result<Option<MemberRow>> {
    Ok(
        on_tx!(tx, c => sqlx::query_as(concat!("select ", member_columns!(), " from members where room_id = $1 and user_id = $2"))
        .bind(room)
        .bind(user)
        .fetch_optional(c)
        .await)?,
    )
}

/// The membership of somebody who is in the room now.
///
/// # Errors
/// `not_found` for everybody else.
pub(crate) async fn present(tx: &mut Tx, room: RoomId, user: UserId) -> Result<MemberRow> {
    membership(tx, room, user).await?.filter(|member| member.present).ok_or_else(no_such_room)
}

/// Writes a membership, new or changed.
pub(crate) async fn save_member(tx: &mut Tx, member: &MemberRow) -> Result<()> {
    on_tx!(tx, c => sqlx::query(
        "insert into members (room_id, user_id, present, role, joined_at, rev, joined_rev, visible_from_seq, read_seq,
             delivered_seq, muted_until, me_rev, me_muted_until, notify, favourite, draft)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
         on conflict (room_id, user_id) do update set present = excluded.present, role = excluded.role,
             joined_at = excluded.joined_at, rev = excluded.rev, joined_rev = excluded.joined_rev,
             visible_from_seq = excluded.visible_from_seq, read_seq = excluded.read_seq,
             delivered_seq = excluded.delivered_seq, muted_until = excluded.muted_until, me_rev = excluded.me_rev,
             me_muted_until = excluded.me_muted_until, notify = excluded.notify, favourite = excluded.favourite,
             draft = excluded.draft",
    )
    .bind(member.room_id)
    .bind(member.user_id)
    .bind(member.present)
    .bind(member.role)
    .bind(member.joined_at)
    .bind(member.rev)
    .bind(member.joined_rev)
    .bind(member.visible_from_seq)
    .bind(member.read_seq)
    .bind(member.delivered_seq)
    .bind(member.muted_until)
    .bind(member.me_rev)
    .bind(member.me_muted_until)
    .bind(member.notify)
    .bind(member.favourite)
    .bind(&member.draft)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// A user that a room can be shared with.
///
/// # Errors
/// `not_found` when there is no such user.
pub(crate) async fn user(tx: &mut Tx, user: UserId) -> Result<UserRow> {
    let row: Option<UserRow> = on_tx!(tx, c => sqlx::query_as(concat!("select ", user_columns!(), " from users where id = $1")).bind(user).fetch_optional(c).await)?;
    Ok(row.ok_or_else(|| Fault::not_found("there is no such user"))?)
}

/// Tells a user's connections that the user is now, or no longer, in a room, with the user's own next rev.
pub(crate) async fn tell_user(
    tx: &mut Tx,
    announcement: &mut Announcement,
    user: UserId,
    kind: user_event::Kind,
) -> Result<()> {
    let rev = crate::accounts::bump(tx, user).await?;
    announcement.user(user, UserEvent { user: user.to_wire(), rev, kind: Some(kind), ..UserEvent::default() });
    Ok(())
}

/// Tells a user that there is a room more. `by` says who added the user, and the seq of the notice of it.
pub(crate) async fn tell_joined(
    tx: &mut Tx,
    announcement: &mut Announcement,
    user: UserId,
    room: RoomId,
    by: Option<(UserId, i64)>,
) -> Result<()> {
    let rev = crate::accounts::bump(tx, user).await?;
    let (by, notice) = by.map_or_else(Default::default, |(by, notice)| (by.to_wire(), notice));
    let kind = Some(user_event::Kind::Joined(room.to_wire()));
    announcement.user(user, UserEvent { user: user.to_wire(), rev, kind, by, notice });
    Ok(())
}
