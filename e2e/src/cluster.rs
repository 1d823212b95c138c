//! A cluster of real processes: the line that says where it is, and one's own for stories that break things.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, bail};
use uuid::Uuid;

use crate::stack::{Stack, given};

/// The executable of `cargo xtask`.
const XTASK: &str = "PARLANCE_TEST_XTASK";
/// While this file is in the cluster's folder, its chat-services do not publish: a hook of theirs for these stories.
const HOLD: &str = "hold-publish";
/// A cluster initialises PostgreSQL and RabbitMQ before it is ready.
pub(crate) const STARTING: Duration = Duration::from_secs(180);
/// How long the processes of a cluster may take to end.
const ENDING: Duration = Duration::from_secs(40);

/// `ready lb=URL gateways=URL,URL admin=URL,URL postgres=URL redis=URL amqp=URL pids=gateway:PID,…,chat-service:PID,…`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ready {
    /// The load balancer.
    pub lb: String,
    /// The gateways' public ports.
    pub gateways: Vec<String>,
    /// Their admin ports.
    pub admin: Vec<String>,
    /// The database.
    pub postgres: String,
    /// The directory's store.
    pub redis: String,
    /// The broker.
    pub amqp: String,
    /// Every process: which service, and its pid. Replicas stand in the order of their ports.
    pub pids: Vec<(String, u32)>,
}

impl FromStr for Ready {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> anyhow::Result<Self> {
        let fields = line.trim().strip_prefix("ready ").context("the line does not begin with `ready `")?;
        let mut ready = Self::default();
        for field in fields.split_whitespace() {
            let (name, value) = field.split_once('=').with_context(|| format!("`{field}` has no `=`"))?;
            let list = || value.split(',').map(str::to_owned).collect();
            match name {
                "lb" => ready.lb = value.to_owned(),
                "gateways" => ready.gateways = list(),
                "admin" => ready.admin = list(),
                "postgres" => ready.postgres = value.to_owned(),
                "redis" => ready.redis = value.to_owned(),
                "amqp" => ready.amqp = value.to_owned(),
                "pids" => ready.pids = value.split(',').map(process).collect::<anyhow::Result<_>>()?,
                // A newer xtask may say more.
                _ => {}
            }
        }
        if ready.gateways.is_empty() {
            bail!("no gateways");
        }
        Ok(ready)
    }
}

fn process(entry: &str) -> anyhow::Result<(String, u32)> {
    let (service, pid) = entry.split_once(':').with_context(|| format!("`{entry}` is no service:pid"))?;
    Ok((service.to_owned(), pid.parse()?))
}

/// A cluster that a story may break. It ends with its story.
#[derive(Debug)]
pub struct OwnCluster {
    pub(crate) xtask: String,
    pub(crate) dir: PathBuf,
    child: Child,
    pub(crate) ready: Ready,
    stack: Option<Stack>,
    /// What xtask said on stderr: among other things, how each of its processes ended.
    pub(crate) said: Arc<Mutex<Vec<String>>>,
    /// Processes that stand still and have to go on before the cluster can end.
    pub(crate) paused: Mutex<Vec<u32>>,
}

impl OwnCluster {
    /// Starts one with two gateways, two chat-services and these settings; none when the executable is not given.
    pub fn start(settings: &[(&str, &str)]) -> Option<Self> {
        let xtask = given(XTASK)?;
        let dir = std::env::temp_dir().join(format!("parlance-faults-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&dir).expect("a fresh folder");
        let mut child = std::process::Command::new(&xtask)
            .args(["cluster", "--gateways", "2", "--chat", "2", "--no-build", "--dir"])
            .arg(&dir)
            .env("PARLANCE_RATE_LIMITS", "off")
            .env("PARLANCE_TEST_HOLD_PUBLISH", dir.join(HOLD))
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("xtask starts");
        let said = hears(child.stderr.take().expect("piped"));
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (heard, ready) = mpsc::channel();
        // A thread, because it has to read on to the end: whoever prints into a pipe that nobody reads stands still.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.starts_with("ready ")) {
                // Only the first one is waited for.
                let _ = heard.send(line);
            }
        });
        let ready_line = Ready::default();
        let mut cluster = Self { xtask, dir, child, ready: ready_line, stack: None, said, paused: Mutex::default() };
        let line = ready.recv_timeout(STARTING).expect("xtask says `ready` in time");
        cluster.ready = line.parse().expect("the ready line");
        cluster.stack = Some(Stack::of_cluster(&cluster.ready).speaking_in_turn());
        Some(cluster)
    }

    /// As a stack for stories.
    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("it is ready")
    }

    /// The URL of its database.
    pub fn postgres(&self) -> &str {
        &self.ready.postgres
    }

    /// The folder with its logs and its services.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on chat-service commits and acknowledges, but starts no publishing.
    pub fn holds_publishing(&self) {
        std::fs::write(self.dir.join(HOLD), "").expect("the folder is there");
    }

    /// Ends [`OwnCluster::holds_publishing`].
    pub fn lets_publish(&self) {
        std::fs::remove_file(self.dir.join(HOLD)).expect("publishing is held");
    }
}

/// Repeats what a child says on stderr, and keeps it.
fn hears(stderr: ChildStderr) -> Arc<Mutex<Vec<String>>> {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&said);
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("{line}");
            log.lock().expect("no panic while it is held").push(line);
        }
    });
    said
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        for pid in self.paused.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = std::process::Command::new("kill").args(["-CONT", &pid.to_string()]).status();
        }
        // SIGTERM, so that xtask takes its processes down with it; a plain kill would leave them to their tethers.
        let _ = std::process::Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let until = std::time::Instant::now() + ENDING;
        while matches!(self.child.try_wait(), Ok(None)) {
            if std::time::Instant::now() > until {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_is_read() {
        let line = "ready lb=http://127.0.0.1:1 gateways=http://127.0.0.1:2,http://127.0.0.1:3 admin=http://127.0.0.1:4 \
                    postgres=postgres://x redis=redis://y amqp=amqp://z pids=gateway:10,gateway:11,chat-service:12";
        let ready: Ready = line.parse().unwrap();
        assert_eq!(ready.gateways, ["http://127.0.0.1:2", "http://127.0.0.1:3"]);
        assert_eq!(ready.pids[2], ("chat-service".to_owned(), 12));
        assert!("ready lb=http://127.0.0.1:1".parse::<Ready>().is_err(), "no gateways");
        assert!("building".parse::<Ready>().is_err());
    }
}
