//! One room at this gateway: its events in rev order, its local members, and what is held back for whom.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use parlance_proto::event::{RoomEvent, room_event::Kind};
use service_kit::id::{RoomId, UserId};
use smallvec::SmallVec;

use crate::{
    conn::{Conn, Wakes},
    frame::{Event, Written},
    socket::Frame,
};

/// Events that wait for an earlier one; what is more is read again by the repair.
const MAX_EARLY: usize = 1_024;
/// Events that are held back for one connection while it is attached; with more its read is repeated.
const MAX_HELD: usize = 1_024;

/// A room that has, or lately had, local members.
pub(crate) struct Room {
    id: RoomId,
    /// A direct room, as far as a read has said.
    direct: bool,
    /// The rev up to which everything was delivered; none until the first read of the room.
    delivered: Option<i64>,
    /// Events that came before one that they follow.
    early: BTreeMap<i64, RoomEvent>,
    members: HashMap<UserId, Local>,
    /// Connections that do not simply get everything. Nearly always empty.
    holds: Vec<Hold>,
    /// Since when nobody is here.
    idle_since: Option<Instant>,
    /// A repair runs, or waits for the time that an early event is given.
    repairing: bool,
    /// An early event came since the last read of a repair began, which may not have seen it.
    news: bool,
    /// One of them found no place.
    dropped: bool,
    attachments: u64,
}

/// A member with connections here.
struct Local {
    /// Messages up to this seq are skipped.
    visible_from_seq: i64,
    conns: SmallVec<[Arc<Conn>; 1]>,
    /// Which attachment of this room was the member's latest.
    serial: u64,
}

struct Hold {
    conn: u64,
    state: State,
}

enum State {
    /// Its read is not done: what is delivered after `base` waits here.
    Holding { base: Option<i64>, events: Vec<(i64, Frame)>, stale: bool },
    /// Its read was ahead of what has been delivered: events up to this rev are not for it.
    Floor(i64),
}

/// What a change of a room asks for.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// Users who are here and have joined: to be attached.
    pub(crate) joined: Vec<UserId>,
    /// Users who have left, here or not: who may follow whose presence is to be asked again.
    pub(crate) left: Vec<UserId>,
    /// An event waits for an earlier one, and nobody sees to it yet.
    pub(crate) gap: bool,
    /// Whose sockets have something to write.
    pub(crate) wakes: Wakes,
}

impl Room {
    pub(crate) fn new(id: RoomId) -> Self {
        Self {
            id,
            direct: false,
            delivered: None,
            early: BTreeMap::new(),
            members: HashMap::new(),
            holds: Vec::new(),
            idle_since: Some(Instant::now()),
            repairing: false,
            news: false,
            dropped: false,
            attachments: 0,
        }
    }

    pub(crate) fn id(&self) -> RoomId {
        self.id
    }

