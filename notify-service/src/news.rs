//! What a batch of events has that somebody may be told of.

use parlance_proto::{
    event::{Event, RoomEvent, UserEvent, event, room_event, user_event},
    v1::{Message, MessageKind},
};
use uuid::Uuid;

/// Something that is new.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are messages")]
pub enum News {
    /// A message that a person has just sent.
    Message {
        /// What was sent.
        message: Message,
        /// Its room is a direct one.
        direct: bool,
    },
    /// Somebody was added to a room.
    Invitation(Invitation),
}

/// That a user was added to a room by another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Who was added.
    pub user: Uuid,
    /// The room.
    pub room: Uuid,
    /// Who added.
    pub by: Uuid,
    /// The seq of the notice of it; 0 when the room was made with the user in it.
    pub seq: i64,
}

impl News {
    /// What is new in an event, if anything: not an edit, a removal, or a line of the system.
    #[must_use]
    pub fn of(event: Event) -> Option<Self> {
        match event.kind? {
            event::Kind::Room(room) => Self::of_room(room),
            event::Kind::User(user) => Self::of_user(&user),
            _ => None,
        }
    }

    fn of_room(RoomEvent { kind, direct, .. }: RoomEvent) -> Option<Self> {
        let Some(room_event::Kind::Message(message)) = kind else { return None };
        let new = message.kind() == MessageKind::Text && message.edited_at.is_none() && message.deleted_at.is_none();
        new.then_some(Self::Message { message, direct })
    }

    fn of_user(UserEvent { user, kind, by, notice, .. }: &UserEvent) -> Option<Self> {
        let Some(user_event::Kind::Joined(room)) = kind else { return None };
        let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
        Some(Self::Invitation(Invitation { user: id(user)?, room: id(room)?, by: id(by)?, seq: *notice }))
    }

    /// The message, if it is one.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Message { message, .. } => Some(message),
            Self::Invitation(_) => None,
        }
    }
}
