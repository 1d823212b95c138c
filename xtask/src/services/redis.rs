//! A private Redis that keeps nothing on disk.

use std::path::Path;

use anyhow::Context;
use tokio::process::Command;

use crate::launch;
use crate::packages::Package;
use crate::process::Process;

use super::state::State;

pub(super) fn start(dir: &Path, state: &mut State, log: &Path) -> anyhow::Result<Process> {
    let program = Package::Redis.program().context("redis-server is not installed")?;
    let port = state.port("redis")?.to_string();
    let mut command = Command::new(program);
    command
        .args(["--port", &port, "--bind", "127.0.0.1", "--daemonize", "no"])
        .args(["--save", "", "--appendonly", "no"])
        .current_dir(dir);
    launch::detached(&mut command, log)
}
