//! `parlance`: the whole of Parlance as one program.

use std::process::ExitCode;

use notify_service::admin::{self, Stores};
use service_kit::{
    env::Settings,
    program::{self, Process},
};
use standalone::{Config, launch};

fn main() -> ExitCode {
    match program::asked() {
        Some(args) => admin::run("parlance", args, stores),
        None => program::run("parlance", Config::from_get, work),
    }
}

fn stores(settings: &Settings) -> anyhow::Result<Stores> {
    let Config { database_url, amqp_url, .. } = Config::from_get(settings)?;
    Ok(Stores { database_url, amqp_url })
}

async fn work(config: Config, process: Process) -> anyhow::Result<()> {
    let data = config.data.clone();
    let system = launch(config, process.readiness.clone()).await?;
    process.readiness.set("start", true);
    let line = format!("parlance listens on {} (data in {})", system.url, data.display());
    program::say(&mut std::io::stdout(), &line);
    system.serve(process.terminated()).await
}
