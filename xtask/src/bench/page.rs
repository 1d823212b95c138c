//! docs/performance.md, as this command writes it.

use std::fmt;

use super::cluster::CONNECTIONS_PER_USER;
use super::machine::Machine;
use super::measured::{Idle, Sends};
use super::run::IDLE;
use super::{ACK_P99_MS, QUIET_SHARE};

/// What the present step asks for.
const ASKED_SENDS: f64 = 5_000.0;
const ASKED_IDLE_BYTES: f64 = 16.0 * 1024.0;

pub(super) struct Page {
    pub(super) machine: Machine,
    pub(super) chat: u8,
    pub(super) repeat: u8,
    pub(super) seconds: u16,
    /// The most that others used of all processors just before a run.
    pub(super) disturbed: f64,
    pub(super) sends: Vec<Sends>,
    pub(super) idle: Idle,
}

impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Performance\n")?;
        writeln!(
            f,
            "Written by `cargo xtask bench`. A figure stands here with its command, its commit and what limits it;"
        )?;
        writeln!(f, "loss, duplication, order and gaps were checked in the same runs.\n")?;
        self.conditions(f)?;
        self.table_of_sends(f)?;
        self.limits(f)?;
        self.idle(f)
    }
}

impl Page {
    fn conditions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, processors, memory_gib, kernel, commit, date } = &self.machine;
        writeln!(f, "## Conditions\n")?;
        writeln!(f, "- {date}, commit `{commit}` (`-dirty`: with changes that were not committed yet).")?;
        writeln!(
            f,
            "- {processors} processors ({processor}), {memory_gib:.0} GiB, Linux {kernel}. Everything runs on this one machine:"
        )?;
        writeln!(f, "  PostgreSQL, RabbitMQ, Redis, all services, and the load generator too.")?;
        writeln!(
            f,
            "- 2 gateways, {} chat-service, 1 presence-service, 1 notify-service, in release, without TLS.",
            self.chat
        )?;
        writeln!(f, "  `fsync` and `synchronous_commit` on, publisher confirms on, rate limits off.")?;
        writeln!(
            f,
            "- Runs of each load: {}, each of {} s after 5 s of warm-up; the run with the median p99 is shown.",
            self.repeat, self.seconds
        )?;
        if self.disturbed > QUIET_SHARE {
            writeln!(
                f,
                "- **The machine was not quiet**: just before a run, other work used up to {:.0} % of its processors. What follows shows that",
                self.disturbed * 100.0
            )?;
            writeln!(f, "  nothing was lost; as throughput and latency it is only what was left over.")?;
        }
        writeln!(f)
    }

    fn table_of_sends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = self.sends.first().map_or(0.0, |run| run.connections);
        writeln!(f, "## Persisted sends\n")?;
        writeln!(
            f,
            "`loadtest sends --url <gateway 1> --url <gateway 2> --rooms 100 --members 10 --size 128 --rate <offered> --seconds {}`\n",
            self.seconds
        )?;
        writeln!(
            f,
            "100 rooms of 10 members, all online, spread over both gateways: {connections:.0} connections, each in about 4 of the rooms."
        )?;
        writeln!(
            f,
            "Open loop: every send has a planned instant, and every latency counts from it. An acknowledgement means committed.\n"
        )?;
        writeln!(
            f,
            "| offered/s | acknowledged/s | delivered/s | ack p50 | ack p90 | ack p99 (runs) | delivery p50 | delivery p99 | violations | generator | machine | limited by |"
        )?;
        writeln!(f, "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")?;
        self.sends.iter().try_for_each(|run| row(f, run))?;
        writeln!(f, "\nLatencies in ms. Generator: of one processor; machine: of all.\n")
    }

    fn limits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = |run: &&Sends| run.violations == 0 && run.ack.p99 <= ACK_P99_MS;
        // A load above one that was not held proves nothing of the lower ones.
        let best = self.sends.iter().take_while(held).last().map_or(0.0, |run| run.offered_per_s);
        writeln!(f, "Every load up to **{best:.0}/s** was held with ack p99 ≤ {ACK_P99_MS:.0} ms and no violation.")?;
        for run in self.sends.iter().filter(held).filter(|run| run.offered_per_s > best) {
            writeln!(f, "{:.0}/s was held too, later in the same sweep.", run.offered_per_s)?;
        }
        writeln!(f, "Asked for at present: {ASKED_SENDS:.0}/s. {}\n", verdict(best >= ASKED_SENDS))
    }

    fn idle(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Idle { bytes_per_connection, cpu_us_per_s_per_connection } = &self.idle;
        writeln!(f, "## Idle connections\n")?;
        writeln!(
            f,
            "`loadtest idle --url <gateway> --pid <its pid> --from {} --connections {} --per-user {CONNECTIONS_PER_USER}`",
            IDLE[0], IDLE[1]
        )?;
        writeln!(f, "with `PARLANCE_MAX_CONNECTIONS_PER_USER={CONNECTIONS_PER_USER}`.\n")?;
        writeln!(f, "| what | each connection |\n| --- | ---: |")?;
        writeln!(
            f,
            "| user-space memory of the gateway (`RssAnon`), slope from {} to {} | {:.1} KiB |",
            IDLE[0],
            IDLE[1],
            bytes_per_connection / 1024.0
        )?;
        writeln!(
            f,
            "| processor time of the gateway, the same slope, heartbeats in it | {cpu_us_per_s_per_connection:.1} µs/s |\n"
        )?;
        writeln!(
            f,
            "The connections are authenticated, and their users are in no room. The kernel's own memory for a socket is not in it."
        )?;
        writeln!(
            f,
            "Asked for at present: ≤ {:.0} KiB. {}",
            ASKED_IDLE_BYTES / 1024.0,
            verdict(*bytes_per_connection <= ASKED_IDLE_BYTES)
        )
    }
}

fn row(f: &mut fmt::Formatter<'_>, run: &Sends) -> fmt::Result {
    let Sends { offered_per_s, achieved_per_s, deliveries_per_s, ack, delivery, violations, .. } = run;
    // A run with a violation has no throughput.
    if *violations > 0 {
        return writeln!(f, "| {offered_per_s:.0} | – | – | – | – | – | – | – | **{violations}** | – | – | – |");
    }
    let (lowest, highest) = run.p99_range;
    writeln!(
        f,
        "| {offered_per_s:.0} | {achieved_per_s:.0} | {deliveries_per_s:.0} | {:.1} | {:.1} | {:.1} ({lowest:.1}–{highest:.1}) | {:.1} | {:.1} | 0 | {:.0} % | {:.0} % | {} |",
        ack.p50,
        ack.p90,
        ack.p99,
        delivery.p50,
        delivery.p99,
        run.generator_cpu * 100.0,
        run.machine_cpu * 100.0,
        run.bottleneck
    )
}

fn verdict(reached: bool) -> &'static str {
    if reached { "Reached." } else { "Not reached." }
}
