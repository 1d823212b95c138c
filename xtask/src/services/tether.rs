//! A watcher that stops the services of a run when the program that started them has ended, however it ended.
//!
//! The data services are not bound to their starter by the kernel, since another command may restart one of them
//! in the middle of a run. So a second process waits for the end of a pipe, which closes with its owner.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// With everything down already it has nothing to do.
const PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Tether {
    watcher: Child,
}

impl Tether {
    /// From now on the run under `dir` does not outlive us.
    pub(crate) fn tie(dir: &Path, run: &str) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let watcher = Command::new(program)
            .args(["services", "down", "--erase", "--tethered", run, "--dir"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Out of reach of a Ctrl-C, and of a kill of our whole group.
            .process_group(0)
            .spawn()
            .context("cannot start the watcher of the services")?;
        Ok(Self { watcher })
    }

    /// Lets the watcher go, after its services are down.
    pub(crate) async fn release(mut self) {
        drop(self.watcher.stdin.take());
        let _ = timeout(PATIENCE, self.watcher.wait()).await;
    }
}
