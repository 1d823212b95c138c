//! Whether every receiver got every message once, in order and without a hole.
//!
//! What a room's messages are is the same for all its members, so each `seq` is remembered once, with the message that
//! whoever saw it first saw there. A receiver then only has to see the numbers in order, and the same message at each.

use std::collections::BTreeSet;

use crate::plan::{Plan, Told};

/// A message that nobody has seen yet, or that has no answer.
const NONE: u32 = u32::MAX;
/// A message that was answered by a refusal.
const REFUSED: u32 = u32::MAX - 1;

/// What must not happen. Any of these makes a throughput worthless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    /// Deliveries of acknowledged messages that never came.
    pub(crate) lost: u64,
    /// Messages that came, or were stored, a second time; also those that came to somebody who is no member.
    pub(crate) duplicated: u64,
    /// Messages that came behind a later one, or whose sender had sent them in another order.
    pub(crate) reordered: u64,
    /// Holes in the numbers of a room, as a receiver saw them, filled later or not.
    pub(crate) gaps: u64,
}

impl Violations {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Those of two runs together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            reordered: self.reordered + other.reordered,
            gaps: self.gaps + other.gaps,
        }
    }
}

/// Where a room stands: its number of messages and its number of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) rev: u64,
}

/// What one member has seen of one room on one connection.
#[derive(Clone, Default)]
struct Seen {
    next: u64,
    /// The rev that this client holds.
    rev: u64,
    missing: BTreeSet<u64>,
}

/// One room as its members have seen it.
struct Room {
    /// The `seq` before the run.
    base: u64,
    /// By `seq`: the number of the message there.
    messages: Vec<u32>,
    /// The highest `seq` that was acknowledged.
    acked: u64,
}

/// The state of all members of all rooms.
pub(crate) struct Check {
    plan: Plan,
    seen: Vec<Seen>,
    rooms: Vec<Room>,
    /// By message: the `seq` that it was acknowledged with, above the room's base.
    answers: Vec<u32>,
    /// All messages below have an answer.
    answered_below: u64,
    found: Violations,
}

impl Check {
    /// `heads` are the rooms' before the run.
    pub(crate) fn new(plan: Plan, heads: &[Head]) -> Self {
        let each = plan.cast.members * plan.cast.devices;
        let seen = heads.iter().flat_map(|head| {
            std::iter::repeat_n(Seen { next: head.seq + 1, rev: head.rev, missing: BTreeSet::new() }, each)
        });
        let rooms = heads.iter().map(|head| Room { base: head.seq, messages: vec![], acked: head.seq });
        Self {
            plan,
            seen: seen.collect(),
            rooms: rooms.collect(),
            answers: vec![NONE; usize::try_from(plan.total).unwrap_or_default()],
            answered_below: 0,
            found: Violations::default(),
        }
    }

    /// A message was acknowledged; false when it had been already.
    pub(crate) fn acked(&mut self, number: u64, seq: u64) -> bool {
        let Some(answer) = usize::try_from(number).ok().and_then(|at| self.answers.get_mut(at)) else {
            return false;
        };
        let room = &mut self.rooms[self.plan.room(number)];
        let place = u32::try_from(seq.saturating_sub(room.base)).unwrap_or(REFUSED);
        let before = std::mem::replace(answer, place);
        if before < REFUSED && before != place {
            self.found.duplicated += 1;
        }
        room.acked = room.acked.max(seq);
        before >= REFUSED
    }

    /// A message was refused for good.
    pub(crate) fn refused(&mut self, number: u64) {
        if let Some(answer) = self.answers.get_mut(number as usize)
            && *answer == NONE
        {
            *answer = REFUSED;
        }
    }

