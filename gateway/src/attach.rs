//! Attach, then trust the read: how a connection comes to know a room without losing or doubling anything.
//!
//! The room is attached first, with what is delivered held back; only then is it read. What the read has seen is not told
//! again, what came after it is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parlance_proto::chat::{self, HelloReply, HelloRequest, Membership, RoomRequest};
use service_kit::{
    clock,
    fault::{Fault, Kind},
    id::{RoomId, Topic, UserId},
};

use crate::{
    conn::{Conn, Early, Newest},
    frame::{self, Close, Event, Hello, Re, Written},
    hub::{After, SharedRoom, lock},
    life::Life,
    repair,
};

/// Reads of one attachment: each further one is caused by a change that came between attaching and reading.
const ATTEMPTS: u32 = 8;
/// How long after a failed read it is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a read says of one room.
#[derive(Clone, Copy)]
struct Seen {
    rev: i64,
    visible_from_seq: i64,
    direct: bool,
}

impl Seen {
    fn of(membership: &Membership) -> Option<(RoomId, Self)> {
        let room = RoomId::from_wire(&membership.room, "room").ok()?;
        let (rev, visible_from_seq) = (membership.rev, membership.visible_from_seq);
        Some((room, Self { rev, visible_from_seq, direct: membership.direct }))
    }

    /// Ends the holding back of a connection that knows the room as this read says.
    fn release(self, room: &SharedRoom, conn: &Conn) -> After {
        let mut room = lock(room);
        room.note_direct(self.direct);
        room.release(conn, self.rev, self.visible_from_seq)
    }
}

/// The actor of a connection's calls.
pub(crate) fn actor(conn: &Conn) -> chat::Actor {
    chat::Actor { user: conn.user.to_wire(), session: conn.session.to_wire() }
}

/// Answers `hello`: attaches everything that is the user's, reads it, writes `welcome`, and lets events flow.
///
/// # Errors
/// `unauthenticated` when the session was revoked; `unavailable` when the services cannot be asked.
pub(crate) async fn greet(life: &Arc<Life>, conn: &Arc<Conn>, re: Re, hello: &Hello) -> Result<(), Fault> {
    if let Some(oldest) = life.hub.add(conn, life.shared.most_connections) {
        oldest.close(Close::TooManyConnections);
    }
    life.refuse_when_over(conn);
    let known = life.directory.attach([Topic::User(conn.user)]).await;
    let list = life.shared.services.sync.clone().memberships(actor(conn)).await?.into_inner();
    hold_all(life, conn, list.items.iter().filter_map(Seen::of).map(|(room, _)| room), known).await;
    for _ in 0..ATTEMPTS {
        let request = HelloRequest {
            actor: Some(actor(conn)),
            generation: hello.generation.clone(),
            rooms: hello
                .rooms
                .iter()
                .map(|(room, rev, me_rev)| chat::HeldRoom { room: room.to_wire(), rev: *rev, me_rev: *me_rev })
                .collect(),
        };
        let reply = life.shared.services.sync.clone().hello(request).await?.into_inner();
        let seen: HashMap<RoomId, Seen> = reply.memberships.iter().filter_map(Seen::of).collect();
        let distrusted: Vec<RoomId> =
            seen.iter().filter(|(room, seen)| !covers(life, conn, **room, seen.rev)).map(|(room, _)| *room).collect();
        if distrusted.is_empty() {
            begin(life, conn, re, hello, &reply, &seen);
            return Ok(());
        }
        hold_all(life, conn, distrusted, known).await;
    }
    Err(Fault::unavailable("your rooms change too fast to be read; try again"))
}

fn covers(life: &Life, conn: &Conn, room: RoomId, rev: i64) -> bool {
    life.hub.find(room).is_some_and(|room| lock(&room).covers(conn, rev))
}

/// Attaches a connection to rooms, anew to those that it is attached to, and, when it may, waits until every publisher
/// knows.
async fn hold_all(life: &Life, conn: &Arc<Conn>, rooms: impl IntoIterator<Item = RoomId>, may_wait: bool) {
    let rooms: Vec<RoomId> = rooms.into_iter().collect();
    for room in &rooms {
        if let Some(room) = life.hub.find(*room) {
            lock(&room).detach(conn);
        }
        life.hub.hold(conn, *room);
    }
    let topics = rooms.into_iter().map(Topic::Room);
    if may_wait {
        life.directory.attach(topics).await;
    } else {
        life.directory.attach_within(topics, Duration::ZERO).await;
    }
}

