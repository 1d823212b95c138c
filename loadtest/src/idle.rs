//! What an idle connection costs the process that holds it: the slope between two sizes, so that what a process needs
//! anyway does not count.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use parlance_client::Draft;
use serde_json::json;

use crate::cpu::Sample;
use crate::hold::{self, Holders};
use crate::pool::Address;
use crate::setup::{self, User};
use crate::{cpu, progress, report};

/// Memory is settled when so many looks in a row agree.
const LOOKS: usize = 4;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How much looks that agree may differ.
const AGREE_BYTES: u64 = 128 * 1024;
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// Characters of a message that everybody receives.
const TEXT: usize = 1_000;
/// The smaller size, unless the larger one is too near.
const SMALL: usize = 2_000;

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    url: String,
    /// The larger of the two sizes
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=200_000))]
    connections: u32,
    /// The smaller of the two sizes [default: 2000, or a third of the larger one]
    #[arg(long)]
    from: Option<u32>,
    /// The process that holds them
    #[arg(long)]
    pid: u32,
    /// Connections of each user; the server's default limit is 10
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    per_user: u32,
    /// Connect from this address on, of 127.0.0.0/8 for instance, as each has ports of its own; by default several are used
    /// when there are more connections than one has ports
    #[arg(long)]
    source: Option<Ipv4Addr>,
    /// How long processor time is counted at each size. 25 is one heartbeat, so that each connection has its ping in it
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=120))]
    watch: u64,
    /// Then sends so many messages of 1,000 characters that every connection receives, and looks at memory again
    #[arg(long, default_value_t = 0)]
    receive: u32,
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

pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let large = options.connections as usize;
    let small = options.from.map_or_else(|| default_size(large), |from| from as usize);
    ensure!(0 < small && small < large, "--from has to be below --connections");
    let runtime = setup::runtime()?;
    let count = large.div_ceil(options.per_user as usize);
    let users = runtime.block_on(setup::users(std::slice::from_ref(&options.url), count))?;
    let begun = Sample::take()?;
    let mut holders = Holders::new();
    let outcome = measure(options, &users, [small, large], &mut holders).and_then(|sizes| {
        let receiving = options.receive > 0;
        let received =
            receiving.then(|| runtime.block_on(receive(options, &users, large, &mut holders))).transpose()?;
        Ok((sizes, received))
    });
    let cpu = Sample::take()?.since(&begun);
    runtime.block_on(setup::log_out(&users));
    let ([first, last], received) = outcome?;

    let slope = Slope::between(&first, &last, options.watch);
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "{:.0} bytes and {:.2} µs/s of processor time for each idle connection, from {} to {} connections",
        slope.bytes, slope.cpu_us_per_s, first.connections, last.connections
    )?;
    if let Some(Received { messages, after, peak }) = &received {
        writeln!(
            out,
            "{after:.0} bytes more for each when it had received {messages} messages, and {peak:.0} at most meanwhile"
        )?;
    }
    let bottleneck = report::bottleneck(&cpu, false, false);
    report::print_cpu(out, &cpu, bottleneck)?;
    let size = |size: &Size| json!({ "connections": size.connections, "anonymous_bytes": size.bytes, "cpu_s": size.cpu.as_secs_f64() });
    let mut body = json!({
        "bytes_per_connection": slope.bytes.round(),
        "cpu_us_per_s_per_connection": report::rounded(slope.cpu_us_per_s),
        "sizes": [size(&first), size(&last)],
    });
    if let Some(Received { messages, after, peak }) = received {
        body["receiving"] = json!({
            "messages": messages,
            "more_bytes_per_connection": after.round(),
            "peak_more_bytes_per_connection": peak.round(),
        });
    }
    report::add_cpu(&mut body, &cpu, bottleneck);
    report::write(options.json.as_deref(), &body)?;
    Ok(true)
}

/// What receiving adds to a connection.
struct Received {
    messages: u32,
    /// Bytes more than while idle, when all is quiet again.
    after: f64,
    /// Bytes more than while idle, at most.
    peak: f64,
}

