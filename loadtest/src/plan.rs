//! Which message is sent when, by whom, into which room: everything follows from its number, so nothing has to be remembered.

use std::time::Duration;

use parlance_client::RoomId;

/// Who takes part: rooms, their members, and the connections of each user.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    pub(crate) rooms: usize,
    pub(crate) members: usize,
    pub(crate) users: usize,
    /// Connections of each user; the first of them sends.
    pub(crate) devices: usize,
}

/// The shape of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) cast: Cast,
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

    /// The room that a message goes to.
    pub(crate) fn room(&self, number: u64) -> usize {
        (number % self.cast.rooms as u64) as usize
    }

    /// The member of the room that sends it.
    pub(crate) fn slot(&self, number: u64) -> usize {
        (number / self.cast.rooms as u64 % self.cast.members as u64) as usize
    }

    /// How many messages this member has sent into this room before.
    pub(crate) fn turn(&self, number: u64) -> u64 {
        number / (self.cast.rooms * self.cast.members) as u64
    }

    /// What a message says of itself.
    pub(crate) fn told(&self, number: u64) -> Told {
        let due_us = u64::try_from(self.due(number).as_micros()).unwrap_or(u64::MAX);
        Told { number, room: self.room(number), slot: self.slot(number), turn: self.turn(number), due_us }
    }

    /// The user who sends it, who is also the connection that does.
    pub(crate) fn sender(&self, number: u64) -> usize {
        self.cast.user(self.room(number), self.slot(number))
    }
}

impl Cast {
    /// The same load on these, at a rate: seconds of warm-up, then seconds that are measured.
    pub(crate) fn at(self, rate: u64, warmup: u64, seconds: u64) -> Plan {
        Plan { cast: self, rate, warm: rate * warmup, total: rate * (warmup + seconds) }
    }

    /// All connections.
    pub(crate) fn connections(&self) -> usize {
        self.users * self.devices
    }

    /// The user of a connection. The first connections of all come first, so that a user's number is also its first one's.
    pub(crate) fn user_of(&self, connection: usize) -> usize {
        connection % self.users
    }

    /// Which of the URLs a connection begins at: a user with several connections has them on several.
    pub(crate) fn url_of(&self, connection: usize, urls: usize) -> usize {
        (self.user_of(connection) + connection / self.users) % urls
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

    /// One member on one connection: the place where a message of the room arrives.
    pub(crate) fn receiver(&self, room: usize, connection: usize) -> Option<usize> {
        let slot = self.slot_of(room, self.user_of(connection))?;
        Some((room * self.members + slot) * self.devices + connection / self.users)
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
pub(crate) fn text(out: &mut String, run: u32, told: &Told, size: usize) {
    use std::fmt::Write;
    let begun = out.len();
    let Told { number, room, slot, turn, due_us } = told;
    // Writing to a String does not fail.
    let _ = write!(out, "{run:08x} {room} {slot} {turn} {number} {due_us} ");
    let length = out.len() - begun;
    out.extend(std::iter::repeat_n('x', size.saturating_sub(length)));
}

/// The frame that sends it; its id is the number of the message plus one.
pub(crate) fn send(out: &mut String, run: u32, room: &RoomId, told: &Told, size: usize) {
    use std::fmt::Write;
    let number = told.number;
    // Writing to a String does not fail.
    let _ = write!(
        out,
        r#"{{"id":{},"send":{{"room":"{room}","client_id":"{run:08x}-0000-7000-8000-{number:012x}","text":""#,
        number + 1,
    );
    text(out, run, told, size);
    out.push_str("\"}}");
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

    use super::{Cast, Plan, read, text};

    const CAST: Cast = Cast { rooms: 7, members: 4, users: 10, devices: 2 };
    const PLAN: Plan = Plan { cast: CAST, rate: 1_000, warm: 0, total: 5_000 };

    #[test]
    fn a_text_tells_what_was_planned() {
        for number in [0, 1, 4_999] {
            let mut out = String::new();
            text(&mut out, 0xabc, &PLAN.told(number), 128);
            assert_eq!(out.len(), 128);
            assert_eq!(read(out.as_bytes(), b"00000abc"), Some(PLAN.told(number)));
            assert_eq!(PLAN.told(number).due_us, number * 1_000);
            assert_eq!(read(out.as_bytes(), b"00000abd"), None);
        }
    }

    #[test]
    fn users_and_members_find_each_other() {
        for room in 0..CAST.rooms {
            for slot in 0..CAST.members {
                assert_eq!(CAST.slot_of(room, CAST.user(room, slot)), Some(slot));
            }
            let members = (0..CAST.users).filter(|user| CAST.slot_of(room, *user).is_some()).count();
            assert_eq!(members, CAST.members);
        }
    }

    #[test]
    fn every_connection_of_a_member_is_a_receiver_of_its_own() {
        let all = (0..CAST.rooms).flat_map(|room| (0..CAST.connections()).filter_map(move |c| CAST.receiver(room, c)));
        let mut all: Vec<_> = all.collect();
        all.sort_unstable();
        assert_eq!(all, (0..CAST.rooms * CAST.members * CAST.devices).collect::<Vec<_>>());
        assert_ne!(CAST.url_of(3, 2), CAST.url_of(13, 2), "one user, two gateways");
    }

    #[test]
    fn the_first_is_due_at_once_and_the_last_in_time() {
        assert_eq!(PLAN.due_by(Duration::ZERO), 1);
        assert_eq!(PLAN.due_by(Duration::from_millis(10)), 11);
        assert_eq!(PLAN.due_by(Duration::from_secs(60)), 5_000);
        assert_eq!(PLAN.due(4_999), Duration::from_millis(4_999));
    }
}
