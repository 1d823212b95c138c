//! What has come to the members of a room, compared with one another.
//!
//! Every member is sent the same bytes. So a frame is read with care once, by whoever gets it first, and the others compare
//! theirs with it, whole: the cheapest check that there is, and a stricter one than reading numbers.

use std::collections::{BTreeSet, VecDeque};

use hdrhistogram::Histogram;

use crate::check::Violations;
use crate::plan::{self, Told};
use crate::scan::{Frame, frame};
use crate::tally::histogram;

/// What has come to the members.
pub(super) struct Arrivals {
    run: String,
    /// The `seq` of the first frame in `frames`.
    first: u64,
    /// What stands at each `seq` from `first` on, as whoever saw it first saw it, and when it was sent.
    pub(super) frames: VecDeque<(Box<[u8]>, u64)>,
    /// By member: the `seq` that has to come.
    next: Vec<u64>,
    missing: BTreeSet<(usize, u64)>,
    /// By sender: the turn that has to come.
    turns: Vec<u64>,
    pub(super) acked: u64,
    pub(super) refused: u64,
    /// The highest `seq` that was acknowledged.
    highest: u64,
    pub(super) delivered: u64,
    pub(super) violations: Violations,
    pub(super) ack: Histogram<u64>,
    pub(super) delivery: Histogram<u64>,
    /// By message: when it was sent.
    pub(super) sent_us: Vec<u64>,
    pub(super) is_timed: bool,
}

impl Arrivals {
    pub(super) fn new(run: u32, members: usize, senders: usize, seq: u64) -> Self {
        Self {
            run: format!("{run:08x}"),
            first: seq + 1,
            frames: VecDeque::new(),
            next: vec![seq + 1; members],
            missing: BTreeSet::new(),
            turns: vec![0; senders],
            acked: 0,
            refused: 0,
            highest: seq,
            delivered: 0,
            violations: Violations::default(),
            ack: histogram(),
            delivery: histogram(),
            sent_us: vec![],
            is_timed: false,
        }
    }

    pub(super) fn take(&mut self, member: usize, bytes: &[u8], now: u64) {
        let next = self.next[member];
        let known = next.checked_sub(self.first).and_then(|at| self.frames.get(at as usize));
        if let Some((frame, sent_us)) = known
            && **frame == *bytes
        {
            self.next[member] = next + 1;
            self.delivered += 1;
            if self.is_timed {
                self.delivery.saturating_record(now.saturating_sub(*sent_us).max(1));
            }
            return;
        }
        match frame(bytes) {
            Frame::Message { seq, text, .. } => {
                if let Some(told) = plan::read(text, self.run.as_bytes()) {
                    self.unexpected(member, seq, &told, bytes, now);
                }
            }
            Frame::Sent { re, seq } => {
                self.acked += 1;
                self.highest = self.highest.max(seq);
                if let Some(sent_us) = self.sent_us.get(re.saturating_sub(1) as usize)
                    && self.is_timed
                {
                    self.ack.saturating_record(now.saturating_sub(*sent_us).max(1));
                }
            }
            Frame::Refused { .. } => self.refused += 1,
            _ => {}
        }
    }

    /// A message that nobody has seen yet, or that is not the one which has to come.
    fn unexpected(&mut self, member: usize, seq: u64, told: &Told, bytes: &[u8], now: u64) {
        let next = &mut self.next[member];
        if seq < *next {
            let late = self.missing.remove(&(member, seq));
            if late {
                self.violations.reordered += 1
            } else {
                self.violations.duplicated += 1
            }
            return;
        }
        if seq > *next {
            self.violations.gaps += 1;
            self.missing.extend((*next..seq).map(|seq| (member, seq)));
        }
        *next = seq + 1;
        self.delivered += 1;
        self.delivery.saturating_record(now.saturating_sub(told.due_us).max(1));
        let end = self.first + self.frames.len() as u64;
        if seq == end {
            self.frames.push_back((bytes.into(), told.due_us));
            self.in_turn(told);
        } else if seq < end && self.frames.get((seq - self.first) as usize).is_some_and(|(frame, _)| **frame != *bytes)
        {
            // Another message, or other bytes, than somebody else got at this place.
            self.violations.reordered += 1;
        }
    }

