//! `loadtest`: offers load to a running Parlance at planned instants, and checks loss, duplication and order while it measures.

mod check;
mod cpu;
mod idle;
mod plan;
mod pool;
mod report;
mod scan;
mod sends;
mod setup;
mod socket;
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
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Persisted sends into rooms whose members are all online
    Sends(sends::Options),
    /// What an idle connection costs the process that holds it
    Idle(idle::Options),
}

fn main() -> ExitCode {
    raise_open_files();
    let outcome = match Cli::parse().command {
        Command::Sends(options) => sends::run(&options),
        Command::Idle(options) => idle::run(&options).map(|()| true),
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
