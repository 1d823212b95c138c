//! notify-service as a program of its own.

use std::process::ExitCode;

use anyhow::Context as _;
use notify_service::{
    Config,
    admin::{self, Stores},
};
use service_kit::{
    bus::Bus,
    db::Db,
    env,
    program::{self, Process},
    rpc,
};

fn main() -> ExitCode {
    match program::asked() {
        Some(args) => admin::run("notify-service", args, stores),
        None => program::run("notify-service", configure, work),
    }
}

fn stores(settings: &env::Settings) -> anyhow::Result<Stores> {
    Ok(Stores {
        database_url: env::shared_url(settings, "PARLANCE_DATABASE_URL")?,
        amqp_url: env::shared_url(settings, "PARLANCE_AMQP_URL")?,
    })
}

/// The settings, and where the database and the bus are.
struct Given {
    config: Config,
    database_url: String,
    amqp_url: String,
    presence: Vec<String>,
}

fn configure(settings: &env::Settings) -> anyhow::Result<Given> {
    Ok(Given {
        config: Config::from_get(settings)?,
        database_url: env::shared_url(settings, "PARLANCE_DATABASE_URL")?,
        amqp_url: env::shared_url(settings, "PARLANCE_AMQP_URL")?,
        presence: env::list(settings, "PARLANCE_PRESENCE_URL")?,
    })
}

async fn work(given: Given, process: Process) -> anyhow::Result<()> {
    let bus = Bus::connect(&given.amqp_url, "notify-service", &process.tasks).await?;
    let db = Db::connect(&given.database_url).await?;
    let presence = rpc::connect_any(&given.presence).context("PARLANCE_PRESENCE_URL")?;
    let (readiness, tasks) = (process.readiness.clone(), &process.tasks);
    let routes = notify_service::start(given.config, db, bus, presence, readiness, tasks).await?;
    process.readiness.set("start", true);
    process.serve_rpc(routes).await
}