/// Writes `welcome`, then everything that was held above it.
fn begin(life: &Arc<Life>, conn: &Arc<Conn>, re: Re, hello: &Hello, reply: &HelloReply, seen: &HashMap<RoomId, Seen>) {
    for room in life.hub.rooms_of(conn.user).into_iter().filter(|room| !seen.contains_key(room)) {
        // Attached for a membership that the read has not found any more.
        if let Some(room) = life.hub.find(room) {
            lock(&room).detach(conn);
        }
    }
    let welcome = frame::Welcome { connection: conn.id, session: conn.session, server_time: clock::now_ms(), reply };
    conn.push(frame::welcome(re, &welcome));
    if !life.hub.greeted(conn, reply.user_rev) {
        // What an older connection of the user should have heard in between may have been lost.
        let (life, user) = (Arc::clone(life), conn.user);
        life.tasks.clone().spawn_until_stop(async move { repair::user(&life, user).await });
    }
    for (room, seen) in seen {
        if let Some(shared) = life.hub.find(*room) {
            let after = seen.release(&shared, conn);
            life.follow_up(*room, after);
        }
    }
    let mut known: HashMap<RoomId, i64> =
        hello.rooms.iter().filter_map(|(room, _, me_rev)| Some((*room, (*me_rev)?))).collect();
    for room in &reply.rooms {
        if let (Ok(id), Some(me)) = (RoomId::from_wire(&room.id, "room"), &room.me) {
            known.insert(id, me.rev);
        }
    }
    for early in conn.welcome() {
        match early {
            Early::Joined(room) => life.join(conn.user, room),
            Early::Me(room, rev, frame) if known.get(&room).is_none_or(|known| rev > *known) => {
                conn.push_newest(Newest::Me(room), frame);
            }
            Early::Me(..) => {}
        }
    }
    if conn.presence {
        life.directory.session(conn.user, conn.number, reply.choice);
    }
}

/// Attaches the connections of a user to a room that the user has joined, and tells them so. Connections that are
/// attached already, or still wait for their `welcome`, are left as they are.
pub(crate) async fn join(life: &Arc<Life>, user: UserId, room: RoomId) {
    let mut conns = life.hub.conns(user);
    conns.retain(|conn| conn.is_welcomed() && !conn.is_closed() && life.hub.hold(conn, room));
    let Some(first) = conns.first() else { return };
    life.directory.attach([Topic::Room(room)]).await;
    let shared = life.hub.room(room);
    let actor = actor(first);
    for _ in 0..ATTEMPTS {
        let request = RoomRequest { actor: Some(actor.clone()), room: room.to_wire() };
        let reply = match life.shared.services.sync.clone().read_room(request).await {
            Ok(reply) => reply.into_inner(),
            Err(_) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (Some(view), Some((_, seen))) = (&reply.room, reply.membership.as_ref().and_then(Seen::of)) else {
            // Joined and left again meanwhile.
            conns.iter().for_each(|conn| lock(&shared).detach(conn));
            return;
        };
        conns.retain(|conn| life.hub.has(conn));
        if conns.iter().all(|conn| lock(&shared).covers(conn, seen.rev)) {
            let joined = Written::new(Event::Joined(view));
            for conn in &conns {
                conn.push(joined.get(conn.format).clone());
                let after = seen.release(&shared, conn);
                life.follow_up(room, after);
            }
            return;
        }
        for conn in &conns {
            lock(&shared).detach(conn);
            life.hub.hold(conn, room);
        }
    }
    // Nothing may be missed: these connections start over.
    for conn in conns {
        lock(&shared).detach(&conn);
        conn.close(Close::Internal);
    }
}

/// Reads whether a user is still in a room, and lets the room go when not.
pub(crate) async fn check(life: &Arc<Life>, user: UserId, room: RoomId) {
    for _ in 0..ATTEMPTS {
        let Some(shared) = life.hub.find(room) else { return };
        let (serial, conns) = (lock(&shared).serial(user), life.hub.conns(user));
        let (Some(serial), Some(first)) = (serial, conns.first()) else { return };
        let request = RoomRequest { actor: Some(actor(first)), room: room.to_wire() };
        match life.shared.services.sync.clone().read_room(request).await {
            Ok(reply) => {
                if reply.into_inner().room.is_none() {
                    lock(&shared).expel(user, serial);
                    life.ask_again(user);
                }
                return;
            }
            Err(status) if Kind::from_code(status.code()) == Kind::NotFound => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
    life.want_compare();
}
