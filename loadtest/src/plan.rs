//! Which message is sent when, by whom, into which room: everything follows from its number, so nothing has to be remembered.

use std::time::Duration;

/// The shape of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) rooms: usize,
    pub(crate) members: usize,
    pub(crate) users: usize,
    pub(crate) rate: u64,
    /// Messages that only warm the servers up; they are checked, and not timed.
    pub(crate) warm: u64,
    /// All messages, the warming ones too.
    pub(crate) total: u64,
}

impl Plan {
    pub(crate) fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(
            u64::try_from(u128::from(number) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX),
        )
    }

    /// How many messages are due by then.
    pub(crate) fn due_by(&self, elapsed: Duration) -> u64 {
        let due = elapsed.as_nanos() * u128::from(self.rate) / 1_000_000_000 + 1;
        u64::try_from(due).unwrap_or(u64::MAX).min(self.total)
    }

    pub(crate) fn room(&self, number: u64) -> usize {
        (number % self.rooms as u64) as usize
    }

    /// The member of the room that sends it.
    pub(crate) fn slot(&self, number: u64) -> usize {
        (number / self.rooms as u64 % self.members as u64) as usize
    }

    /// How many messages this member has sent into this room before.
    pub(crate) fn turn(&self, number: u64) -> u64 {
        number / (self.rooms * self.members) as u64
    }

    /// The user behind a member.
    pub(crate) fn user(&self, room: usize, slot: usize) -> usize {
        (room * self.members + slot) % self.users
    }

    /// The member that a user is in a room.
    pub(crate) fn slot_of(&self, room: usize, user: usize) -> Option<usize> {
        let first = room * self.members % self.users;
        let slot = (user + self.users - first) % self.users;
        (slot < self.members).then_some(slot)
    }
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) room: usize,
    pub(crate) slot: usize,
    pub(crate) turn: u64,
    /// When it was due, microseconds after the run began.
    pub(crate) due_us: u64,
}

/// The text of a message: run, room, sender, number, plan, and filling up to the size asked for.
pub(crate) fn text(out: &mut String, plan: &Plan, run: u32, number: u64, size: usize) {
    use std::fmt::Write;
    let begun = out.len();
    let (room, slot, turn) = (plan.room(number), plan.slot(number), plan.turn(number));
    let due_us = plan.due(number).as_micros();
    // Writing to a String does not fail.
    let _ = write!(out, "{run:08x} {room} {slot} {turn} {number} {due_us} ");
    let length = out.len() - begun;
    out.extend(std::iter::repeat_n('x', size.saturating_sub(length)));
}

/// Reads such a text; nothing if it is not of this run.
pub(crate) fn read(text: &[u8], run: &[u8]) -> Option<Told> {
    let rest = text.strip_prefix(run)?.strip_prefix(b" ")?;
    let mut fields = rest.split(|byte| *byte == b' ').map(number);
    Some(Told {
        room: usize::try_from(fields.next()??).ok()?,
        slot: usize::try_from(fields.next()??).ok()?,
        turn: fields.next()??,
        number: fields.next()??,
        due_us: fields.next()??,
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 18 {
        return None;
    }
    digits.iter().try_fold(0, |value: u64, byte| byte.is_ascii_digit().then(|| value * 10 + u64::from(byte - b'0')))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Plan, read, text};

    const PLAN: Plan = Plan { rooms: 7, members: 4, users: 10, rate: 1_000, warm: 0, total: 5_000 };

    #[test]
    fn a_text_tells_what_was_planned() {
        for number in [0, 1, 4_999] {
            let mut out = String::new();
            text(&mut out, &PLAN, 0xabc, number, 128);
            assert_eq!(out.len(), 128);
            let told = read(out.as_bytes(), b"00000abc").unwrap();
            assert_eq!((told.room, told.slot, told.turn), (PLAN.room(number), PLAN.slot(number), PLAN.turn(number)));
            assert_eq!((told.number, told.due_us), (number, number * 1_000));
            assert_eq!(read(out.as_bytes(), b"00000abd"), None);
        }
    }

    #[test]
    fn users_and_members_find_each_other() {
        for room in 0..PLAN.rooms {
            for slot in 0..PLAN.members {
                assert_eq!(PLAN.slot_of(room, PLAN.user(room, slot)), Some(slot));
            }
            let members = (0..PLAN.users).filter(|user| PLAN.slot_of(room, *user).is_some()).count();
            assert_eq!(members, PLAN.members);
        }
    }

    #[test]
    fn the_first_is_due_at_once_and_the_last_in_time() {
        assert_eq!(PLAN.due_by(Duration::ZERO), 1);
        assert_eq!(PLAN.due_by(Duration::from_millis(10)), 11);
        assert_eq!(PLAN.due_by(Duration::from_secs(60)), 5_000);
        assert_eq!(PLAN.due(4_999), Duration::from_millis(4_999));
    }
}
