//! The load itself: sends at planned instants, and whatever comes back. One thread around epoll.

use std::thread;
use std::time::{Duration, Instant};

use parlance_client::RoomId;
use uuid::Uuid;

use crate::check::Head;
use crate::cpu::{Sample, Shares};
use crate::lines::Lines;
use crate::plan::{self, Plan};
use crate::progress;
use crate::report::Report;
use crate::socket::HELLO;
use crate::tally::{Ask, PAGES, Returns, Tally, us};

/// How often the load wakes. It adds at most this much to what it measures, and saves most of its own cost.
const TICK: Duration = Duration::from_millis(1);
/// Below this rate the load wakes for whatever comes, as it can afford to.
const EAGER_RATE: u64 = 5_000;
/// How long answers and deliveries are waited for after the last send.
const DRAIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Messages in one page of history.
const PAGE: u32 = 200;

/// What a load is, beside its plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    /// Length of each text.
    pub(crate) size: usize,
    /// Whether deliveries are timed at the peers only.
    pub(crate) peers_only: bool,
}

/// A run under way.
pub(crate) struct Load<'a> {
    plan: Plan,
    kind: Kind,
    run: u32,
    rooms: &'a [RoomId],
    lines: &'a mut Lines,
    pub(crate) tally: Tally,
    next: u64,
    unsent: u64,
    late: Returns,
    /// Connections that have something to write.
    to_flush: Vec<usize>,
    /// Connections that came back, and when.
    pub(crate) back: Vec<(usize, Instant)>,
    cpu: Vec<Sample>,
    told: Duration,
    looked: Duration,
}

impl<'a> Load<'a> {
    pub(crate) fn new(plan: Plan, kind: Kind, rooms: &'a [RoomId], heads: &[Head], lines: &'a mut Lines) -> Self {
        let run = Uuid::new_v4().as_fields().0;
        Self {
            plan,
            kind,
            run,
            rooms,
            lines,
            tally: Tally::new(plan, run, rooms, heads, kind.peers_only),
            next: 0,
            unsent: 0,
            late: Returns::new(),
            to_flush: vec![],
            back: vec![],
            cpu: vec![],
            told: Duration::ZERO,
            looked: Duration::ZERO,
        }
    }

    /// Runs to its end.
    pub(crate) fn run(mut self) -> anyhow::Result<Report> {
        self.tally.begun = Instant::now();
        while !self.step()? {}
        self.report()
    }

    /// One tick; true when all is sent and everything has come back, or will not.
    pub(crate) fn step(&mut self) -> anyhow::Result<bool> {
        let now = self.tally.begun.elapsed();
        self.send_due(now)?;
        let due = self.plan.due(self.next).saturating_sub(now).min(TICK);
        let wait = if self.plan.rate <= EAGER_RATE { due } else { Duration::ZERO };
        self.receive(wait)?;
        self.resume()?;
        self.ask(now);
        if self.cpu.is_empty() && self.next >= self.plan.warm {
            self.cpu.push(Sample::take()?);
        }
        if now > self.told + TELL_EVERY {
            self.told = now;
            self.tell(now);
        }
        if self.next == self.plan.total && now > self.looked + LOOK_EVERY {
            self.looked = now;
            if self.cpu.len() == 1 {
                self.cpu.push(Sample::take()?);
            }
            return Ok(self.is_done() || now > self.plan.due(self.plan.total) + DRAIN);
        }
        if wait.is_zero() {
            thread::sleep(TICK.saturating_sub(self.tally.begun.elapsed().saturating_sub(now)));
        }
        Ok(false)
    }

    fn receive(&mut self, wait: Duration) -> anyhow::Result<()> {
        let tally = &mut self.tally;
        let begun = tally.begun;
        let closed = self.lines.poll(wait, |connection, bytes| tally.take(connection, bytes, begun.elapsed()))?;
        for connection in closed {
            self.tally.cut(connection);
        }
        Ok(())
    }

    fn send_due(&mut self, now: Duration) -> anyhow::Result<()> {
        for number in self.next..self.plan.due_by(now) {
            if self.send(number) && number >= self.plan.warm {
                self.late.note(us(self.plan.due(number)), now);
            }
            self.next = number + 1;
        }
        let mut failed = Ok(());
        let pool = self.lines.pool();
        self.to_flush.retain(|connection| {
            // Of one that has ended its own reading will tell.
            let Some(socket) = pool.socket(*connection) else { return false };
            if let Err(error) = socket.flush() {
                failed = Err(error);
            }
            socket.has_unwritten()
        });
        if let Err(error) = failed {
            progress(format_args!("{error:#}"));
        }
        Ok(())
    }