    /// A message came on a connection.
    pub(crate) fn delivered(&mut self, connection: usize, head: Head, told: &Told) {
        let cast = self.plan.cast;
        let receiver = if told.room < cast.rooms { cast.receiver(told.room, connection) } else { None };
        // Whoever is no member must not see it, and nobody else can have sent it.
        let Some(receiver) = receiver.filter(|_| told.slot < cast.members && told.number < self.plan.total) else {
            self.found.duplicated += 1;
            return;
        };
        let Head { seq, rev } = head;
        let seen = &mut self.seen[receiver];
        seen.rev = seen.rev.max(rev);
        if seq >= seen.next {
            if seq > seen.next {
                self.found.gaps += 1;
                seen.missing.extend(seen.next..seq);
            }
            seen.next = seq + 1;
        } else if seen.missing.remove(&seq) {
            self.found.reordered += 1;
        } else {
            self.found.duplicated += 1;
            return;
        }
        if !self.rooms[told.room].agrees(seq, told.number) {
            self.found.reordered += 1;
        }
    }

    /// What a client on this connection holds of a room, to resume with; and the last `seq` that it has.
    pub(crate) fn held(&self, room: usize, connection: usize) -> Option<Head> {
        let seen = &self.seen[self.plan.cast.receiver(room, connection)?];
        Some(Head { seq: seen.next - 1, rev: seen.rev })
    }

    /// The server has said that this is the rev to hold.
    pub(crate) fn hold(&mut self, room: usize, connection: usize, rev: u64) {
        if let Some(receiver) = self.plan.cast.receiver(room, connection) {
            self.seen[receiver].rev = rev;
        }
    }

    /// Deliveries of acknowledged messages that have not come.
    pub(crate) fn outstanding(&self) -> u64 {
        let each = self.plan.cast.members * self.plan.cast.devices;
        let of = |(at, seen): (usize, &Seen)| {
            let tail = (self.rooms[at / each].acked + 1).saturating_sub(seen.next);
            tail + seen.missing.len() as u64
        };
        self.seen.iter().enumerate().map(of).sum()
    }

    /// Everything found, what only shows at the end too.
    pub(crate) fn verdict(&self) -> Violations {
        let mut found = Violations { lost: self.outstanding(), ..self.found };
        for room in &self.rooms {
            self.in_order_of_sending(room, &mut found);
        }
        for (number, place) in (0..).zip(&self.answers).filter(|(_, place)| **place < REFUSED) {
            // The acknowledgement has to be true: that message under that number.
            let there = (*place as usize).checked_sub(1).map(|at| self.rooms[self.plan.room(number)].messages.get(at));
            match there {
                // Not seen by anybody: outstanding already.
                Some(None) => {}
                Some(Some(there)) if u64::from(*there) == number || *there == NONE => {}
                _ => found.lost += 1,
            }
        }
        found
    }

    /// Each sender's messages stand in the order of their sending, each once. A jump is a send that was refused.
    fn in_order_of_sending(&self, room: &Room, found: &mut Violations) {
        let mut next = vec![0; self.plan.cast.members];
        for number in room.messages.iter().filter(|number| **number != NONE).map(|number| u64::from(*number)) {
            let (turn, next) = (self.plan.turn(number), &mut next[self.plan.slot(number)]);
            if turn >= *next {
                *next = turn + 1;
            } else if turn + 1 == *next {
                found.duplicated += 1;
            } else {
                found.reordered += 1;
            }
        }
    }

    /// Which of these messages have no answer.
    pub(crate) fn unanswered(&mut self, sent: u64) -> impl Iterator<Item = u64> {
        let is_open = |number: &u64| self.answers[*number as usize] == NONE;
        self.answered_below = (self.answered_below..sent).find(is_open).unwrap_or(sent);
        (self.answered_below..sent).filter(|number| self.answers[*number as usize] == NONE)
    }
}

impl Room {
    /// Remembers which message stands there, or compares.
    fn agrees(&mut self, seq: u64, number: u64) -> bool {
        let Some(at) = seq.checked_sub(self.base + 1).and_then(|at| usize::try_from(at).ok()) else { return false };
        if at >= self.messages.len() {
            self.messages.resize(at + 1, NONE);
        }
        let there = &mut self.messages[at];
        if *there == NONE {
            *there = u32::try_from(number).unwrap_or(NONE);
        }
        u64::from(*there) == number
    }
}

#[cfg(test)]
mod tests;
