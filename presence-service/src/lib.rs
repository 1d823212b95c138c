//! presence-service: which gateway wants to hear of what (the delivery directory), and who is online.
//!
//! A call goes `grpc` → `directory` → `store`; what changes for others leaves by `announce`. `sweeper` does what nobody
//! asks for: it clears gateways that died, and lets the grace of users run out. Redis holds nothing that the gateways
//! cannot register again, and its failure is never anybody's "offline".

pub mod announce;
pub mod directory;
pub mod error;
mod grpc;
pub mod presence;
pub mod store;
pub mod sweeper;

use std::time::Duration;

use anyhow::Context as _;
use service_kit::{
    admin::Readiness,
    bus::Bus,
    env::{self, Get},
    tasks::Tasks,
};
use tonic::service::Routes;

use crate::{
    announce::Announcer,
    directory::Directory,
    store::{Store, Timing},
    sweeper::Sweeper,
};

/// What the keys in Redis begin with.
pub const PREFIX: &str = "p:";

/// What the service is told from outside.
#[derive(Clone)]
pub struct Config {
    /// `redis://…`, `rediss://…` or `memory:`.
    pub redis_url: String,
    /// How long after the last sign of life a user is said to be offline.
    pub grace: Duration,
    /// What the keys in Redis begin with: [`PREFIX`], unless several share one Redis.
    pub prefix: String,
}

impl Config {
    /// Reads the settings. Where the URL has a default, the caller has put it there.
    ///
    /// # Errors
    /// When one is missing or cannot be read.
    pub fn from_get(get: &impl Get) -> Result<Self, env::Invalid> {
        Ok(Self {
            redis_url: env::value(get, "PARLANCE_REDIS_URL")?,
            grace: env::millis(get, "PARLANCE_PRESENCE_GRACE_MS")?,
            prefix: PREFIX.to_owned(),
        })
    }
}

/// Starts the service on `tasks` and returns its routes. Does not wait for Redis: `readiness` says when it is reached.
///
/// # Errors
/// When the URL of the store cannot be used.
pub async fn start(config: Config, bus: Bus, readiness: Readiness, tasks: &Tasks) -> anyhow::Result<Routes> {
    let timing = Timing { grace: config.grace, ..Timing::default() };
    let store = Store::connect(&config.redis_url, &config.prefix, timing).context("PARLANCE_REDIS_URL")?;
    tasks.spawn_until_stop(watch(bus.clone(), readiness.clone()));
    let announcer = Announcer::start(store.clone(), bus, tasks);
    let sweeper = Sweeper::new(store.clone(), announcer.clone(), readiness, timing.lease);
    tasks.spawn_until_stop(sweeper.run());
    Ok(grpc::routes(Directory::new(store, announcer)))
}

/// Keeps readiness true to whether the bus is connected.
async fn watch(bus: Bus, readiness: Readiness) {
    let mut changes = bus.ready_changes();
    loop {
        readiness.set("bus", *changes.borrow_and_update());
        if changes.changed().await.is_err() {
            return;
        }
    }
}
