//! The objects of the public contract as JSON: borrowed views of what the services answer, field by field as in
//! docs/protocol.md, "Objects". What is not built yet has the value that says "none".

mod notification;
mod reply;

use parlance_proto::v1;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use uuid::Uuid;

pub use notification::{Notification, Notifications};
pub use reply::{Changes, History, Page, Presence, Synced};

/// A 16-byte id of a service as the hyphenated text of the contract. Another length can only be a fault of ours and
/// reads as the nil UUID, so that writing JSON never fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a>(pub &'a [u8]);

impl Serialize for Id<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = Uuid::from_slice(self.0).unwrap_or_default();
        serializer.serialize_str(id.hyphenated().encode_lower(&mut text))
    }
}

/// The ids of a list.
#[must_use]
pub fn ids<B: AsRef<[u8]>>(items: &[B]) -> Vec<Id<'_>> {
    items.iter().map(|id| Id(id.as_ref())).collect()
}

/// A `User`; an erased one is its id and `deleted`.
#[derive(Debug, Serialize)]
pub struct User<'a> {
    id: Id<'a>,
    #[serde(flatten)]
    profile: Option<UserProfile<'a>>,
    #[serde(skip_serializing_if = "is_false")]
    deleted: bool,
}

#[derive(Debug, Serialize)]
struct UserProfile<'a> {
    username: &'a str,
    display_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<Id<'a>>,
    bot: bool,
    created_at: i64,
}

impl<'a> From<&'a v1::User> for User<'a> {
    fn from(user: &'a v1::User) -> Self {
        let profile = (!user.deleted).then(|| UserProfile {
            username: &user.username,
            display_name: &user.display_name,
            avatar: user.avatar.as_deref().map(Id),
            bot: user.bot,
            created_at: user.created_at,
        });
        Self { id: Id(&user.id), profile, deleted: user.deleted }
    }
}

/// A `File`.
#[derive(Debug, Serialize)]
pub struct File<'a> {
    id: Id<'a>,
    name: &'a str,
    media_type: &'a str,
    size: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blurhash: Option<&'a str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: i64,
}

impl<'a> From<&'a v1::File> for File<'a> {
    fn from(file: &'a v1::File) -> Self {
        Self {
            id: Id(&file.id),
            name: &file.name,
            media_type: &file.media_type,
            size: file.size,
            width: file.width,
            height: file.height,
            blurhash: file.blurhash.as_deref(),
            state: match file.state() {
                v1::FileState::Ready => "ready",
                v1::FileState::Rejected => "rejected",
                v1::FileState::Pending | v1::FileState::Unspecified => "pending",
            },
            reason: file.reason.as_deref(),
            at: file.at,
        }
    }
}

/// A `Room`. The reader's part is there when the service gave it.
#[derive(Debug, Serialize)]
pub struct Room<'a> {
    id: Id<'a>,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    avatar: Option<Id<'a>>,
    created_at: i64,
    first_seq: i64,
    seq: i64,
    rev: i64,
    member_count: i64,
    archived: bool,
    settings: Settings,
    #[serde(skip_serializing_if = "Option::is_none")]
    me: Option<Me<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<User<'a>>,
}

#[derive(Debug, Serialize)]
struct Settings {
    history: &'static str,
    announcement: bool,
    slow_mode_s: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_days: Option<i64>,
}

impl<'a> Room<'a> {
    /// What of the room is the same for every member: without `me`, `peer` and `last_message`.
    #[must_use]
    pub fn shared(room: &'a v1::Room) -> Self {
        let settings = room.settings.unwrap_or_default();
        Self {
            id: Id(&room.id),
            kind: match room.kind() {
                v1::RoomKind::Direct => "direct",
                v1::RoomKind::Channel => "channel",
                v1::RoomKind::Group | v1::RoomKind::Unspecified => "group",
            },
            name: room.name.as_deref(),
            topic: room.topic.as_deref(),
            avatar: room.avatar.as_deref().map(Id),
            created_at: room.created_at,
            first_seq: room.first_seq,
            seq: room.seq,
            rev: room.rev,
            member_count: room.member_count,
            archived: room.archived,
            settings: Settings {
                history: if settings.history_joined { "joined" } else { "all" },
                announcement: settings.announcement,
                slow_mode_s: settings.slow_mode_s,
                retention_days: settings.retention_days,
            },
            me: None,
            last_message: None,
            peer: None,
        }
    }
}

