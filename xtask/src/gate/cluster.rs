//! The cluster that the stories run on: our own `cluster` command as a child.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::process::{Signal, send};
use crate::{launch, log};

/// `cluster` itself gives up within two minutes.
const READY_PATIENCE: Duration = Duration::from_secs(300);
/// `cluster` itself kills what does not end within 45 seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(70);
const LOG_LINES: usize = 40;

pub(super) struct Cluster {
    child: Child,
    dir: PathBuf,
    /// What it said when it was ready.
    pub(super) line: String,
}

impl Cluster {
    /// Two of what can be more than one, as one never shows what goes wrong between two.
    pub(super) fn spawn(xtask: &Path, dir: PathBuf) -> anyhow::Result<Self> {
        let mut command = launch::bound(xtask, "TERM");
        command
            .args(["cluster", "--gateways", "2", "--chat", "2", "--no-build", "--dir"])
            .arg(&dir)
            .env("PARLANCE_RATE_LIMITS", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let child = command.spawn().context("cannot start the cluster")?;
        Ok(Self { child, dir, line: String::new() })
    }

    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.child.stdout.as_mut().context("it has no stdout")?;
        let mut line = String::new();
        timeout(READY_PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.context("not ready in time")??;
        ensure!(line.starts_with("ready "), "the cluster did not start");
        line.trim_end().clone_into(&mut self.line);
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

    /// The end of every log, its services' too.
    pub(super) fn logs(&self) -> String {
        let folders = [self.dir.clone(), self.dir.join("services")];
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        paths.iter().map(|path| log::tail(path, LOG_LINES)).collect::<Vec<_>>().join("\n")
    }
}
