//! Which revs a client holds, and what an event or an answer means against them. No IO and no clock: [`crate::session`] asks
//! and does.
//!
//! Holding h of a room, an event of rev r that follows p is delivered when p ≤ h < r, ignored when r ≤ h, and asks for the
//! changes after h when p > h; until these have come, later events of the room are kept. Only `welcome`, `sync`, Changes and
//! events move h. An answer such as `sent` never comes here.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::connection::HeldRevs;
use crate::event::Event;
use crate::id::RoomId;
use crate::wire::{Changes, Heads, Rev, Room};

/// Rooms named in one `hello`: as many as fit into a frame of 64 KiB. The others are compared through the list of rooms.
pub const HELLO_ROOMS: usize = 900;
/// Rooms tracked. Events of rooms beyond it are passed on as they come.
pub const ROOMS_BOUND: usize = 65_536;
/// Events kept for one room under repair. More are dropped, and asked for again.
pub const KEPT_BOUND: usize = 512;

/// What the caller has to do, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Give this event to the application.
    Deliver(Event),
    /// Give these rows to the application: they stand for the events that were missed.
    Apply(Box<Changes>),
    /// Ask for the changes of this room, and hand the answer to [`Revs::changes`].
    Ask(Ask),
    /// A room that nothing has named: find its rev in the list of rooms, and hand it to [`Revs::listed`].
    Find(RoomId),
}

/// A question to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The room in question.
    pub room: RoomId,
    /// The rev held.
    pub after: Rev,
    /// Not before this time has passed.
    pub wait_ms: u64,
}

/// The revs of all rooms.
#[derive(Debug, Default)]
pub struct Revs {
    rooms: HashMap<RoomId, Held>,
    /// Events of rooms whose rev is not known yet.
    unknown: HashMap<RoomId, VecDeque<Event>>,
    generation: Option<String>,
}

#[derive(Debug, Default)]
struct Held {
    rev: Rev,
    me_rev: Option<Rev>,
    repair: Option<Repair>,
}

/// A question is under way.
#[derive(Debug, Default)]
struct Repair {
    kept: VecDeque<Event>,
    /// Ask once more after the answer: events had to be dropped, or a `resync` came meanwhile.
    again: Option<u64>,
}

impl Revs {
    /// What to say in `hello`: the generation and the revs held.
    pub fn hello(&self) -> (Option<String>, HashMap<RoomId, HeldRevs>) {
        let rooms = self.rooms.iter().take(HELLO_ROOMS).map(|(room, held)| {
            let revs = held.me_rev.map_or(HeldRevs::Room(held.rev), |me| HeldRevs::Both(held.rev, me));
            (*room, revs)
        });
        (self.generation.clone(), rooms.collect())
    }

    /// The rev held of a room.
    pub fn held(&self, room: RoomId) -> Option<Rev> {
        self.rooms.get(&room).map(|held| held.rev)
    }

    /// The connection is gone: what was kept or asked for comes again with the next `welcome`.
    pub fn disconnected(&mut self) {
        self.unknown.clear();
        for held in self.rooms.values_mut() {
            held.repair = None;
        }
    }

    /// Takes `welcome` or the answer of `sync`, to a question that named these rooms.
    pub fn heads(&mut self, heads: &Heads, named: &HashSet<RoomId>) -> Vec<Step> {
        self.generation = Some(heads.generation.clone());
        for room in &heads.left {
            self.rooms.remove(room);
        }
        let mut steps = self.listed_except(&heads.rooms, named);
        // Of a named room whose rev moved the rows came too: they move the rev that is held, and the item only its own state's.
        let with_rows: HashSet<RoomId> = heads.changes.iter().map(|changes| changes.room).collect();
        for room in heads.rooms.iter().filter(|room| named.contains(&room.id)) {
            match self.rooms.get_mut(&room.id) {
                Some(held) if with_rows.contains(&room.id) => held.me_rev = Some(room.me.rev),
                _ => steps.extend(self.start(room)),
            }
        }
        for changes in &heads.changes {
            steps.extend(self.changes(changes.clone()));
        }
        steps
    }

    /// Takes items of GET /v1/rooms: rooms that were unknown start there, others are compared.
    pub fn listed(&mut self, rooms: &[Room]) -> Vec<Step> {
        self.listed_except(rooms, &HashSet::new())
    }

    fn listed_except(&mut self, rooms: &[Room], named: &HashSet<RoomId>) -> Vec<Step> {
        let mut steps = Vec::new();
        for room in rooms.iter().filter(|room| !named.contains(&room.id)) {
            match self.rooms.get_mut(&room.id) {
                None => steps.extend(self.start(room)),
                // Held, but not named in the question: its rows were not sent, so they are asked for.
                Some(held) if held.rev < room.rev => steps.extend(held.ask(room.id, 0)),
                Some(_) => {}
            }
        }
        steps
    }

