//! The objects of the contract, as `docs/protocol.md` names them.
//!
//! Reading is lenient, because a newer server may add fields and words; an unknown word of an enum becomes its `Unknown`.
#![allow(
    missing_docs,
    reason = "the fields are those of the section `Objects` of docs/protocol.md, which explains them once"
)]

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::{FileId, MessageId, NotificationId, RoomId, SessionId, UserId};

/// The number of a message in its room: 1, 2, 3…
pub type Seq = u64;
/// The number of a change of a room's durable state.
pub type Rev = u64;
/// Milliseconds since the Unix epoch.
pub type AtMs = i64;

/// A person or a bot. An erased one has an id and `deleted`, and nothing else.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub id: UserId,
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub avatar: Option<FileId>,
    #[serde(default)]
    pub bot: bool,
    #[serde(default)]
    pub created_at: AtMs,
    #[serde(default)]
    pub deleted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoomKind {
    Direct,
    Group,
    Channel,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Member,
    Admin,
    Owner,
    #[serde(other)]
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomSettings {
    #[serde(default)]
    pub history: String,
    #[serde(default)]
    pub announcement: bool,
    #[serde(default)]
    pub slow_mode_s: u64,
    #[serde(default)]
    pub retention_days: Option<u64>,
}

/// What of a room is the same for every member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoomInfo {
    pub id: RoomId,
    pub kind: RoomKind,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub topic: Option<String>,
    #[serde(default)]
    pub avatar: Option<FileId>,
    pub created_at: AtMs,
    #[serde(default)]
    pub first_seq: Seq,
    pub seq: Seq,
    pub rev: Rev,
    #[serde(default)]
    pub member_count: u64,
    #[serde(default)]
    pub archived: bool,
    pub settings: RoomSettings,
}

/// A room as one of its members sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Room {
    #[serde(flatten)]
    pub info: RoomInfo,
    pub me: Me,
    #[serde(default)]
    pub last_message: Option<Message>,
    #[serde(default)]
    pub peer: Option<User>,
}

impl std::ops::Deref for Room {
    type Target = RoomInfo;

    fn deref(&self) -> &RoomInfo {
        &self.info
    }
}

/// One's own state in a room.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Me {
    pub rev: Rev,
    pub role: Role,
    pub read_seq: Seq,
    pub unread: u64,
    #[serde(default)]
    pub mentions: u64,
    #[serde(default)]
    pub muted_until: Option<AtMs>,
    #[serde(default)]
    pub notify: String,
    #[serde(default)]
    pub favourite: bool,
    #[serde(default)]
    pub draft: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub user: User,
    pub role: Role,
    pub joined_at: AtMs,
    pub rev: Rev,
    #[serde(default)]
    pub muted_until: Option<AtMs>,
    #[serde(default)]
    pub read_seq: Option<Seq>,
    #[serde(default)]
    pub delivered_seq: Option<Seq>,
}

/// Whom a message mentions: a user, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Mention {
    All,
    User(UserId),
}

impl TryFrom<String> for Mention {
    type Error = uuid::Error;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        if word == "all" { Ok(Self::All) } else { word.parse().map(Self::User) }
    }
}

impl From<Mention> for String {
    fn from(mention: Mention) -> Self {
        match mention {
            Mention::All => "all".into(),
            Mention::User(user) => user.to_string(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reaction {
    pub emoji: String,
    pub count: u64,
    #[serde(default)]
    pub me: bool,
    #[serde(default)]
    pub users: Vec<UserId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub room: RoomId,
    pub seq: Seq,
    pub rev: Rev,
    pub id: MessageId,
    #[serde(default)]
    pub client_id: Option<Uuid>,
    #[serde(default)]
    pub sender: Option<UserId>,
    pub kind: String,
    pub text: String,
    #[serde(default)]
    pub mentions: Vec<Mention>,
    #[serde(default)]
    pub reply_to: Option<Seq>,
    #[serde(default)]
    pub thread: Option<Seq>,
    #[serde(default)]
    pub reply_count: Option<u64>,
    #[serde(default)]
    pub attachments: Vec<File>,
    #[serde(default)]
    pub reactions: Vec<Reaction>,
    #[serde(default)]
    pub pinned: bool,
    #[serde(default)]
    pub forwarded_from: Option<Value>,
    #[serde(default)]
    pub meta: Option<Value>,
    pub at: AtMs,
    #[serde(default)]
    pub edited_at: Option<AtMs>,
    #[serde(default)]
    pub deleted_at: Option<AtMs>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct File {
    pub id: FileId,
    pub name: String,
    pub media_type: String,
    pub size: u64,
    #[serde(default)]
    pub width: Option<u64>,
    #[serde(default)]
    pub height: Option<u64>,
    #[serde(default)]
    pub blurhash: Option<String>,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub at: AtMs,
}

/// The newest state of everything in a room whose rev is in (`from_rev`, `rev`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    pub room: RoomId,
    #[serde(default)]
    pub from_rev: Rev,
    pub rev: Rev,
    #[serde(default)]
    pub messages: Vec<Message>,
    #[serde(default)]
    pub members: Vec<Member>,
    #[serde(default)]
    pub removed: Vec<UserId>,
    #[serde(default)]
    pub info: Option<RoomInfo>,
    #[serde(default)]
    pub more: bool,
    #[serde(default)]
    pub truncated: bool,
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    pub connection: String,
    pub user: User,
    pub session: SessionId,
    pub server_time: AtMs,
    pub heartbeat_ms: u64,
    pub max_frame: u64,
    #[serde(flatten)]
    pub heads: Heads,
}

impl std::ops::Deref for Welcome {
    type Target = Heads;

    fn deref(&self) -> &Heads {
        &self.heads
    }
}

/// What `welcome` and `sync` say about the rooms of a user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    pub generation: String,
    pub rooms: Vec<Room>,
    #[serde(default)]
    pub next_cursor: Option<String>,
    #[serde(default)]
    pub changes: Vec<Changes>,
    #[serde(default)]
    pub left: Vec<RoomId>,
}

/// The state of a watched user.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    pub user: UserId,
    pub state: String,
    #[serde(default)]
    pub last_seen: Option<AtMs>,
}

/// What a notification is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NotificationKind {
    Mention,
    Reply,
    Invitation,
    Direct,
    #[serde(other)]
    Unknown,
}

/// Something that one was told of; in events without its message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notification {
    pub id: NotificationId,
    pub kind: NotificationKind,
    pub room: RoomId,
    pub seq: Seq,
    pub sender: UserId,
    pub at: AtMs,
    pub read: bool,
    #[serde(default)]
    pub message: Option<Message>,
}
