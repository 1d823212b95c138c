//! Making rooms: groups and channels by one user, a direct room by two who may ask at the same moment.

use std::{collections::BTreeSet, sync::Arc};

use service_kit::{
    clock,
    fault::Fault,
    id::{RoomId, UserId},
    on_tx,
};

use crate::{
    App,
    accounts::blocks,
    actor::Actor,
    error::Result,
    outbox::Announcement,
    rooms::{self, Kind, MemberRow, Role, RoomRow},
};

/// Longest name of a room, in characters.
pub(crate) const MAX_NAME: usize = 128;
/// Longest topic of a room, in characters.
pub(crate) const MAX_TOPIC: usize = 1_000;
/// Users that a room can be made with; more are added afterwards.
const MAX_FIRST_MEMBERS: usize = 1_000;

/// What a new group or channel is to be.
#[derive(Debug)]
pub(crate) struct NewRoom {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) topic: Option<String>,
    pub(crate) members: Vec<UserId>,
    pub(crate) idempotency_key: Option<String>,
}

/// Checks a name of a room.
pub(crate) fn check_name(name: &str) -> Result<(), Fault> {
    if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.contains('\0') {
        return Err(Fault::bad_request(format!("name: must have 1 to {MAX_NAME} characters")));
    }
    Ok(())
}

/// Checks a topic of a room.
pub(crate) fn check_topic(topic: &str) -> Result<(), Fault> {
    if topic.chars().count() > MAX_TOPIC || topic.contains('\0') {
        return Err(Fault::bad_request(format!("topic: must have at most {MAX_TOPIC} characters")));
    }
    Ok(())
}

/// Makes a group or channel whose owner is the actor. The same idempotency key gives the room made before.
pub(crate) async fn create(app: &Arc<App>, actor: Actor, new: NewRoom) -> Result<RoomId> {
    check_name(&new.name)?;
    new.topic.as_deref().map_or(Ok(()), check_topic)?;
    if new.members.len() > MAX_FIRST_MEMBERS {
        return Err(Fault::bad_request(format!("members: at most {MAX_FIRST_MEMBERS} at once")).into());
    }
    let mut tx = app.db.begin().await?;
    let room = blank(new.kind, Some(new.name), new.topic.filter(|topic| !topic.is_empty()));
    if let Some(key) = &new.idempotency_key
        && let Some(earlier) = claim_key(&mut tx, actor.user, key, room.id).await?
    {
        return Ok(earlier);
    }
    // In the order of their ids, as everywhere: two rooms made at once must not wait for each other in a circle.
    let members: BTreeSet<UserId> = new.members.into_iter().chain([actor.user]).collect();
    let mut announcement = Announcement::new();
    let id = room.id;
    found(&mut tx, room, &members, Some(actor.user), &mut announcement).await?;
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(id)
}

