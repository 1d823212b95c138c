//! `cargo xtask services`: private data services for tests, beside whatever the machine itself runs.

mod amqp;
mod instances;
mod postgres;
mod redis;
mod service;
mod state;
mod tether;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::{Args, Subcommand};

pub(crate) use instances::Instances;
pub(crate) use postgres::{client, season};
pub(crate) use service::Service;
pub(crate) use tether::Tether;

use crate::{log, workspace};

use state::State;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Start them, or the one named; prints the variables that point tests at them
    Up(Selection),
    /// Stop them, or the one named; ports and data are kept
    Down {
        #[command(flatten)]
        selection: Selection,
        /// Also forget the ports and delete the data
        #[arg(long, conflicts_with = "service")]
        erase: bool,
        /// Wait for the end of stdin, then act only if this run still stands
        #[arg(long, value_name = "RUN", hide = true)]
        tethered: Option<String>,
    },
    /// Stop and start them, or the one named, on the same ports, with the data kept (Redis keeps none)
    Restart(Selection),
}

#[derive(Args)]
pub(crate) struct Selection {
    /// One of the three instead of all
    #[arg(value_enum)]
    service: Option<Service>,
    /// Where state, data and logs go [default: target/services]
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Selection {
    fn services(&self) -> Vec<Service> {
        self.service.map_or_else(|| Service::ALL.to_vec(), |service| vec![service])
    }

    fn dir(&self) -> PathBuf {
        self.dir.clone().unwrap_or_else(|| workspace::target().join("services"))
    }
}

pub(crate) async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(selection) => {
            let mut instances = Instances::open(&selection.dir()).await?;
            instances.up(&selection.services()).await?;
            print_variables(&instances)
        }
        Command::Down { selection, erase, tethered: Some(run) } => end_with_owner(&selection, erase, &run).await,
        Command::Down { selection, erase, tethered: None } => {
            down(&selection.dir(), &selection.services(), erase).await
        }
        Command::Restart(selection) => {
            if let Some(service) = selection.services().into_iter().find(|s| s.replacement().is_some()) {
                bail!("{} is set: that {} is not ours to restart", service.variable(), service.name());
            }
            let mut instances = Instances::open(&selection.dir()).await?;
            instances.down(&selection.services()).await?;
            instances.up(&selection.services()).await?;
            print_variables(&instances)
        }
    }
}

/// Stops everything under the folder and deletes its data; nothing there is fine too.
pub(crate) async fn erase(dir: &Path) -> anyhow::Result<()> {
    down(dir, &Service::ALL, true).await
}

/// Kills everything under the folder at once, even while another command has it locked.
pub(crate) fn kill(dir: &Path) -> anyhow::Result<()> {
    State::load(dir.join("state"))?.kill();
    Ok(())
}

/// The processes of what runs under the folder, by the name of the service.
pub(crate) fn pids(dir: &Path) -> anyhow::Result<Vec<(String, u32)>> {
    let state = State::load(dir.join("state"))?;
    let running = Service::ALL.into_iter().filter_map(|service| {
        let process = state.process(service.name())?;
        Some((service.name().to_owned(), process.pid))
    });
    Ok(running.collect())
}

async fn down(dir: &Path, services: &[Service], erase: bool) -> anyhow::Result<()> {
    // Without a folder there is nothing to stop, and asking must not create one.
    if !dir.exists() {
        return Ok(());
    }
    let mut instances = Instances::open(dir).await?;
    instances.down(services).await?;
    if erase { instances.erase() } else { Ok(()) }
}

async fn end_with_owner(selection: &Selection, erase: bool, run: &str) -> anyhow::Result<()> {
    // Blocks the only thread, which has nothing else to do.
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    if !selection.dir().exists() {
        return Ok(());
    }
    let mut instances = Instances::open(&selection.dir()).await?;
    // Somebody may have begun anew in the same folder between the owner's end and now.
    if instances.run() != run {
        return Ok(());
    }
    log::progress("the owner of these services is gone, stopping them");
    instances.down(&Service::ALL).await?;
    if erase { instances.erase() } else { Ok(()) }
}

fn print_variables(instances: &Instances) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    for service in Service::ALL {
        if let Some(url) = instances.url(service) {
            writeln!(stdout, "{}={url}", service.variable())?;
        }
    }
    Ok(())
}
