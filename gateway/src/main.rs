//! gateway as a program of its own.

use std::process::ExitCode;

use anyhow::Context;
use gateway::{Config, Upstreams};
use service_kit::{
    bus::Bus,
    env::{self, Settings},
    program::{self, Process},
    rpc,
};
use tokio::net::TcpListener;

fn main() -> ExitCode {
    program::run("gateway", configure, work)
}

fn configure(settings: &Settings) -> anyhow::Result<(Config, String)> {
    Ok((Config::from_get(settings)?, env::shared_url(settings, "PARLANCE_AMQP_URL")?))
}

async fn work((config, amqp_url): (Config, String), process: Process) -> anyhow::Result<()> {
    let (settings, tasks) = (&process.settings, &process.tasks);
    let chat = env::list(settings, "PARLANCE_CHAT_URL")?;
    let upstreams = Upstreams {
        chat: rpc::connect_any(&chat).context("PARLANCE_CHAT_URL")?,
        chat_replicas: chat.iter().map(|url| rpc::connect(url)).collect::<anyhow::Result<_>>()?,
        presence: rpc::connect_any(&env::list(settings, "PARLANCE_PRESENCE_URL")?).context("PARLANCE_PRESENCE_URL")?,
        notify: rpc::connect_any(&env::list(settings, "PARLANCE_NOTIFY_URL")?).context("PARLANCE_NOTIFY_URL")?,
    };
    let address = env::address(settings, "PARLANCE_LISTEN")?;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("PARLANCE_LISTEN: cannot listen on {address}"))?;
    let bus = Bus::connect(&amqp_url, "gateway", tasks).await?;
    let gateway = gateway::start(config, upstreams, bus, process.readiness.clone(), tasks).await?;
    process.readiness.set("start", true);
    let stop = process.clone();
    gateway.serve(listener, async move { stop.terminated().await }).await;
    Ok(())
}
