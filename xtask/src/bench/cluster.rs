//! The cluster that is measured: our own `cluster` command as a child.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::launch;
use crate::process::{Signal, send};

/// `cluster` itself gives up within two minutes.
const READY_PATIENCE: Duration = Duration::from_secs(300);
/// `cluster` itself kills what does not end within 45 seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(70);
/// How many connections one user may have, so that thousands need few of the slow registrations.
pub(super) const CONNECTIONS_PER_USER: u32 = 100;

pub(super) struct Cluster {
    child: Child,
    pub(super) gateways: Vec<String>,
    /// The process of the first gateway.
    pub(super) gateway_pid: u32,
}

impl Cluster {
    pub(super) fn spawn(dir: &Path, programs: &Path, chats: u8) -> anyhow::Result<Self> {
        let mut command = launch::bound(std::env::current_exe()?, "TERM");
        command
            .args(["cluster", "--gateways", "2", "--chat", &chats.to_string(), "--bin-dir"])
            .arg(programs)
            .arg("--dir")
            .arg(dir.join("cluster"))
            .env("PARLANCE_RATE_LIMITS", "off")
            .env("PARLANCE_MAX_CONNECTIONS_PER_USER", CONNECTIONS_PER_USER.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let child = command.spawn().context("cannot start the cluster")?;
        Ok(Self { child, gateways: vec![], gateway_pid: 0 })
    }

    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.child.stdout.as_mut().context("it has no stdout")?;
        let mut line = String::new();
        timeout(READY_PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.context("not ready in time")??;
        ensure!(line.starts_with("ready "), "the cluster did not start");
        let (gateways, pid) = addresses(&line).context("its ready line is not as expected")?;
        self.gateways = gateways;
        self.gateway_pid = pid;
        Ok(())
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            send(pid, Signal::TERM);
        }
        let status = timeout(STOP_PATIENCE, self.child.wait()).await.context("the cluster did not stop")??;
        ensure!(status.success(), "the cluster did not stop in order ({status})");
        Ok(())
    }
}

/// The gateways' URLs, and the pid of the first of them.
fn addresses(line: &str) -> Option<(Vec<String>, u32)> {
    let field = |name: &str| line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let gateways = field("gateways")?.split(',').map(str::to_owned).collect();
    let pid = field("pids")?.split(',').find_map(|pid| pid.strip_prefix("gateway:"))?;
    Some((gateways, pid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::addresses;

    #[test]
    fn gateways_and_the_first_ones_pid_are_found() {
        let line = "ready lb=http://l gateways=http://a,http://b admin=x pids=gateway:10,gateway:11,chat-service:12\n";
        assert_eq!(addresses(line), Some((vec!["http://a".into(), "http://b".into()], 10)));
        assert_eq!(addresses("ready lb=http://l"), None);
    }
}
