//! What calls answer that is more than one object: changes, pages, presence, the state of all rooms.

use parlance_proto::{chat, v1};
use serde::Serialize;

use super::{Id, Member, Message, Room, all, ids};

/// A `Changes` object.
#[derive(Debug, Serialize)]
pub struct Changes<'a> {
    room: Id<'a>,
    from_rev: i64,
    rev: i64,
    messages: Vec<Message<'a>>,
    members: Vec<Member<'a>>,
    removed: Vec<Id<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<Room<'a>>,
    more: bool,
    truncated: bool,
}

impl<'a> From<&'a v1::Changes> for Changes<'a> {
    fn from(changes: &'a v1::Changes) -> Self {
        Self {
            room: Id(&changes.room),
            from_rev: changes.from_rev,
            rev: changes.rev,
            messages: all(&changes.messages),
            members: all(&changes.members),
            removed: ids(&changes.removed),
            info: changes.info.as_ref().map(Room::shared),
            more: changes.more,
            truncated: changes.truncated,
        }
    }
}

/// What is known of a user's presence.
#[derive(Debug, Serialize)]
pub struct Presence<'a> {
    user: Id<'a>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<i64>,
}

impl<'a> From<&'a v1::Presence> for Presence<'a> {
    fn from(presence: &'a v1::Presence) -> Self {
        Self {
            user: Id(&presence.user),
            state: match presence.state() {
                v1::PresenceState::Online => "online",
                v1::PresenceState::Away => "away",
                v1::PresenceState::Dnd => "dnd",
                // Whoever chose to be invisible looks offline to everyone.
                v1::PresenceState::Offline | v1::PresenceState::Invisible | v1::PresenceState::Unspecified => "offline",
            },
            last_seen: presence.last_seen,
        }
    }
}

/// A page of messages, as `messages` and GET history answer it.
#[derive(Debug, Serialize)]
pub struct History<'a> {
    items: Vec<Message<'a>>,
    has_more: bool,
    rev: i64,
}

impl<'a> From<&'a chat::HistoryReply> for History<'a> {
    fn from(reply: &'a chat::HistoryReply) -> Self {
        Self { items: all(&reply.items), has_more: reply.has_more, rev: reply.rev }
    }
}

/// What `welcome` and POST `/v1/sync` share.
#[derive(Debug, Serialize)]
pub struct Synced<'a> {
    generation: &'a str,
    rooms: Vec<Room<'a>>,
    next_cursor: Option<&'a str>,
    changes: Vec<Changes<'a>>,
    left: Vec<Id<'a>>,
}

impl<'a> From<&'a chat::HelloReply> for Synced<'a> {
    fn from(reply: &'a chat::HelloReply) -> Self {
        Self {
            generation: &reply.generation,
            rooms: all(&reply.rooms),
            next_cursor: reply.next_cursor.as_deref(),
            changes: all(&reply.changes),
            left: ids(&reply.left),
        }
    }
}

/// A page of a list.
#[derive(Debug, Serialize)]
pub struct Page<'a, V> {
    items: Vec<V>,
    next_cursor: Option<&'a str>,
}

impl<'a, V> Page<'a, V> {
    /// These items; `next_cursor` is null at the end.
    pub fn new<T>(items: &'a [T], next_cursor: Option<&'a str>) -> Self
    where
        V: From<&'a T>,
    {
        Self { items: all(items), next_cursor }
    }
}
