//! One command of the gate: named, timed, and ended with everything it started when we are interrupted.

use std::io::{self, Write};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::interrupt::Interrupt;
use crate::process::{Signal, send_to_group};

/// For cargo and the tests under it to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);

/// Twice what the slowest step takes from nothing on two cores, which is the release build, or more. A test that hangs should
/// fail while somebody still reads its logs.
const PATIENCE: Duration = Duration::from_secs(30 * 60);

/// The steps so far and how long each took.
pub(super) struct Steps {
    interrupt: Interrupt,
    begun: Instant,
    timings: Vec<(&'static str, Duration)>,
}

impl Steps {
    pub(super) fn begin() -> anyhow::Result<Self> {
        Ok(Self { interrupt: Interrupt::listen()?, begun: Instant::now(), timings: vec![] })
    }

    /// Runs a command as a step, its output going to ours untouched.
    pub(super) async fn command(&mut self, name: &'static str, command: &mut Command) -> anyhow::Result<()> {
        say(format_args!("==> {name}"))?;
        let begun = Instant::now();
        let result = to_its_end(command, &mut self.interrupt).await;
        self.finish(name, begun, result)
    }

    /// Runs our own work as a step; an interruption drops it where it stands.
    pub(super) async fn work<T>(
        &mut self,
        name: &'static str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        say(format_args!("==> {name}"))?;
        let begun = Instant::now();
        let result = tokio::select! {
            result = work => result,
            () = self.interrupt.wait() => Err(anyhow::anyhow!("interrupted")),
        };
        self.finish(name, begun, result)
    }

    /// All steps with their durations, the whole last.
    pub(super) fn summary(&self) -> anyhow::Result<()> {
        say("\nduration")?;
        for (name, duration) in &self.timings {
            say(format_args!("{:>8.1} s  {name}", duration.as_secs_f64()))?;
        }
        say(format_args!("{:>8.1} s  in all", self.begun.elapsed().as_secs_f64()))
    }

    fn finish<T>(&mut self, name: &'static str, begun: Instant, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let duration = begun.elapsed();
        self.timings.push((name, duration));
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        say(format_args!("<== {name}: {verdict} in {:.1} s", duration.as_secs_f64()))?;
        result.context(name)
    }
}

/// One line on stdout.
pub(super) fn say(line: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

async fn to_its_end(command: &mut Command, interrupt: &mut Interrupt) -> anyhow::Result<()> {
    // A group of its own, so that one signal ends cargo, its compilers and the tests.
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn().context("cannot start it")?;
    tokio::select! {
        status = child.wait() => {
            let status = status?;
            ensure!(status.success(), "{status}");
            Ok(())
        }
        () = interrupt.wait() => {
            end(&mut child).await;
            bail!("interrupted")
        }
        () = sleep(PATIENCE) => {
            end(&mut child).await;
            bail!("not finished after {} minutes", PATIENCE.as_secs() / 60)
        }
    }
}

async fn end(child: &mut Child) {
    let Some(leader) = child.id() else { return };
    send_to_group(leader, Signal::TERM);
    let _ = timeout(GRACE, child.wait()).await;
    // Also for tests that outlive the cargo that ran them.
    send_to_group(leader, Signal::KILL);
    let _ = child.wait().await;
}
