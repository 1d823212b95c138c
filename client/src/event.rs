//! The events that a socket brings, `{"event":{"<kind>":{…}}}`.
#![allow(missing_docs, reason = "kinds and fields are those of the table of events in docs/protocol.md")]

use serde::Deserialize;
use serde_json::Value;

use crate::id::{NotificationId, RoomId, UserId};
use crate::wire::{Me, Member, Message, Notification, Presence, Rev, Room, RoomInfo, Seq};

/// One event. A kind that this library does not know is kept as it came.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Message(Box<MessageEvent>),
    Skip(Skip),
    Member(Box<MemberEvent>),
    Removed(Removed),
    Room(Box<RoomEvent>),
    Joined(Box<Room>),
    Left(Left),
    Receipt(Receipt),
    Typing(Typing),
    Presence(Presence),
    Me(MeEvent),
    Resync(Resync),
    GoingAway(GoingAway),
    Notification(Box<Notification>),
    NotificationsRead(NotificationsRead),
    Unknown { kind: String, body: Value },
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MessageEvent {
    #[serde(flatten)]
    pub message: Message,
    #[serde(default)]
    pub prev: Option<Rev>,
    #[serde(default)]
    pub by: Option<ReactedBy>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ReactedBy {
    pub user: UserId,
    pub emoji: String,
    pub on: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Skip {
    pub room: RoomId,
    pub rev: Rev,
    #[serde(default)]
    pub prev: Option<Rev>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MemberEvent {
    pub room: RoomId,
    #[serde(flatten)]
    pub member: Member,
    #[serde(default)]
    pub prev: Option<Rev>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Removed {
    pub room: RoomId,
    pub rev: Rev,
    pub user: UserId,
    #[serde(default)]
    pub prev: Option<Rev>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RoomEvent {
    #[serde(flatten)]
    pub info: RoomInfo,
    #[serde(default)]
    pub prev: Option<Rev>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Left {
    pub room: RoomId,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Receipt {
    pub room: RoomId,
    pub user: UserId,
    #[serde(default)]
    pub read_seq: Option<Seq>,
    #[serde(default)]
    pub delivered_seq: Option<Seq>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Typing {
    pub room: RoomId,
    pub user: UserId,
    pub on: bool,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct MeEvent {
    pub room: RoomId,
    #[serde(flatten)]
    pub me: Me,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Resync {
    pub room: RoomId,
    pub rev: Rev,
    #[serde(default)]
    pub after_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct NotificationsRead {
    pub up_to: NotificationId,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GoingAway {
    pub reconnect_after_ms: u64,
}

impl Event {
    /// Reads the body of an event of this kind.
    pub fn parse(kind: &str, body: Value) -> serde_json::Result<Self> {
        use serde_json::from_value as read;
        Ok(match kind {
            "message" => Self::Message(read(body)?),
            "skip" => Self::Skip(read(body)?),
            "member" => Self::Member(read(body)?),
            "removed" => Self::Removed(read(body)?),
            "room" => Self::Room(read(body)?),
            "joined" => Self::Joined(read(body)?),
            "left" => Self::Left(read(body)?),
            "receipt" => Self::Receipt(read(body)?),
            "typing" => Self::Typing(read(body)?),
            "presence" => Self::Presence(read(body)?),
            "me" => Self::Me(read(body)?),
            "resync" => Self::Resync(read(body)?),
            "going_away" => Self::GoingAway(read(body)?),
            "notification" => Self::Notification(read(body)?),
            "notifications_read" => Self::NotificationsRead(read(body)?),
            kind => Self::Unknown { kind: kind.to_owned(), body },
        })
    }

    /// The place of a durable room event in its room: room, rev, and the rev it follows.
    pub fn place(&self) -> Option<(RoomId, Rev, Rev)> {
        let (room, rev, prev) = match self {
            Self::Message(e) => (e.message.room, e.message.rev, e.prev),
            Self::Skip(e) => (e.room, e.rev, e.prev),
            Self::Member(e) => (e.room, e.member.rev, e.prev),
            Self::Removed(e) => (e.room, e.rev, e.prev),
            Self::Room(e) => (e.info.id, e.info.rev, e.prev),
            _ => return None,
        };
        Some((room, rev, prev.unwrap_or(rev.saturating_sub(1))))
    }
}
