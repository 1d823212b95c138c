//! Events: each is written at most once in each format, when the first connection that speaks it is to see it, and handed to
//! all of them.

mod json;
mod proto;

use std::cell::OnceCell;

use parlance_proto::{event, v1};
use service_kit::id::{RoomId, UserId};
use uuid::Uuid;

use super::Format;
use crate::socket::Frame;

/// One event of docs/protocol.md, "Events". `prev` is given when it is not `rev` - 1.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A message is new or has changed.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Message { message: &'a v1::Message, prev: Option<i64> },
    /// A change that this member may not see.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Skip { room: RoomId, rev: i64, prev: Option<i64> },
    /// A member came or changed.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Member { room: RoomId, member: &'a v1::Member, prev: Option<i64> },
    /// A member went.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Removed { room: RoomId, rev: i64, user: UserId, prev: Option<i64> },
    /// The room itself changed: what is the same for every member.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Room { room: &'a v1::Room, prev: Option<i64> },
    /// This user is in a room from now on: the room as that user sees it.
    Joined(&'a v1::Room),
    /// This user is not in the room any more.
    Left(RoomId),
    /// How far a member has read or received.
    Receipt(&'a event::Receipt),
    /// A member types, or stopped.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Typing { room: RoomId, user: UserId, on: bool },
    /// A watched user's presence changed.
    Presence(&'a v1::Presence),
    /// The user's own cursor or settings in a room changed; the rev is that of `me`.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Me { room: RoomId, me: &'a v1::Me },
    /// Something is new in the user's list of notifications.
    Notification(&'a v1::Notification),
    /// The list was read up to here, on this device or another.
    #[allow(missing_docs, reason = "the fields of the contract")]
    NotificationsRead { up_to: Uuid },
    /// Continuity could not be kept: ask for `changes` after so many milliseconds.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Resync { room: RoomId, rev: i64, after_ms: i64 },
    /// This gateway leaves: connect again after so many milliseconds.
    GoingAway(u64),
}

impl Event<'_> {
    /// The event in a format, for one connection.
    #[must_use]
    pub fn write(&self, format: Format) -> Frame {
        match format {
            Format::Json => json::write(self),
            Format::Proto => proto::write(self),
        }
    }
}

/// An event for many connections.
#[derive(Debug)]
pub struct Written<'a> {
    event: Event<'a>,
    json: OnceCell<Frame>,
    proto: OnceCell<Frame>,
}

impl<'a> Written<'a> {
    /// Nothing is written yet.
    #[must_use]
    pub const fn new(event: Event<'a>) -> Self {
        Self { event, json: OnceCell::new(), proto: OnceCell::new() }
    }

    /// The event in a format.
    pub fn get(&self, format: Format) -> &Frame {
        let written = match format {
            Format::Json => &self.json,
            Format::Proto => &self.proto,
        };
        written.get_or_init(|| self.event.write(format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_written_once_in_each_format_however_many_see_it() {
        let written = Written::new(Event::Left(RoomId::generate()));
        assert!(written.json.get().is_none() && written.proto.get().is_none(), "nobody has asked");
        let first = written.get(Format::Json).as_bytes().as_ptr();
        assert!(written.proto.get().is_none(), "nobody speaks it");
        assert_eq!(written.get(Format::Json).as_bytes().as_ptr(), first, "the same bytes");
        assert_ne!(written.get(Format::Proto).payload(), written.get(Format::Json).payload());
    }
}
