//! W1: persisted sends into groups. Each has a planned instant, and every latency counts from it.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use parlance_client::RoomId;
use uuid::Uuid;

use crate::cpu::{Sample, Shares};
use crate::plan::{self, Plan};
use crate::pool::{Address, Pool};
use crate::report::Report;
use crate::setup::{self, User};
use crate::tally::{Returns, Tally};
use crate::{progress, report};

/// How often the load wakes. It adds at most this much to what it measures, and saves most of its own cost.
const TICK: Duration = Duration::from_millis(1);
/// How long answers and deliveries are waited for after the last send.
const DRAIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const TELL_EVERY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct Options {
    /// Where to connect; given several times, the users are spread over all
    #[arg(long, required = true)]
    url: Vec<String>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Members of each room, all online
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    members: u32,
    /// In how many of the rooms each user is, about; a user has one connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    rooms_per_user: u32,
    /// Sends a second, all together
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// How long it is measured; access tokens live ten minutes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=480))]
    seconds: u64,
    /// How long the same load runs before
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60))]
    warmup: u64,
    /// Length of each text
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=8_000))]
    size: u32,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Options {
    fn plan(&self) -> anyhow::Result<Plan> {
        let (rooms, members) = (self.rooms as usize, self.members as usize);
        let users = (rooms * members).div_ceil(self.rooms_per_user as usize).max(members);
        let (warm, total) = (self.rate * self.warmup, self.rate * (self.warmup + self.seconds));
        // The number of a message, from 1 on, is also the id of its frame.
        ensure!(total < u64::from(u32::MAX), "too many messages for one run");
        Ok(Plan { rooms, members, users, rate: self.rate, warm, total })
    }
}

/// Runs it; whether it passed without a violation.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let plan = options.plan()?;
    let run = Uuid::new_v4().as_fields().0;
    let runtime = setup::runtime()?;
    let users = runtime.block_on(setup::users(&options.url, run, plan.users))?;
    let rooms = runtime.block_on(setup::rooms(&plan, &users))?;
    let outcome = connect(options, &users).and_then(|pool| {
        let seqs = runtime.block_on(setup::seqs(&plan, &users, &rooms))?;
        let mut load = Load::new(plan, run, options.size as usize, rooms.clone(), &seqs, pool);
        load.run()?;
        load.report()
    });
    runtime.block_on(setup::clean_up(Some(&plan), &users, &rooms));
    let report = outcome?;
    report::print(&report)?;
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&report))?;
    }
    Ok(!report.violations.any())
}

fn connect(options: &Options, users: &[User]) -> anyhow::Result<Pool> {
    progress(format_args!("opening {} connections", users.len()));
    let urls = options.url.iter().cycle();
    let address =
        |(user, url): (&User, &String)| Address { url: url.clone(), source: None, token: user.token().into() };
    let addresses: Vec<_> = users.iter().zip(urls).map(address).collect();
    let mut pool = Pool::new()?;
    pool.open(&addresses)?;
    Ok(pool)
}

/// A run under way.
struct Load {
    plan: Plan,
    run: u32,
    size: usize,
    rooms: Vec<RoomId>,
    pool: Pool,
    tally: Tally,
    next: u64,
    unsent: u64,
    late: Returns,
    /// Users whose socket has something to write.
    to_flush: Vec<usize>,
    cpu: Vec<Sample>,
}

impl Load {
    fn new(plan: Plan, run: u32, size: usize, rooms: Vec<RoomId>, seqs: &[u64], pool: Pool) -> Self {
        let tally = Tally::new(plan, run, seqs);
        let late = Returns::new();
        Self { plan, run, size, rooms, pool, tally, next: 0, unsent: 0, late, to_flush: vec![], cpu: vec![] }
    }

