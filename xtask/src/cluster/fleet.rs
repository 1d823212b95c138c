//! The processes of a running cluster: started, watched, stopped in order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::process::{Signal, send};
use crate::{launch, log, probe};

use super::plan::Planned;

const READY_PATIENCE: Duration = Duration::from_secs(60);
/// When a gateway that still drains is no longer waited for before the services are asked to end too.
const GATEWAYS_GRACE: Duration = Duration::from_secs(30);
/// When whatever still runs is killed.
const TOTAL_GRACE: Duration = Duration::from_secs(45);
const POLL: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 40;

/// Where the logs go and where the programs come from.
pub(super) struct Fleet {
    dir: PathBuf,
    programs: PathBuf,
    members: Vec<Member>,
}

struct Member {
    program: &'static str,
    label: String,
    pid: u32,
    /// Nothing once its end was seen.
    child: Option<Child>,
    log: PathBuf,
}

impl Fleet {
    pub(super) fn new(dir: PathBuf, programs: PathBuf) -> Self {
        Self { dir, programs, members: vec![] }
    }

    /// Starts all of these at once, then waits until each says that it is ready.
    pub(super) async fn start(&mut self, planned: &[Planned]) -> anyhow::Result<()> {
        let first = self.members.len();
        for one in planned {
            let mut command = launch::bound(self.programs.join(one.program), "KILL");
            command.envs(one.variables.iter().map(|(name, value)| (name, value)));
            self.launch(one.program, &one.label, &mut command)?;
        }
        let deadline = Instant::now() + READY_PATIENCE;
        for (at, one) in planned.iter().enumerate() {
            self.ready(first + at, deadline, async || probe::http(one.admin_port, "/readyz").await == Some(200))
                .await?;
        }
        Ok(())
    }

    /// Starts HAProxy, ready when an answer comes through it from a gateway.
    pub(super) async fn start_balancer(&mut self, program: &Path, file: &Path, port: u16) -> anyhow::Result<()> {
        let mut command = launch::bound(program, "KILL");
        // In the foreground, as its pid is the one to stop.
        command.arg("-db").arg("-f").arg(file);
        self.launch("haproxy", "haproxy", &mut command)?;
        // HAProxy itself would answer with 503 that it has no gateway.
        let answers = async || probe::http(port, "/v1/me").await.is_some_and(|status| status < 500);
        let deadline = Instant::now() + READY_PATIENCE;
        self.ready(self.members.len() - 1, deadline, answers).await
    }

    /// The pids of everything that runs this program.
    pub(super) fn pids(&self, program: &str) -> Vec<(String, u32)> {
        let members = self.members.iter().filter(|member| member.program == program);
        members.map(|member| (program.to_owned(), member.pid)).collect()
    }

    /// Notes who has ended. They stay dead, but not as zombies: a test that killed one looks whether it is gone.
    pub(super) fn reap(&mut self) {
        for member in &mut self.members {
            if let Some(end) = member.ended() {
                log::progress(format_args!("{} ({}) has ended: {end}", member.label, member.pid));
            }
        }
    }

    /// SIGTERM to the gateways, which send their clients away while the services still answer, then to the rest.
    pub(super) async fn stop(&mut self) {
        let begun = Instant::now();
        // Once each: to a program a second signal may mean "at once".
        self.ask_to_end(|member| member.program == "gateway");
        self.ended_by(begun + GATEWAYS_GRACE, |member| member.program == "gateway").await;
        self.ask_to_end(|member| member.program != "gateway");
        self.ended_by(begun + TOTAL_GRACE, |_| true).await;
        self.kill();
    }

    pub(super) fn kill(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                log::progress(format_args!("killing {} ({})", member.label, member.pid));
                let _ = child.start_kill();
            }
        }
    }

    fn launch(&mut self, program: &'static str, label: &str, command: &mut Command) -> anyhow::Result<()> {
        let log = self.dir.join(format!("{label}.log"));
        // What a program keeps in its working folder belongs to this cluster.
        command.current_dir(&self.dir);
        let child = launch::with_log(command, &log)?;
        let pid = child.id().with_context(|| format!("{label} ended at once"))?;
        self.members.push(Member { program, label: label.to_owned(), pid, child: Some(child), log });
        Ok(())
    }

    async fn ready(&mut self, at: usize, deadline: Instant, answers: impl AsyncFn() -> bool) -> anyhow::Result<()> {
        while !answers().await {
            // One that ended is reason enough to stop, whichever we wait for.
            if let Some((member, end)) = self.members.iter_mut().find_map(|m| m.ended().map(|end| (&*m, end))) {
                bail!("{} ended while the cluster started: {end}\n{}", member.label, log::tail(&member.log, LOG_LINES));
            }
            if Instant::now() >= deadline {
                let member = &self.members[at];
                bail!("{} is not ready in time\n{}", member.label, log::tail(&member.log, LOG_LINES));
            }
            sleep(POLL).await;
        }
        log::progress(format_args!("{} is ready", self.members[at].label));
        Ok(())
    }

    fn ask_to_end(&self, which: impl Fn(&Member) -> bool) {
        for member in self.members.iter().filter(|member| which(member) && member.child.is_some()) {
            send(member.pid, Signal::TERM);
        }
    }

    async fn ended_by(&mut self, deadline: Instant, which: impl Fn(&Member) -> bool) {
        loop {
            self.reap();
            let remain = self.members.iter().any(|member| which(member) && member.child.is_some());
            if !remain || Instant::now() >= deadline {
                return;
            }
            sleep(POLL).await;
        }
    }
}

impl Member {
    /// How it ended, told once.
    fn ended(&mut self) -> Option<std::process::ExitStatus> {
        let end = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        Some(end)
    }
}
