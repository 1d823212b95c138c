//! The knee: the highest rate that is held. The rate grows until one is not held, then the gap is halved, then the best
//! one has to be held once more.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::pairs::Pairs;
use crate::report::{self, Report};
use crate::sends::{Groups, Stage, Time};
use crate::{check::Violations, progress};

/// The factor from one rate to the next while it grows.
const GROWTH: f64 = 1.5;
/// Halving ends when the gap is below this share of the rate.
const NEAR: f64 = 0.05;
/// Of the offered sends, those that have to be acknowledged.
const ACHIEVED: f64 = 0.999;
/// The rate goes down by this factor when its repetition is not held.
const BACK: f64 = 0.95;
/// More runs than this say no more.
const MOST_RUNS: usize = 24;

#[derive(Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    load: Which,
}

#[derive(Subcommand)]
enum Which {
    /// Of persisted sends into groups
    Sends {
        #[command(flatten)]
        groups: Groups,
        #[command(flatten)]
        sweep: Sweep,
    },
    /// Of sends one to one
    Pairs {
        #[command(flatten)]
        pairs: Pairs,
        #[command(flatten)]
        sweep: Sweep,
    },
}

#[derive(Args, Clone, Debug)]
#[group(skip)]
struct Sweep {
    /// What the ack p99 may be
    #[arg(long, default_value_t = 50.0)]
    slo_ms: f64,
    /// The first rate
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    from: u64,
    /// No rate above this
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    to: u64,
    #[command(flatten)]
    time: Time,
    /// Also writes the result here
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What to run next, decided by what was held.
#[derive(Clone, Copy, Debug)]
struct Search {
    to: u64,
    next: u64,
    /// The highest rate held, and the lowest that was not.
    held: Option<u64>,
    failed: Option<u64>,
    is_confirming: bool,
}

/// Where a search has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Run(u64),
    /// This rate, if any, was held twice.
    Found(Option<u64>),
}

impl Search {
    fn new(from: u64, to: u64) -> Self {
        Self { to, next: from.min(to), held: None, failed: None, is_confirming: false }
    }

    /// The rate that was run last was held, or was not.
    fn tell(&mut self, is_held: bool) -> Step {
        let rate = self.next;
        if self.is_confirming {
            if is_held {
                return Step::Found(Some(rate));
            }
            return self.run((rate as f64 * BACK) as u64);
        }
        if is_held {
            self.held = Some(rate)
        } else {
            self.failed = Some(rate)
        }
        match (self.held, self.failed) {
            (Some(held), None) if held == self.to => self.confirm(held),
            (Some(held), None) => self.run(((held as f64 * GROWTH) as u64).max(held + 1)),
            (None, Some(failed)) => self.run(failed / 2),
            (Some(held), Some(failed)) => {
                let middle = held.midpoint(failed);
                let is_near = (failed - held) as f64 <= failed as f64 * NEAR;
                if is_near || middle == held { self.confirm(held) } else { self.run(middle) }
            }
            (None, None) => Step::Found(None),
        }
    }

    fn confirm(&mut self, rate: u64) -> Step {
        self.is_confirming = true;
        self.run(rate)
    }

    fn run(&mut self, rate: u64) -> Step {
        self.next = rate.min(self.to);
        if self.next == 0 { Step::Found(None) } else { Step::Run(self.next) }
    }
}

