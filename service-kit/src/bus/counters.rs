//! The sender's side of the numbers: a stream to each destination, and which of them are due for a beat.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{To, numbers::Stamp};

/// A stream repeats its last number after this long without a parcel.
pub(super) const BEAT: Duration = Duration::from_secs(2);
/// Destinations that are counted for. A gateway that is gone is forgotten at its next beat, so this is never reached.
const MAX_DESTINATIONS: usize = 65_536;

/// The streams of one sender.
#[derive(Debug, Default)]
pub(super) struct Counters(HashMap<To, Counter>);

#[derive(Debug)]
struct Counter {
    stream: u64,
    n: u64,
    said: Instant,
}

impl Counters {
    /// Gives the next number to `to`.
    pub(super) fn next(&mut self, to: To, now: Instant) -> Stamp {
        if self.0.len() >= MAX_DESTINATIONS {
            // Readers of what is forgotten hear silence and repair.
            self.0.clear();
        }
        let counter = self.0.entry(to).or_insert_with(|| Counter { stream: random(), n: 0, said: now });
        counter.n += 1;
        counter.said = now;
        counter.stamp(to)
    }

    /// The beats that are due, which counts as said.
    pub(super) fn beats(&mut self, now: Instant) -> Vec<(To, Stamp)> {
        let mut due = Vec::new();
        for (to, counter) in &mut self.0 {
            if now.saturating_duration_since(counter.said) >= BEAT {
                counter.said = now;
                due.push((*to, counter.stamp(*to)));
            }
        }
        due
    }

    /// Forgets the way to a destination that is not there, unless a newer stream has begun.
    pub(super) fn forget(&mut self, to: To, stream: u64) {
        if self.0.get(&to).is_some_and(|counter| counter.stream == stream) {
            self.0.remove(&to);
        }
    }

    /// Ends all streams: the last numbers, for byes.
    pub(super) fn end(&mut self) -> Vec<(To, Stamp)> {
        self.0.drain().map(|(to, counter)| (to, counter.stamp(to))).collect()
    }
}

impl Counter {
    fn stamp(&self, to: To) -> Stamp {
        Stamp { stream: self.stream, n: self.n, all: to == To::All }
    }
}

/// 62 random bits: streams of different senders must not meet.
fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::BootId;

    #[test]
    fn every_destination_counts_for_itself() {
        let (now, mut counters) = (Instant::now(), Counters::default());
        let one = To::Gateway(BootId::generate());
        assert_eq!(counters.next(one, now).n, 1);
        assert_eq!(counters.next(one, now).n, 2);
        assert_eq!(counters.next(To::All, now).n, 1);
    }

    #[test]
    fn a_silent_stream_beats_its_last_number() {
        let (now, mut counters) = (Instant::now(), Counters::default());
        let said = counters.next(To::All, now);
        assert_eq!(counters.beats(now + BEAT / 2), []);
        assert_eq!(counters.beats(now + BEAT), [(To::All, said)]);
        assert_eq!(counters.beats(now + BEAT), []);
        assert_eq!(counters.beats(now + 2 * BEAT), [(To::All, said)]);
    }

    #[test]
    fn a_forgotten_destination_begins_a_new_stream() {
        let (now, mut counters) = (Instant::now(), Counters::default());
        let first = counters.next(To::All, now);
        counters.forget(To::All, first.stream);
        let second = counters.next(To::All, now);
        assert_ne!(first.stream, second.stream);
        assert_eq!(second.n, 1);
        counters.forget(To::All, first.stream);
        assert_eq!(counters.next(To::All, now).n, 2, "a late word about the old stream changes nothing");
    }
}
