//! How a reader notices what it did not get: the numbers of each stream that it hears.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// A known stream that is silent for this long has lost its sender, or its way to us. Three beats.
pub(super) const SILENCE: Duration = Duration::from_secs(6);
/// Streams that are followed. Two per sender: to us, and to all.
const MAX_STREAMS: usize = 65_536;

/// What a sender writes on everything it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// One sender's way to one destination, from the first parcel until it is forgotten. Random, never used again.
    pub(super) stream: u64,
    /// 1, 2, 3… on this stream; a beat repeats the last.
    pub(super) n: u64,
    /// Whether the destination is [`super::To::All`].
    pub(super) all: bool,
}

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Carries a parcel, and the next number.
    Parcel,
    /// Says that the sender is alive and which number was its last.
    Beat,
    /// The last beat: silence is no loss from now on.
    Bye,
}

/// The last number of every stream of one inbox. Pure: time is passed in.
#[derive(Debug)]
pub(super) struct Numbers {
    streams: HashMap<u64, Heard>,
    // An inbox begins in the middle of streams that began before it. Until then they are taken as they are; afterwards
    // a stream that is not known counts as one that began with a loss, unless it is at its first number.
    adopt_named_until: Instant,
    adopt_all_until: Instant,
}

#[derive(Debug)]
struct Heard {
    last: u64,
    at: Instant,
}

impl Numbers {
    /// For the first inbox of a boot: nobody can have sent to it by name before.
    pub(super) fn new(now: Instant) -> Self {
        Self { streams: HashMap::new(), adopt_named_until: now, adopt_all_until: now + SILENCE }
    }

    /// For an inbox after a broken one, whose reader was told to look for everything that may be missing.
    pub(super) fn renew(&mut self, now: Instant) {
        *self = Self { streams: HashMap::new(), adopt_named_until: now + SILENCE, adopt_all_until: now + SILENCE };
    }

    /// Hears a frame that arrived at `now`. True when something before it is missing.
    pub(super) fn hear(&mut self, stamp: Stamp, kind: Kind, now: Instant) -> bool {
        // What would have been the number before, had nothing been lost.
        let before = if kind == Kind::Parcel { stamp.n.saturating_sub(1) } else { stamp.n };
        let adopted = now < if stamp.all { self.adopt_all_until } else { self.adopt_named_until };
        let room = self.streams.len() < MAX_STREAMS;
        let lost = match self.streams.get_mut(&stamp.stream) {
            Some(heard) => {
                let lost = before > heard.last;
                *heard = Heard { last: heard.last.max(stamp.n), at: now };
                lost
            }
            None if room => {
                self.streams.insert(stamp.stream, Heard { last: stamp.n, at: now });
                before > 0 && !adopted
            }
            // Not followed: each of its frames may follow a loss.
            None => true,
        };
        if kind == Kind::Bye {
            self.streams.remove(&stamp.stream);
        }
        lost
    }

    /// Forgets the streams that were silent for [`SILENCE`] until `now`. True when there was one.
    pub(super) fn forget_silent(&mut self, now: Instant) -> bool {
        let before = self.streams.len();
        self.streams.retain(|_, heard| now.saturating_duration_since(heard.at) < SILENCE);
        self.streams.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind::*, *};

    fn stamp(stream: u64, n: u64) -> Stamp {
        Stamp { stream, n, all: false }
    }

    fn to_all(n: u64) -> Stamp {
        Stamp { stream: 99, n, all: true }
    }

    #[test]
    fn numbers_in_a_row_are_no_loss_and_a_jump_is_one() {
        let now = Instant::now();
        let mut numbers = Numbers::new(now);
        assert!(!numbers.hear(stamp(1, 1), Parcel, now));
        assert!(!numbers.hear(stamp(1, 2), Parcel, now));
        assert!(!numbers.hear(stamp(2, 1), Parcel, now), "another stream has numbers of its own");
        assert!(numbers.hear(stamp(1, 4), Parcel, now));
        assert!(!numbers.hear(stamp(1, 5), Parcel, now), "told once");
        assert!(!numbers.hear(stamp(1, 5), Parcel, now), "a duplicate is no loss");
    }

    #[test]
    fn a_beat_tells_the_loss_of_the_last_parcel() {
        let now = Instant::now();
        let mut numbers = Numbers::new(now);
        assert!(!numbers.hear(stamp(1, 1), Parcel, now));
        assert!(!numbers.hear(stamp(1, 1), Beat, now));
        assert!(numbers.hear(stamp(1, 2), Beat, now));
        assert!(!numbers.hear(stamp(1, 2), Beat, now));
        assert!(!numbers.hear(stamp(1, 3), Parcel, now));
    }

    #[test]
    fn an_unknown_stream_began_before_us_only_when_we_are_new() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        assert!(numbers.hear(stamp(1, 5), Parcel, start), "a first inbox has heard everything sent to its name");
        assert!(numbers.hear(stamp(2, 1), Beat, start));
        assert!(!numbers.hear(to_all(500), Beat, start), "but not what was sent to all");
        assert!(numbers.hear(to_all(502), Parcel, start));
        numbers.renew(start);
        assert!(!numbers.hear(stamp(3, 5), Parcel, start), "a renewed inbox has told already");
        assert!(numbers.hear(stamp(3, 7), Parcel, start));
        assert!(numbers.hear(stamp(4, 5), Parcel, start + SILENCE));
    }

    #[test]
    fn silence_of_a_known_stream_is_told_once() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        numbers.hear(stamp(1, 1), Parcel, start);
        numbers.hear(stamp(2, 1), Parcel, start + SILENCE / 2);
        assert!(!numbers.forget_silent(start + SILENCE / 2));
        assert!(numbers.forget_silent(start + SILENCE));
        assert!(!numbers.forget_silent(start + SILENCE));
        assert!(numbers.hear(stamp(1, 2), Parcel, start + SILENCE), "unknown again");
    }

    #[test]
    fn silence_after_a_bye_is_no_loss() {
        let start = Instant::now();
        let mut numbers = Numbers::new(start);
        numbers.hear(stamp(1, 1), Parcel, start);
        assert!(!numbers.hear(stamp(1, 1), Bye, start));
        assert!(!numbers.forget_silent(start + 2 * SILENCE));
        numbers.hear(stamp(2, 1), Parcel, start);
        assert!(numbers.hear(stamp(2, 2), Bye, start), "a bye tells a loss as a beat does");
    }
}
