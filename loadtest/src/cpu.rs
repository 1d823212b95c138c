//! Processor time and memory as the kernel counts them in /proc.

use std::collections::HashMap;
use std::fs;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::Context;

/// The kernel's unit in `/proc/<pid>/stat`, 100 a second on every Linux that we run on.
const TICK: Duration = Duration::from_millis(10);

/// Other processes whose time is told beside the generator's, by name.
static OTHERS: OnceLock<Vec<(String, u32)>> = OnceLock::new();

/// Processor time used up to one moment.
#[derive(Clone)]
pub(crate) struct Sample {
    at: Instant,
    own: Duration,
    machine: Machine,
    others: Vec<(String, Duration)>,
}

/// Ticks of all processors together.
#[derive(Clone, Copy)]
struct Machine {
    total: u64,
    idle: u64,
    stolen: u64,
}

/// Shares between two samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    /// Of one processor, by the process.
    pub(crate) own: f64,
    /// Of all processors, by everything on the machine.
    pub(crate) machine: f64,
    /// Of all processors, taken away by the hypervisor.
    pub(crate) stolen: f64,
    /// Of one processor, by each of the other processes that were named.
    pub(crate) others: Vec<(String, f64)>,
}

/// From now on these are looked at, too, each with all its descendants; the same name adds up.
pub(crate) fn look_at(others: Vec<(String, u32)>) {
    // Said once, at the start.
    let _ = OTHERS.set(others);
}

/// `name=pid`, as it is given on the command line.
pub(crate) fn named_pid(text: &str) -> Result<(String, u32), String> {
    let (name, pid) = text.split_once('=').ok_or("not of the form name=pid")?;
    Ok((name.to_owned(), pid.parse().map_err(|_| "not a pid")?))
}

impl Sample {
    /// Of this process and the machine, now.
    pub(crate) fn take() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let machine = machine(&stat).context("/proc/stat is not as expected")?;
        let others = OTHERS.get().filter(|others| !others.is_empty());
        let others = others.map(|others| of_families(others, &processes())).unwrap_or_default();
        Ok(Self { at: Instant::now(), own: used("self")?, machine, others })
    }

    pub(crate) fn since(&self, earlier: &Self) -> Shares {
        let total = self.machine.total.saturating_sub(earlier.machine.total).max(1) as f64;
        let share = |ticks: u64| ticks as f64 / total;
        let seconds = (self.at - earlier.at).as_secs_f64().max(0.001);
        let of_one = |now: Duration, before: Duration| now.saturating_sub(before).as_secs_f64() / seconds;
        let others = self.others.iter().zip(&earlier.others);
        Shares {
            own: of_one(self.own, earlier.own),
            machine: 1.0 - share(self.machine.idle.saturating_sub(earlier.machine.idle)),
            stolen: share(self.machine.stolen.saturating_sub(earlier.machine.stolen)),
            others: others.map(|((name, now), (_, before))| (name.clone(), of_one(*now, *before))).collect(),
        }
    }
}

/// Every process: its parent, and its ticks so far.
fn processes() -> HashMap<u32, (u32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let read = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some((pid, (parent(&stat)?, ticks(&stat)?)))
    };
    pids.filter_map(read).collect()
}

/// The time of each name: of its processes and all below them.
fn of_families(names: &[(String, u32)], processes: &HashMap<u32, (u32, u32)>) -> Vec<(String, Duration)> {
    let mut sums: Vec<(String, Duration)> = vec![];
    for (name, root) in names {
        let is_below = |pid: &u32| {
            let mut ancestors = std::iter::successors(Some(*pid), |pid| Some(processes.get(pid)?.0));
            ancestors.any(|ancestor| ancestor == *root)
        };
        let ticks: u32 = processes.iter().filter(|(pid, _)| is_below(pid)).map(|(_, (_, ticks))| ticks).sum();
        match sums.iter_mut().find(|(other, _)| other == name) {
            Some((_, sum)) => *sum += TICK * ticks,
            None => sums.push((name.clone(), TICK * ticks)),
        }
    }
    sums
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

fn parent(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
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
    use std::collections::HashMap;
    use std::time::Duration;

    use super::{machine, named_pid, of_families, parent, ticks};

    #[test]
    fn user_and_system_time_are_found_behind_any_name() {
        assert_eq!(ticks("42 (a (b) c) S 1 42 42 0 -1 4194560 1 2 3 4 50 6 7 8 20 0"), Some(56));
    }

    #[test]
    fn a_name_has_the_time_of_its_processes_and_all_below_them() {
        assert_eq!(parent("42 (a (b) c) S 7 42 42 0 -1"), Some(7));
        let processes =
            HashMap::from([(1, (0, 1_000)), (10, (1, 5)), (11, (10, 6)), (12, (11, 7)), (20, (1, 3)), (21, (1, 4))]);
        let names = ["database=10", "gateway=20", "gateway=21", "gone=99"].map(|text| named_pid(text).unwrap());
        let of = |name: &str, ticks: u32| (name.to_owned(), Duration::from_millis(10) * ticks);
        assert_eq!(of_families(&names, &processes), [of("database", 18), of("gateway", 7), of("gone", 0)]);
        assert!(named_pid("gateway").is_err() && named_pid("gateway=x").is_err());
    }

    #[test]
    fn the_machine_is_idle_while_it_waits_for_a_disk() {
        let machine = machine("cpu  10 1 5 80 4 0 1 2 0 0\ncpu0 1\n").unwrap();
        assert_eq!((machine.total, machine.idle, machine.stolen), (103, 84, 2));
    }
}
