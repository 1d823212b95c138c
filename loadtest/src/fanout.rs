//! One room with everybody online, as fast as it goes; beside it, in turn, a bare broadcast of frames of the same size through
//! the gateway's own WebSocket library to as many sockets of the same client code, with as many messages under way.
//!
//! This load is closed, as it looks for the most that can be delivered: a bounded number of messages is under way, so that
//! nobody is cut for being slow, and latencies are those of that window.

mod arrivals;
mod side;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::bare::Bare;
use crate::check::Violations;
use crate::cpu::Shares;
use crate::plan::Cast;
use crate::pool::{Address, Pool};
use crate::progress;
use crate::report::{self, rounded};
use crate::setup::{Rooms, Scene};

use side::{Side, Turn};

#[derive(Args)]
pub(crate) struct Options {
    /// Where to connect; given several times, the members are spread over all
    #[arg(long, required = true)]
    url: Vec<String>,
    /// Members of the room, all online
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    members: u32,
    /// How long each side is measured, all its turns together
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: u64,
    /// How long each side warms up, which is also how it finds its window
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    warmup: u64,
    /// Turns of each side; the medians are reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    turns: u8,
    /// Length of each text
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=8_000))]
    size: u32,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Both sides after their turns.
struct Outcome {
    server: Side,
    turns: Vec<Turn>,
    bare: Side,
    bare_turns: Vec<Turn>,
}

/// Runs it; whether it passed without a violation.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    let members = options.members as usize;
    let cast = Cast { rooms: 1, members, users: members, devices: 1 };
    let mut scene = Scene::set(&options.url, cast, Rooms::Groups)?;
    let outcome = measure(&options, &mut scene);
    scene.clear();
    tell(&options, &outcome?)
}

fn measure(options: &Options, scene: &mut Scene) -> anyhow::Result<Outcome> {
    let (members, size) = (options.members as usize, options.size as usize);
    progress(format_args!("opening {members} connections"));
    let mut pool = Pool::new()?;
    pool.open(&scene.addresses()?)?;
    let seq = scene.heads()?.first().map_or(0, |head| head.seq);
    let room = scene.rooms[0];
    let mut server = Side::new("the server", pool, members, room, seq, size);
    let warmup = Duration::from_secs(options.warmup);
    server.warm_up(warmup)?;

    let child = Bare::start(room, server.frame_bytes())?;
    let mut pool = Pool::new()?;
    let address = Address { url: child.url().to_owned(), source: None, token: String::new() };
    pool.open(&vec![address; members])?;
    let mut bare = Side::new("bare", pool, members, room, 0, size);
    bare.warm_up_like(&mut server, warmup)?;

    let (mut turns, mut bare_turns) = (vec![], vec![]);
    let length = Duration::from_secs(options.seconds) / u32::from(options.turns);
    for _ in 0..options.turns {
        turns.push(server.turn(length, Some(&mut bare))?);
        bare_turns.push(bare.turn(length, Some(&mut server))?);
    }
    Ok(Outcome { server, turns, bare, bare_turns })
}

fn tell(options: &Options, outcome: &Outcome) -> anyhow::Result<bool> {
    let Outcome { server, turns, bare, bare_turns } = outcome;
    let violations = server.violations();
    let [ack, delivery] = server.latencies();
    let (rate, bare_rate) =
        (median(turns, |turn| turn.deliveries_per_s), median(bare_turns, |turn| turn.deliveries_per_s));
    let sends = median(turns, |turn| turn.sends_per_s);
    let (cpu, bare_cpu) = (shares(turns), shares(bare_turns));
    let bottleneck = report::bottleneck(&cpu, false, true);

    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "a room of {}, {} bytes of text in frames of {}, {} turns of each side in {} s, {} messages under way",
        options.members,
        options.size,
        server.frame_bytes(),
        options.turns,
        options.seconds,
        server.window()
    )?;
    report::print_violations(out, &violations)?;
    if !violations.any() {
        writeln!(out, "acknowledged    {sends:.0}/s")?;
        writeln!(out, "delivered       {rate:.0}/s")?;
        writeln!(out, "bare broadcast  {bare_rate:.0}/s; the server is at {:.2} of it", rate / bare_rate.max(1.0))?;
        report::print_latencies(out, &[("ack", ack), ("delivery", delivery)])?;
    }
    report::print_cpu(out, &cpu, bottleneck)?;
    if bare.violations() != Violations::default() {
        writeln!(out, "The bare broadcast itself had violations: {:?}", bare.violations())?;
    }

    let throughput = |value: f64| if violations.any() { Value::Null } else { json!(rounded(value)) };
    let rates = |turns: &[Turn]| turns.iter().map(|turn| rounded(turn.deliveries_per_s)).collect::<Vec<_>>();
    let mut body = json!({
        "offered_per_s": Value::Null,
        "achieved_per_s": throughput(sends),
        "deliveries_per_s": throughput(rate),
        "bare_deliveries_per_s": rounded(bare_rate),
        "of_bare": throughput(rate / bare_rate.max(1.0)),
        "deliveries_per_s_by_turn": rates(turns),
        "bare_deliveries_per_s_by_turn": rates(bare_turns),
        "ack_ms": report::latencies(ack),
        "delivery_ms": report::latencies(delivery),
        "violations": report::violations(&violations),
        "members": options.members,
        "frame_bytes": server.frame_bytes(),
        "window": server.window(),
        "bare_generator_cpu": rounded(bare_cpu.own),
    });
    report::add_cpu(&mut body, &cpu, bottleneck);
    report::write(options.json.as_deref(), &body)?;
    Ok(!violations.any() && !bare.violations().any())
}

fn median(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    let mut values: Vec<_> = turns.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Those of the turn in which the generator had the most to do.
fn shares(turns: &[Turn]) -> Shares {
    let busiest = turns.iter().max_by(|one, other| one.cpu.own.total_cmp(&other.cpu.own));
    busiest.map(|turn| turn.cpu.clone()).unwrap_or_default()
}
