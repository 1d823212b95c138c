//! The result of a run, for people and for programs.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
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
    /// Acknowledgements and deliveries that came while it was measured.
    pub(crate) achieved_per_s: f64,
    pub(crate) deliveries_per_s: f64,
    /// Of the measured sends, those that were acknowledged in the end.
    pub(crate) answered_share: f64,
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
    /// Connections that ended and came back.
    pub(crate) closed: u64,
    pub(crate) first_close: Option<String>,
    pub(crate) cpu: Shares,
}

impl Report {
    /// What kept the result from being better.
    pub(crate) fn bottleneck(&self) -> &'static str {
        let is_late = self.late.value_at_quantile(0.99) > LATE_US;
        let falls_behind = self.achieved_per_s < self.plan.rate as f64 * ACHIEVED || self.unanswered > 0;
        bottleneck(&self.cpu, is_late, falls_behind)
    }
}

/// Who was the limit: the generator, so that the run says little about the servers; the machine that all share; the servers; nobody.
pub(crate) fn bottleneck(cpu: &Shares, is_late: bool, falls_behind: bool) -> &'static str {
    if cpu.own > GENERATOR_BUSY {
        "generator"
    } else if cpu.machine > MACHINE_BUSY {
        "machine"
    } else if is_late {
        "generator"
    } else if falls_behind {
        "servers"
    } else {
        "none"
    }
}

/// The table. With a violation there is no throughput in it.
pub(crate) fn print(report: &Report) -> io::Result<()> {
    let out = &mut io::stdout().lock();
    let Report { plan, size, .. } = report;
    let cast = &plan.cast;
    writeln!(
        out,
        "{} rooms of {}, {} connections, {size} bytes, {} sends/s offered for {} s",
        cast.rooms,
        cast.members,
        cast.connections(),
        plan.rate,
        (plan.total - plan.warm) / plan.rate
    )?;
    print_violations(out, &report.violations)?;
    if !report.violations.any() {
        writeln!(out, "acknowledged    {:.0}/s", report.achieved_per_s)?;
        writeln!(out, "delivered       {:.0}/s", report.deliveries_per_s)?;
        print_latencies(
            out,
            &[("ack", &report.ack), ("delivery", &report.delivery), ("sent after plan", &report.late)],
        )?;
    }
    let Report { unanswered, refused, unsent, resyncs, closed, .. } = report;
    writeln!(
        out,
        "unanswered {unanswered}, refused {refused}, unsent {unsent}, resyncs {resyncs}, connections lost {closed}"
    )?;
    if let Some(refusal) = &report.first_refusal {
        writeln!(out, "the first refusal: {refusal}")?;
    }
    if let Some(close) = &report.first_close {
        writeln!(out, "the first connection was lost by: {close}")?;
    }
    print_cpu(out, &report.cpu, report.bottleneck())
}

/// What was checked, and what it means when it did not hold.
pub(crate) fn print_violations(out: &mut impl Write, violations: &Violations) -> io::Result<()> {
    let Violations { lost, duplicated, reordered, gaps } = violations;
    writeln!(out, "violations      lost {lost}, duplicated {duplicated}, reordered {reordered}, gaps {gaps}")?;
    if violations.any() {
        writeln!(out, "A run with a violation has no throughput.")?;
    }
    Ok(())
}

/// A row for each.
pub(crate) fn print_latencies(out: &mut impl Write, rows: &[(&str, &Histogram<u64>)]) -> io::Result<()> {
    writeln!(out, "ms                   p50      p90      p99      max")?;
    for (name, histogram) in rows {
        let [p50, p90, p99, max] = quantiles(histogram);
        writeln!(out, "{name:<15} {p50:>8.2} {p90:>8.2} {p99:>8.2} {max:>8.2}")?;
    }
    Ok(())
}

/// Who used the machine.
pub(crate) fn print_cpu(out: &mut impl Write, cpu: &Shares, bottleneck: &str) -> io::Result<()> {
    writeln!(
        out,
        "generator {:.0} % of one processor; machine {:.0} % of all, {:.1} % stolen; bottleneck: {bottleneck}",
        cpu.own * 100.0,
        cpu.machine * 100.0,
        cpu.stolen * 100.0,
    )?;
    if cpu.others.is_empty() {
        return Ok(());
    }
    let others: Vec<_> = cpu.others.iter().map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
    writeln!(out, "of one processor: {}", others.join(", "))
}

