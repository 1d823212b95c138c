//! Reading what is there: pages of history at random places of a very long room, and `sync` of somebody in very many rooms.
//!
//! This load is closed: a few readers, each asking again when it was answered. So its latencies are those of the calls, at the
//! rate that they themselves allow.

mod seed;

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures_util::future::try_join_all;
use hdrhistogram::Histogram;
use parlance_client::RoomId;
use parlance_client::wire::{Heads, Message};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::check::Violations;
use crate::cpu::{Sample, Shares};
use crate::plan::Cast;
use crate::pool::Address;
use crate::progress;
use crate::report;
use crate::setup::{Rooms, Scene};
use crate::tally::{histogram, us};

/// Messages in one page.
const PAGE: u64 = 50;
/// Messages in each of the many rooms.
const EACH: usize = 6;
/// Of the many rooms, those that have moved since the reader was here, and by how much.
const MOVED: usize = 20;
const BEHIND: u64 = 5;
/// Answers to each reader before it is measured.
const WARM: u64 = 20;

#[derive(Args)]
pub(crate) struct Options {
    /// Where to ask
    #[arg(long)]
    url: String,
    /// Messages in the long room
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=100_000_000))]
    messages: u32,
    /// Rooms of the user who syncs
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(20..=1_000))]
    rooms: u32,
    /// How long each of the two is read
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Readers at a time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    concurrency: u32,
    /// Writes the long room's messages into this database, instead of sending them through the API first
    #[arg(long)]
    postgres: Option<String>,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Message>,
}

/// Who reads what.
struct Reader {
    http: Client,
    url: String,
    token: String,
}

/// What came of one kind of reading.
struct Reading {
    latency: Histogram<u64>,
    per_s: f64,
    wrong: u64,
    cpu: Shares,
}

/// Runs it; whether every answer was right.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    let cast = Cast { rooms: options.rooms as usize, members: 2, users: 2, devices: 1 };
    let mut scene = Scene::set(std::slice::from_ref(&options.url), cast, Rooms::Groups)?;
    let outcome = measure(&options, &mut scene);
    scene.clear();
    let (history, sync) = outcome?;
    tell(&options, &history, &sync)
}

fn measure(options: &Options, scene: &mut Scene) -> anyhow::Result<(Reading, Reading)> {
    // The first of the many rooms is the long one; the others are short.
    let long = scene.rooms[0];
    let seeder = scene.users[1].id;
    let address = scene.addresses()?.swap_remove(1);
    progress(format_args!("writing {} messages into one room", options.messages));
    match &options.postgres {
        Some(url) => scene.runtime().block_on(seed::into_database(url, long, seeder, options.messages as usize))?,
        None => seed::through_api(&address, &[long], options.messages as usize)?,
    }
    let address = Address { token: scene.addresses()?.swap_remove(1).token, ..address };
    progress(format_args!("writing {EACH} messages into each of {} rooms", options.rooms));
    seed::through_api(&address, &scene.rooms, EACH)?;

    let heads = scene.heads()?;
    let token = scene.addresses()?.swap_remove(0).token;
    let reader =
        Reader { http: Client::builder().timeout(Duration::from_secs(15)).build()?, url: options.url.clone(), token };
    progress("reading history");
    let last = heads[0].seq;
    let history =
        scene.runtime().block_on(reading(options, async |turn| reader.page(long, place(turn, last)).await))?;
    progress("syncing");
    let revs: Vec<_> = scene.rooms.iter().copied().zip(heads.iter().map(|head| head.rev)).collect();
    let sync = scene.runtime().block_on(reading(options, async |turn| reader.sync(&revs, turn).await))?;
    Ok((history, sync))
}

/// Reads in closed loops; each turn tells how long it took and whether the answer was right.
async fn reading(
    options: &Options,
    read: impl AsyncFn(u64) -> anyhow::Result<(Duration, bool)>,
) -> anyhow::Result<Reading> {
    let concurrency = u64::from(options.concurrency);
    // The first answers fill caches, and the connections.
    let warm = async |reader: u64| {
        for turn in 0..WARM {
            read(reader + turn * concurrency).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..concurrency).map(warm)).await?;
    let (cpu, begun, length) = (Sample::take()?, Instant::now(), Duration::from_secs(options.seconds));
    let one = async |reader: u64| {
        let (mut latency, mut wrong, mut turn) = (histogram(), 0, reader + WARM * concurrency);
        while begun.elapsed() < length {
            let (took, is_right) = read(turn).await?;
            latency.saturating_record(us(took).max(1));
            wrong += u64::from(!is_right);
            turn += concurrency;
        }
        anyhow::Ok((latency, wrong))
    };
    let all = try_join_all((0..concurrency).map(one)).await?;
    let (mut latency, mut wrong) = (histogram(), 0);
    for (one, was_wrong) in all {
        latency.add(one)?;
        wrong += was_wrong;
    }
    let per_s = latency.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Reading { latency, per_s, wrong, cpu: Sample::take()?.since(&cpu) })
}

