//! Rooms and memberships: their rows, how they look on the wire, and the lock that orders every change of a room.

pub(crate) mod create;
pub(crate) mod list;
pub(crate) mod members;
pub(crate) mod settings;
pub(crate) mod view;

use parlance_proto::{
    event::{MemberChanged, MemberRemoved, RoomEvent, room_event},
    v1,
};
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    on_tx,
};
use uuid::Uuid;

use crate::{
    accounts::{UserRow, user_columns},
    error::Result,
    outbox::Announcement,
};

/// How long a change waits for a room that another transaction holds.
const LOCK_WAIT: &str = "set local lock_timeout = '3s'";

/// What kind of room it is, as stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Direct = 1,
    Group = 2,
    Channel = 3,
}

impl Kind {
    pub(crate) fn from_row(kind: i16) -> Self {
        match kind {
            1 => Self::Direct,
            3 => Self::Channel,
            _ => Self::Group,
        }
    }

    pub(crate) fn to_wire(self) -> v1::RoomKind {
        match self {
            Self::Direct => v1::RoomKind::Direct,
            Self::Group => v1::RoomKind::Group,
            Self::Channel => v1::RoomKind::Channel,
        }
    }
}

/// What a member may do, as stored; a greater one may all that a smaller one may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Member = 1,
    Admin = 2,
    Owner = 3,
}

impl Role {
    pub(crate) fn from_row(role: i16) -> Self {
        match role {
            3 => Self::Owner,
            2 => Self::Admin,
            _ => Self::Member,
        }
    }

    pub(crate) fn from_wire(role: i32) -> Result<Self, Fault> {
        match v1::Role::try_from(role) {
            Ok(v1::Role::Member) => Ok(Self::Member),
            Ok(v1::Role::Admin) => Ok(Self::Admin),
            Ok(v1::Role::Owner) => Ok(Self::Owner),
            _ => Err(Fault::bad_request("role: is none of member, admin, owner")),
        }
    }

    pub(crate) fn to_wire(self) -> i32 {
        match self {
            Self::Member => v1::Role::Member,
            Self::Admin => v1::Role::Admin,
            Self::Owner => v1::Role::Owner,
        }
        .into()
    }
}

/// The columns of [`RoomRow`]. Named one by one: a prepared `select *` breaks when a newer release adds a column.
macro_rules! room_columns {
    () => {
        "id, kind, name, topic, avatar, created_at, active_at, first_seq, seq, rev, info_rev, member_count, archived,
         history_joined, announcement, slow_mode_s, retention_days"
    };
}
pub(crate) use room_columns;

/// The columns of [`MemberRow`].
macro_rules! member_columns {
    () => {
        "room_id, user_id, present, role, joined_at, rev, joined_rev, visible_from_seq, read_seq, delivered_seq,
         muted_until, me_rev, me_muted_until, notify, favourite, draft"
    };
}
pub(crate) use member_columns;

/// A row of `rooms`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct RoomRow {
    pub(crate) id: RoomId,
    pub(crate) kind: i16,
    pub(crate) name: Option<String>,
    pub(crate) topic: Option<String>,
    pub(crate) avatar: Option<Uuid>,
    pub(crate) created_at: i64,
    pub(crate) active_at: i64,
    pub(crate) first_seq: i64,
    pub(crate) seq: i64,
    pub(crate) rev: i64,
    pub(crate) info_rev: i64,
    pub(crate) member_count: i64,
    pub(crate) archived: bool,
    pub(crate) history_joined: bool,
    pub(crate) announcement: bool,
    pub(crate) slow_mode_s: i64,
    pub(crate) retention_days: Option<i64>,
}

impl RoomRow {
    pub(crate) fn kind(&self) -> Kind {
        Kind::from_row(self.kind)
    }

