//! Ways to start a child: left running when we end, or bound to our life.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::log;
use crate::process::Process;

/// What a gateway with ten thousand connections needs, with room to spare.
const OPEN_FILES: u64 = 20_000;

/// Starts a program that goes on when we end; a Ctrl-C on our terminal does not reach it.
pub(crate) fn detached(command: &mut Command, log: &Path) -> anyhow::Result<Process> {
    let child = with_log(command, log)?;
    let pid = child.id().context("it ended at once")?;
    Process::of(pid).with_context(|| format!("it ended at once; see {}", log.display()))
}

/// A command whose process the kernel kills with `signal` when we end, however we end.
///
/// `prlimit` and `setpriv` replace themselves by the program, so its pid is the child's pid.
pub(crate) fn bound(program: impl AsRef<OsStr>, signal: &str) -> Command {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut command = match raised_open_files(&limits) {
        Some(limit) => {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={limit}:")).arg("setpriv");
            command
        }
        None => Command::new("setpriv"),
    };
    command.args(["--pdeathsig", signal]).arg(program);
    command
}

/// Starts a child in a process group of its own, both its outputs going to one log.
pub(crate) fn with_log(command: &mut Command, path: &Path) -> anyhow::Result<Child> {
    let log = log::open(path)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    let program = command.as_std().get_program().to_owned();
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// Runs a short command to its end and returns what it printed; its complaint is the error.
pub(crate) async fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.as_std().get_program().to_owned();
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}): {}", program.display(), output.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The soft limit to ask for, if the present one is lower than wanted and than allowed.
fn raised_open_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    let mut fields = line.split_whitespace().map(|field| field.parse().unwrap_or(u64::MAX));
    let (soft, hard) = (fields.next()?, fields.next()?);
    let wanted = OPEN_FILES.min(hard);
    (soft < wanted).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::raised_open_files;

    fn limits(soft: &str, hard: &str) -> String {
        format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {soft}  {hard}  files\n")
    }

    #[test]
    fn open_files_are_raised_as_far_as_allowed_and_never_lowered() {
        assert_eq!(raised_open_files(&limits("1024", "1048576")), Some(20_000));
        assert_eq!(raised_open_files(&limits("1024", "4096")), Some(4_096));
        assert_eq!(raised_open_files(&limits("1024", "unlimited")), Some(20_000));
        assert_eq!(raised_open_files(&limits("20000", "20000")), None);
        assert_eq!(raised_open_files(&limits("unlimited", "unlimited")), None);
        assert_eq!(raised_open_files(""), None);
    }
}