/// The one direct room of the actor and `peer`, and whether it was made now.
pub(crate) async fn open_direct(app: &Arc<App>, actor: Actor, peer: UserId) -> Result<(RoomId, bool)> {
    if peer == actor.user {
        return Err(Fault::unprocessable("a direct room is for two different users").into());
    }
    let (low, high) = (actor.user.min(peer), actor.user.max(peer));
    let mut tx = app.db.begin().await?;
    rooms::user(&mut tx, peer).await?;
    let room = blank(Kind::Direct, None, None);
    // Whoever comes second waits here for the first, and then finds its room.
    let made = on_tx!(&mut tx, c => sqlx::query(
        "insert into direct_rooms (low, high, room_id) values ($1, $2, $3) on conflict (low, high) do nothing",
    )
    .bind(low)
    .bind(high)
    .bind(room.id)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if made == 0 {
        let (existing,): (RoomId,) = on_tx!(&mut tx, c => sqlx::query_as(
            "select room_id from direct_rooms where low = $1 and high = $2",
        )
        .bind(low)
        .bind(high)
        .fetch_one(c)
        .await)?;
        return Ok((existing, false));
    }
    let mut announcement = Announcement::new();
    let id = room.id;
    found(&mut tx, room, &BTreeSet::from([low, high]), None, &mut announcement).await?;
    // Only now both users' rows are locked, and no block comes between.
    blocks::judge_new_direct(&mut tx, id, actor.user, peer).await?;
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok((id, true))
}

fn blank(kind: Kind, name: Option<String>, topic: Option<String>) -> RoomRow {
    let now = clock::now_ms();
    RoomRow {
        id: RoomId::generate(),
        kind: kind as i16,
        name,
        topic,
        avatar: None,
        created_at: now,
        active_at: now,
        first_seq: 1,
        seq: 0,
        rev: 1,
        info_rev: 1,
        member_count: 0,
        archived: false,
        history_joined: false,
        announcement: false,
        slow_mode_s: 0,
        retention_days: None,
    }
}

/// Inserts a room with its first members. They have nothing to catch up with: no notices, everything read.
async fn found(
    tx: &mut service_kit::db::Tx,
    mut room: RoomRow,
    members: &BTreeSet<UserId>,
    owner: Option<UserId>,
    announcement: &mut Announcement,
) -> Result<()> {
    on_tx!(tx, c => sqlx::query(
        "insert into rooms (id, kind, created_at, active_at, first_seq, seq, rev, info_rev, member_count, archived,
             history_joined, announcement, slow_mode_s)
         values ($1, $2, $3, $3, 1, 0, 1, 1, 0, false, false, false, 0)",
    )
    .bind(room.id)
    .bind(room.kind)
    .bind(room.created_at)
    .execute(c)
    .await
    .map(|_| ()))?;
    for member in members {
        rooms::user(tx, *member).await?;
        let rev = room.next_rev();
        let role = if owner == Some(*member) { Role::Owner } else { Role::Member };
        rooms::save_member(tx, &newcomer(&room, *member, role, rev, 0)).await?;
        add_to_own_rooms(tx, room.id, *member).await?;
        let by = owner.filter(|owner| owner != member).map(|owner| (owner, 0));
        rooms::tell_joined(tx, announcement, *member, room.id, by).await?;
    }
    room.member_count = i64::try_from(members.len()).unwrap_or(i64::MAX);
    rooms::save(tx, &room).await
}

/// A membership that begins at `rev`, with default settings and everything read.
pub(crate) fn newcomer(room: &RoomRow, user: UserId, role: Role, rev: i64, me_rev: i64) -> MemberRow {
    MemberRow {
        room_id: room.id,
        user_id: user,
        present: true,
        role: role as i16,
        joined_at: clock::now_ms(),
        rev,
        joined_rev: rev,
        visible_from_seq: if room.history_joined { room.seq } else { 0 },
        read_seq: room.seq,
        delivered_seq: room.seq,
        muted_until: None,
        me_rev,
        me_muted_until: None,
        notify: 1,
        favourite: false,
        draft: None,
    }
}

/// Enters a room into its member's own list.
pub(crate) async fn add_to_own_rooms(tx: &mut service_kit::db::Tx, room: RoomId, user: UserId) -> Result<()> {
    on_tx!(tx, c => sqlx::query(
        "insert into user_rooms (user_id, room_id) values ($1, $2) on conflict (user_id, room_id) do nothing",
    )
    .bind(user)
    .bind(room)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// How long an idempotency key is remembered.
const KEY_LIFE_MS: i64 = 24 * 60 * 60 * 1000;

/// Notes that this key makes this room; gives the room that the key has made before, if it has.
async fn claim_key(tx: &mut service_kit::db::Tx, user: UserId, key: &str, room: RoomId) -> Result<Option<RoomId>> {
    let now = clock::now_ms();
    on_tx!(tx, c => sqlx::query("delete from idempotency_keys where user_id = $1 and at < $2")
        .bind(user)
        .bind(now - KEY_LIFE_MS)
        .execute(c)
        .await
        .map(|_| ()))?;
    let claimed = on_tx!(tx, c => sqlx::query(
        "insert into idempotency_keys (user_id, key, room_id, at) values ($1, $2, $3, $4)
         on conflict (user_id, key) do nothing",
    )
    .bind(user)
    .bind(key)
    .bind(room)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if claimed == 1 {
        return Ok(None);
    }
    let (earlier,): (RoomId,) = on_tx!(tx, c => sqlx::query_as(
        "select room_id from idempotency_keys where user_id = $1 and key = $2",
    )
    .bind(user)
    .bind(key)
    .fetch_one(c)
    .await)?;
    Ok(Some(earlier))
}
