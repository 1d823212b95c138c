//! `parlance`: the whole of Parlance as one program.

use std::process::ExitCode;

use service_kit::program::{self, Process};
use standalone::{Config, launch};

fn main() -> ExitCode {
    program::run("parlance", Config::from_get, work)
}

async fn work(config: Config, process: Process) -> anyhow::Result<()> {
    let data = config.data.clone();
    let system = launch(config, process.readiness.clone()).await?;
    process.readiness.set("start", true);
    let line = format!("parlance listens on {} (data in {})", system.url, data.display());
    program::say(&mut std::io::stdout(), &line);
    system.serve(process.terminated()).await
}
