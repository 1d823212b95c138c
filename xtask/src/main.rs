//! `cargo xtask`: the project's automation, in Rust so that it runs and reads like the rest.

mod bench;
mod cluster;
mod entropy;
mod environment;
mod gate;
mod interrupt;
mod launch;
mod log;
mod packages;
mod ports;
mod probe;
mod process;
mod services;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Automation of the Parlance workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Private PostgreSQL, Redis and RabbitMQ on free loopback ports
    #[command(subcommand)]
    Services(services::Command),
    /// A whole installation of real processes behind HAProxy, until a signal ends it
    Cluster(cluster::Options),
    /// The whole installation under measured load; writes docs/performance.md
    Bench(bench::Options),
    /// Everything that has to pass before a merge, the same at the desk and in CI
    Test,
}

// One thread only: the kernel ties "die with your parent" to the thread that started a child.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Services(command) => services::run(command).await,
        Command::Cluster(options) => cluster::run(options).await,
        Command::Bench(options) => bench::run(options).await,
        Command::Test => gate::run().await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Without the backtrace that returning the error would print: it says nothing about a child's failure.
        Err(error) => {
            log::progress(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}
