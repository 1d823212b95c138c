//! W2: one to one. Each pair has a direct room, its two sides on different gateways when there are two.

use std::path::PathBuf;

use clap::Args;

use crate::load::Kind;
use crate::plan::Cast;
use crate::sends::{Rate, Stage, Time};
use crate::setup::{Rooms, Scene};

/// Who sends to whom.
#[derive(Args, Clone, Debug)]
#[group(skip)]
pub(crate) struct Pairs {
    /// Where to connect; given twice, the two of each pair are on different ones
    #[arg(long, required = true)]
    url: Vec<String>,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pairs: u32,
    /// Length of each text
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(64..=8_000))]
    size: u32,
}

#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pairs: Pairs,
    #[command(flatten)]
    rate: Rate,
    #[command(flatten)]
    time: Time,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Pairs {
    pub(crate) fn stage(&self) -> anyhow::Result<Stage> {
        let pairs = self.pairs as usize;
        let cast = Cast { rooms: pairs, members: 2, users: 2 * pairs, devices: 1 };
        let scene = Scene::set(&self.url, cast, Rooms::Direct)?;
        Ok(Stage { scene, kind: Kind { size: self.size as usize, peers_only: true } })
    }
}

/// Runs it; whether it passed without a violation.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    options.pairs.stage()?.only(options.rate.per_s(), options.time, options.json)
}
