//! The four services in one process: the same code as in a cluster, composed by pipes instead of ports.
//!
//! Nothing here knows that it is alone but for its defaults: a file for the database, memory for bus and presence, each
//! of which a URL replaces. `config` reads the settings, `data` owns the data folder, `system` starts and stops.

mod config;
mod data;
mod system;

use anyhow::Context as _;
use service_kit::{
    admin::{self, Readiness},
    tasks::Tasks,
    telemetry,
};
use tokio::net::TcpListener;

pub use self::{
    config::Config,
    system::{System, launch},
};

/// A standalone with its admin port, as [`start`] returns it.
pub struct Running {
    /// Where clients connect: `http://`, and the address really bound.
    pub url: String,
    /// Where probes and metrics are: the same of the admin port.
    pub admin_url: String,
    system: System,
    readiness: Readiness,
    admin: Tasks,
}

/// Starts standalone inside a process that is not its own, such as a test's, and serves the admin port too. The program
/// `parlance` has the life of its process, admin port included, from `service_kit::program`, and uses [`launch`].
///
/// # Errors
/// As [`launch`], and when the admin address cannot be had.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    // What starting counts is to be seen, so the recorder comes first.
    telemetry::metrics_handle();
    let address = config.admin_listen;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("PARLANCE_ADMIN_LISTEN: cannot listen on {address}"))?;
    let admin_url = format!("http://{}", listener.local_addr()?);
    let readiness = Readiness::new();
    let system = launch(config, readiness.clone()).await?;
    let admin = Tasks::new();
    let (ready, stop) = (readiness.clone(), admin.clone());
    admin.spawn(async move { admin::serve(listener, "parlance", ready, &stop).await });
    Ok(Running { url: system.url.clone(), admin_url, system, readiness, admin })
}

impl Running {
    /// Becomes unready, moves the clients away, and stops everything within the grace of the settings. Errors of a part
    /// that had already failed are logged.
    pub async fn stop(self) {
        self.readiness.drain();
        if let Err(error) = self.system.stop().await {
            tracing::error!(error = format!("{error:#}"), "standalone did not stop well");
        }
        self.admin.shutdown(system::LAST).await;
    }
}