    /// Each sender's messages come in the order of their sending, each once.
    fn in_turn(&mut self, told: &Told) {
        let Some(next) = self.turns.get_mut(told.slot) else { return };
        if told.turn + 1 == *next {
            self.violations.duplicated += 1;
        } else if told.turn != *next {
            self.violations.reordered += 1;
        }
        *next = told.turn + 1;
    }

    /// Messages that everybody has.
    pub(super) fn complete(&self) -> u64 {
        let base = self.first + self.frames.len() as u64;
        let seen = self.turns.iter().sum::<u64>();
        let least = self.next.iter().min().copied().unwrap_or_default();
        // All that was seen, but what somebody still lacks.
        seen.saturating_sub(base.saturating_sub(least))
    }

    /// Lets go what everybody has, but for one.
    pub(super) fn forget(&mut self) {
        let least = self.next.iter().min().copied().unwrap_or_default();
        while self.first + 1 < least && self.frames.len() > 1 {
            self.frames.pop_front();
            self.first += 1;
        }
    }

    /// Sends without an answer.
    pub(super) fn open(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.acked + self.refused)
    }

    /// Deliveries of acknowledged messages that have not come.
    pub(super) fn outstanding(&self) -> u64 {
        let tails: u64 = self.next.iter().map(|next| (self.highest + 1).saturating_sub(*next)).sum();
        tails + self.missing.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Arrivals;
    use crate::check::Violations;
    use crate::plan::{self, Told};

    fn message(number: u64) -> Vec<u8> {
        let mut text = String::new();
        plan::text(&mut text, 7, &Told { number, room: 0, slot: 0, turn: number, due_us: 0 }, 64);
        let seq = number + 6;
        format!(r#"{{"event":{{"message":{{"room":"r","seq":{seq},"rev":{seq},"text":"{text}"}}}}}}"#).into_bytes()
    }

    fn sent(number: u64) -> Vec<u8> {
        format!(r#"{{"re":{},"sent":{{"seq":{}}}}}"#, number + 1, number + 6).into_bytes()
    }

    /// Member 0 gets messages 0 to 3 in order, member 1 in this order; all are acknowledged.
    fn verdict(order: &[u64]) -> Violations {
        let mut arrivals = Arrivals::new(7, 2, 1, 5);
        (0..4).for_each(|number| arrivals.take(0, &message(number), 1));
        order.iter().for_each(|number| arrivals.take(1, &message(*number), 1));
        (0..4).for_each(|number| arrivals.take(0, &sent(number), 1));
        Violations { lost: arrivals.outstanding(), ..arrivals.violations }
    }

    #[test]
    fn what_comes_as_it_came_to_the_first_is_right() {
        assert!(!verdict(&[0, 1, 2, 3]).any());
    }

    #[test]
    fn a_frame_dropped_doubled_or_reordered_is_found() {
        assert_eq!(verdict(&[0, 1, 2]), Violations { lost: 1, ..Violations::default() });
        assert_eq!(verdict(&[0, 1, 3]), Violations { lost: 1, gaps: 1, ..Violations::default() });
        assert_eq!(verdict(&[0, 1, 1, 2, 3]), Violations { duplicated: 1, ..Violations::default() });
        assert_eq!(verdict(&[0, 2, 1, 3]), Violations { reordered: 1, gaps: 1, ..Violations::default() });
    }

    #[test]
    fn other_bytes_than_the_first_got_are_found() {
        let mut arrivals = Arrivals::new(7, 2, 1, 5);
        arrivals.take(0, &message(0), 1);
        let mut other = message(0);
        let at = other.len() - 6;
        other[at] = b'y';
        arrivals.take(1, &other, 1);
        assert!(arrivals.violations.any());
    }

    #[test]
    fn what_everybody_has_is_forgotten_and_counted() {
        let mut arrivals = Arrivals::new(7, 2, 1, 5);
        (0..4).for_each(|number| arrivals.take(0, &message(number), 1));
        assert_eq!(arrivals.complete(), 0);
        (0..3).for_each(|number| arrivals.take(1, &message(number), 1));
        arrivals.forget();
        assert_eq!((arrivals.complete(), arrivals.frames.len()), (3, 2));
        arrivals.take(1, &message(3), 1);
        assert_eq!(arrivals.complete(), 4);
        assert!(!arrivals.violations.any());
    }
}
