//! One of the two sides of the comparison: a room whose members are all connected, driven as fast as it goes.
//!
//! Every member is sent the same bytes. So a frame is read with care once, by whoever gets it first, and the others compare
//! theirs with it, whole: the cheapest check that there is, and a stricter one than reading numbers.

use std::collections::{BTreeSet, VecDeque};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use hdrhistogram::Histogram;
use parlance_client::RoomId;
use uuid::Uuid;

use crate::check::Violations;
use crate::cpu::{Sample, Shares};
use crate::plan::{self, Told};
use crate::pool::{Event, Pool};
use crate::progress;
use crate::scan::{Frame, frame};
use crate::tally::{histogram, us};

/// Between two looks. Reading seldom reads more at once, which is what a room of a thousand needs to be cheap here.
const TICK: Duration = Duration::from_millis(3);
/// Members who send, in turn; a connection may have 64 requests unanswered.
const SENDERS: usize = 16;
/// Messages that may be under way at the same time, tried one after the other.
const WINDOWS: [u64; 5] = [64, 128, 256, 512, 1_024];
/// Bytes that may wait for one member. Servers cut whoever has 1 MiB waiting.
const MAX_WAITING: usize = 512 * 1024;
/// How long deliveries are waited for at the end of a turn.
const DRAIN: Duration = Duration::from_secs(10);
const TELL_EVERY: Duration = Duration::from_secs(1);

/// A room and its connected members.
pub(crate) struct Side {
    name: &'static str,
    pool: Pool,
    room: RoomId,
    size: usize,
    window: u64,
    run: u32,
    begun: Instant,
    arrivals: Arrivals,
    sent: u64,
    senders: usize,
}

/// What came of one turn.
pub(crate) struct Turn {
    pub(crate) deliveries_per_s: f64,
    pub(crate) sends_per_s: f64,
    pub(crate) cpu: Shares,
}

/// What has come to the members.
struct Arrivals {
    run: String,
    /// The `seq` of the first frame in `frames`.
    first: u64,
    /// What stands at each `seq` from `first` on, as whoever saw it first saw it, and when it was sent.
    frames: VecDeque<(Box<[u8]>, u64)>,
    /// By member: the `seq` that has to come.
    next: Vec<u64>,
    missing: BTreeSet<(usize, u64)>,
    /// By sender: the turn that has to come.
    turns: Vec<u64>,
    acked: u64,
    refused: u64,
    /// The highest `seq` that was acknowledged.
    highest: u64,
    delivered: u64,
    violations: Violations,
    ack: Histogram<u64>,
    delivery: Histogram<u64>,
    /// By message: when it was sent.
    sent_us: Vec<u64>,
    is_timed: bool,
}

impl Side {
    /// All members are the connections of this pool, and the room stands at `seq`.
    pub(crate) fn new(name: &'static str, pool: Pool, members: usize, room: RoomId, seq: u64, size: usize) -> Self {
        let run = Uuid::new_v4().as_fields().0;
        let senders = members.min(SENDERS);
        let arrivals = Arrivals::new(run, members, senders, seq);
        Self { name, pool, room, size, window: WINDOWS[0], run, begun: Instant::now(), arrivals, sent: 0, senders }
    }

    /// Finds the window with which most is delivered.
    pub(crate) fn warm_up(&mut self, duration: Duration, other: Option<&mut Self>) -> anyhow::Result<()> {
        let (mut best, mut other) = ((WINDOWS[0], 0.0), other);
        for window in WINDOWS {
            if window as usize * self.frame_bytes().max(self.size) > MAX_WAITING {
                break;
            }
            self.window = window;
            let turn = self.turn(duration / WINDOWS.len() as u32, other.as_deref_mut())?;
            if turn.deliveries_per_s > best.1 {
                best = (window, turn.deliveries_per_s);
            }
        }
        self.window = best.0;
        progress(format_args!("{}: {} messages under way at a time", self.name, self.window));
        let arrivals = &mut self.arrivals;
        (arrivals.ack, arrivals.delivery) = (histogram(), histogram());
        Ok(())
    }