impl<'a> From<&'a v1::Room> for Room<'a> {
    fn from(room: &'a v1::Room) -> Self {
        Self {
            me: room.me.as_ref().map(Me::from),
            last_message: room.last_message.as_ref().map(Message::from),
            peer: room.peer.as_ref().map(User::from),
            ..Self::shared(room)
        }
    }
}

/// A member's own state in a room.
#[derive(Debug, Serialize)]
pub struct Me<'a> {
    rev: i64,
    role: &'static str,
    read_seq: i64,
    unread: i64,
    mentions: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<i64>,
    notify: &'static str,
    favourite: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    draft: Option<&'a str>,
}

impl<'a> From<&'a v1::Me> for Me<'a> {
    fn from(me: &'a v1::Me) -> Self {
        Self {
            rev: me.rev,
            role: role(me.role()),
            read_seq: me.read_seq,
            unread: me.unread,
            mentions: me.mentions,
            muted_until: me.muted_until,
            notify: match me.notify() {
                v1::Notify::Mentions => "mentions",
                v1::Notify::None => "none",
                v1::Notify::All | v1::Notify::Unspecified => "all",
            },
            favourite: me.favourite,
            draft: me.draft.as_deref(),
        }
    }
}

/// A `Member`.
#[derive(Debug, Serialize)]
pub struct Member<'a> {
    user: Option<User<'a>>,
    role: &'static str,
    joined_at: i64,
    rev: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    muted_until: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_seq: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delivered_seq: Option<i64>,
}

impl<'a> Member<'a> {
    /// Without its cursors, as in the `member` event.
    #[must_use]
    pub fn without_cursors(member: &'a v1::Member) -> Self {
        Self { read_seq: None, delivered_seq: None, ..Self::from(member) }
    }
}

impl<'a> From<&'a v1::Member> for Member<'a> {
    fn from(member: &'a v1::Member) -> Self {
        Self {
            user: member.user.as_ref().map(User::from),
            role: role(member.role()),
            joined_at: member.joined_at,
            rev: member.rev,
            muted_until: member.muted_until,
            read_seq: member.read_seq,
            delivered_seq: member.delivered_seq,
        }
    }
}

/// Whom a `Message` mentions: a user, or `all`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Mention<'a> {
    User(Id<'a>),
    All(&'static str),
}

fn mentions(message: &v1::Message) -> Vec<Mention<'_>> {
    let users = message.mentions.iter().map(|user| Mention::User(Id(user)));
    users.chain(message.mentions_all.then_some(Mention::All("all"))).collect()
}

/// A `Message`.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    room: Id<'a>,
    seq: i64,
    rev: i64,
    id: Id<'a>,
    client_id: Id<'a>,
    sender: Id<'a>,
    kind: &'static str,
    text: &'a str,
    mentions: Vec<Mention<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<i64>,
    attachments: Vec<File<'a>>,
    reactions: [(); 0],
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
    at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<i64>,
}

impl<'a> From<&'a v1::Message> for Message<'a> {
    fn from(message: &'a v1::Message) -> Self {
        Self {
            room: Id(&message.room),
            seq: message.seq,
            rev: message.rev,
            id: Id(&message.id),
            client_id: Id(&message.client_id),
            sender: Id(&message.sender),
            kind: match message.kind() {
                v1::MessageKind::System => "system",
                v1::MessageKind::Text | v1::MessageKind::Unspecified => "text",
            },
            text: &message.text,
            mentions: mentions(message),
            reply_to: message.reply_to,
            attachments: message.attachments.iter().map(File::from).collect(),
            reactions: [],
            pinned: false,
            // What is stored was checked when it came; what does not read as JSON is left out rather than sent.
            meta: message.meta.as_deref().and_then(|text| serde_json::from_str(text).ok()),
            at: message.at,
            edited_at: message.edited_at,
            deleted_at: message.deleted_at,
        }
    }
}

/// The views of all items, in their order.
pub fn all<'a, T, V: From<&'a T>>(items: &'a [T]) -> Vec<V> {
    items.iter().map(V::from).collect()
}

fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Owner => "owner",
        v1::Role::Admin => "admin",
        v1::Role::Member | v1::Role::Unspecified => "member",
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
