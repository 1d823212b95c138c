//! What an idle connection costs the process that holds it: the slope between two sizes, so that what a process needs
//! anyway does not count.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use uuid::Uuid;

use crate::pool::{Address, Pool};
use crate::setup::{self, User};
use crate::{cpu, progress};

/// Memory is settled when so many looks in a row agree.
const LOOKS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How much looks that agree may differ.
const AGREE_BYTES: u64 = 128 * 1024;
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// One heartbeat of the contract, so that each connection has its share of pings in it.
const WATCH: Duration = Duration::from_secs(25);

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    url: String,
    /// The larger of the two sizes
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=19_000))]
    connections: u32,
    /// The smaller of the two sizes [default: a third]
    #[arg(long)]
    from: Option<u32>,
    /// The process that holds them
    #[arg(long)]
    pid: u32,
    /// Connections of each user; the server's default limit is 10
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    per_user: u32,
    /// Connect from this address, of 127.0.0.0/8 for instance, as each has ports of its own
    #[arg(long)]
    source: Option<Ipv4Addr>,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// One of the two sizes.
struct Size {
    connections: usize,
    bytes: u64,
    /// Processor time in one heartbeat.
    cpu: Duration,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let large = options.connections as usize;
    let small = options.from.map_or(large / 3, |from| from as usize);
    ensure!(0 < small && small < large, "--from has to be below --connections");
    let run = Uuid::new_v4().as_fields().0;
    let runtime = setup::runtime()?;
    let count = large.div_ceil(options.per_user as usize);
    let users = runtime.block_on(setup::users(std::slice::from_ref(&options.url), run, count))?;
    let outcome = measure(options, &users, [small, large]);
    runtime.block_on(setup::clean_up(None, &users, &[]));
    let [first, last] = outcome?;
    tell(options, &first, &last)
}

fn measure(options: &Options, users: &[User], sizes: [usize; 2]) -> anyhow::Result<[Size; 2]> {
    // Each user in turn, so that both sizes have the same mixture.
    let address =
        |user: &User| Address { url: options.url.clone(), source: options.source, token: user.token().into() };
    let addresses: Vec<_> = users.iter().cycle().take(sizes[1]).map(address).collect();
    let mut pool = Pool::new()?;
    let mut size = |from: usize, to: usize| {
        progress(format_args!("opening {} connections", to - from));
        pool.open(&addresses[from..to])?;
        settled(&mut pool, options.pid)?;
        let before = cpu::used(&options.pid.to_string())?;
        pool.hold(WATCH)?;
        let cpu = cpu::used(&options.pid.to_string())?.saturating_sub(before);
        let bytes = cpu::anonymous_memory(options.pid)?;
        progress(format_args!("{to} connections: {} KiB, {:.2} s of processor time", bytes / 1024, cpu.as_secs_f64()));
        anyhow::Ok(Size { connections: to, bytes, cpu })
    };
    Ok([size(0, sizes[0])?, size(sizes[0], sizes[1])?])
}

/// Waits until the memory of the process does not move any more.
fn settled(pool: &mut Pool, pid: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    let mut looks: Vec<u64> = vec![];
    loop {
        pool.hold(LOOK_EVERY)?;
        looks.push(cpu::anonymous_memory(pid)?);
        let recent = &looks[looks.len().saturating_sub(LOOKS)..];
        let spread = recent.iter().max().unwrap_or(&0) - recent.iter().min().unwrap_or(&0);
        if recent.len() == LOOKS && spread <= AGREE_BYTES {
            return Ok(());
        }
        if Instant::now() > deadline {
            progress(format_args!("its memory still moves, by {} KiB", spread / 1024));
            return Ok(());
        }
    }
}

fn tell(options: &Options, first: &Size, last: &Size) -> anyhow::Result<()> {
    let more = (last.connections - first.connections) as f64;
    let bytes = (last.bytes as f64 - first.bytes as f64) / more;
    let cpu = (last.cpu.as_secs_f64() - first.cpu.as_secs_f64()) / WATCH.as_secs_f64() * 1e6 / more;
    let line = format!(
        "{bytes:.0} bytes and {cpu:.2} µs/s of processor time for each idle connection, from {} to {} connections",
        first.connections, last.connections
    );
    writeln!(io::stdout(), "{line}")?;
    if let Some(path) = &options.json {
        let size = |size: &Size| json!({ "connections": size.connections, "anonymous_bytes": size.bytes, "cpu_s": size.cpu.as_secs_f64() });
        let body = json!({
            "bytes_per_connection": bytes.round(),
            "cpu_us_per_s_per_connection": (cpu * 100.0).round() / 100.0,
            "sizes": [size(first), size(last)],
        });
        std::fs::write(path, format!("{body:#}\n"))?;
    }
    Ok(())
}
