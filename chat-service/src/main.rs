//! chat-service as a program of its own.

use std::process::ExitCode;

use anyhow::Context;
use chat_service::Config;
use service_kit::{
    bus::Bus,
    env,
    program::{self, Process},
    rpc,
};

fn main() -> ExitCode {
    program::run("chat-service", configure, work)
}

fn configure(settings: &env::Settings) -> anyhow::Result<(Config, String, Vec<String>)> {
    let database_url = env::shared_url(settings, "PARLANCE_DATABASE_URL")?;
    let signing_key = env::value(settings, "PARLANCE_SIGNING_KEY")?;
    let config = Config::from_get(settings, database_url, signing_key)?;
    Ok((config, env::shared_url(settings, "PARLANCE_AMQP_URL")?, env::list(settings, "PARLANCE_PRESENCE_URL")?))
}

async fn work((config, amqp_url, presence): (Config, String, Vec<String>), process: Process) -> anyhow::Result<()> {
    let bus = Bus::connect(&amqp_url, "chat-service", &process.tasks).await?;
    let presence = rpc::connect_any(&presence).context("PARLANCE_PRESENCE_URL")?;
    let routes = chat_service::start(config, bus, presence, process.readiness.clone(), &process.tasks).await?;
    process.readiness.set("start", true);
    process.serve_rpc(routes).await
}
