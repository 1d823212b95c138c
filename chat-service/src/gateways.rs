//! What gateways ask to serve and to repair their sockets: memberships, whose session stands, who may watch whom.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parlance_proto::chat;
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, SessionId, UserId},
    on_db, on_tx,
};
use uuid::Uuid;

use crate::{
    App,
    accounts::blocks::blocked_direct,
    actor::Actor,
    changes,
    error::Result,
    hello,
    rooms::{Kind as RoomKind, view},
};

/// Users whose presence one call may ask to watch.
const MOST_WATCHED: usize = 500;

macro_rules! watchable_from {
    () => {
        "from users u left join last_seen s on s.user_id = u.id"
    };
}

/// Whether user `u` may be watched by `$1`.
macro_rules! watchable_to {
    () => {
        "(u.id = $1 or (u.show_presence and exists (
             select 1 from user_rooms a join user_rooms b on b.room_id = a.room_id
             where a.user_id = $1 and b.user_id = u.id
         ) and not exists (select 1 from blocks where blocks.user_id = u.id and blocks.blocked = $1)))"
    };
}

/// The rooms of users, to attach before their `hello` is read, and each user's rev: of all who ask together.
pub(crate) async fn memberships(app: Arc<App>, users: Vec<UserId>) -> Result<Vec<Result<chat::MembershipList, Fault>>> {
    let distinct: Vec<UserId> = users.iter().copied().collect::<HashSet<_>>().into_iter().collect();
    let mut tx = app.db.snapshot().await?;
    let revs = changes::user_heads(&mut tx, &distinct).await?;
    let memberships = hello::memberships(&mut tx, &distinct).await?;
    tx.commit().await?;
    let list = |user: &UserId| {
        let user_rev = *revs.get(user).ok_or_else(|| Fault::not_found("there is no such user"))?;
        let items = memberships.get(user).into_iter().flatten().map(hello::Light::to_wire).collect();
        Ok(chat::MembershipList { items, user_rev })
    };
    Ok(users.iter().map(list).collect())
}

/// One room as its member sees it now, or nothing when the user is not in it.
pub(crate) async fn read_room(app: &Arc<App>, user: UserId, room: RoomId) -> Result<chat::ReadRoomReply> {
    let mut tx = app.db.snapshot().await?;
    let Some(view) = view::read(&mut tx, &[(user, room)]).await?.pop() else {
        return Ok(chat::ReadRoomReply::default());
    };
    let member = view.member();
    let membership = chat::Membership {
        room: room.to_wire(),
        rev: view.room.rev,
        visible_from_seq: member.visible_from_seq,
        joined_rev: member.joined_rev,
        direct: RoomKind::from_row(view.room.kind) == RoomKind::Direct,
    };
    Ok(chat::ReadRoomReply { room: Some(view.to_wire()), membership: Some(membership) })
}

/// Whether the other member of a direct room may see this one type.
pub(crate) async fn typing(app: &App, actor: Actor, room: RoomId) -> Result<bool> {
    let (shown,): (bool,) = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select exists (
             select 1 from members m where m.room_id = $1 and m.user_id = $2 and m.present
         ) and not ", blocked_direct!("$1"),
    ))
    .bind(room)
    .bind(actor.user)
    .fetch_one(pool)
    .await)?;
    Ok(shown)
}

/// Which of these sessions of a user no longer stand, and which rooms the user is in.
pub(crate) async fn standing(app: &Arc<App>, user: UserId, sessions: &[SessionId]) -> Result<chat::StandingReply> {
    let mut tx = app.db.snapshot().await?;
    let user_rev = user_rev(&mut tx, user).await?;
    let standing: Vec<(SessionId,)> = on_tx!(&mut tx, c => sqlx::query_as(
        "select id from sessions where user_id = $1 and revoked_at is null",
    )
    .bind(user)
    .fetch_all(c)
    .await)?;
    let standing: HashSet<SessionId> = standing.into_iter().map(|(session,)| session).collect();
    let revoked = sessions.iter().filter(|session| !standing.contains(session)).map(|session| session.to_wire());
    let memberships = hello::memberships(&mut tx, &[user]).await?.remove(&user).unwrap_or_default();
    Ok(chat::StandingReply {
        user_rev,
        revoked: revoked.collect(),
        memberships: memberships.iter().map(hello::Light::to_wire).collect(),
    })
}

async fn user_rev(tx: &mut Tx, user: UserId) -> Result<i64> {
    let row: Option<(i64,)> =
        on_tx!(tx, c => sqlx::query_as("select rev from users where id = $1").bind(user).fetch_optional(c).await)?;
    Ok(row.ok_or_else(|| Fault::not_found("there is no such user"))?.0)
}

/// Those of the users who share a room with the actor, show their presence and do not block the actor, and oneself; each with when it was last
/// seen, as far as that is stored.
pub(crate) async fn watchable(app: &Arc<App>, actor: Actor, users: Vec<UserId>) -> Result<Vec<(UserId, Option<i64>)>> {
    if users.len() > MOST_WATCHED {
        return Err(Fault::bad_request(format!("add: at most {MOST_WATCHED} users")).into());
    }
    let mut tx = app.db.snapshot().await?;
    let rows: Vec<(UserId, Option<i64>)> = match &mut tx {
        Tx::Postgres(tx) => {
            let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
            let sql = concat!("select u.id, s.at ", watchable_from!(), " where u.id = any($2) and ", watchable_to!());
            sqlx::query_as(sql).bind(actor.user).bind(ids).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            let sql = concat!("select u.id, s.at ", watchable_from!(), " where u.id = $2 and ", watchable_to!());
            let mut rows = Vec::new();
            for user in &users {
                let row: Option<(UserId, Option<i64>)> =
                    sqlx::query_as(sql).bind(actor.user).bind(user).fetch_optional(&mut **tx).await?;
                rows.extend(row);
            }
            rows
        }
    };
    let allowed: HashMap<UserId, Option<i64>> = rows.into_iter().collect();
    Ok(users.into_iter().filter_map(|user| Some((user, *allowed.get(&user)?))).collect())
}
