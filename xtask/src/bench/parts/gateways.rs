//! What a gateway's process is measured by: its idle connections, and its death. Each run has a cluster of its own.

use crate::bench::Bench;
use crate::bench::measured::{Measured, median, range};
use crate::bench::page::{Section, Target};
use crate::bench::run::CONNECTIONS_PER_USER;
use crate::bench::tables::shares;

/// Messages that every connection receives: more bytes than may wait for one.
const RECEIVED: u32 = 1_200;

impl Bench<'_> {
    pub(super) async fn idle(&mut self) -> anyhow::Result<Section> {
        let (from, to, watch) = self.scale.idle;
        let mut runs = vec![];
        for number in 1..=self.repeat {
            // On a fresh process: memory that an earlier load has left free would make connections look cheaper than they are.
            self.renew().await?;
            let pid = self.first_gateway().await?;
            let more = [
                ("--from", from.to_string()),
                ("--connections", to.to_string()),
                ("--per-user", CONNECTIONS_PER_USER.to_string()),
                ("--watch", watch.to_string()),
                ("--receive", RECEIVED.to_string()),
                ("--pid", pid.to_string()),
            ];
            runs.push(self.once("idle", 1, &more, number).await?);
        }
        let (lowest, highest) = range(&runs, "bytes_per_connection");
        runs.sort_by(|one, other| one.number("bytes_per_connection").total_cmp(&other.number("bytes_per_connection")));
        let middle = runs.len() / 2;
        let run = runs.swap_remove(middle);
        let (bytes, cpu) = (run.number("bytes_per_connection"), run.number("cpu_us_per_s_per_connection"));
        let text = format!(
            "`loadtest idle --url <gateway 1> --pid <its pid> --from {from} --connections {to} --per-user {CONNECTIONS_PER_USER} \
             --receive {RECEIVED}`\n\
             with `PARLANCE_MAX_CONNECTIONS_PER_USER={CONNECTIONS_PER_USER}`, each run on a fresh cluster\n\n\
             | what | each connection |\n| --- | ---: |\n\
             | user-space memory of the gateway (`RssAnon`), slope from {from} to {to} | {:.2} KiB ({:.2}–{:.2}) |\n\
             | processor time of the gateway, the same slope, heartbeats in it | {cpu:.2} µs/s |\n\
             | memory more than that, when each of the {to} has received {RECEIVED} messages of 1,000 characters | {:.2} KiB |\n\
             | the same at most, looked at after every message | {:.2} KiB |\n\n\
             The connections are authenticated, and idle ones are those of users in no room; for the last two rows all of them are\n\
             in one. The kernel's own memory for a socket is not in it.\n",
            bytes / 1024.0,
            lowest / 1024.0,
            highest / 1024.0,
            run.number("receiving.more_bytes_per_connection") / 1024.0,
            run.number("receiving.peak_more_bytes_per_connection") / 1024.0,
        );
        let target = Target {
            what: "memory of an idle authenticated connection",
            asked: "≤ 8 KiB",
            goal: "≤ 6 KiB",
            measured: format!("{:.2} KiB", bytes / 1024.0),
            is_reached: bytes <= 8.0 * 1024.0,
            is_goal_reached: bytes <= 6.0 * 1024.0,
        };
        Ok(Section { name: "idle", text, targets: vec![target] })
    }

    pub(super) async fn storm(&mut self) -> anyhow::Result<Section> {
        let sessions = self.scale.storm_sessions;
        let mut runs = vec![];
        for number in 1..=self.repeat {
            self.renew().await?;
            let pid = self.first_gateway().await?;
            let postgres = self.count_statements().await?;
            let more = [("--sessions", sessions.to_string()), ("--kill", pid.to_string()), ("--postgres", postgres)];
            let run = self.once("storm", 2, &more, number).await;
            // It has lost a gateway.
            self.end_cluster().await?;
            runs.push(run?);
        }
        let spread = range(&runs, "back_ms.p99");
        let run = median(runs, "back_ms.p99").unwrap_or_else(|| Measured::new(String::new()));
        let (p50, p99, max) = (run.number("back_ms.p50"), run.number("back_ms.p99"), run.number("back_ms.max"));
        let ratio = run.number("database_calls_ratio");
        let text = format!(
            "`loadtest storm --url <gateway 1> --url <gateway 2> --sessions {sessions} --kill <pid of gateway 1> --postgres <database>`\n\n\
             {sessions} connections in rooms of 10 on both gateways, 200 sends/s; gateway 1 gets SIGKILL. Its {:.0} connections come\n\
             back to gateway 2 with jittered back-off and the revs they hold.\n\n\
             | 50 % back | 99 % back (runs) | all back | violations | not back | database calls/s before | until all were back | ratio |\n\
             | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n\
             | {p50:.0} ms | {p99:.0} ms ({:.0}–{:.0}) | {max:.0} ms | {} | {:.0} | {:.0} | {:.0} | {ratio:.2} |\n\n\
             Calls are {} counted by PostgreSQL, over the time until all were back (at least 2 s) and as long before.\n\
             Shares of one processor: {}.\n",
            run.number("killed_sessions"),
            spread.0,
            spread.1,
            run.violations(),
            run.number("missing_sessions"),
            run.number("database_calls.before_per_s"),
            run.number("database_calls.during_per_s"),
            run.text("database_calls.counted"),
            shares(&run)
        );
        let is_right = run.violations() == 0 && run.number("missing_sessions") < 0.5;
        let target = Target {
            what: "gateway killed with 5,000 sessions",
            asked: "99 % back in 10 s, nothing lost, database calls ≤ 1.5×",
            goal: "5 s, ≤ 1.2×",
            measured: format!("99 % in {:.1} s, {} lost, {ratio:.2}×", p99 / 1_000.0, run.number("violations.lost")),
            is_reached: is_right && p99 <= 10_000.0 && ratio <= 1.5,
            is_goal_reached: is_right && p99 <= 5_000.0 && ratio <= 1.2,
        };
        Ok(Section { name: "storm", text, targets: vec![target] })
    }
}
