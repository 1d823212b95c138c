//! One run of the load generator, its result read back.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::launch;

use super::Bench;
use super::cluster::{CONNECTIONS_PER_USER, Cluster};
use super::measured::{Idle, Sends};

/// The two sizes between which the memory of a connection is the slope.
pub(super) const IDLE: [u32; 2] = [2_000, 6_000];

impl Bench<'_> {
    pub(super) async fn sends(&self, cluster: &Cluster, rate: u32, number: u8) -> anyhow::Result<Sends> {
        let result = self.dir.join(format!("sends-{rate}-{number}.json"));
        let mut arguments = vec!["sends".to_owned(), "--rate".to_owned(), rate.to_string()];
        arguments.extend(["--seconds".to_owned(), self.options.seconds.to_string()]);
        for url in &cluster.gateways {
            arguments.extend(["--url".to_owned(), url.clone()]);
        }
        let text = self.loadtest(&arguments, &result).await?;
        Sends::read(&text).with_context(|| format!("{} is not as expected", result.display()))
    }

    /// All on the first gateway, so that one process has them all.
    pub(super) async fn idle(&self, cluster: &Cluster) -> anyhow::Result<Idle> {
        let result = self.dir.join("idle.json");
        let url = cluster.gateways.first().context("there is no gateway")?;
        let numbers = [
            ("--from", IDLE[0]),
            ("--connections", IDLE[1]),
            ("--pid", cluster.gateway_pid),
            ("--per-user", CONNECTIONS_PER_USER),
        ];
        let mut arguments = vec!["idle".to_owned(), "--url".to_owned(), url.clone()];
        arguments.extend(numbers.into_iter().flat_map(|(name, number)| [name.to_owned(), number.to_string()]));
        let text = self.loadtest(&arguments, &result).await?;
        Idle::read(&text).with_context(|| format!("{} is not as expected", result.display()))
    }

    /// Runs it with its table and progress on our terminal. Violations make it fail and are in its result all the same.
    async fn loadtest(&self, arguments: &[String], result: &Path) -> anyhow::Result<String> {
        if result.exists() {
            fs::remove_file(result)?;
        }
        let mut command = launch::bound(self.programs.join("loadtest"), "TERM");
        command.args(arguments).arg("--json").arg(result).kill_on_drop(true);
        let status = command.status().await.context("cannot start the load")?;
        match fs::read_to_string(result) {
            Ok(text) => Ok(text),
            Err(_) => bail!("the load failed ({status})"),
        }
    }
}
