//! What is measured on: processor, memory, kernel, commit; and how busy it is.

use std::fs;

use tokio::process::Command;

use crate::launch;
use crate::workspace;

/// For the page, so that a figure can be judged.
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_gib: f64,
    pub(super) kernel: String,
    /// With a mark when files differ from it.
    pub(super) commit: String,
    pub(super) date: String,
}

/// Ticks of all processors together: all, and idle.
#[derive(Clone, Copy)]
pub(super) struct Ticks {
    total: u64,
    idle: u64,
}

impl Machine {
    /// What cannot be found out is left open.
    pub(super) async fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let processor = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
        Self {
            processor: processor.trim_start_matches([' ', '\t', ':']).to_owned(),
            processors: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
            memory_gib: memory.and_then(|kib| kib.parse::<f64>().ok()).unwrap_or_default() / 1024.0 / 1024.0,
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=10"]).await,
            date: said("date", &["--utc", "--iso-8601"]).await,
        }
    }
}

impl Machine {
    /// The conditions that all parts have in common.
    pub(super) fn text(&self, chats: u8) -> String {
        let Self { processor, processors, memory_gib, kernel, .. } = self;
        format!(
            "- {processors} processors ({processor}), {memory_gib:.0} GiB, Linux {kernel}. Everything runs on this one machine:\n  \
             PostgreSQL, RabbitMQ, Redis, all services, and the load generator too.\n\
             - 2 gateways, {chats} chat-service, 1 presence-service, 1 notify-service, in release, without TLS.\n  \
             `fsync` and `synchronous_commit` on, publisher confirms on, rate limits off.\n\
             - `-dirty` behind a commit: with changes that were not committed yet."
        )
    }
}

/// The count up to now.
pub(super) fn ticks() -> Ticks {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    Ticks { total: fields.iter().take(8).sum(), idle: fields.iter().skip(3).take(2).sum() }
}

/// The share of all processors that was used in between.
pub(super) fn busy(before: Ticks, after: Ticks) -> f64 {
    let total = after.total.saturating_sub(before.total).max(1) as f64;
    1.0 - after.idle.saturating_sub(before.idle) as f64 / total
}

async fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root());
    launch::output(&mut command).await.unwrap_or_else(|_| "unknown".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Ticks, busy};

    #[test]
    fn half_of_the_time_idle_is_half_busy() {
        let share = busy(Ticks { total: 100, idle: 40 }, Ticks { total: 300, idle: 140 });
        assert!((share - 0.5).abs() < 1e-9);
    }
}
