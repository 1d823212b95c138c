//! Whether every receiver got every message once, in order and without a hole.

use std::collections::BTreeSet;

use crate::plan::{Plan, Told};

/// What must not happen. Any of these makes a throughput worthless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Violations {
    /// Deliveries of acknowledged messages that never came.
    pub(crate) lost: u64,
    /// Messages that came, or were stored, a second time.
    pub(crate) duplicated: u64,
    /// Messages that came behind a later one.
    pub(crate) reordered: u64,
    /// Holes in the numbers of a room, as a receiver saw them, filled later or not.
    pub(crate) gaps: u64,
}

impl Violations {
    pub(crate) fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// What one member has seen of one room.
#[derive(Clone, Default)]
struct Seen {
    next: u64,
    missing: BTreeSet<u64>,
}

/// The state of all members of all rooms.
pub(crate) struct Check {
    plan: Plan,
    seen: Vec<Seen>,
    /// By receiver and sender in a room: the turn that comes next.
    turns: Vec<u64>,
    /// By room: the highest seq that was acknowledged.
    acked: Vec<u64>,
    /// One bit for each message: acknowledged.
    answered: Vec<bool>,
    found: Violations,
}

impl Check {
    /// `seqs` are the rooms' numbers before the run.
    pub(crate) fn new(plan: Plan, seqs: &[u64]) -> Self {
        let seen =
            seqs.iter().flat_map(|seq| std::iter::repeat_n(Seen { next: seq + 1, ..Seen::default() }, plan.members));
        Self {
            plan,
            seen: seen.collect(),
            turns: vec![0; plan.rooms * plan.members * plan.members],
            acked: seqs.to_vec(),
            answered: vec![false; usize::try_from(plan.total).unwrap_or_default()],
            found: Violations::default(),
        }
    }

    /// A message was acknowledged; false when it had been already.
    pub(crate) fn acked(&mut self, number: u64, seq: u64) -> bool {
        let Some(answered) = usize::try_from(number).ok().and_then(|at| self.answered.get_mut(at)) else {
            return false;
        };
        let first = !std::mem::replace(answered, true);
        let highest = &mut self.acked[self.plan.room(number)];
        *highest = seq.max(*highest);
        first
    }

    /// A message came to a user.
    pub(crate) fn delivered(&mut self, user: usize, seq: u64, told: &Told) {
        let slot = if told.room < self.plan.rooms { self.plan.slot_of(told.room, user) } else { None };
        // Whoever is no member must not see it, and nobody else can have sent it.
        let Some(slot) = slot.filter(|_| told.slot < self.plan.members) else {
            self.found.duplicated += 1;
            return;
        };
        let receiver = told.room * self.plan.members + slot;
        let seen = &mut self.seen[receiver];
        if seq >= seen.next {
            if seq > seen.next {
                self.found.gaps += 1;
                seen.missing.extend(seen.next..seq);
            }
            seen.next = seq + 1;
        } else if seen.missing.remove(&seq) {
            self.found.reordered += 1;
            return;
        } else {
            self.found.duplicated += 1;
            return;
        }
        let next = &mut self.turns[receiver * self.plan.members + told.slot];
        match told.turn {
            // A jump is a send that was refused; one that was lost shows as a hole in seq.
            turn if turn >= *next => *next = turn + 1,
            turn if turn + 1 == *next => self.found.duplicated += 1,
            _ => self.found.reordered += 1,
        }
    }

    /// Deliveries of acknowledged messages that have not come.
    pub(crate) fn outstanding(&self) -> u64 {
        let tail = |(at, seen): (usize, &Seen)| (self.acked[at / self.plan.members] + 1).saturating_sub(seen.next);
        let missing = |seen: &Seen| seen.missing.len() as u64;
        self.seen.iter().enumerate().map(|(at, seen)| tail((at, seen)) + missing(seen)).sum()
    }

    pub(crate) fn verdict(&self) -> Violations {
        Violations { lost: self.outstanding(), ..self.found }
    }

    /// Which of these messages have no answer.
    pub(crate) fn unanswered(&self, sent: u64) -> impl Iterator<Item = u64> {
        (0..sent).filter(|number| !self.answered[*number as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Violations};
    use crate::plan::{Plan, Told};

    const PLAN: Plan = Plan { rooms: 1, members: 2, users: 2, rate: 1, warm: 0, total: 10 };

    fn told(number: u64) -> Told {
        Told { number, room: 0, slot: PLAN.slot(number), turn: PLAN.turn(number), due_us: 0 }
    }

    /// Each message of `order` reaches both members, numbered from 6; all are acknowledged.
    fn verdict(order: &[u64]) -> Violations {
        let mut check = Check::new(PLAN, &[5]);
        for user in [0, 1] {
            order.iter().for_each(|number| check.delivered(user, number + 6, &told(*number)));
        }
        (0..4).for_each(|number| assert!(check.acked(number, number + 6)));
        check.verdict()
    }

    #[test]
    fn all_in_order_is_no_violation() {
        assert!(!verdict(&[0, 1, 2, 3]).any());
    }

    #[test]
    fn each_violation_has_its_name() {
        assert_eq!(verdict(&[0, 1, 2]), Violations { lost: 2, ..Violations::default() });
        assert_eq!(verdict(&[0, 1, 3]), Violations { lost: 2, gaps: 2, ..Violations::default() });
        assert_eq!(verdict(&[0, 2, 1, 3]), Violations { reordered: 2, gaps: 2, ..Violations::default() });
        assert_eq!(verdict(&[0, 1, 1, 2, 3]), Violations { duplicated: 2, ..Violations::default() });
    }

    #[test]
    fn a_message_stored_twice_is_a_duplicate() {
        let mut check = Check::new(PLAN, &[5]);
        check.delivered(0, 6, &told(0));
        check.delivered(0, 7, &told(0));
        assert_eq!(check.verdict(), Violations { duplicated: 1, ..Violations::default() });
    }

    #[test]
    fn a_message_to_a_stranger_is_a_violation() {
        let plan = Plan { users: 3, ..PLAN };
        let mut check = Check::new(plan, &[5]);
        check.delivered(2, 6, &told(0));
        assert!(check.verdict().any());
    }
}
