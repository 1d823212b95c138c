//! `loadtest`: offers load to a running Parlance at planned instants, and checks loss, duplication and order while it measures.

mod bare;
mod check;
mod cpu;
mod fanout;
mod hold;
mod idle;
mod knee;
mod lines;
mod load;
mod pairs;
mod plan;
mod pool;
mod reads;
mod report;
mod scan;
mod sends;
mod setup;
mod socket;
mod storm;
mod tally;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What one process opens at most.
const OPEN_FILES: u64 = 20_000;

#[derive(Parser)]
#[command(name = "loadtest", about = "Open-loop load for Parlance, checked while it is measured")]
struct Cli {
    /// Another process whose share of the processors is told, too: name=pid, any number of times
    #[arg(long, global = true, value_name = "NAME=PID", value_parser = cpu::named_pid)]
    cpu_of: Vec<(String, u32)>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Persisted sends into rooms whose members are all online
    Sends(sends::Options),
    /// Sends one to one, in direct rooms
    Pairs(pairs::Options),
    /// The highest rate that holds a latency
    Knee(knee::Options),
    /// One room with everybody online, as fast as it goes, beside a bare broadcast
    Fanout(fanout::Options),
    /// The bare broadcast; `fanout` starts it
    #[command(hide = true)]
    Bare(bare::Options),
    /// What an idle connection costs the process that holds it
    Idle(idle::Options),
    /// A gateway is killed, and its clients come back
    Storm(storm::Options),
    /// Pages of history out of a very long room, and `sync` of somebody in very many rooms
    Reads(reads::Options),
    /// Holds connections; `idle` starts it
    #[command(hide = true)]
    Hold,
}

fn main() -> ExitCode {
    raise_open_files();
    let cli = Cli::parse();
    cpu::look_at(cli.cpu_of);
    let outcome = match cli.command {
        Command::Sends(options) => sends::run(options),
        Command::Pairs(options) => pairs::run(options),
        Command::Knee(options) => knee::run(options),
        Command::Fanout(options) => fanout::run(options),
        Command::Bare(options) => bare::run(&options),
        Command::Idle(options) => idle::run(&options),
        Command::Storm(options) => storm::run(options),
        Command::Reads(options) => reads::run(options),
        Command::Hold => hold::run(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// What is going on, for whoever watches; stdout is for the result.
fn progress(line: impl std::fmt::Display) {
    // Nobody may be watching.
    let _ = writeln!(io::stderr(), "loadtest: {line}");
}

/// Asks for as many open files as allowed; with fewer, opening says so later.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |hard| hard.min(OPEN_FILES));
    if limit.current.is_some_and(|soft| soft < wanted) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}