    /// Puts a send on its connection; one that is away sends it when it is back.
    fn send(&mut self, number: u64) -> bool {
        let sender = self.plan.sender(number);
        let Some(socket) = self.lines.pool().socket(sender) else { return false };
        let mut text = String::with_capacity(self.kind.size + 256);
        let room = &self.rooms[self.plan.room(number)];
        plan::send(&mut text, self.run, room, &self.plan.told(number), self.kind.size);
        if !socket.feed(&text) {
            self.unsent += 1;
            self.tally.check.refused(number);
            return false;
        }
        self.to_flush.push(sender);
        true
    }

    /// Brings back whoever's wait is over; who is back sends again what was not answered, in order.
    fn resume(&mut self) -> anyhow::Result<()> {
        while let Some(connection) = self.lines.due() {
            let hello = self.hello(connection);
            self.lines.resume(connection, hello)?;
        }
        for connection in std::mem::take(&mut self.tally.resumed) {
            self.lines.is_back(connection);
            self.back.push((connection, Instant::now()));
            let plan = self.plan;
            let open: Vec<_> = self.tally.check.unanswered(self.next).collect();
            for number in open.into_iter().filter(|number| plan.sender(*number) == connection) {
                self.send(number);
            }
        }
        Ok(())
    }

    /// With the revs that the client holds.
    fn hello(&self, connection: usize) -> String {
        use std::fmt::Write;
        let token = &self.lines.address(connection).token;
        let mut text = format!(r#"{{"id":{HELLO},"hello":{{"token":"{token}","rooms":{{"#);
        let mut comma = "";
        for (at, room) in self.rooms.iter().enumerate() {
            if let Some(held) = self.tally.check.held(at, connection) {
                // Writing to a String does not fail.
                let _ = write!(text, r#"{comma}"{room}":{}"#, held.rev);
                comma = ",";
            }
        }
        text.push_str("}}}");
        text
    }

    /// Asks for the messages that a connection could not be given otherwise.
    fn ask(&mut self, now: Duration) {
        let (due, later): (Vec<Ask>, _) =
            std::mem::take(&mut self.tally.asks).into_iter().partition(|ask| ask.at <= now);
        self.tally.asks = later;
        for Ask { connection, room, .. } in due {
            let Some(held) = self.tally.check.held(room, connection) else { continue };
            let Some(socket) = self.lines.pool().socket(connection) else { continue };
            let id = PAGES + room as u32;
            let (room, after) = (self.rooms[room], held.seq);
            socket.feed(&format!(r#"{{"id":{id},"history":{{"room":"{room}","after":{after},"limit":{PAGE}}}}}"#));
            self.to_flush.push(connection);
        }
    }

    fn is_done(&self) -> bool {
        self.tally.acked + self.tally.refused + self.unsent >= self.next
            && !self.tally.is_catching_up()
            && self.tally.check.outstanding() == 0
    }

    fn tell(&self, now: Duration) {
        let tally = &self.tally;
        let p99 = tally.acks.latency.value_at_quantile(0.99) as f64 / 1_000.0;
        progress(format_args!(
            "{:>4.0} s  sent {}  acknowledged {}  delivered {}  ack p99 {p99:.1} ms",
            now.as_secs_f64(),
            self.next,
            tally.acked,
            tally.delivered
        ));
    }

    /// What is still unanswered counts with the time that it has waited by now.
    pub(crate) fn report(mut self) -> anyhow::Result<Report> {
        let now = self.tally.begun.elapsed();
        let seconds = (self.plan.due(self.plan.total) - self.plan.due(self.plan.warm)).as_secs_f64().max(0.001);
        let answered = self.tally.acks.latency.len();
        let unanswered: Vec<u64> = self.tally.check.unanswered(self.next).collect();
        for number in unanswered.iter().filter(|number| **number >= self.plan.warm) {
            self.tally.acks.note(us(self.plan.due(*number)), now);
        }
        let cpu = match &self.cpu[..] {
            [first, last, ..] => last.since(first),
            _ => Shares::default(),
        };
        Ok(Report {
            plan: self.plan,
            size: self.kind.size,
            achieved_per_s: self.tally.acks.measured as f64 / seconds,
            deliveries_per_s: self.tally.deliveries.measured as f64 / seconds,
            answered_share: answered as f64 / (self.plan.total - self.plan.warm).max(1) as f64,
            ack: self.tally.acks.latency,
            delivery: self.tally.deliveries.latency,
            late: self.late.latency,
            violations: self.tally.check.verdict(),
            unanswered: unanswered.len() as u64,
            refused: self.tally.refused,
            first_refusal: self.tally.first_refusal,
            unsent: self.unsent,
            resyncs: self.tally.resyncs,
            closed: std::mem::take(&mut self.lines.closed),
            first_close: self.lines.first_close.take(),
            cpu,
        })
    }
}