    /// A room could not be found: it is not one's own any more, and its events mean nothing.
    pub fn not_found(&mut self, room: RoomId) {
        self.unknown.remove(&room);
        self.rooms.remove(&room);
    }

    /// Starts a room where this object stands, then takes the events that came before it was known.
    fn start(&mut self, room: &Room) -> Vec<Step> {
        if self.rooms.len() < ROOMS_BOUND || self.rooms.contains_key(&room.id) {
            let held = self.rooms.entry(room.id).or_default();
            held.rev = room.rev;
            held.me_rev = Some(room.me.rev);
        }
        let early = self.unknown.remove(&room.id).unwrap_or_default();
        early.into_iter().flat_map(|event| self.event(event)).collect()
    }

    /// Takes an event.
    pub fn event(&mut self, event: Event) -> Vec<Step> {
        match &event {
            Event::Joined(room) => {
                if self.held(room.id).is_some_and(|held| held >= room.rev) {
                    return Vec::new();
                }
                let room = room.clone();
                let mut steps = vec![Step::Deliver(event)];
                steps.extend(self.start(&room));
                return steps;
            }
            Event::Left(left) => {
                self.not_found(left.room);
                return vec![Step::Deliver(event)];
            }
            Event::Me(me) => {
                let Some(held) = self.rooms.get_mut(&me.room) else { return vec![Step::Deliver(event)] };
                if held.me_rev.is_some_and(|rev| rev >= me.me.rev) {
                    return Vec::new();
                }
                held.me_rev = Some(me.me.rev);
                return vec![Step::Deliver(event)];
            }
            Event::Resync(resync) => {
                let Some(held) = self.rooms.get_mut(&resync.room) else { return vec![Step::Find(resync.room)] };
                return held.ask(resync.room, resync.after_ms).into_iter().collect();
            }
            _ => {}
        }
        match event.place() {
            Some((room, rev, prev)) => self.durable(event, room, rev, prev),
            None => vec![Step::Deliver(event)],
        }
    }

    fn durable(&mut self, event: Event, room: RoomId, rev: Rev, prev: Rev) -> Vec<Step> {
        let full = self.rooms.len() >= ROOMS_BOUND;
        let Some(held) = self.rooms.get_mut(&room) else {
            if full {
                return vec![Step::Deliver(event)];
            }
            let early = self.unknown.entry(room).or_default();
            // What does not fit is seen as a gap by whatever comes after it.
            if early.len() < KEPT_BOUND {
                early.push_back(event);
            }
            return if early.len() == 1 { vec![Step::Find(room)] } else { Vec::new() };
        };
        if rev <= held.rev {
            return Vec::new();
        }
        if let Some(repair) = &mut held.repair {
            repair.keep(event);
            return Vec::new();
        }
        if prev > held.rev {
            let steps: Vec<Step> = held.ask(room, 0).into_iter().collect();
            if let Some(repair) = &mut held.repair {
                repair.keep(event);
            }
            return steps;
        }
        held.rev = rev;
        vec![Step::Deliver(event)]
    }

    /// Takes a Changes object: the answer to an [`Ask`], or one that came with `welcome`.
    pub fn changes(&mut self, mut changes: Changes) -> Vec<Step> {
        let room = changes.room;
        let Some(held) = self.rooms.get_mut(&room) else { return Vec::new() };
        let repair = held.repair.take();
        let mut steps = Vec::new();
        // A truncated answer may name a lower rev: the operator has restored a backup.
        if changes.truncated || changes.rev > held.rev {
            let seen = if changes.truncated { 0 } else { held.rev };
            let more = changes.more;
            changes.messages.retain(|message| message.rev > seen);
            changes.members.retain(|member| member.rev > seen);
            held.rev = changes.rev;
            steps.push(Step::Apply(Box::new(changes)));
            if more {
                held.repair = Some(repair.unwrap_or_default());
                steps.push(Step::Ask(Ask { room, after: held.rev, wait_ms: 0 }));
                return steps;
            }
        }
        let Some(repair) = repair else { return steps };
        for event in repair.kept {
            steps.extend(self.event(event));
        }
        if let (Some(wait_ms), Some(held)) = (repair.again, self.rooms.get_mut(&room)) {
            steps.extend(held.ask(room, wait_ms));
        }
        steps
    }
}

impl Held {
    /// One question at a time: while one is under way, another is only remembered.
    fn ask(&mut self, room: RoomId, wait_ms: u64) -> Option<Step> {
        if let Some(repair) = &mut self.repair {
            repair.again = Some(repair.again.map_or(wait_ms, |before| before.max(wait_ms)));
            return None;
        }
        self.repair = Some(Repair::default());
        Some(Step::Ask(Ask { room, after: self.rev, wait_ms }))
    }
}

impl Repair {
    fn keep(&mut self, event: Event) {
        if self.kept.len() < KEPT_BOUND {
            self.kept.push_back(event);
        } else {
            self.again = self.again.or(Some(0));
        }
    }
}

#[cfg(test)]
mod tests;
