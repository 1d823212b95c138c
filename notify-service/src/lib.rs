//! notify-service: what members without a live session are to be told of. For now it only counts what it would push.
//!
//! `worker` takes batches of events from the bus and counts; `grpc` answers how many.

mod grpc;
pub mod worker;

use std::sync::Arc;

use service_kit::{
    admin::Readiness,
    bus::Bus,
    env::{Get, Invalid},
    tasks::Tasks,
};
use tonic::service::Routes;

use crate::worker::{Counts, Worker};

/// The group of consumers that shares the events. Senders make its queue too, so that none is lost before the first
/// start.
pub const GROUP: &str = "notify";

/// What the service is told from outside: nothing yet.
#[derive(Clone, Debug, Default)]
pub struct Config {}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// None so far.
    pub fn from_get(_get: &impl Get) -> Result<Self, Invalid> {
        Ok(Self {})
    }
}

/// Starts the worker on `tasks` and returns what the service answers. Does not wait for the bus: `readiness` says when
/// it is connected.
///
/// # Errors
/// When the bus does not let it consume.
pub async fn start(_config: Config, bus: Bus, readiness: Readiness, tasks: &Tasks) -> anyhow::Result<Routes> {
    let counts = Arc::new(Counts::default());
    let worker = Worker::new(Arc::clone(&counts));
    tasks.spawn(worker::run(worker, bus.consume(GROUP).await?, tasks.stopping()));
    tasks.spawn_until_stop(watch(bus, readiness));
    Ok(grpc::routes(counts))
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
