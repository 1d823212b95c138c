//! notify-service as a program of its own.

use std::process::ExitCode;

use notify_service::Config;
use service_kit::{
    bus::Bus,
    env,
    program::{self, Process},
};

fn main() -> ExitCode {
    program::run("notify-service", configure, work)
}

fn configure(settings: &env::Settings) -> anyhow::Result<(Config, String)> {
    Ok((Config::from_get(settings)?, env::shared_url(settings, "PARLANCE_AMQP_URL")?))
}

async fn work((config, amqp_url): (Config, String), process: Process) -> anyhow::Result<()> {
    let bus = Bus::connect(&amqp_url, "notify-service", &process.tasks).await?;
    let routes = notify_service::start(config, bus, process.readiness.clone(), &process.tasks).await?;
    process.readiness.set("start", true);
    process.serve_rpc(routes).await
}
