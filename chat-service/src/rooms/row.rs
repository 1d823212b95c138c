//! The rows of rooms and memberships, and how they look on the wire.

use parlance_proto::{
    event::{MemberChanged, MemberRemoved, RoomEvent, room_event},
    v1,
};
use service_kit::{
    fault::Fault,
    id::{RoomId, UserId},
};
use uuid::Uuid;

use crate::{accounts::UserRow, error::Result};

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

    /// Takes the next rev; it counts once [`save`](super::save) has written it.
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
        RoomEvent { room: self.id.to_wire(), rev, prev: 0, kind: Some(kind), direct: false }
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

    /// The member's own state in a room whose last message is `seq`, with so many mentions that are not read.
    pub(crate) fn to_me(&self, seq: i64, mentions: i64) -> v1::Me {
        v1::Me {
            rev: self.me_rev,
            role: self.role().to_wire(),
            read_seq: self.read_seq,
            unread: (seq - self.read_seq).max(0),
            mentions,
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
