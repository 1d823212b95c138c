//! From the inbox to the hub: each parcel is decoded once, each event goes to whom it is for.

use std::sync::Arc;

use parlance_proto::event::{self, Event, Parcel, UserEvent, user_event};
use prost::Message;
use service_kit::{
    bus::{self, Arrival, Inbox},
    id::{RoomId, SessionId, UserId},
    telemetry,
};
use uuid::Uuid;

use crate::{
    attach,
    conn::{Early, Newest, Wakes},
    frame::{self, Close, Written},
    hub::lock,
    life::Life,
    repair,
};

/// Works off the inbox until the bus stops.
pub(crate) async fn run(life: Arc<Life>, mut inbox: Inbox) {
    while let Some(arrival) = inbox.next().await {
        match arrival {
            Arrival::Parcel(parcel) => arrived(&life, &parcel),
            Arrival::Lost | Arrival::Renewed => {
                tracing::info!(arrival = ?arrival, "something may have been missed: comparing heads");
                life.want_compare();
            }
        }
    }
}

/// Works off one parcel.
pub(crate) fn arrived(life: &Arc<Life>, parcel: &bus::Parcel) {
    let span = tracing::info_span!("deliver");
    telemetry::adopt(&span, parcel.traceparent.as_deref());
    let _entered = span.enter();
    let events = match Parcel::decode(parcel.body.clone()) {
        Ok(parcel) => parcel.events,
        Err(error) => return tracing::error!(error = %error, "a parcel cannot be read"),
    };
    // Only a probe of one's own is empty.
    if events.is_empty() {
        return life.probed();
    }
    metrics::counter!("events_received_total").increment(u64::try_from(events.len()).unwrap_or_default());
    if life.is_blind() {
        return;
    }
    // What one parcel holds for a connection is written together.
    let mut wakes = Wakes::default();
    for event in events {
        match Event::decode(event) {
            Ok(Event { kind: Some(kind) }) => deliver(life, kind, &mut wakes),
            Ok(Event { kind: None }) => tracing::warn!("an event of a kind that is not known here"),
            Err(error) => tracing::error!(error = %error, "an event cannot be read"),
        }
    }
}

fn deliver(life: &Arc<Life>, kind: event::event::Kind, wakes: &mut Wakes) {
    use event::event::Kind;
    match kind {
        Kind::Room(event) => {
            let Some((id, room)) = find(life, &event.room) else { return };
            let mut after = lock(&room).take(event);
            wakes.join(std::mem::take(&mut after.wakes));
            life.follow_up(id, after);
        }
        Kind::User(event) => {
            if let Ok(user) = UserId::from_wire(&event.user, "user") {
                own_affairs(life, user, event);
            }
        }
        Kind::Receipt(receipt) => {
            if let Some((_, room)) = find(life, &receipt.room) {
                lock(&room).droppable(frame::Event::Receipt(&receipt), None);
            }
        }
        Kind::Typing(typing) => {
            if let (Some((id, room)), Ok(user)) = (find(life, &typing.room), UserId::from_wire(&typing.user, "user")) {
                lock(&room).droppable(frame::Event::Typing { room: id, user, on: typing.on }, Some(user));
            }
        }
        Kind::Privacy(privacy) => {
            if let Ok(user) = UserId::from_wire(&privacy.user, "user") {
                life.ask_again(user);
            }
        }
        Kind::Presence(presence) => {
            if let Ok(user) = UserId::from_wire(&presence.user, "user") {
                life.hub.watches.deliver(user, &presence);
            }
        }
    }
}

fn find(life: &Life, room: &[u8]) -> Option<(RoomId, crate::hub::SharedRoom)> {
    let id = RoomId::from_wire(room, "room").ok()?;
    Some((id, life.hub.find(id)?))
}

/// An event on a user's topic. Joining and leaving only cause a fresh read: membership follows the room's own order.
fn own_affairs(life: &Arc<Life>, user: UserId, event: UserEvent) {
    let conns = life.hub.conns(user);
    let Some(kind) = event.kind else { return };
    if conns.is_empty() {
        return;
    }
    if let user_event::Kind::Me(changed) = &kind {
        let (Ok(room), Some(me)) = (RoomId::from_wire(&changed.room, "room"), &changed.me) else { return };
        let written = Written::new(frame::Event::Me { room, me });
        for conn in conns {
            let frame = written.get(conn.format);
            if !conn.keep_early(Early::Me(room, me.rev, frame.clone())) {
                conn.push_newest(Newest::Me(room), frame.clone());
            }
        }
        return;
    }
    if let Some(news) = of_list(&kind) {
        let written = Written::new(news);
        // Before `welcome` nobody is told: who has just connected reads the list anyway.
        for conn in conns.iter().filter(|conn| conn.is_welcomed()) {
            conn.push(written.get(conn.format).clone());
        }
        return;
    }
    if !life.hub.user_rev(user, event.rev) {
        let life = Arc::clone(life);
        life.tasks.clone().spawn_until_stop(async move { repair::user(&life, user).await });
    }
    match kind {
        user_event::Kind::Joined(room) => {
            let Ok(room) = RoomId::from_wire(&room, "room") else { return };
            for conn in &conns {
                conn.keep_early(Early::Joined(room));
            }
            life.join(user, room);
        }
        user_event::Kind::Left(room) => {
            let Ok(room) = RoomId::from_wire(&room, "room") else { return };
            let life = Arc::clone(life);
            life.tasks.clone().spawn_until_stop(async move { attach::check(&life, user, room).await });
        }
        user_event::Kind::SessionRevoked(session) => {
            for conn in conns.iter().filter(|conn| conn.session.to_wire() == session) {
                conn.close(Close::Revoked);
            }
        }
        user_event::Kind::OthersRevoked(kept) => {
            let kept = SessionId::from_wire(&kept, "session").ok();
            for conn in conns.iter().filter(|conn| Some(conn.session) != kept) {
                conn.close(Close::Revoked);
            }
        }
        // Dealt with above.
        user_event::Kind::Me(_) | user_event::Kind::Notified(_) | user_event::Kind::NotificationsRead(_) => {}
    }
}

/// What is new in the user's list of notifications.
fn of_list(kind: &user_event::Kind) -> Option<frame::Event<'_>> {
    match kind {
        user_event::Kind::Notified(notification) => Some(frame::Event::Notification(notification)),
        user_event::Kind::NotificationsRead(up_to) => {
            Some(frame::Event::NotificationsRead { up_to: Uuid::from_slice(up_to).ok()? })
        }
        _ => None,
    }
}
