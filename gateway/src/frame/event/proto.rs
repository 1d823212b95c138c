//! Events in protobuf.

use parlance_proto::client::{self, event::Kind};

use super::Event;
use crate::{frame::write, public, socket::Frame};

pub(super) fn write(event: &Event<'_>) -> Frame {
    write::proto_event(match event {
        Event::Message { message, prev } => {
            Kind::Message(client::MessageEvent { message: Some(public::message(message)), prev: *prev })
        }
        Event::Skip { room, rev, prev } => Kind::Skip(client::Skip { room: room.to_wire(), rev: *rev, prev: *prev }),
        Event::Member { room, member, prev } => {
            let member = Some(public::member_without_cursors(member));
            Kind::Member(client::MemberEvent { room: room.to_wire(), member, prev: *prev })
        }
        Event::Removed { room, rev, user, prev } => {
            Kind::Removed(client::Removed { room: room.to_wire(), rev: *rev, user: user.to_wire(), prev: *prev })
        }
        Event::Room { room, prev } => {
            Kind::Room(client::RoomEvent { room: Some(public::shared_room(room)), prev: *prev })
        }
        Event::Joined(room) => Kind::Joined(public::room(room)),
        Event::Left(room) => Kind::Left(client::Left { room: room.to_wire() }),
        Event::Receipt(receipt) => Kind::Receipt(client::Receipt {
            room: receipt.room.clone(),
            user: receipt.user.clone(),
            read_seq: receipt.read_seq,
            delivered_seq: receipt.delivered_seq,
        }),
        Event::Typing { room, user, on } => {
            Kind::Typing(client::Typing { room: room.to_wire(), user: user.to_wire(), on: *on })
        }
        Event::Presence(presence) => Kind::Presence(public::presence(presence)),
        Event::Me { room, me } => Kind::Me(client::MeEvent { room: room.to_wire(), me: Some(public::me(me)) }),
        Event::Notification(notification) => Kind::Notification(public::notification(notification)),
        Event::NotificationsRead { up_to } => {
            let up_to = up_to.as_bytes().to_vec().into();
            Kind::NotificationsRead(client::NotificationsRead { up_to })
        }
        Event::Resync { room, rev, after_ms } => {
            Kind::Resync(client::Resync { room: room.to_wire(), rev: *rev, after_ms: *after_ms })
        }
        Event::GoingAway(wait_ms) => {
            let reconnect_after_ms = i64::try_from(*wait_ms).unwrap_or(i64::MAX);
            Kind::GoingAway(client::GoingAway { reconnect_after_ms })
        }
    })
}
