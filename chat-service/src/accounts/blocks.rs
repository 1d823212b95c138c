//! Blocks: whom a user wants to hear nothing of. In the direct room of the two the blocked one writes nothing any more; groups
//! stay as they are.
//!
//! The block of a direct room is kept in the blocked one's membership and changes under the room's lock, as sends are
//! judged: no send is accepted after the block is committed. A direct room that is made at the same moment is found by
//! the lock on the blocker's user row, which both take.

use std::sync::Arc;

use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    on_db, on_tx,
};

use super::{UserRow, user_columns};
use crate::{App, actor::Actor, error::Result, outbox::Announcement, page::Page, rooms};

/// Whether one member of this direct room blocks the other: neither sees the other type or read. Of a group it is false, and
/// costs a look at its members.
macro_rules! blocked_direct {
    ($room:literal) => {
        concat!("exists (select 1 from members b where b.room_id = ", $room, " and b.blocked)")
    };
}
pub(crate) use blocked_direct;

/// How often a block begins anew because a direct room was made meanwhile. The second time the room is there.
const TRIES: usize = 3;

/// Blocks a user, or takes that back. What is already so stays.
///
/// # Errors
/// `unprocessable` for oneself, `not_found` when there is no such user.
pub(crate) async fn set(app: &Arc<App>, actor: Actor, user: UserId, on: bool) -> Result<()> {
    if user == actor.user {
        return Err(Fault::unprocessable("nobody blocks oneself").into());
    }
    for _ in 0..TRIES {
        if try_set(app, actor.user, user, on).await? {
            return Ok(());
        }
    }
    Err(Fault::unavailable("the direct room is being made; send it again").into())
}

/// Whether it is done: not when a direct room was made meanwhile, whose lock is to be taken first.
async fn try_set(app: &App, blocker: UserId, user: UserId, on: bool) -> Result<bool> {
    let mut tx = app.db.begin().await?;
    rooms::user(&mut tx, user).await?;
    let room = direct_room(&mut tx, blocker, user).await?;
    if let Some(room) = room {
        rooms::lock(&mut tx, room).await?;
    }
    lock_user(&mut tx, blocker).await?;
    if direct_room(&mut tx, blocker, user).await? != room {
        return Ok(false);
    }
    if !write(&mut tx, blocker, user, on).await? {
        return Ok(true);
    }
    if let Some(room) = room {
        mark(&mut tx, room, user, on).await?;
    }
    // Whoever may follow the blocker's presence is asked for again.
    let mut announcement = Announcement::new();
    announcement.privacy(blocker);
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(true)
}

/// Marks the members of a direct room that is being made as their blocks say. Both user rows are locked.
///
/// # Errors
/// `forbidden` when `peer` blocks the one who makes it.
pub(crate) async fn judge_new_direct(tx: &mut Tx, room: RoomId, maker: UserId, peer: UserId) -> Result<()> {
    refuse_blocked(tx, maker, peer).await?;
    if exists(tx, maker, peer).await? {
        mark(tx, room, peer, true).await?;
    }
    Ok(())
}

/// Refuses somebody whom `peer` blocks.
///
/// # Errors
/// `forbidden`.
pub(crate) async fn refuse_blocked(tx: &mut Tx, user: UserId, peer: UserId) -> Result<()> {
    if exists(tx, peer, user).await? {
        return Err(blocked().into());
    }
    Ok(())
}

/// Refuses a member of a room, which is locked, who is blocked there.
///
/// # Errors
/// `forbidden`.
pub(crate) async fn refuse_in(tx: &mut Tx, room: RoomId, user: UserId) -> Result<()> {
    let row: Option<(Option<bool>,)> = on_tx!(tx, c => sqlx::query_as("select blocked from members where room_id = $1 and user_id = $2")
            .bind(room)
            .bind(user)
            .fetch_optional(c)
            .await)?;
    if row.is_some_and(|(is_blocked,)| is_blocked == Some(true)) {
        return Err(blocked().into());
    }
    Ok(())
}

/// What somebody is told who is blocked.
pub(crate) fn blocked() -> Fault {
    Fault::forbidden("this user takes no messages from you")
}

/// Whom a user blocks, in the order of their ids, and the cursor of the next page.
pub(crate) async fn list(app: &App, actor: Actor, page: &Page) -> Result<(Vec<UserRow>, Option<String>)> {
    let after = page.after::<UserId>()?.unwrap_or(UserId(uuid::Uuid::nil()));
    let mut rows: Vec<UserRow> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", user_columns!(), " from blocks b join users on users.id = b.blocked
         where b.user_id = $1 and b.blocked > $2
         order by b.blocked limit $3",
    ))
    .bind(actor.user)
    .bind(after)
    .bind(page.limit + 1)
    .fetch_all(pool)
    .await)?;
    let next = page.cut(&mut rows, |row| row.id.to_string());
    Ok((rows, next))
}

async fn exists(tx: &mut Tx, blocker: UserId, user: UserId) -> Result<bool> {
    let row: Option<(i64,)> = on_tx!(tx, c => sqlx::query_as("select at from blocks where user_id = $1 and blocked = $2")
            .bind(blocker)
            .bind(user)
            .fetch_optional(c)
            .await)?;
    Ok(row.is_some())
}

async fn direct_room(tx: &mut Tx, one: UserId, other: UserId) -> Result<Option<RoomId>> {
    let row: Option<(RoomId,)> = on_tx!(tx, c => sqlx::query_as("select room_id from direct_rooms where low = $1 and high = $2")
            .bind(one.min(other))
            .bind(one.max(other))
            .fetch_optional(c)
            .await)?;
    Ok(row.map(|(room,)| room))
}

/// Locks a user's row without taking a rev: nothing of the user's own list changes.
async fn lock_user(tx: &mut Tx, user: UserId) -> Result<()> {
    if let Tx::Postgres(tx) = tx {
        sqlx::query("select id from users where id = $1 for no key update").bind(user).execute(&mut **tx).await?;
    }
    Ok(())
}

/// Whether that changes something.
async fn write(tx: &mut Tx, blocker: UserId, user: UserId, on: bool) -> Result<bool> {
    let rows = if on {
        on_tx!(tx, c => sqlx::query(
            "insert into blocks (user_id, blocked, at) values ($1, $2, $3) on conflict (user_id, blocked) do nothing",
        )
        .bind(blocker)
        .bind(user)
        .bind(clock::now_ms())
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?
    } else {
        on_tx!(tx, c => sqlx::query("delete from blocks where user_id = $1 and blocked = $2")
            .bind(blocker)
            .bind(user)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?
    };
    Ok(rows > 0)
}

async fn mark(tx: &mut Tx, room: RoomId, user: UserId, on: bool) -> Result<()> {
    on_tx!(tx, c => sqlx::query("update members set blocked = $3 where room_id = $1 and user_id = $2")
        .bind(room)
        .bind(user)
        .bind(on)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}
