//! One run of the load generator, its result read back.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::cluster::ChildCluster;
use crate::launch;

use super::measured::Measured;

/// How many connections one user may have, so that thousands need few of the slow registrations.
pub(super) const CONNECTIONS_PER_USER: u32 = 100;

/// What the generator is told.
pub(super) struct Run<'a> {
    pub(super) program: &'a Path,
    pub(super) cluster: &'a ChildCluster,
    /// Where the result goes.
    pub(super) result: &'a Path,
}

impl Run<'_> {
    /// Runs it with its table and progress on our terminal. Violations make it fail and are in its result all the same.
    pub(super) async fn measure(
        &self,
        command: &str,
        urls: usize,
        more: &[(&str, String)],
    ) -> anyhow::Result<Measured> {
        if self.result.exists() {
            fs::remove_file(self.result)?;
        }
        let mut generator = launch::bound(self.program, "TERM");
        generator.args(command.split(' '));
        for url in self.cluster.ready.gateways.iter().take(urls) {
            generator.args(["--url", url]);
        }
        for (name, value) in more {
            generator.arg(name).arg(value);
        }
        for (name, pid) in self.cluster.pids()? {
            generator.arg("--cpu-of").arg(format!("{}={pid}", shown(&name)));
        }
        generator.arg("--json").arg(self.result).kill_on_drop(true);
        let status = generator.status().await.context("cannot start the load")?;
        match fs::read_to_string(self.result) {
            Ok(text) => Ok(Measured::new(text)),
            Err(_) => bail!("the load failed ({status})"),
        }
    }
}

/// A process by the name that readers know.
fn shown(name: &str) -> &str {
    match name {
        "postgres" => "PostgreSQL",
        "amqp" => "RabbitMQ",
        "redis" => "Redis",
        other => other,
    }
}
