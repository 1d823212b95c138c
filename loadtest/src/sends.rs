//! W1: persisted sends into groups. Each has a planned instant, and every latency counts from it.

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

use crate::load::{Kind, Load};
use crate::plan::Cast;
use crate::report::{self, Report};
use crate::setup::{Rooms, Scene};

/// Who sends to whom.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Groups {
    /// Where to connect; given several times, the users are spread over all
    #[arg(long, required = true)]
    pub(crate) url: Vec<String>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
    /// Members of each room, all online
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    members: u32,
    /// In how many of the rooms each user is, about; a user has one connection
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    rooms_per_user: u32,
    /// Length of each text
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=8_000))]
    size: u32,
}

/// How long.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub(crate) struct Time {
    /// How long it is measured; access tokens live ten minutes
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=420))]
    pub(crate) seconds: u64,
    /// How long the same load runs before
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=60))]
    pub(crate) warmup: u64,
}

/// How much.
#[derive(Args, Clone, Copy, Debug)]
#[group(skip)]
pub(crate) struct Rate {
    /// Sends a second, all together
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    groups: Groups,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    time: Time,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// The people of a load, ready for any number of runs.
pub(crate) struct Stage {
    pub(crate) scene: Scene,
    pub(crate) kind: Kind,
}

impl Groups {
    pub(crate) fn cast(&self, devices: usize) -> Cast {
        let (rooms, members) = (self.rooms as usize, self.members as usize);
        let users = (rooms * members).div_ceil(self.rooms_per_user as usize).max(members);
        Cast { rooms, members, users, devices }
    }

    pub(crate) fn stage(&self) -> anyhow::Result<Stage> {
        let scene = Scene::set(&self.url, self.cast(1), Rooms::Groups)?;
        Ok(Stage { scene, kind: Kind { size: self.size as usize, peers_only: false } })
    }
}

impl Stage {
    /// One run on connections of its own.
    pub(crate) fn run(&mut self, rate: u64, time: Time) -> anyhow::Result<Report> {
        let plan = self.scene.cast.at(rate, time.warmup, time.seconds);
        // The number of a message, from 1 on, is also the id of its frame.
        ensure!(plan.total < u64::from(crate::tally::PAGES), "too many messages for one run");
        let mut lines = self.scene.connect()?;
        let heads = self.scene.heads()?;
        Load::new(plan, self.kind, &self.scene.rooms, &heads, &mut lines).run()
    }

    /// One run, its result told; whether it passed without a violation.
    pub(crate) fn only(mut self, rate: u64, time: Time, json: Option<PathBuf>) -> anyhow::Result<bool> {
        let outcome = self.run(rate, time);
        self.scene.clear();
        let report = outcome?;
        report::print(&report)?;
        report::write(json.as_deref(), &report::json(&report))?;
        Ok(!report.violations.any())
    }
}

impl Rate {
    pub(crate) fn per_s(self) -> u64 {
        self.rate
    }
}

/// Runs it; whether it passed without a violation.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    options.groups.stage()?.only(options.rate.per_s(), options.time, options.json)
}
