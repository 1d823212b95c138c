//! W4: a gateway is killed under load. Its clients come back to another one as the contract asks, with the revs they hold:
//! how long until they are back, whether anybody lost anything, and what it costs the database.

mod calls;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::load::{Kind, Load};
use crate::plan::Cast;
use crate::report::{self, Report, rounded};
use crate::setup::{Rooms, Scene};
use crate::tally::{histogram, us};
use crate::{cpu, progress};

use calls::Calls;

/// Members of each room, and rooms of each user, about: as in `sends`.
const MEMBERS: usize = 10;
const ROOMS_PER_USER: usize = 4;
/// The shortest stretch in which calls are counted.
const WINDOW: Duration = Duration::from_secs(2);
/// Seconds of load after the kill, at least; all that come back later are waited for, within this patience.
const BACK_PATIENCE: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(crate) struct Options {
    /// The gateway that is killed, then those that stay
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Connections in all, spread over the URLs
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=18_000))]
    sessions: u32,
    /// The process that is killed: the first URL's
    #[arg(long)]
    kill: u32,
    /// Connections of each user; the server's default limit is 10
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    per_user: u32,
    /// Sends a second during all of it
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=20_000))]
    rate: u64,
    /// How long before the kill
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=120))]
    before: u64,
    /// How long after the kill
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=120))]
    after: u64,
    /// Where the database's own counters are asked for calls
    #[arg(long)]
    postgres: Option<String>,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is measured around the kill.
struct Outcome {
    report: Report,
    /// From the kill until each connection of the killed gateway was back.
    back: Histogram<u64>,
    killed_sessions: usize,
    missing: usize,
    /// A second, before and while they came back.
    calls: Option<(f64, f64, &'static str)>,
}

impl Options {
    fn cast(&self) -> Cast {
        let devices = self.per_user as usize;
        let users = (self.sessions as usize).div_ceil(devices).max(MEMBERS);
        Cast { rooms: (users * ROOMS_PER_USER / MEMBERS).max(1), members: MEMBERS, users, devices }
    }
}

/// Runs it; whether nothing was lost and all came back.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    ensure!(options.url.len() > 1, "a second --url is needed, for those who come back");
    // Asked first, as everything before the kill would be in vain.
    cpu::used(&options.kill.to_string())?;
    let mut scene = Scene::set(&options.url, options.cast(), Rooms::Groups)?;
    let outcome = measure(&options, &mut scene);
    // The first one is gone.
    scene.move_to(&options.url[1]);
    scene.clear();
    tell(&options, &outcome?)
}

fn measure(options: &Options, scene: &mut Scene) -> anyhow::Result<Outcome> {
    let calls = options.postgres.as_deref().map(Calls::watch).transpose()?;
    let mut lines = scene.connect()?;
    let heads = scene.heads()?;
    let cast = scene.cast;
    let mut away: BTreeSet<usize> =
        (0..cast.connections()).filter(|connection| cast.url_of(*connection, options.url.len()) == 0).collect();
    let killed_sessions = away.len();
    let plan = cast.at(options.rate, options.before, options.after);
    let mut load = Load::new(plan, Kind { size: 128, peers_only: false }, &scene.rooms, &heads, &mut lines);
    let mut back = histogram();
    let (mut killed, mut all_back) = (None, None);
    load.tally.begun = Instant::now();
    loop {
        let is_done = load.step()?;
        if killed.is_none() && load.tally.begun.elapsed() >= Duration::from_secs(options.before) {
            progress(format_args!("killing process {} with {killed_sessions} connections", options.kill));
            killed = Some(Instant::now());
            kill(options.kill)?;
        }
        let Some(killed) = killed else { continue };
        for (connection, at) in std::mem::take(&mut load.back) {
            if away.remove(&connection) {
                back.saturating_record(us(at - killed).max(1));
            }
        }
        if away.is_empty() && all_back.is_none() {
            progress(format_args!("all are back after {:.1} s", killed.elapsed().as_secs_f64()));
            all_back = Some(Instant::now());
        }
        if is_done && (all_back.is_some() || killed.elapsed() > BACK_PATIENCE) {
            break;
        }
    }
    let killed = killed.context("it was not killed")?;
    let window = all_back.map_or(BACK_PATIENCE, |at| at - killed).max(WINDOW);
    let calls = calls.and_then(|calls| {
        // The same length before; the load is the same in both.
        let before = calls.per_s(killed.checked_sub(window.min(Duration::from_secs(options.before)))?, killed)?;
        Some((before, calls.per_s(killed, killed + window)?, calls.what))
    });
    Ok(Outcome { report: load.report()?, back, killed_sessions, missing: away.len(), calls })
}

fn kill(pid: u32) -> anyhow::Result<()> {
    let pid = Pid::from_raw(i32::try_from(pid)?).context("not a pid")?;
    kill_process(pid, Signal::KILL).context("it cannot be killed")
}

fn tell(options: &Options, outcome: &Outcome) -> anyhow::Result<bool> {
    let Outcome { report, back, killed_sessions, missing, calls } = outcome;
    let ms = |quantile: f64| back.value_at_quantile(quantile) as f64 / 1_000.0;
    let (p50, p99, max) = (ms(0.5), ms(0.99), back.max() as f64 / 1_000.0);
    let ratio = calls.map(|(before, during, _)| during / before.max(0.001));
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "{killed_sessions} of {} connections were on the killed gateway; {missing} have not come back",
        report.plan.cast.connections()
    )?;
    writeln!(out, "back after      50 % {p50:.0} ms, 99 % {p99:.0} ms, all {max:.0} ms")?;
    match calls {
        Some((before, during, what)) => writeln!(
            out,
            "database        {before:.0} {what}/s before, {during:.0} until all were back: {:.2} times",
            ratio.unwrap_or_default()
        )?,
        None => writeln!(out, "database        not looked at; --postgres says where it is")?,
    }
    report::print(report)?;
    let mut body = report::json(report);
    body["back_ms"] = json!({ "p50": p50, "p99": p99, "max": max });
    body["killed_sessions"] = json!(killed_sessions);
    body["missing_sessions"] = json!(missing);
    body["database_calls_ratio"] = ratio.map_or(Value::Null, |ratio| json!(rounded(ratio)));
    if let Some((before, during, what)) = calls {
        body["database_calls"] =
            json!({ "before_per_s": rounded(*before), "during_per_s": rounded(*during), "counted": what });
    }
    report::write(options.json.as_deref(), &body)?;
    Ok(!report.violations.any() && *missing == 0)
}

#[cfg(test)]
mod tests {
    use super::{MEMBERS, Options};

    #[test]
    fn so_many_sessions_are_that_many_connections_half_of_them_on_each_gateway() {
        let options = Options {
            url: vec![],
            sessions: 5_000,
            kill: 1,
            per_user: 4,
            rate: 1,
            before: 1,
            after: 1,
            postgres: None,
            json: None,
        };
        let cast = options.cast();
        assert_eq!((cast.connections(), cast.members), (5_000, MEMBERS));
        let first = (0..cast.connections()).filter(|connection| cast.url_of(*connection, 2) == 0).count();
        assert_eq!(first, 2_500);
    }
}