    fn run(&mut self) -> anyhow::Result<()> {
        self.tally.begun = Instant::now();
        let (mut told, mut looked) = (Duration::ZERO, Duration::ZERO);
        loop {
            let now = self.tally.begun.elapsed();
            self.send_due(now)?;
            self.pool.poll(Duration::ZERO, |user, bytes| self.tally.take(user, bytes))?;
            if self.cpu.is_empty() && self.next >= self.plan.warm {
                self.cpu.push(Sample::take()?);
            }
            if self.next == self.plan.total && now > looked + LOOK_EVERY {
                looked = now;
                if self.cpu.len() == 1 {
                    self.cpu.push(Sample::take()?);
                }
                if self.is_done() || now > self.plan.due(self.plan.total) + DRAIN {
                    return Ok(());
                }
            }
            if now > told + TELL_EVERY {
                told = now;
                self.tell(now);
            }
            thread::sleep(TICK.saturating_sub(self.tally.begun.elapsed().saturating_sub(now)));
        }
    }

    fn send_due(&mut self, now: Duration) -> anyhow::Result<()> {
        use std::fmt::Write;
        let mut text = String::with_capacity(self.size + 256);
        for number in self.next..self.plan.due_by(now) {
            let (room, slot) = (self.plan.room(number), self.plan.slot(number));
            let user = self.plan.user(room, slot);
            text.clear();
            // Writing to a String does not fail.
            let _ = write!(
                text,
                r#"{{"id":{},"send":{{"room":"{}","client_id":"{:08x}-0000-7000-8000-{number:012x}","text":""#,
                number + 1,
                self.rooms[room],
                self.run
            );
            plan::text(&mut text, &self.plan, self.run, number, self.size);
            text.push_str("\"}}");
            if !self.pool.socket(user).feed(&text) {
                self.unsent += 1;
            }
            self.to_flush.push(user);
            if number >= self.plan.warm {
                self.late.note(u64::try_from(self.plan.due(number).as_micros()).unwrap_or(u64::MAX), now);
            }
            self.next = number + 1;
        }
        let mut failed = Ok(());
        self.to_flush.retain(|user| {
            let socket = self.pool.socket(*user);
            let flushed = socket.flush();
            let more = socket.has_unwritten();
            if failed.is_ok() {
                failed = flushed;
            }
            more
        });
        failed
    }

    fn is_done(&self) -> bool {
        self.tally.acked + self.tally.refused + self.unsent == self.next && self.tally.check.outstanding() == 0
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
    fn report(mut self) -> anyhow::Result<Report> {
        let now = self.tally.begun.elapsed();
        let measured_acks = self.tally.acks.latency.len();
        let measured_deliveries = self.tally.deliveries.latency.len();
        let from = self.plan.due(self.plan.warm);
        let per_second = |count: u64, last: Duration| count as f64 / last.saturating_sub(from).as_secs_f64().max(0.001);
        let achieved_per_s = per_second(measured_acks, self.tally.acks.last);
        let deliveries_per_s = per_second(measured_deliveries, self.tally.deliveries.last);
        let unanswered: Vec<u64> = self.tally.check.unanswered(self.next).collect();
        for number in unanswered.iter().filter(|number| **number >= self.plan.warm) {
            let due_us = u64::try_from(self.plan.due(*number).as_micros()).unwrap_or(u64::MAX);
            self.tally.acks.note(due_us, now);
        }
        let cpu = match self.cpu[..] {
            [first, last, ..] => last.since(&first),
            _ => Shares { own: 0.0, machine: 0.0, stolen: 0.0 },
        };
        Ok(Report {
            plan: self.plan,
            size: self.size,
            achieved_per_s,
            deliveries_per_s,
            ack: self.tally.acks.latency,
            delivery: self.tally.deliveries.latency,
            late: self.late.latency,
            violations: self.tally.check.verdict(),
            unanswered: unanswered.len() as u64,
            refused: self.tally.refused,
            first_refusal: self.tally.first_refusal,
            unsent: self.unsent,
            resyncs: self.tally.resyncs,
            cpu,
        })
    }
}
