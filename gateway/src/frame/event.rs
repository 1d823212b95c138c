//! Events, each written once and handed to all who shall see it. Bodies are flat: `room` is always the id, and the
//! object's fields stand beside it. `prev` is written when it is given, which is when it is not `rev` - 1.

use parlance_proto::{event, v1};
use serde::Serialize;
use service_kit::id::{RoomId, UserId};

use super::write;
use crate::{
    json::{self, Id},
    socket::Frame,
};

#[derive(Serialize)]
struct Flat<'a, T> {
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<Id<'a>>,
    #[serde(flatten)]
    body: T,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev: Option<i64>,
}

fn room_id(room: &RoomId) -> Id<'_> {
    Id(room.0.as_bytes())
}

/// A message is new or has changed. It carries its room itself.
#[must_use]
pub fn message(message: &v1::Message, prev: Option<i64>) -> Frame {
    write::event("message", &Flat { room: None, body: json::Message::from(message), prev })
}

/// A change that this member may not see.
#[must_use]
pub fn skip(room: RoomId, rev: i64, prev: Option<i64>) -> Frame {
    #[derive(Serialize)]
    struct Body {
        rev: i64,
    }
    write::event("skip", &Flat { room: Some(room_id(&room)), body: Body { rev }, prev })
}

/// A member came or changed.
#[must_use]
pub fn member(room: RoomId, member: &v1::Member, prev: Option<i64>) -> Frame {
    let body = json::Member::without_cursors(member);
    write::event("member", &Flat { room: Some(room_id(&room)), body, prev })
}

/// A member went.
#[must_use]
pub fn removed(room: RoomId, rev: i64, user: UserId, prev: Option<i64>) -> Frame {
    #[derive(Serialize)]
    struct Body {
        rev: i64,
        user: UserId,
    }
    write::event("removed", &Flat { room: Some(room_id(&room)), body: Body { rev, user }, prev })
}

/// The room itself changed: what is the same for every member.
#[must_use]
pub fn room(room: &v1::Room, prev: Option<i64>) -> Frame {
    write::event("room", &Flat { room: Some(Id(&room.id)), body: json::Room::shared(room), prev })
}

/// This user is in a room from now on: the room as that user sees it.
#[must_use]
pub fn joined(room: &v1::Room) -> Frame {
    write::event("joined", &Flat { room: Some(Id(&room.id)), body: json::Room::from(room), prev: None })
}

/// This user is not in the room any more.
#[must_use]
pub fn left(room: RoomId) -> Frame {
    #[derive(Serialize)]
    struct Body {
        room: RoomId,
    }
    write::event("left", &Body { room })
}

/// How far a member has read or received.
#[must_use]
pub fn receipt(receipt: &event::Receipt) -> Frame {
    #[derive(Serialize)]
    struct Body<'a> {
        room: Id<'a>,
        user: Id<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        read_seq: Option<i64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        delivered_seq: Option<i64>,
    }
    let body = Body {
        room: Id(&receipt.room),
        user: Id(&receipt.user),
        read_seq: receipt.read_seq,
        delivered_seq: receipt.delivered_seq,
    };
    write::event("receipt", &body)
}

/// A member types, or stopped.
#[must_use]
pub fn typing(room: RoomId, user: UserId, on: bool) -> Frame {
    #[derive(Serialize)]
    struct Body {
        room: RoomId,
        user: UserId,
        on: bool,
    }
    write::event("typing", &Body { room, user, on })
}

/// A watched user's presence changed.
#[must_use]
pub fn presence(presence: &v1::Presence) -> Frame {
    write::event("presence", &json::Presence::from(presence))
}

/// The user's own cursor or settings in a room changed; `rev` is that of `me`.
#[must_use]
pub fn me(room: RoomId, me: &v1::Me) -> Frame {
    write::event("me", &Flat { room: Some(room_id(&room)), body: json::Me::from(me), prev: None })
}

/// Continuity could not be kept: ask for `changes` after so many milliseconds.
#[must_use]
pub fn resync(room: RoomId, rev: i64, after_ms: i64) -> Frame {
    #[derive(Serialize)]
    struct Body {
        room: RoomId,
        rev: i64,
        after_ms: i64,
    }
    write::event("resync", &Body { room, rev, after_ms })
}

/// This gateway leaves: connect again after so many milliseconds.
#[must_use]
pub fn going_away(reconnect_after_ms: u64) -> Frame {
    #[derive(Serialize)]
    struct Body {
        reconnect_after_ms: u64,
    }
    write::event("going_away", &Body { reconnect_after_ms })
}
