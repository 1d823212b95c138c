//! A private RabbitMQ with its own port mapper, so that it shares nothing with another one on the machine.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::Instant;

use crate::packages::Package;
use crate::process::Process;
use crate::{launch, log, probe};

use super::state::State;

pub(super) const FOLDER: &str = "rabbitmq";
/// Erlang's port mapper, a process of its own.
pub(super) const EPMD: &str = "epmd";
const EPMD_PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn start(dir: &Path, state: &mut State, log: &Path) -> anyhow::Result<Process> {
    let program = Package::RabbitMq.program().context("rabbitmq-server is not installed")?;
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let port = state.port("amqp")?;
    let distribution = state.port("amqp-distribution")?;
    let mapper = mapper(state, log).await?;
    fs::write(folder.join("rabbitmq.conf"), configuration(port))?;
    fs::write(folder.join("enabled_plugins"), "[].\n")?;
    let mut command = Command::new(program);
    command
        .env("ERL_EPMD_ADDRESS", "127.0.0.1")
        .env("ERL_EPMD_PORT", mapper.to_string())
        // The cookie goes here.
        .env("HOME", &folder)
        .env("LANG", "C.UTF-8")
        .env("RABBITMQ_NODENAME", "parlance@localhost")
        .env("RABBITMQ_DIST_PORT", distribution.to_string())
        .env("RABBITMQ_MNESIA_BASE", folder.join("data"))
        .env("RABBITMQ_LOG_BASE", folder.join("log"))
        .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
        // Named, though they do not exist, so that the machine's own in /etc are not read.
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", folder.join("advanced.config"))
        .env("RABBITMQ_CONF_ENV_FILE", folder.join("rabbitmq-env.conf"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}")
        // By this the script replaces itself by the server, whose pid is then the one we know.
        .env("RUNNING_UNDER_SYSTEMD", "true")
        .env_remove("NOTIFY_SOCKET")
        .current_dir(&folder);
    launch::detached(&mut command, log)
}

/// The port of our port mapper, started if it is not up; left to itself RabbitMQ would leave one behind.
async fn mapper(state: &mut State, log: &Path) -> anyhow::Result<u16> {
    let port = state.port(EPMD)?;
    if state.process(EPMD).is_none() {
        let mut command = Command::new("epmd");
        command.args(["-address", "127.0.0.1", "-port", &port.to_string()]);
        let process = launch::detached(&mut command, &log.with_file_name("epmd.log"))?;
        state.keep_process(EPMD, process)?;
    }
    let connects = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
    probe::until(Instant::now() + EPMD_PATIENCE, EPMD, connects)
        .await
        .with_context(|| log::tail(&log.with_file_name("epmd.log"), 10))?;
    Ok(port)
}

/// The memory limit is where publishers are held back: a test machine shares its memory with compilers,
/// and a small share is plenty for tests. The disk limit only has to keep RabbitMQ from filling a disk.
fn configuration(port: u16) -> String {
    format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\n\
         loopback_users.guest = true\n\
         vm_memory_high_watermark.relative = 0.3\n\
         disk_free_limit.absolute = 50MB\n\
         log.console = true\n\
         log.console.level = info\n\
         log.console.use_colors = off\n\
         log.file = false\n"
    )
}
