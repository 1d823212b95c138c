//! A cluster for another command of ours: `cluster` as a child, its ready line read.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;
use tokio::time::timeout;

use crate::process::{Signal, send};
use crate::{launch, log, services};

use super::ready_line::ReadyLine;

/// `cluster` itself gives up within two minutes.
const READY_PATIENCE: Duration = Duration::from_secs(300);
/// `cluster` itself kills what does not end within 45 seconds.
const STOP_PATIENCE: Duration = Duration::from_secs(70);
const LOG_LINES: usize = 40;

pub(crate) struct ChildCluster {
    child: Child,
    dir: PathBuf,
    /// What it said when it was ready, and what that means.
    pub(crate) line: String,
    pub(crate) ready: ReadyLine,
}

impl ChildCluster {
    /// Two gateways, as one never shows what goes wrong between two, without rate limits.
    pub(crate) fn spawn<A: AsRef<OsStr>>(
        xtask: &Path,
        dir: &Path,
        arguments: impl IntoIterator<Item = A>,
        variables: &[(&str, String)],
    ) -> anyhow::Result<Self> {
        let mut command = launch::bound(xtask, "TERM");
        command
            .args(["cluster", "--gateways", "2", "--dir"])
            .arg(dir)
            .args(arguments)
            .env("PARLANCE_RATE_LIMITS", "off")
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let child = command.spawn().context("cannot start the cluster")?;
        Ok(Self { child, dir: dir.to_owned(), line: String::new(), ready: ReadyLine::default() })
    }

    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        let stdout = self.child.stdout.as_mut().context("it has no stdout")?;
        let mut line = String::new();
        timeout(READY_PATIENCE, BufReader::new(stdout).read_line(&mut line)).await.context("not ready in time")??;
        ensure!(line.starts_with("ready "), "the cluster did not start");
        line.trim_end().clone_into(&mut self.line);
        self.ready = ReadyLine::parse(&self.line).context("its ready line is not as expected")?;
        Ok(())
    }

    /// Every process of it by its name, those of the data services too.
    pub(crate) fn pids(&self) -> anyhow::Result<Vec<(String, u32)>> {
        let mut pids = self.ready.pids.clone();
        pids.extend(services::pids(&self.dir.join("services"))?);
        Ok(pids)
    }

    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            send(pid, Signal::TERM);
        }
        let status = timeout(STOP_PATIENCE, self.child.wait()).await.context("the cluster did not stop")??;
        ensure!(status.success(), "the cluster did not stop in order ({status})");
        Ok(())
    }

    /// The end of every log, its services' too.
    pub(crate) fn logs(&self) -> String {
        let folders = [self.dir.clone(), self.dir.join("services")];
        let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        paths.sort();
        paths.iter().map(|path| log::tail(path, LOG_LINES)).collect::<Vec<_>>().join("\n")
    }
}
