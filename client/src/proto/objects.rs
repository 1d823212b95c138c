//! The objects of the contract, from protobuf to JSON.

use bytes::Bytes;
use parlance_proto::v1;
use serde_json::{Value, json};
use uuid::Uuid;

/// Each of a list, in its order.
pub(super) fn all<T>(items: Vec<T>, read: impl Fn(T) -> Value) -> Value {
    items.into_iter().map(read).collect()
}

/// An object with those of these fields that are there.
pub(super) fn with<const N: usize>(mut object: Value, fields: [(&str, Option<Value>); N]) -> Value {
    for (name, value) in fields {
        if let Some(value) = value {
            object[name] = value;
        }
    }
    object
}

pub(super) fn id(bytes: &Bytes) -> Value {
    // What is no id is kept as none, so that reading says which field it was.
    Uuid::from_slice(bytes).map_or(Value::Null, |id| id.to_string().into())
}

pub(super) fn ids(items: &[Bytes]) -> Value {
    items.iter().map(id).collect()
}

pub(super) fn user(it: v1::User) -> Value {
    if it.deleted {
        return json!({ "id": id(&it.id), "deleted": true });
    }
    let object = json!({
        "id": id(&it.id), "username": it.username, "display_name": it.display_name, "bot": it.bot,
        "created_at": it.created_at,
    });
    with(object, [("avatar", it.avatar.as_ref().map(id))])
}

pub(super) fn room(it: v1::Room) -> Value {
    let object = shared_room(&it);
    let fields = [("me", it.me.map(me)), ("last_message", it.last_message.map(message)), ("peer", it.peer.map(user))];
    with(object, fields)
}

pub(super) fn shared_room(it: &v1::Room) -> Value {
    let settings = it.settings.unwrap_or_default();
    let kind = match it.kind() {
        v1::RoomKind::Direct => "direct",
        v1::RoomKind::Channel => "channel",
        v1::RoomKind::Group => "group",
        v1::RoomKind::Unspecified => "unknown",
    };
    let history = if settings.history_joined { "joined" } else { "all" };
    let settings = with(
        json!({ "history": history, "announcement": settings.announcement, "slow_mode_s": settings.slow_mode_s }),
        [("retention_days", settings.retention_days.map(Value::from))],
    );
    let object = json!({
        "id": id(&it.id), "kind": kind, "created_at": it.created_at, "first_seq": it.first_seq, "seq": it.seq,
        "rev": it.rev, "member_count": it.member_count, "archived": it.archived, "settings": settings,
    });
    let fields = [
        ("name", it.name.clone().map(Value::from)),
        ("topic", it.topic.clone().map(Value::from)),
        ("avatar", it.avatar.as_ref().map(id)),
    ];
    with(object, fields)
}

pub(super) fn me(it: v1::Me) -> Value {
    let notify = match it.notify() {
        v1::Notify::Mentions => "mentions",
        v1::Notify::None => "none",
        v1::Notify::All | v1::Notify::Unspecified => "all",
    };
    let object = json!({
        "rev": it.rev, "role": role(it.role()), "read_seq": it.read_seq, "unread": it.unread, "mentions": it.mentions,
        "notify": notify, "favourite": it.favourite,
    });
    with(object, [("muted_until", it.muted_until.map(Value::from)), ("draft", it.draft.map(Value::from))])
}

pub(super) fn member(it: v1::Member) -> Value {
    let object =
        json!({ "role": role(it.role()), "joined_at": it.joined_at, "rev": it.rev, "user": it.user.map(user) });
    let fields = [("muted_until", it.muted_until), ("read_seq", it.read_seq), ("delivered_seq", it.delivered_seq)];
    with(object, fields.map(|(name, number)| (name, number.map(Value::from))))
}

fn file(it: v1::File) -> Value {
    let state = match it.state() {
        v1::FileState::Ready => "ready",
        v1::FileState::Rejected => "rejected",
        v1::FileState::Pending | v1::FileState::Unspecified => "pending",
    };
    let object = json!({
        "id": id(&it.id), "name": it.name, "media_type": it.media_type, "size": it.size, "state": state, "at": it.at,
    });
    let object = with(object, [("width", it.width), ("height", it.height)].map(|(name, n)| (name, n.map(Value::from))));
    with(object, [("blurhash", it.blurhash), ("reason", it.reason)].map(|(name, text)| (name, text.map(Value::from))))
}

pub(super) fn message(it: v1::Message) -> Value {
    let kind = match it.kind() {
        v1::MessageKind::System => "system",
        v1::MessageKind::Text | v1::MessageKind::Unspecified => "text",
    };
    let mentions = it.mentions.iter().map(|user| json!(id(user)));
    let mentions: Vec<Value> = mentions.chain(it.mentions_all.then(|| json!("all"))).collect();
    let object = json!({
        "room": id(&it.room), "seq": it.seq, "rev": it.rev, "id": id(&it.id), "client_id": id(&it.client_id),
        "sender": id(&it.sender), "kind": kind, "text": it.text, "mentions": mentions,
        "attachments": it.attachments.into_iter().map(file).collect::<Vec<_>>(), "reactions": [],
        "pinned": false, "at": it.at,
    });
    let numbers = [("reply_to", it.reply_to), ("edited_at", it.edited_at), ("deleted_at", it.deleted_at)];
    let object = with(object, numbers.map(|(name, number)| (name, number.map(Value::from))));
    with(object, [("meta", it.meta.and_then(|text| serde_json::from_str(&text).ok()))])
}

pub(super) fn changes(it: v1::Changes) -> Value {
    let object = json!({
        "room": id(&it.room), "from_rev": it.from_rev, "rev": it.rev, "messages": all(it.messages, message),
        "members": all(it.members, member), "removed": ids(&it.removed), "more": it.more, "truncated": it.truncated,
    });
    with(object, [("info", it.info.as_ref().map(shared_room))])
}

pub(super) fn presence(it: v1::Presence) -> Value {
    let state = match it.state() {
        v1::PresenceState::Online => "online",
        v1::PresenceState::Away => "away",
        v1::PresenceState::Dnd => "dnd",
        v1::PresenceState::Invisible | v1::PresenceState::Offline | v1::PresenceState::Unspecified => "offline",
    };
    with(json!({ "user": id(&it.user), "state": state }), [("last_seen", it.last_seen.map(Value::from))])
}

pub(super) fn notification(it: v1::Notification) -> Value {
    let kind = match it.kind() {
        v1::NotificationKind::Mention | v1::NotificationKind::Unspecified => "mention",
        v1::NotificationKind::Reply => "reply",
        v1::NotificationKind::Invitation => "invitation",
        v1::NotificationKind::Direct => "direct",
    };
    let object = json!({
        "id": id(&it.id), "kind": kind, "room": id(&it.room), "seq": it.seq, "sender": id(&it.sender), "at": it.at,
        "read": it.read,
    });
    with(object, [("message", it.message.map(message))])
}

fn role(role: v1::Role) -> &'static str {
    match role {
        v1::Role::Owner => "owner",
        v1::Role::Admin => "admin",
        v1::Role::Member | v1::Role::Unspecified => "member",
    }
}