/// Any place with a whole page before it; the same in every run, without an order that a cache could follow.
fn place(turn: u64, last: u64) -> u64 {
    let mixed = (turn + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    PAGE + 1 + (mixed ^ (mixed >> 32)) % (last + 1 - PAGE)
}

impl Reader {
    /// A page of history: exactly the messages before a place.
    async fn page(&self, room: RoomId, before: u64) -> anyhow::Result<(Duration, bool)> {
        let url = format!("{}/v1/rooms/{room}/messages?before={before}&limit={PAGE}", self.url);
        let (took, bytes) = self.timed(self.http.get(url)).await?;
        let page: Page = serde_json::from_slice(&bytes)?;
        let is_right = page.items.iter().map(|message| message.seq).eq(before - PAGE..before);
        Ok((took, is_right))
    }

    /// Everything that moved in all rooms: of some of them the reader lacks the last few messages.
    async fn sync(&self, revs: &[(RoomId, u64)], turn: u64) -> anyhow::Result<(Duration, bool)> {
        let first = (turn as usize).wrapping_mul(MOVED) % revs.len();
        let moved = |at: usize| (at + revs.len() - first) % revs.len() < MOVED;
        let held = |(at, (room, rev)): (usize, &(RoomId, u64))| {
            (room.to_string(), json!(if moved(at) { rev - BEHIND } else { *rev }))
        };
        let rooms: serde_json::Map<String, Value> = revs.iter().enumerate().map(held).collect();
        let request = self.http.post(format!("{}/v1/sync", self.url)).json(&json!({ "rooms": rooms }));
        let (took, bytes) = self.timed(request).await?;
        let heads: Heads = serde_json::from_slice(&bytes)?;
        let newest: HashMap<_, _> = revs.iter().copied().collect();
        let is_whole = heads
            .changes
            .iter()
            .all(|changes| changes.messages.len() as u64 == BEHIND && newest.get(&changes.room) == Some(&changes.rev));
        Ok((took, is_whole && heads.changes.len() == MOVED))
    }

    /// From the request to the last byte of the answer.
    async fn timed(&self, request: RequestBuilder) -> anyhow::Result<(Duration, Vec<u8>)> {
        let request = request.bearer_auth(&self.token);
        let begun = Instant::now();
        let answer = request.send().await?;
        let status = answer.status();
        let bytes = answer.bytes().await?;
        let took = begun.elapsed();
        ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
        Ok((took, bytes.into()))
    }
}

fn tell(options: &Options, history: &Reading, sync: &Reading) -> anyhow::Result<bool> {
    let violations = Violations { gaps: history.wrong + sync.wrong, ..Violations::default() };
    let busier = if history.cpu.own > sync.cpu.own { &history.cpu } else { &sync.cpu };
    let bottleneck = report::bottleneck(busier, false, false);
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "a room of {} messages, a user in {} rooms; {} readers, each asking again when answered (closed loop)",
        options.messages, options.rooms, options.concurrency
    )?;
    report::print_violations(out, &violations)?;
    if !violations.any() {
        writeln!(out, "history         {:.0} pages of {PAGE}/s", history.per_s)?;
        writeln!(out, "sync            {:.0}/s, {MOVED} rooms with {BEHIND} messages to come each", sync.per_s)?;
        report::print_latencies(out, &[("history", &history.latency), ("sync", &sync.latency)])?;
    }
    report::print_cpu(out, busier, bottleneck)?;
    let mut body = json!({
        "history_ms": report::latencies(&history.latency),
        "history_per_s": report::rounded(history.per_s),
        "sync_ms": report::latencies(&sync.latency),
        "sync_per_s": report::rounded(sync.per_s),
        "messages": options.messages,
        "rooms": options.rooms,
        "concurrency": options.concurrency,
        "violations": report::violations(&violations),
    });
    report::add_cpu(&mut body, busier, bottleneck);
    report::write(options.json.as_deref(), &body)?;
    Ok(!violations.any())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{PAGE, place};

    #[test]
    fn every_place_has_a_whole_page_before_it_and_they_differ() {
        let places: BTreeSet<_> = (0..1_000).map(|turn| place(turn, 1_000_000)).collect();
        assert!(places.first() > Some(&PAGE) && places.last() <= Some(&1_000_001));
        assert!(places.len() > 990);
        assert!((0..100).all(|turn| place(turn, 100) > PAGE && place(turn, 100) <= 101));
    }
}
