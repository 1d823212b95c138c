//! One of the two sides of the comparison: a room whose members are all connected, driven as fast as it goes.

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
use crate::tally::{histogram, us};

use super::arrivals::Arrivals;

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

impl Side {
    /// All members are the connections of this pool, and the room stands at `seq`.
    pub(crate) fn new(name: &'static str, pool: Pool, members: usize, room: RoomId, seq: u64, size: usize) -> Self {
        let run = Uuid::new_v4().as_fields().0;
        let senders = members.min(SENDERS);
        let arrivals = Arrivals::new(run, members, senders, seq);
        Self { name, pool, room, size, window: WINDOWS[0], run, begun: Instant::now(), arrivals, sent: 0, senders }
    }

    /// Finds the window with which most is delivered.
    pub(crate) fn warm_up(&mut self, duration: Duration) -> anyhow::Result<()> {
        let mut best = (WINDOWS[0], 0.0);
        for window in WINDOWS {
            if window as usize * self.frame_bytes().max(self.size) > MAX_WAITING {
                break;
            }
            self.window = window;
            let turn = self.turn(duration / WINDOWS.len() as u32, None)?;
            if turn.deliveries_per_s > best.1 {
                best = (window, turn.deliveries_per_s);
            }
        }
        self.window = best.0;
        progress(format_args!("{}: {} messages under way at a time", self.name, self.window));
        self.forget_latencies();
        Ok(())
    }

    /// Warms up with as many messages under way as the other side has.
    pub(crate) fn warm_up_like(&mut self, other: &mut Self, duration: Duration) -> anyhow::Result<()> {
        self.window = other.window;
        self.turn(duration, Some(other))?;
        self.forget_latencies();
        Ok(())
    }

    fn forget_latencies(&mut self) {
        (self.arrivals.ack, self.arrivals.delivery) = (histogram(), histogram());
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
