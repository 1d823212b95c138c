//! The result of a run, for people and for programs.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::check::Violations;
use crate::cpu::Shares;
use crate::plan::Plan;

/// Above this share of its one processor the generator no longer keeps its plan.
const GENERATOR_BUSY: f64 = 0.7;
/// Later than this after the plan, a send is the generator's fault or the machine's.
const LATE_US: u64 = 10_000;
/// With less of all processors left, the machine itself is the limit.
const MACHINE_BUSY: f64 = 0.95;
/// Below this share of what was offered the servers did not keep up.
const ACHIEVED: f64 = 0.99;

/// Everything measured in one run.
pub(crate) struct Report {
    pub(crate) plan: Plan,
    pub(crate) size: usize,
    pub(crate) achieved_per_s: f64,
    pub(crate) deliveries_per_s: f64,
    pub(crate) ack: Histogram<u64>,
    pub(crate) delivery: Histogram<u64>,
    /// From the plan to the write: the generator's own delay, which is part of both latencies.
    pub(crate) late: Histogram<u64>,
    pub(crate) violations: Violations,
    pub(crate) unanswered: u64,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    /// Sends that a connection did not take any more.
    pub(crate) unsent: u64,
    pub(crate) resyncs: u64,
    pub(crate) cpu: Shares,
}

impl Report {
    /// What kept the result from being better.
    fn bottleneck(&self) -> &'static str {
        if self.cpu.own > GENERATOR_BUSY {
            "generator"
        } else if self.cpu.machine > MACHINE_BUSY {
            "machine"
        } else if self.late.value_at_quantile(0.99) > LATE_US {
            "generator"
        } else if self.achieved_per_s < self.plan.rate as f64 * ACHIEVED || self.unanswered > 0 {
            "servers"
        } else {
            "none"
        }
    }
}

/// The table. With a violation there is no throughput in it.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    let out = &mut io::stdout().lock();
    let plan = &report.plan;
    writeln!(
        out,
        "{} rooms of {}, {} connections, {} bytes, {} sends/s offered for {} s",
        plan.rooms,
        plan.members,
        plan.users,
        report.size,
        plan.rate,
        (plan.total - plan.warm) / plan.rate
    )?;
    let Violations { lost, duplicated, reordered, gaps } = report.violations;
    writeln!(out, "violations      lost {lost}, duplicated {duplicated}, reordered {reordered}, gaps {gaps}")?;
    if report.violations.any() {
        writeln!(out, "A run with a violation has no throughput.")?;
    } else {
        writeln!(out, "acknowledged    {:.0}/s", report.achieved_per_s)?;
        writeln!(out, "delivered       {:.0}/s", report.deliveries_per_s)?;
        writeln!(out, "ms                   p50      p90      p99      max")?;
        for (name, histogram) in
            [("ack", &report.ack), ("delivery", &report.delivery), ("sent after plan", &report.late)]
        {
            let [p50, p90, p99, max] = quantiles(histogram);
            writeln!(out, "{name:<15} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}")?;
        }
    }
    let Report { unanswered, refused, unsent, resyncs, .. } = report;
    writeln!(out, "unanswered {unanswered}, refused {refused}, unsent {unsent}, resyncs {resyncs}")?;
    if let Some(refusal) = &report.first_refusal {
        writeln!(out, "the first refusal: {refusal}")?;
    }
    let cpu = &report.cpu;
    writeln!(
        out,
        "generator {:.0} % of one processor; machine {:.0} % of all, {:.1} % stolen; bottleneck: {}",
        cpu.own * 100.0,
        cpu.machine * 100.0,
        cpu.stolen * 100.0,
        report.bottleneck()
    )
}

/// The same as one JSON object.
pub(crate) fn json(report: &Report) -> String {
    let Violations { lost, duplicated, reordered, gaps } = report.violations;
    let body = json!({
        "offered_per_s": report.plan.rate,
        "achieved_per_s": rounded(report.achieved_per_s),
        "deliveries_per_s": rounded(report.deliveries_per_s),
        "ack_ms": latencies(&report.ack),
        "delivery_ms": latencies(&report.delivery),
        "late_ms": latencies(&report.late),
        "violations": { "lost": lost, "duplicated": duplicated, "reordered": reordered, "gaps": gaps },
        "unanswered": report.unanswered,
        "refused": report.refused,
        "unsent": report.unsent,
        "resyncs": report.resyncs,
        "generator_cpu": rounded(report.cpu.own),
        "machine_cpu": rounded(report.cpu.machine),
        "stolen_cpu": rounded(report.cpu.stolen),
        "connections": report.plan.users,
        "bottleneck": report.bottleneck(),
    });
    format!("{body:#}\n")
}

fn latencies(histogram: &Histogram<u64>) -> Value {
    let [p50, p90, p99, max] = quantiles(histogram);
    json!({ "p50": p50, "p90": p90, "p99": p99, "max": max })
}

/// p50, p90, p99 and the longest, in milliseconds.
fn quantiles(histogram: &Histogram<u64>) -> [f64; 4] {
    let longest = histogram.max();
    [0.5, 0.9, 0.99]
        .map(|quantile| histogram.value_at_quantile(quantile))
        .into_iter()
        .chain([longest])
        .map(|us| us as f64 / 1_000.0)
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or_default()
}

fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