/// Runs it; whether a knee was found without a violation.
pub(crate) fn run(options: Options) -> anyhow::Result<bool> {
    let (mut stage, sweep) = match options.load {
        Which::Sends { groups, sweep } => (groups.stage()?, sweep),
        Which::Pairs { pairs, sweep } => (pairs.stage()?, sweep),
    };
    let outcome = search(&mut stage, &sweep);
    stage.scene.clear();
    let (found, steps) = outcome?;
    let out = &mut io::stdout().lock();
    writeln!(out, "offered/s  achieved/s   ack p99 ms   held")?;
    for step in &steps {
        let (p99, is_held) = (step.ack.value_at_quantile(0.99) as f64 / 1_000.0, is_held(step, sweep.slo_ms));
        writeln!(out, "{:>9} {:>11.0} {p99:>12.2}   {is_held}", step.plan.rate, step.achieved_per_s)?;
    }
    let violations = steps.iter().fold(Violations::default(), |all, step| all.and(step.violations));
    let rows: Vec<_> = steps.iter().map(report::json).collect();
    let mut body = found.as_ref().map_or_else(|| json!({}), |index| rows[*index].clone());
    body["knee_per_s"] = found.map_or(Value::Null, |index| json!(steps[index].plan.rate));
    body["slo_ms"] = json!(sweep.slo_ms);
    body["violations"] = report::violations(&violations);
    body["steps"] = json!(rows);
    report::write(sweep.json.as_deref(), &body)?;
    if violations.any() {
        report::print_violations(out, &violations)?;
        return Ok(false);
    }
    match found {
        Some(index) => {
            writeln!(out, "knee: {}/s with ack p99 ≤ {} ms, held twice\n", steps[index].plan.rate, sweep.slo_ms)?;
            report::print(&steps[index])?;
        }
        None => writeln!(out, "No rate was held with ack p99 ≤ {} ms.", sweep.slo_ms)?,
    }
    Ok(found.is_some())
}

/// All runs, and which of them is the knee. A violation ends it: there is no throughput then.
fn search(stage: &mut Stage, sweep: &Sweep) -> anyhow::Result<(Option<usize>, Vec<Report>)> {
    let mut search = Search::new(sweep.from, sweep.to);
    let mut steps = vec![];
    let mut step = Step::Run(search.next);
    while let Step::Run(rate) = step {
        if steps.len() == MOST_RUNS {
            return Ok((None, steps));
        }
        progress(format_args!("run {}: {rate} sends/s", steps.len() + 1));
        let report = stage.run(rate, sweep.time)?;
        let (is_held, is_wrong) = (is_held(&report, sweep.slo_ms), report.violations.any());
        let p99 = report.ack.value_at_quantile(0.99) as f64 / 1_000.0;
        progress(format_args!("{rate} sends/s: ack p99 {p99:.1} ms, {}", if is_held { "held" } else { "not held" }));
        steps.push(report);
        if is_wrong {
            return Ok((None, steps));
        }
        step = search.tell(is_held);
    }
    let is_found = matches!(step, Step::Found(Some(_)));
    Ok((is_found.then(|| steps.len() - 1), steps))
}

fn is_held(report: &Report, slo_ms: f64) -> bool {
    let p99_ms = report.ack.value_at_quantile(0.99) as f64 / 1_000.0;
    !report.violations.any() && p99_ms <= slo_ms && report.answered_share >= ACHIEVED
}

#[cfg(test)]
mod tests {
    use super::{Search, Step};

    /// What a search finds when everything up to `limit` is held, and how many runs it takes.
    fn found(from: u64, to: u64, limit: u64) -> (Option<u64>, usize) {
        let (mut search, mut runs) = (Search::new(from, to), 0);
        let mut step = Step::Run(search.next);
        while let Step::Run(rate) = step {
            runs += 1;
            step = search.tell(rate <= limit);
        }
        let Step::Found(found) = step else { unreachable!("the loop has ended") };
        (found, runs)
    }

    #[test]
    fn the_knee_is_found_from_below_and_from_above() {
        for (from, limit) in [(1_000, 12_300), (50_000, 12_300), (1, 7), (1_000, 1_000)] {
            let (knee, runs) = found(from, 100_000, limit);
            let knee = knee.unwrap();
            assert!(knee <= limit && knee as f64 >= limit as f64 * 0.9 - 1.0, "{knee} of {limit}");
            assert!(runs <= 16, "{runs} runs");
        }
    }

    #[test]
    fn a_bound_is_a_knee_and_nothing_held_is_none() {
        assert_eq!(found(1_000, 5_000, 9_000).0, Some(5_000));
        assert_eq!(found(1_000, 5_000, 0).0, None);
    }

    #[test]
    fn what_is_not_held_again_is_not_the_knee() {
        let mut search = Search::new(1_000, 1_000);
        assert_eq!(search.tell(true), Step::Run(1_000));
        assert_eq!(search.tell(false), Step::Run(950));
        assert_eq!(search.tell(true), Step::Found(Some(950)));
    }
}
