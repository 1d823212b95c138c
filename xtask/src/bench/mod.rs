//! `cargo xtask bench`: the whole installation under measured load, and docs/performance.md written from what was found.

mod cluster;
mod machine;
mod measured;
mod page;
mod run;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use tokio::time::{Instant, sleep};

use crate::interrupt::Interrupt;
use crate::{log, workspace};

use cluster::Cluster;
use machine::Machine;
use measured::{Idle, Sends};
use page::Page;

/// Offered sends a second, until the servers no longer keep up.
const RATES: [u32; 5] = [1_000, 3_000, 5_000, 8_000, 12_000];
/// What counts as keeping up.
const ACK_P99_MS: f64 = 100.0;
/// How long a quiet machine is waited for before each run.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
const QUIET_EVERY: Duration = Duration::from_secs(2);
/// More of all processors than this is somebody else's work.
const QUIET_SHARE: f64 = 0.15;

#[derive(Args)]
pub(crate) struct Options {
    /// How many chat-services
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    chat: u8,
    /// How often each load is run; the run with the median p99 is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    repeat: u8,
    /// Seconds of each run
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=480))]
    seconds: u16,
    /// Go on after the first load that was not held
    #[arg(long)]
    all: bool,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
    /// Take them from here instead of the target folder, without building
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where the page goes [default: docs/performance.md]
    #[arg(long)]
    page: Option<PathBuf>,
}

/// What every run needs to know.
struct Bench<'a> {
    options: &'a Options,
    /// Where logs and raw results go.
    dir: PathBuf,
    programs: PathBuf,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let dir = workspace::target().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let programs = options.bin_dir.clone().unwrap_or_else(|| workspace::target().join("release"));
    let bench = Bench { options: &options, dir, programs };
    if !options.no_build && options.bin_dir.is_none() {
        build().await?;
    }
    let machine = Machine::read().await;
    let mut cluster = Cluster::spawn(&bench.dir, &bench.programs, options.chat)?;
    let measured = tokio::select! {
        measured = bench.measure(&mut cluster) => measured,
        () = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    let stopped = cluster.stop().await;
    let (sends, idle, disturbed) = measured?;
    stopped?;
    let Options { chat, repeat, seconds, .. } = options;
    let page = Page { machine, chat, repeat, seconds, disturbed, sends, idle };
    let path = options.page.clone().unwrap_or_else(|| workspace::root().join("docs").join("performance.md"));
    fs::write(&path, page.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    log::progress(format_args!("written to {}", path.display()));
    Ok(())
}

impl Bench<'_> {
    async fn measure(&self, cluster: &mut Cluster) -> anyhow::Result<(Vec<Sends>, Idle, f64)> {
        cluster.ready().await?;
        let (mut sends, mut disturbed) = (vec![], 0.0);
        for rate in RATES {
            let median = self.median(cluster, rate, &mut disturbed).await?;
            let kept_up = median.violations == 0 && median.ack.p99 <= ACK_P99_MS;
            sends.push(median);
            if !kept_up && !self.options.all {
                break;
            }
        }
        quiet().await;
        let idle = self.idle(cluster).await?;
        Ok((sends, idle, disturbed))
    }

    /// The run with the median p99 of several; one with a violation stands before all others.
    async fn median(&self, cluster: &Cluster, rate: u32, disturbed: &mut f64) -> anyhow::Result<Sends> {
        let mut runs = vec![];
        for number in 1..=self.options.repeat {
            *disturbed = disturbed.max(quiet().await);
            log::progress(format_args!("{rate} sends/s, run {number} of {}", self.options.repeat));
            runs.push(self.sends(cluster, rate, number).await?);
        }
        let range = measured::range(&runs);
        runs.sort_by(|a, b| a.ack.p99.total_cmp(&b.ack.p99));
        let at = runs.iter().position(|run| run.violations > 0).unwrap_or(runs.len() / 2);
        Ok(Sends { p99_range: range, ..runs.swap_remove(at) })
    }
}

async fn build() -> anyhow::Result<()> {
    let packages = "build --release -p gateway -p chat-service -p presence-service -p notify-service -p loadtest";
    let mut cargo = workspace::cargo(packages);
    let status = cargo.stdout(io::stderr()).kill_on_drop(true).status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the binaries cannot be built");
    Ok(())
}

/// Waits until nobody else works on this machine, or gives up; how much of all processors others use then.
async fn quiet() -> f64 {
    let deadline = Instant::now() + QUIET_PATIENCE;
    loop {
        let before = machine::ticks();
        sleep(QUIET_EVERY).await;
        let busy = machine::busy(before, machine::ticks());
        if busy <= QUIET_SHARE {
            return busy;
        }
        if Instant::now() >= deadline {
            log::progress(format_args!("the machine is not quiet: {:.0} % busy", busy * 100.0));
            return busy;
        }
    }
}
