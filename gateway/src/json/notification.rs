//! What a user was told of inside the program.

use parlance_proto::{notify, v1};
use serde::Serialize;

use super::{Id, Message, all};

/// A `Notification`; in events without its message.
#[derive(Debug, Serialize)]
pub struct Notification<'a> {
    id: Id<'a>,
    kind: &'static str,
    room: Id<'a>,
    seq: i64,
    sender: Id<'a>,
    at: i64,
    read: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
}

impl<'a> From<&'a v1::Notification> for Notification<'a> {
    fn from(notification: &'a v1::Notification) -> Self {
        Self {
            id: Id(&notification.id),
            kind: match notification.kind() {
                v1::NotificationKind::Mention | v1::NotificationKind::Unspecified => "mention",
                v1::NotificationKind::Reply => "reply",
                v1::NotificationKind::Invitation => "invitation",
                v1::NotificationKind::Direct => "direct",
            },
            room: Id(&notification.room),
            seq: notification.seq,
            sender: Id(&notification.sender),
            at: notification.at,
            read: notification.read,
            message: notification.message.as_ref().map(Message::from),
        }
    }
}

/// A page of them, and how many are unread in all.
#[derive(Debug, Serialize)]
pub struct Notifications<'a> {
    items: Vec<Notification<'a>>,
    next_cursor: Option<Id<'a>>,
    unread: i64,
}

impl<'a> From<&'a notify::NotificationList> for Notifications<'a> {
    fn from(list: &'a notify::NotificationList) -> Self {
        let last = list.items.last().filter(|_| list.more);
        Self { items: all(&list.items), next_cursor: last.map(|last| Id(&last.id)), unread: list.unread }
    }
}