    /// Notes that a read has found a direct room; none becomes anything else.
    pub(crate) fn note_direct(&mut self, direct: bool) {
        self.direct |= direct;
    }

    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    pub(crate) fn delivered(&self) -> Option<i64> {
        self.delivered
    }

    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.idle_since
    }

    /// Whether this user is attached here.
    pub(crate) fn has(&self, user: UserId) -> bool {
        self.members.contains_key(&user)
    }

    /// Which attachment of the room was this user's latest, if any is left.
    pub(crate) fn serial(&self, user: UserId) -> Option<u64> {
        self.members.get(&user).map(|local| local.serial)
    }

    /// Attaches a connection with everything held back until [`Room::release`]. False when it is attached already.
    pub(crate) fn hold(&mut self, conn: &Arc<Conn>) -> bool {
        self.attachments += 1;
        let local = self.members.entry(conn.user).or_insert_with(|| Local {
            visible_from_seq: 0,
            conns: SmallVec::new(),
            serial: 0,
        });
        if local.conns.iter().any(|other| other.number == conn.number) {
            return false;
        }
        local.conns.push(Arc::clone(conn));
        local.serial = self.attachments;
        self.idle_since = None;
        self.holds.retain(|hold| hold.conn != conn.number);
        let state = State::Holding { base: self.delivered, events: Vec::new(), stale: false };
        self.holds.push(Hold { conn: conn.number, state });
        true
    }

    /// Whether a read that saw the room at `rev` can be trusted for this connection: nothing had been delivered
    /// above it when the connection was attached, and it was not removed meanwhile.
    pub(crate) fn covers(&self, conn: &Conn, rev: i64) -> bool {
        match self.holds.iter().find(|hold| hold.conn == conn.number).map(|hold| &hold.state) {
            Some(State::Holding { base, stale, .. }) => !stale && base.is_none_or(|base| base <= rev),
            Some(State::Floor(_)) => true,
            None => false,
        }
    }

    /// Ends the holding back: the connection knows the room up to `rev`, and gets what was held above it.
    pub(crate) fn release(&mut self, conn: &Conn, rev: i64, visible_from_seq: i64) -> After {
        if let Some(local) = self.members.get_mut(&conn.user) {
            local.visible_from_seq = visible_from_seq;
        }
        self.begin_at(rev);
        if let Some(place) = self.holds.iter().position(|hold| hold.conn == conn.number) {
            let hold = self.holds.swap_remove(place);
            if let State::Holding { events, .. } = hold.state {
                for (_, frame) in events.into_iter().filter(|(held, _)| *held > rev) {
                    conn.push(frame);
                }
            }
            if self.delivered.is_some_and(|delivered| delivered < rev) {
                self.holds.push(Hold { conn: conn.number, state: State::Floor(rev) });
            }
        }
        self.drain()
    }

    /// The first read says where this gateway begins to deliver.
    fn begin_at(&mut self, rev: i64) {
        if self.delivered.is_some() {
            return;
        }
        self.delivered = Some(rev);
        self.early = self.early.split_off(&(rev + 1));
        for hold in &mut self.holds {
            if let State::Holding { base: base @ None, .. } = &mut hold.state {
                *base = Some(rev);
            }
        }
    }

    /// Takes a connection away.
    pub(crate) fn detach(&mut self, conn: &Conn) {
        self.holds.retain(|hold| hold.conn != conn.number);
        if let Some(local) = self.members.get_mut(&conn.user) {
            local.conns.retain(|other| other.number != conn.number);
            if local.conns.is_empty() {
                self.members.remove(&conn.user);
            }
        }
        self.note_idle();
    }

    /// A fresh read has found that this user is not a member. Unless the user was attached anew since `serial`, the
    /// user's connections are told and taken away.
    pub(crate) fn expel(&mut self, user: UserId, serial: u64) {
        if self.serial(user) == Some(serial) {
            self.remove(user, i64::MAX);
        }
    }

    /// An event from the inbox: delivered when its turn has come, kept when it is early, dropped when it is known.
    pub(crate) fn take(&mut self, event: RoomEvent) -> After {
        if self.delivered.is_some_and(|delivered| event.rev <= delivered) {
            return After::default();
        }
        if self.early.len() < MAX_EARLY {
            self.early.insert(event.rev, event);
        } else {
            self.dropped = true;
        }
        let after = self.drain();
        self.news |= self.has_gap();
        after
    }

    /// Rows of a repair that began at what had been delivered then, in rev order.
    pub(crate) fn feed(&mut self, events: Vec<RoomEvent>) -> After {
        let held = self.delivered.unwrap_or_default();
        // Who was removed and came back in between was removed first: nothing of this is for that user's connections
        // until they have read the room anew.
        for event in &events {
            let (user, joined_rev) = match &event.kind {
                Some(Kind::Member(changed)) => {
                    (changed.member.as_ref().and_then(|member| member.user.as_ref()), changed.joined_rev)
                }
                _ => continue,
            };
            if let Some(user) = user.and_then(|user| UserId::from_wire(&user.id, "user").ok())
                && joined_rev > held
            {
                self.remove(user, joined_rev);
            }
        }
        for event in &events {
            if let Some(Kind::Removed(removed)) = &event.kind
                && removed.joined_rev > held
                && let Ok(user) = UserId::from_wire(&removed.user, "user")
            {
                self.remove(user, event.rev);
            }
        }
        let mut after = After::default();
        for event in events {
            if self.delivered.is_none_or(|delivered| event.rev > delivered) {
                self.deliver(event, held, &mut after);
            }
        }
        let rest = self.drain();
        after.joined.extend(rest.joined);
        after.left.extend(rest.left);
        after.wakes.join(rest.wakes);
        after.gap = rest.gap;
        after
    }

    /// Continuity cannot be kept: everybody is asked to fetch the changes, and delivery goes on from `rev`.
    pub(crate) fn skip_to(&mut self, rev: i64, after_ms: i64) -> After {
        let resync = Written::new(Event::Resync { room: self.id, rev, after_ms });
        self.delivered = Some(rev);
        self.early = self.early.split_off(&(rev + 1));
        for conn in self.members.values().flat_map(|local| &local.conns) {
            match self.holds.iter_mut().find(|hold| hold.conn == conn.number).map(|hold| &mut hold.state) {
                // Only a read of what is skipped makes up for it.
                Some(State::Holding { base, .. }) => *base = Some(rev),
                Some(State::Floor(floor)) if *floor >= rev => {}
                _ => conn.push(resync.get(conn.format).clone()),
            }
        }
        self.drain()
    }

    /// Delivers what nobody misses to the members, but not to `except`.
    pub(crate) fn droppable(&self, event: Event<'_>, except: Option<UserId>) {
        let written = Written::new(event);
        for (user, local) in &self.members {
            if Some(*user) == except {
                continue;
            }
            for conn in local.conns.iter().filter(|conn| conn.is_welcomed()) {
                conn.push_droppable(|| written.get(conn.format).clone());
            }
        }
    }

    /// Takes the right to repair this room; false when somebody has it.
    pub(crate) fn begin_repair(&mut self) -> bool {
        !std::mem::replace(&mut self.repairing, true)
    }

    /// The rev from which a repair is to read now.
    pub(crate) fn begin_read(&mut self) -> Option<i64> {
        (self.news, self.dropped) = (false, false);
        self.delivered
    }

    /// Gives the right back. True when an early event came too late for this repair: it needs another.
    #[must_use]
    pub(crate) fn end_repair(&mut self) -> bool {
        self.repairing = false;
        self.news && self.has_gap()
    }

    /// Whether an event waits for an earlier one.
    pub(crate) fn has_gap(&self) -> bool {
        self.delivered.is_some() && (self.dropped || !self.early.is_empty())
    }

    /// Delivers early events whose turn has come.
    fn drain(&mut self) -> After {
        let mut after = After::default();
        while let Some(delivered) = self.delivered
            && let Some(first) = self.early.first_entry()
        {
            let event = first.get();
            let prev = if event.prev == 0 { event.rev - 1 } else { event.prev };
            if event.rev <= delivered {
                first.remove();
            } else if prev <= delivered {
                let event = first.remove();
                self.deliver(event, delivered, &mut after);
            } else {
                break;
            }
        }
        after.gap = self.has_gap() && !self.repairing;
        after
    }

    /// Delivers an event to everybody here. `held` is the rev before it, or before the repair that it belongs to.
    fn deliver(&mut self, event: RoomEvent, held: i64, after: &mut After) {
        let rev = event.rev;
        let prev = (event.prev != 0 && event.prev != rev - 1).then_some(event.prev);
        self.delivered = Some(rev);
        match event.kind {
            Some(Kind::Message(message)) => self.deliver_message(&message, prev, &mut after.wakes),
            Some(Kind::Member(changed)) => {
                let Some(member) = &changed.member else { return };
                self.send_all(rev, Event::Member { room: self.id, member, prev }, &mut after.wakes);
                let user = member.user.as_ref().and_then(|user| UserId::from_wire(&user.id, "user").ok());
                if let Some(user) = user
                    && changed.joined_rev > held
                {
                    after.joined.push(user);
                }
            }
            Some(Kind::Removed(removed)) => {
                let Ok(user) = UserId::from_wire(&removed.user, "user") else { return };
                self.remove(user, rev);
                after.left.push(user);
                self.send_all(rev, Event::Removed { room: self.id, rev, user, prev }, &mut after.wakes);
            }
            Some(Kind::Info(room)) => self.send_all(rev, Event::Room { room: &room, prev }, &mut after.wakes),
            Some(Kind::Resync(resync)) => {
                let event = Event::Resync { room: self.id, rev, after_ms: resync.after_ms };
                self.send_all(rev, event, &mut after.wakes);
            }
            None => tracing::warn!(room.id = %self.id, "an event of a kind that is not known here"),
        }
    }

    /// A message goes out as it is, but as `skip` to those whose history begins after it.
    fn deliver_message(&mut self, message: &parlance_proto::v1::Message, prev: Option<i64>, wakes: &mut Wakes) {
        let whole = Written::new(Event::Message { message, prev });
        let skip = Written::new(Event::Skip { room: self.id, rev: message.rev, prev });
        let holds = &mut self.holds;
        for local in self.members.values() {
            let event = if message.seq > local.visible_from_seq { &whole } else { &skip };
            for conn in &local.conns {
                send(holds, conn, message.rev, event, wakes);
            }
        }
    }

    fn send_all(&mut self, rev: i64, event: Event<'_>, wakes: &mut Wakes) {
        let event = Written::new(event);
        for conn in self.members.values().flat_map(|local| &local.conns) {
            send(&mut self.holds, conn, rev, &event, wakes);
        }
    }

    /// Takes a user's connections away and tells them so, but not those whose own read was of `rev` or later.
    fn remove(&mut self, user: UserId, rev: i64) {
        let Some(local) = self.members.get_mut(&user) else { return };
        let holds = &mut self.holds;
        let mut gone: SmallVec<[u64; 4]> = SmallVec::new();
        local.conns.retain(|conn| {
            match holds.iter_mut().find(|hold| hold.conn == conn.number).map(|hold| &mut hold.state) {
                Some(State::Floor(floor)) if *floor >= rev => true,
                Some(State::Holding { stale, .. }) => {
                    // Its read may have seen the membership that has just ended: to be read again.
                    *stale = true;
                    false
                }
                _ => {
                    gone.push(conn.number);
                    conn.push(Event::Left(self.id).write(conn.format));
                    false
                }
            }
        });
        holds.retain(|hold| !gone.contains(&hold.conn));
        if local.conns.is_empty() {
            self.members.remove(&user);
        }
        self.note_idle();
    }

    fn note_idle(&mut self) {
        if self.members.is_empty() && self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }
}

/// Sends an event to one connection, or holds it back for it.
fn send(holds: &mut Vec<Hold>, conn: &Arc<Conn>, rev: i64, event: &Written<'_>, wakes: &mut Wakes) {
    if !holds.is_empty()
        && let Some(place) = holds.iter().position(|hold| hold.conn == conn.number)
    {
        match &mut holds[place].state {
            State::Holding { events, stale, .. } => {
                if events.len() < MAX_HELD {
                    events.push((rev, event.get(conn.format).clone()));
                } else {
                    *stale = true;
                }
                return;
            }
            State::Floor(floor) if rev <= *floor => return,
            State::Floor(_) => {
                holds.swap_remove(place);
            }
        }
    }
    wakes.push(conn, event.get(conn.format).clone());
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
