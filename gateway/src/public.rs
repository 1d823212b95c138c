//! The objects of the public contract in protobuf: copies of what the services answer, field by field, so that a field which
//! is only for the services has to be left out by hand. [`crate::json`] is the same for JSON.

use parlance_proto::v1;

/// A `User`; an erased one is its id and `deleted`.
pub(crate) fn user(user: &v1::User) -> v1::User {
    if user.deleted {
        return v1::User { id: user.id.clone(), deleted: true, ..v1::User::default() };
    }
    v1::User {
        id: user.id.clone(),
        username: user.username.clone(),
        display_name: user.display_name.clone(),
        avatar: user.avatar.clone(),
        bot: user.bot,
        created_at: user.created_at,
        deleted: false,
    }
}

/// What of a `Room` is the same for every member: without `me`, `peer` and `last_message`.
pub(crate) fn shared_room(room: &v1::Room) -> v1::Room {
    v1::Room {
        id: room.id.clone(),
        kind: room.kind,
        name: room.name.clone(),
        topic: room.topic.clone(),
        avatar: room.avatar.clone(),
        created_at: room.created_at,
        first_seq: room.first_seq,
        seq: room.seq,
        rev: room.rev,
        member_count: room.member_count,
        archived: room.archived,
        settings: Some(room.settings.unwrap_or_default()),
        me: None,
        last_message: None,
        peer: None,
    }
}

/// A `Room`. The reader's part is there when the service gave it.
pub(crate) fn room(room: &v1::Room) -> v1::Room {
    v1::Room {
        me: room.me.as_ref().map(me),
        last_message: room.last_message.as_ref().map(message),
        peer: room.peer.as_ref().map(user),
        ..shared_room(room)
    }
}

/// A member's own state in a room.
pub(crate) fn me(me: &v1::Me) -> v1::Me {
    v1::Me {
        rev: me.rev,
        role: me.role,
        read_seq: me.read_seq,
        unread: me.unread,
        mentions: me.mentions,
        muted_until: me.muted_until,
        notify: me.notify,
        favourite: me.favourite,
        draft: me.draft.clone(),
    }
}

/// A `Member`.
pub(crate) fn member(member: &v1::Member) -> v1::Member {
    v1::Member {
        user: member.user.as_ref().map(user),
        role: member.role,
        joined_at: member.joined_at,
        rev: member.rev,
        muted_until: member.muted_until,
        read_seq: member.read_seq,
        delivered_seq: member.delivered_seq,
    }
}

/// A `Member` without its cursors, as in the `member` event.
pub(crate) fn member_without_cursors(it: &v1::Member) -> v1::Member {
    v1::Member { read_seq: None, delivered_seq: None, ..member(it) }
}

/// A `Message`.
pub(crate) fn message(message: &v1::Message) -> v1::Message {
    v1::Message {
        room: message.room.clone(),
        seq: message.seq,
        rev: message.rev,
        id: message.id.clone(),
        client_id: message.client_id.clone(),
        sender: message.sender.clone(),
        kind: message.kind,
        text: message.text.clone(),
        reply_to: message.reply_to,
        meta: message.meta.clone(),
        at: message.at,
        edited_at: message.edited_at,
        deleted_at: message.deleted_at,
        attachments: message.attachments.clone(),
        mentions: message.mentions.clone(),
        mentions_all: message.mentions_all,
    }
}

/// A `Changes` object.
pub(crate) fn changes(changes: &v1::Changes) -> v1::Changes {
    v1::Changes {
        room: changes.room.clone(),
        from_rev: changes.from_rev,
        rev: changes.rev,
        messages: changes.messages.iter().map(message).collect(),
        members: changes.members.iter().map(member).collect(),
        removed: changes.removed.clone(),
        info: changes.info.as_ref().map(shared_room),
        more: changes.more,
        truncated: changes.truncated,
    }
}

/// What is known of a user's presence. Whoever chose to be invisible looks offline to everyone.
pub(crate) fn presence(presence: &v1::Presence) -> v1::Presence {
    let state = match presence.state() {
        v1::PresenceState::Invisible | v1::PresenceState::Unspecified => v1::PresenceState::Offline,
        state => state,
    };
    v1::Presence {
        user: presence.user.clone(),
        state: state.into(),
        last_seen: presence.last_seen,
        // Between services only.
        version: 0,
    }
}

/// A `Notification` of an event: without its message.
pub(crate) fn notification(notification: &v1::Notification) -> v1::Notification {
    v1::Notification {
        id: notification.id.clone(),
        kind: notification.kind,
        room: notification.room.clone(),
        seq: notification.seq,
        sender: notification.sender.clone(),
        at: notification.at,
        read: notification.read,
        message: None,
    }
}