    /// The room without anything that depends on the reader: what events and `info` carry.
    pub(crate) fn to_wire(&self) -> v1::Room {
        v1::Room {
            id: self.id.to_wire(),
            kind: self.kind().to_wire().into(),
            name: self.name.clone(),
            topic: self.topic.clone(),
            avatar: self.avatar.map(|id| id.as_bytes().to_vec().into()),
            created_at: self.created_at,
            first_seq: self.first_seq,
            seq: self.seq,
            rev: self.rev,
            member_count: self.member_count,
            archived: self.archived,
            settings: Some(v1::RoomSettings {
                history_joined: self.history_joined,
                announcement: self.announcement,
                slow_mode_s: self.slow_mode_s,
                retention_days: self.retention_days,
            }),
            me: None,
            last_message: None,
            peer: None,
        }
    }

    /// Takes the next rev; it counts once [`save`] has written it.
    pub(crate) fn next_rev(&mut self) -> i64 {
        self.rev += 1;
        self.rev
    }

    /// Refuses a change of an archived room.
    pub(crate) fn refuse_archived(&self) -> Result<()> {
        if self.archived {
            return Err(Fault::unprocessable("the room is archived").into());
        }
        Ok(())
    }

    /// An event of this room with its own rev.
    pub(crate) fn event(&self, rev: i64, kind: room_event::Kind) -> RoomEvent {
        RoomEvent { room: self.id.to_wire(), rev, prev: 0, kind: Some(kind) }
    }

    /// The event that says how the room looks now.
    pub(crate) fn info_event(&self) -> RoomEvent {
        self.event(self.rev, room_event::Kind::Info(self.to_wire()))
    }
}

/// A row of `members`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct MemberRow {
    pub(crate) room_id: RoomId,
    pub(crate) user_id: UserId,
    pub(crate) present: bool,
    pub(crate) role: i16,
    pub(crate) joined_at: i64,
    pub(crate) rev: i64,
    pub(crate) joined_rev: i64,
    pub(crate) visible_from_seq: i64,
    pub(crate) read_seq: i64,
    pub(crate) delivered_seq: i64,
    pub(crate) muted_until: Option<i64>,
    pub(crate) me_rev: i64,
    pub(crate) me_muted_until: Option<i64>,
    pub(crate) notify: i16,
    pub(crate) favourite: bool,
    pub(crate) draft: Option<String>,
}

impl MemberRow {
    pub(crate) fn role(&self) -> Role {
        Role::from_row(self.role)
    }

    /// The member as everybody sees them, without cursors.
    pub(crate) fn to_wire(&self, user: &UserRow) -> v1::Member {
        v1::Member {
            user: Some(user.clone().into_wire()),
            role: self.role().to_wire(),
            joined_at: self.joined_at,
            rev: self.rev,
            muted_until: self.muted_until,
            read_seq: None,
            delivered_seq: None,
        }
    }

    /// The member's own state in a room whose last message is `seq`.
    pub(crate) fn to_me(&self, seq: i64) -> v1::Me {
        v1::Me {
            rev: self.me_rev,
            role: self.role().to_wire(),
            read_seq: self.read_seq,
            unread: (seq - self.read_seq).max(0),
            mentions: 0,
            muted_until: self.me_muted_until,
            notify: i32::from(self.notify),
            favourite: self.favourite,
            draft: self.draft.clone(),
        }
    }

    /// The event that says how this membership looks now.
    pub(crate) fn changed_event(&self, room: &RoomRow, user: &UserRow) -> RoomEvent {
        let changed = MemberChanged {
            member: Some(self.to_wire(user)),
            joined_rev: self.joined_rev,
            visible_from_seq: self.visible_from_seq,
        };
        room.event(self.rev, room_event::Kind::Member(changed))
    }

    /// The event that says that this membership is over.
    pub(crate) fn removed_event(&self, room: &RoomRow) -> RoomEvent {
        let removed = MemberRemoved { user: self.user_id.to_wire(), joined_rev: self.joined_rev };
        room.event(self.rev, room_event::Kind::Removed(removed))
    }
}

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
             retention_days = $14
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
    kind: parlance_proto::event::user_event::Kind,
) -> Result<()> {
    let rev = crate::accounts::bump(tx, user).await?;
    let event = parlance_proto::event::UserEvent { user: user.to_wire(), rev, kind: Some(kind) };
    announcement.user(user, event);
    Ok(())
}
