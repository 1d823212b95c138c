//! Processor time and memory as the kernel counts them in /proc.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

/// The kernel's unit in `/proc/<pid>/stat`, 100 a second on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Processor time used up to one moment.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    at: Instant,
    own: Duration,
    machine: Machine,
}

/// Ticks of all processors together.
#[derive(Clone, Copy)]
struct Machine {
    total: u64,
    idle: u64,
    stolen: u64,
}

/// Shares between two samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shares {
    /// Of one processor, by the process.
    pub(crate) own: f64,
    /// Of all processors, by everything on the machine.
    pub(crate) machine: f64,
    /// Of all processors, taken away by the hypervisor.
    pub(crate) stolen: f64,
}

impl Sample {
    /// Of this process and the machine, now.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let machine = machine(&stat).context("/proc/stat is not as expected")?;
        Ok(Self { at: Instant::now(), own: used("self")?, machine })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Shares {
        let total = self.machine.total.saturating_sub(earlier.machine.total).max(1) as f64;
        let share = |ticks: u64| ticks as f64 / total;
        Shares {
            own: (self.own.saturating_sub(earlier.own)).as_secs_f64() / (self.at - earlier.at).as_secs_f64().max(0.001),
            machine: 1.0 - share(self.machine.idle.saturating_sub(earlier.machine.idle)),
            stolen: share(self.machine.stolen.saturating_sub(earlier.machine.stolen)),
        }
    }
}

/// The processor time of a process so far, its own and the kernel's for it.
pub(crate) fn used(pid: &str) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    let ticks = ticks(&stat).context("its stat is not as expected")?;
    Ok(TICK * ticks)
}

/// The anonymous memory of a process that is resident: heap and stacks, in bytes.
pub(crate) fn anonymous_memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("its status has no RssAnon")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}

fn ticks(stat: &str) -> Option<u32> {
    // The name in parentheses may hold spaces; the fields begin after the last one.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(|field| field.parse::<u32>().ok());
    Some(fields.next()?? + fields.next()??)
}

fn machine(stat: &str) -> Option<Machine> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let [_, _, _, idle, iowait, _, _, stolen, ..] = ticks[..] else { return None };
    Some(Machine { total: ticks.iter().take(8).sum(), idle: idle + iowait, stolen })
}

#[cfg(test)]
mod tests {
    use super::{machine, ticks};

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        assert_eq!(ticks("42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 50 6 7 8 20 0"), Some(56));
    }

    #[test]
    fn the_machine_is_idle_while_it_waits_for_a_disk() {
        let machine = machine("cpu  10 1 5 80 4 0 1 2 0 0\ncpu0 1\n").unwrap();
        assert_eq!((machine.total, machine.idle, machine.stolen), (103, 84, 2));
    }
}
