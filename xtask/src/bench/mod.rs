//! `cargo xtask bench`: the whole installation under measured load, and the page that says how it went.

mod machine;
mod measured;
mod page;
mod parts;
mod run;
mod scale;
mod tables;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use crate::cluster::ChildCluster;
use crate::interrupt::Interrupt;
use crate::services::{client, season};
use crate::{log, workspace};

use machine::Machine;
use measured::Measured;
use page::Page;
use parts::Part;
use run::{CONNECTIONS_PER_USER, Run};
use scale::Scale;

/// How long a quiet machine is waited for before each run.
const QUIET_PATIENCE: Duration = Duration::from_secs(30);
const QUIET_EVERY: Duration = Duration::from_secs(2);
/// More of all processors than this is somebody else's work.
const QUIET_SHARE: f64 = 0.15;

#[derive(Args)]
pub(crate) struct Options {
    /// Only these parts, by commas [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Small loads and one run of each, to see that everything works
    #[arg(long)]
    quick: bool,
    /// How many chat-services
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    chat: u8,
    /// How often each load is run; the median is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    repeat: u8,
    /// Seconds of each run
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=420))]
    seconds: u16,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
    /// Take them from here instead of the target folder, without building
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where the page goes [default: docs/performance.md, with --quick target/bench/quick.md]
    #[arg(long)]
    page: Option<PathBuf>,
}

/// A bench under way.
struct Bench<'a> {
    options: &'a Options,
    scale: &'a Scale,
    repeat: u8,
    /// Where logs and raw results go.
    dir: PathBuf,
    programs: PathBuf,
    xtask: PathBuf,
    /// Started when it is first needed.
    cluster: Option<ChildCluster>,
    /// The most that others used of all processors just before a run.
    disturbed: f64,
}

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    // Asked for before cargo may replace the file.
    let xtask = std::env::current_exe()?;
    let dir = workspace::target().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let programs = options.bin_dir.clone().unwrap_or_else(|| workspace::target().join("release"));
    if !options.no_build && options.bin_dir.is_none() {
        build().await?;
    }
    let scale = if options.quick { Scale::quick() } else { Scale::full(options.seconds) };
    let repeat = if options.quick { 1 } else { options.repeat };
    let (options, scale) = (&options, &scale);
    let mut bench = Bench { options, scale, repeat, dir, programs, xtask, cluster: None, disturbed: 0.0 };
    let measured = tokio::select! {
        measured = bench.measure() => measured,
        () = interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
    };
    if measured.is_err()
        && let Some(cluster) = &bench.cluster
    {
        log::progress(cluster.logs());
    }
    let stopped = bench.end_cluster().await;
    measured.and(stopped)
}

impl Bench<'_> {
    /// Each part, its results on the page as soon as they are there.
    async fn measure(&mut self) -> anyhow::Result<()> {
        let machine = Machine::read().await;
        let path = self.options.page.clone().unwrap_or_else(|| match self.options.quick {
            true => self.dir.join("quick.md"),
            false => workspace::root().join("docs").join("performance.md"),
        });
        let only = &self.options.only;
        let parts = Part::value_variants().iter().filter(|part| only.is_empty() || only.contains(part));
        for part in parts {
            log::progress(format_args!("==> {part:?}"));
            self.disturbed = 0.0;
            let mut section = self.part(*part).await?;
            section.text.insert_str(0, &self.conditions(&machine));
            // Read anew: somebody may be writing by hand meanwhile.
            let mut page = Page::read(&path)?;
            page.replace("machine", &machine.text(self.options.chat))?;
            page.put(&section, &machine.commit)?;
            page.write(&path)?;
        }
        log::progress(format_args!("written to {}", path.display()));
        Ok(())
    }

    /// When and how a part was measured.
    fn conditions(&self, machine: &Machine) -> String {
        let Machine { commit, date, .. } = machine;
        let runs = if self.repeat == 1 { "one run".to_owned() } else { format!("median of {} runs", self.repeat) };
        let mut text = format!("{date}, commit `{commit}`, {runs} of each load.\n");
        if self.disturbed > QUIET_SHARE {
            text.push_str(&format!(
                "**The machine was not quiet**: just before a run, other work used up to {:.0} % of its processors. What follows shows\n\
                 that nothing was lost; as throughput and latency it is only what was left over.\n",
                self.disturbed * 100.0
            ));
        }
        text.push('\n');
        text
    }

    /// Several runs of the same load.
    async fn several(
        &mut self,
        command: &str,
        urls: usize,
        more: &[(&str, String)],
        label: &u32,
    ) -> anyhow::Result<Vec<Measured>> {
        let mut runs = vec![];
        for number in 1..=self.repeat {
            log::progress(format_args!("{command} {label}, run {number} of {}", self.repeat));
            runs.push(self.once(command, urls, more, number).await?);
        }
        Ok(runs)
    }

    /// One run, on a quiet machine if that can be had.
    async fn once(
        &mut self,
        command: &str,
        urls: usize,
        more: &[(&str, String)],
        number: u8,
    ) -> anyhow::Result<Measured> {
        self.cluster().await?;
        self.disturbed = self.disturbed.max(quiet().await);
        let rate = more.iter().find(|(name, _)| *name == "--rate").map_or("", |(_, rate)| rate);
        let result = self.dir.join(format!("{}{rate}-{number}.json", command.replace(' ', "-")));
        let program = self.programs.join("loadtest");
        let cluster = self.cluster.as_ref().context("there is no cluster")?;
        Run { program: &program, cluster, result: &result }.measure(command, urls, more).await
    }

    /// The cluster that runs, or a new one.
    async fn cluster(&mut self) -> anyhow::Result<&ChildCluster> {
        if self.cluster.is_none() {
            let arguments = ["--chat".into(), self.options.chat.to_string(), "--bin-dir".into()];
            let arguments = arguments.into_iter().chain([self.programs.display().to_string()]);
            let variables = [("PARLANCE_MAX_CONNECTIONS_PER_USER", CONNECTIONS_PER_USER.to_string())];
            let cluster = ChildCluster::spawn(&self.xtask, &self.dir.join("cluster"), arguments, &variables)?;
            // Kept at once, so that it is stopped also when it does not get ready.
            let cluster = self.cluster.insert(cluster);
            cluster.ready().await?;
            season(&cluster.ready.postgres).await?;
        }
        self.cluster.as_ref().context("there is no cluster")
    }

    /// A cluster on which nothing has happened yet.
    async fn renew(&mut self) -> anyhow::Result<()> {
        self.end_cluster().await?;
        self.cluster().await.map(drop)
    }

    async fn end_cluster(&mut self) -> anyhow::Result<()> {
        match self.cluster.take() {
            Some(cluster) => cluster.stop().await,
            None => Ok(()),
        }
    }

    /// The pid of the first URL's gateway.
    async fn first_gateway(&mut self) -> anyhow::Result<u32> {
        let pids = &self.cluster().await?.ready.pids;
        pids.iter().find(|(name, _)| name == "gateway").map(|(_, pid)| *pid).context("there is no gateway")
    }

    /// Has PostgreSQL count statements, if it can; where it is.
    async fn count_statements(&mut self) -> anyhow::Result<String> {
        let url = self.cluster().await?.ready.postgres.clone();
        if let Err(error) = client(&url, "create extension if not exists pg_stat_statements").await {
            log::progress(format_args!("transactions are counted instead of statements: {error:#}"));
        }
        Ok(url)
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