/// What one more connection costs.
struct Slope {
    bytes: f64,
    cpu_us_per_s: f64,
}

impl Slope {
    fn between(first: &Size, last: &Size, watch_s: u64) -> Self {
        let more = (last.connections - first.connections) as f64;
        let cpu_s = last.cpu.as_secs_f64() - first.cpu.as_secs_f64();
        Self {
            bytes: (last.bytes as f64 - first.bytes as f64) / more,
            cpu_us_per_s: cpu_s / watch_s as f64 * 1e6 / more,
        }
    }
}

fn default_size(large: usize) -> usize {
    if large >= 2 * SMALL { SMALL } else { large / 3 }
}

fn measure(options: &Options, users: &[User], sizes: [usize; 2], holders: &mut Holders) -> anyhow::Result<[Size; 2]> {
    // Each user in turn, so that both sizes have the same mixture.
    let address = |(number, user): (usize, &User)| Address {
        url: options.url.clone(),
        source: hold::source(options.source, number, sizes[1]),
        token: user.token().into(),
    };
    let addresses: Vec<_> = users.iter().cycle().take(sizes[1]).enumerate().map(address).collect();
    let mut size = |from: usize, to: usize| {
        progress(format_args!("opening {} connections", to - from));
        holders.open(&addresses[from..to])?;
        settled(options.pid)?;
        let before = cpu::used(&options.pid.to_string())?;
        thread::sleep(Duration::from_secs(options.watch));
        let cpu = cpu::used(&options.pid.to_string())?.saturating_sub(before);
        let bytes = cpu::anonymous_memory(options.pid)?;
        holders.check()?;
        progress(format_args!("{to} connections: {} KiB, {:.2} s of processor time", bytes / 1024, cpu.as_secs_f64()));
        anyhow::Ok(Size { connections: to, bytes, cpu })
    };
    Ok([size(0, sizes[0])?, size(sizes[0], sizes[1])?])
}

/// Sends into a room of everybody. What is sent in all is more than may wait for one connection, so one that did not get it
/// would have been closed, and its holder would have ended.
async fn receive(
    options: &Options,
    users: &[User],
    connections: usize,
    holders: &mut Holders,
) -> anyhow::Result<Received> {
    let sender = &users[0];
    let room = setup::group(&sender.api, "everybody", users[1..].iter().map(|user| user.id).collect()).await?;
    settled(options.pid)?;
    let idle = cpu::anonymous_memory(options.pid)?;
    progress(format_args!("sending {} messages to {connections} connections", options.receive));
    let text = "x".repeat(TEXT);
    let mut most = idle;
    for _ in 0..options.receive {
        sender.api.post_message(room, &Draft::text(&*text)).await?;
        most = most.max(cpu::anonymous_memory(options.pid)?);
    }
    settled(options.pid)?;
    let after = cpu::anonymous_memory(options.pid)?;
    holders.check()?;
    let each = |bytes: u64| (bytes as f64 - idle as f64) / connections as f64;
    Ok(Received { messages: options.receive, after: each(after), peak: each(most.max(after)) })
}

/// Waits until the memory of the process does not move any more.
fn settled(pid: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_PATIENCE;
    let mut looks: Vec<u64> = vec![];
    loop {
        thread::sleep(LOOK_EVERY);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Size, Slope, default_size};

    #[test]
    fn what_a_process_needs_anyway_does_not_count() {
        let first = Size { connections: 1_000, bytes: 50_000_000, cpu: Duration::from_millis(100) };
        let last = Size { connections: 3_000, bytes: 58_000_000, cpu: Duration::from_millis(150) };
        let slope = Slope::between(&first, &last, 25);
        assert!((slope.bytes - 4_000.0).abs() < 1e-6 && (slope.cpu_us_per_s - 1.0).abs() < 1e-6);
    }

    #[test]
    fn the_two_sizes_are_apart() {
        assert_eq!((default_size(15_000), default_size(3_000)), (2_000, 1_000));
    }
}