/// The same as one JSON object.
pub(crate) fn json(report: &Report) -> Value {
    // A run with a violation has no throughput.
    let throughput = |value: f64| if report.violations.any() { Value::Null } else { json!(rounded(value)) };
    let mut body = json!({
        "offered_per_s": report.plan.rate,
        "achieved_per_s": throughput(report.achieved_per_s),
        "deliveries_per_s": throughput(report.deliveries_per_s),
        "ack_ms": latencies(&report.ack),
        "delivery_ms": latencies(&report.delivery),
        "late_ms": latencies(&report.late),
        "violations": violations(&report.violations),
        "answered_share": rounded(report.answered_share),
        "unanswered": report.unanswered,
        "refused": report.refused,
        "unsent": report.unsent,
        "resyncs": report.resyncs,
        "connections_lost": report.closed,
        "connections": report.plan.cast.connections(),
    });
    add_cpu(&mut body, &report.cpu, report.bottleneck());
    body
}

/// The generator's share of one processor, the machine's of all, and who was the limit.
pub(crate) fn add_cpu(body: &mut Value, cpu: &Shares, bottleneck: &str) {
    body["generator_cpu"] = json!(rounded(cpu.own));
    body["machine_cpu"] = json!(rounded(cpu.machine));
    body["stolen_cpu"] = json!(rounded(cpu.stolen));
    body["bottleneck"] = json!(bottleneck);
    let others = cpu.others.iter().map(|(name, share)| (name.clone(), json!(rounded(*share))));
    body["cpu_by_process"] = Value::Object(others.collect());
}

/// Each kind of violation.
pub(crate) fn violations(violations: &Violations) -> Value {
    let Violations { lost, duplicated, reordered, gaps } = violations;
    json!({ "lost": lost, "duplicated": duplicated, "reordered": reordered, "gaps": gaps })
}

/// Writes a result for programs, when a file was named.
pub(crate) fn write(path: Option<&Path>, body: &Value) -> anyhow::Result<()> {
    if let Some(path) = path {
        std::fs::write(path, format!("{body:#}\n")).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// In milliseconds.
pub(crate) fn latencies(histogram: &Histogram<u64>) -> Value {
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

/// To three digits behind the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::{Report, bottleneck, json};
    use crate::check::Violations;
    use crate::cpu::Shares;
    use crate::plan::Cast;
    use crate::tally::histogram;

    fn report(violations: Violations) -> Report {
        Report {
            plan: Cast { rooms: 1, members: 2, users: 2, devices: 1 }.at(100, 1, 2),
            size: 64,
            achieved_per_s: 100.0,
            deliveries_per_s: 200.0,
            answered_share: 1.0,
            ack: histogram(),
            delivery: histogram(),
            late: histogram(),
            violations,
            unanswered: 0,
            refused: 0,
            first_refusal: None,
            unsent: 0,
            resyncs: 0,
            closed: 0,
            first_close: None,
            cpu: Shares::default(),
        }
    }

    #[test]
    fn a_run_with_a_violation_has_no_throughput() {
        let body = json(&report(Violations { lost: 1, ..Violations::default() }));
        assert!(body["achieved_per_s"].is_null() && body["deliveries_per_s"].is_null());
        assert_eq!(body["violations"]["lost"], 1);
        assert_eq!(json(&report(Violations::default()))["achieved_per_s"], 100.0);
    }

    #[test]
    fn a_busy_or_late_generator_says_so() {
        let busy = Shares { own: 0.9, machine: 1.0, ..Shares::default() };
        assert_eq!(bottleneck(&busy, false, true), "generator");
        assert_eq!(bottleneck(&Shares { own: 0.2, ..busy.clone() }, false, true), "machine");
        let free = Shares { machine: 0.5, own: 0.2, ..Shares::default() };
        assert_eq!(bottleneck(&free, true, true), "generator");
        assert_eq!(bottleneck(&free, false, true), "servers");
        assert_eq!(bottleneck(&free, false, false), "none");
    }
}