    /// Sends as fast as it goes for so long, then waits until all has come. The other side is kept alive meanwhile.
    pub(crate) fn turn(&mut self, duration: Duration, mut other: Option<&mut Self>) -> anyhow::Result<Turn> {
        let (cpu, begun) = (Sample::take()?, Instant::now());
        let (delivered, acked) = (self.arrivals.delivered, self.arrivals.acked);
        let mut told = begun;
        self.arrivals.is_timed = true;
        while begun.elapsed() < duration {
            self.tick(true)?;
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let rate = (self.arrivals.delivered - delivered) as f64 / begun.elapsed().as_secs_f64();
                progress(format_args!("{}: {rate:.0} deliveries/s", self.name));
                if let Some(other) = &mut other {
                    other.tick(false)?;
                }
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let turn = Turn {
            deliveries_per_s: (self.arrivals.delivered - delivered) as f64 / seconds,
            sends_per_s: (self.arrivals.acked - acked) as f64 / seconds,
            cpu: Sample::take()?.since(&cpu),
        };
        self.drain()?;
        Ok(turn)
    }

    fn drain(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + DRAIN;
        while Instant::now() < end && (self.arrivals.open(self.sent) > 0 || self.arrivals.outstanding() > 0) {
            self.tick(false)?;
        }
        self.arrivals.is_timed = false;
        ensure!(self.arrivals.refused == 0, "{}: {} sends were refused", self.name, self.arrivals.refused);
        Ok(())
    }

    fn tick(&mut self, is_sending: bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        let (now, arrivals) = (us(self.begun.elapsed()), &mut self.arrivals);
        let mut closed = None;
        self.pool.poll(Duration::ZERO, |member, event| match event {
            Event::Frame(bytes) => arrivals.take(member, bytes, now),
            Event::Closed(close) => closed = Some((member, close)),
        })?;
        if let Some((member, close)) = closed {
            bail!("{}: member {member} was cut: {close}", self.name);
        }
        arrivals.forget();
        // Whole batches, so that servers get them as such.
        let free = self.window.saturating_sub(self.sent - self.arrivals.complete());
        if is_sending && free >= self.window / 4 {
            self.send(free)?;
        }
        thread::sleep(TICK.saturating_sub(begun.elapsed()));
        Ok(())
    }

    fn send(&mut self, count: u64) -> anyhow::Result<()> {
        let mut text = String::with_capacity(self.size + 256);
        let now = us(self.begun.elapsed());
        for number in self.sent..self.sent + count {
            let slot = (number % self.senders as u64) as usize;
            let told = Told { number, room: 0, slot, turn: number / self.senders as u64, due_us: now };
            text.clear();
            plan::send(&mut text, self.run, &self.room, &told, self.size);
            self.arrivals.sent_us.push(now);
            if let Some(socket) = self.pool.socket(slot) {
                ensure!(socket.feed(&text), "{} does not take what is sent", self.name);
            }
        }
        self.sent += count;
        for slot in 0..self.senders {
            if let Some(socket) = self.pool.socket(slot) {
                socket.flush()?;
            }
        }
        Ok(())
    }

    /// The length of a delivered message.
    pub(crate) fn frame_bytes(&self) -> usize {
        self.arrivals.frames.back().map_or(0, |(frame, _)| frame.len())
    }

    pub(crate) fn window(&self) -> u64 {
        self.window
    }

    pub(crate) fn violations(&self) -> Violations {
        let lost = self.arrivals.outstanding();
        Violations { lost, ..self.arrivals.violations }
    }

    /// Of acknowledgements and of deliveries.
    pub(crate) fn latencies(&self) -> [&Histogram<u64>; 2] {
        [&self.arrivals.ack, &self.arrivals.delivery]
    }
}

impl Arrivals {
    fn new(run: u32, members: usize, senders: usize, seq: u64) -> Self {
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

    fn take(&mut self, member: usize, bytes: &[u8], now: u64) {
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
    fn complete(&self) -> u64 {
        let base = self.first + self.frames.len() as u64;
        let seen = self.turns.iter().sum::<u64>();
        let least = self.next.iter().min().copied().unwrap_or_default();
        // All that was seen, but what somebody still lacks.
        seen.saturating_sub(base.saturating_sub(least))
    }

    /// Lets go what everybody has, but for one.
    fn forget(&mut self) {
        let least = self.next.iter().min().copied().unwrap_or_default();
        while self.first + 1 < least && self.frames.len() > 1 {
            self.frames.pop_front();
            self.first += 1;
        }
    }

    /// Sends without an answer.
    fn open(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.acked + self.refused)
    }

    /// Deliveries of acknowledged messages that have not come.
    fn outstanding(&self) -> u64 {
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
