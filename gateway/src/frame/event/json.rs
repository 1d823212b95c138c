//! Events as JSON. Bodies are flat: `room` is always the id, and the object's fields stand beside it.

use serde::Serialize;
use service_kit::id::{RoomId, UserId};

use super::Event;
use crate::{
    frame::write,
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

/// What has no object of the contract: the fields that the kind has.
#[derive(Default, Serialize)]
struct Plain<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Id<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reconnect_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up_to: Option<Id<'a>>,
}

pub(super) fn write(event: &Event<'_>) -> Frame {
    match event {
        // It carries its room itself.
        Event::Message { message, prev } => flat("message", None, json::Message::from(*message), *prev),
        Event::Skip { room, rev, prev } => {
            plain("skip", Some(room), Plain { rev: Some(*rev), ..Plain::default() }, *prev)
        }
        Event::Member { room, member, prev } => {
            flat("member", Some(room_id(room)), json::Member::without_cursors(member), *prev)
        }
        Event::Removed { room, rev, user, prev } => {
            let body = Plain { rev: Some(*rev), user: Some(user_id(user)), ..Plain::default() };
            plain("removed", Some(room), body, *prev)
        }
        Event::Room { room, prev } => flat("room", Some(Id(&room.id)), json::Room::shared(room), *prev),
        Event::Joined(room) => flat("joined", Some(Id(&room.id)), json::Room::from(*room), None),
        Event::Left(room) => plain("left", Some(room), Plain::default(), None),
        Event::Receipt(receipt) => {
            let body = Plain {
                user: Some(Id(&receipt.user)),
                read_seq: receipt.read_seq,
                delivered_seq: receipt.delivered_seq,
                ..Plain::default()
            };
            flat("receipt", Some(Id(&receipt.room)), body, None)
        }
        Event::Typing { room, user, on } => {
            plain("typing", Some(room), Plain { user: Some(user_id(user)), on: Some(*on), ..Plain::default() }, None)
        }
        Event::Presence(presence) => write::event("presence", &json::Presence::from(*presence)),
        Event::Me { room, me } => flat("me", Some(room_id(room)), json::Me::from(*me), None),
        Event::Notification(notification) => write::event("notification", &json::Notification::from(*notification)),
        Event::NotificationsRead { up_to } => {
            plain("notifications_read", None, Plain { up_to: Some(Id(up_to.as_bytes())), ..Plain::default() }, None)
        }
        Event::Resync { room, rev, after_ms } => {
            let body = Plain { rev: Some(*rev), after_ms: Some(*after_ms), ..Plain::default() };
            plain("resync", Some(room), body, None)
        }
        Event::GoingAway(wait_ms) => {
            plain("going_away", None, Plain { reconnect_after_ms: Some(*wait_ms), ..Plain::default() }, None)
        }
    }
}

fn flat<T: Serialize>(kind: &'static str, room: Option<Id<'_>>, body: T, prev: Option<i64>) -> Frame {
    write::event(kind, &Flat { room, body, prev })
}

fn plain(kind: &'static str, room: Option<&RoomId>, body: Plain<'_>, prev: Option<i64>) -> Frame {
    flat(kind, room.map(room_id), body, prev)
}

fn room_id(room: &RoomId) -> Id<'_> {
    Id(room.0.as_bytes())
}

fn user_id(user: &UserId) -> Id<'_> {
    Id(user.0.as_bytes())
}
