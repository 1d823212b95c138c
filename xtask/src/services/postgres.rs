//! A private PostgreSQL, run by the `postgres` user when we are root, which it refuses to be run by.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::process::Command;
use tokio::time::Instant;

use crate::process::Process;
use crate::{entropy, launch, packages, probe};

use super::state::State;

pub(super) const FOLDER: &str = "postgres";
/// The user that Debian's package creates.
const USER: &str = "postgres";
/// As docs/operations.md recommends: the defaults are for machines of long ago.
const SIZES: [&str; 3] = ["shared_buffers=1GB", "min_wal_size=1GB", "max_wal_size=8GB"];
const REMOVAL_PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn start(dir: &Path, state: &mut State, log: &Path) -> anyhow::Result<Process> {
    let folder = folder(dir, state).await?;
    let data = folder.join("data");
    if !data.exists() {
        init(&folder, &data).await?;
    }
    predecessor_removed(&data).await;
    let port = state.port("postgres")?;
    let mut command = as_user(&program("postgres")?);
    command.arg("-D").arg(&data).current_dir(&data);
    // The socket lies in the data folder by a relative name, as an absolute one may be too long for a socket.
    // What is measured and broken on this instance should mean something: fsync stays on.
    let port = format!("port={port}");
    let settings =
        [&port, "listen_addresses=127.0.0.1", "unix_socket_directories=.", "max_connections=200", "fsync=on"];
    for setting in settings.iter().chain(&SIZES) {
        command.args(["-c", setting]);
    }
    // For the bench: counted calls, at next to no cost.
    if has_statements() {
        command.args(["-c", "shared_preload_libraries=pg_stat_statements"]);
    }
    launch::detached(&mut command, log)
}

/// A server that is still starting up or shutting down does not count.
pub(super) async fn answers(port: u16) -> bool {
    let Ok(pg_isready) = program("pg_isready") else {
        return false;
    };
    let mut command = Command::new(pg_isready);
    command.args(["-q", "-U", "postgres", "-h", "127.0.0.1", "-p", &port.to_string()]);
    launch::output(&mut command).await.is_ok()
}

/// The official client, for one statement on the server behind the URL.
pub(crate) async fn client(url: &str, statement: &str) -> anyhow::Result<String> {
    let mut command = Command::new(program("psql")?);
    // No settings of the user at the desk, no questions.
    command.args(["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align"]);
    command.args(["--set", "ON_ERROR_STOP=1", "--command", statement, url]);
    launch::output(&mut command).await
}

/// Has the server make the segments of its log in advance. One that has run for a while renames old ones instead, while a
/// new one makes one of 16 MiB whenever the last is full, and every commit waits for that.
pub(crate) async fn season(url: &str) -> anyhow::Result<()> {
    let fill = "do $$ begin for i in 1..60 loop \
                perform pg_logical_emit_message(false, 'season', ''); perform pg_switch_wal(); end loop; end $$";
    client(url, fill).await?;
    // Here they become free to be used again.
    client(url, "checkpoint").await.map(drop)
}

/// After a crash the server refuses to start as long as the old pid exists, be it as a zombie that init will reap
/// in a moment. When it stays, the server's own message tells.
async fn predecessor_removed(data: &Path) {
    let lock = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let Some(pid) = lock.lines().next() else {
        return;
    };
    let removed = async || !Path::new("/proc").join(pid).exists();
    let _ = probe::until(Instant::now() + REMOVAL_PATIENCE, "the crashed server's pid", removed).await;
}

async fn init(folder: &Path, data: &Path) -> anyhow::Result<()> {
    // Renamed when complete, so that an interrupted attempt is never taken for a cluster.
    let fresh = folder.join("new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    let mut command = as_user(&program("initdb")?);
    command
        .args(["--username", "postgres", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8"])
        .args(["--no-sync", "--pgdata"])
        .arg(&fresh)
        .current_dir(folder);
    launch::output(&mut command).await?;
    fs::rename(&fresh, data).context("cannot put the new data folder in its place")
}

/// Under `dir` if the user can reach that, else where everybody can: a checkout may lie in a closed home.
async fn folder(dir: &Path, state: &mut State) -> anyhow::Result<PathBuf> {
    if let Some(folder) = state.folder(FOLDER) {
        return Ok(folder);
    }
    let mut folder = dir.join(FOLDER);
    fs::create_dir_all(&folder)?;
    give(&folder).await?;
    if !reachable(&folder).await {
        fs::remove_dir(&folder)?;
        folder = std::env::temp_dir().join(format!("parlance-postgres-{}", entropy::name()?));
        fs::create_dir(&folder)?;
        give(&folder).await?;
    }
    state.keep_folder(FOLDER, folder.clone())?;
    Ok(folder)
}

/// Makes the folder the user's own, and nobody else's.
async fn give(folder: &Path) -> anyhow::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    if packages::is_root() {
        let user = launch::output(Command::new("id").args(["-u", USER])).await?;
        let group = launch::output(Command::new("id").args(["-g", USER])).await?;
        chown(folder, Some(user.parse()?), Some(group.parse()?))?;
    }
    Ok(())
}

async fn reachable(folder: &Path) -> bool {
    launch::output(as_user(Path::new("test")).arg("-w").arg(folder)).await.is_ok()
}

fn as_user(program: &Path) -> Command {
    if !packages::is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", USER, "--regid", USER, "--init-groups"]).arg(program);
    command
}

/// Whether the module that counts statements is installed, as Debian does with the server.
fn has_statements() -> bool {
    let modules = packages::postgres_programs().and_then(|programs| Some(programs.parent()?.join("lib")));
    modules.is_some_and(|modules| modules.join("pg_stat_statements.so").exists())
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let folder = packages::postgres_programs().context("PostgreSQL is not installed")?;
    Ok(folder.join(name))
}
