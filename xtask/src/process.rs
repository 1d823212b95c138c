//! A process by its pid and its birth, so that a reused pid is never mistaken for it.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, kill_process, kill_process_group};
use tokio::time::{Instant, sleep};

pub(crate) use rustix::process::Signal;

const POLL: Duration = Duration::from_millis(20);
/// How long the kernel may take to remove a process after SIGKILL.
const REMOVAL: Duration = Duration::from_secs(2);

/// One process that was alive when this was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from the boot of the machine to the start of the process; unchanged by exec.
    pub(crate) born: u64,
}

impl Process {
    /// The process that has this pid now.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, born: born(pid)? })
    }

    /// Whether exactly this process still runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        born(self.pid) == Some(self.born)
    }

    /// Sends the signal, unless the process is gone.
    pub(crate) fn signal(self, signal: Signal) {
        if self.is_alive() {
            send(self.pid, signal);
        }
    }

    /// Waits for the end of the process, at most until the deadline; tells whether it ended.
    pub(crate) async fn gone_by(self, deadline: Instant) -> bool {
        while self.is_alive() {
            if Instant::now() >= deadline {
                return false;
            }
            sleep(POLL).await;
        }
        true
    }
}

/// Asks each process to end by its own signal, waits for all together, then kills who stayed.
pub(crate) async fn stop_all(processes: &[(Process, Signal)], grace: Duration) {
    for (process, signal) in processes {
        process.signal(*signal);
    }
    let deadline = Instant::now() + grace;
    for (process, _) in processes {
        if !process.gone_by(deadline).await {
            process.signal(Signal::KILL);
            process.gone_by(Instant::now() + REMOVAL).await;
        }
    }
}

/// Sends a signal to a pid that the caller knows to be its own child.
pub(crate) fn send(pid: u32, signal: Signal) {
    if let Some(pid) = typed(pid) {
        // It may have ended just now, which is what the caller is after.
        let _ = kill_process(pid, signal);
    }
}

/// Sends a signal to the whole group that a child leads.
pub(crate) fn send_to_group(leader: u32, signal: Signal) {
    if let Some(leader) = typed(leader) {
        let _ = kill_process_group(leader, signal);
    }
}

fn typed(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn born(pid: u32) -> Option<u64> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The start time out of `/proc/<pid>/stat`, nothing for a process that only waits to be reaped.
fn parse_stat(stat: &str) -> Option<u64> {
    // The name in parentheses may itself hold spaces and parentheses; the fields begin after the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::{Process, parse_stat};

    const STAT: &str = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 11 12";

    #[test]
    fn the_start_time_is_found_behind_any_name() {
        assert_eq!(parse_stat(STAT), Some(987_654));
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(parse_stat(&STAT.replace(") S", ") Z")), None);
    }

    #[test]
    fn we_are_alive_and_an_earlier_holder_of_our_pid_is_not() {
        let us = Process::of(std::process::id()).expect("our own process");
        assert!(us.is_alive());
        assert!(!Process { born: us.born - 1, ..us }.is_alive());
    }
}
