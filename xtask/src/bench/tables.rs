//! How runs are shown: a line for each, and who used the processors.

use super::measured::Measured;

/// Whose share is shown, by column.
const PROCESSES: [(&str, &str); 7] = [
    ("generator", "generator"),
    ("gateway", "gateways"),
    ("chat-service", "chat"),
    ("presence-service", "presence"),
    ("PostgreSQL", "PostgreSQL"),
    ("RabbitMQ", "RabbitMQ"),
    ("Redis", "Redis"),
];

/// The head of a table of open-loop runs.
pub(super) fn head() -> String {
    let names: Vec<_> = PROCESSES.iter().map(|(_, column)| *column).collect();
    format!(
        "| offered/s | acknowledged/s | delivered/s | ack p50 | p90 | p99 (runs) | delivery p50 | p99 | violations | limited by | {} |\n\
         |{} --- |{}\n",
        names.join(" | "),
        " ---: |".repeat(9),
        " ---: |".repeat(PROCESSES.len())
    )
}

/// One run, which stands for several whose p99 spread so far.
pub(super) fn row(run: &Measured, (lowest, highest): (f64, f64)) -> String {
    let offered = run.number("offered_per_s");
    // A run with a violation has no throughput.
    if run.violations() > 0 {
        let empty = " – |".repeat(PROCESSES.len() + 1);
        return format!("| {offered:.0} | – | – | – | – | – | – | – | **{}** |{empty}\n", run.violations());
    }
    let shares: Vec<_> = PROCESSES.iter().map(|(name, _)| percent(run.share(name))).collect();
    format!(
        "| {offered:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} ({lowest:.1}–{highest:.1}) | {:.1} | {:.1} | 0 | {} | {} |\n",
        run.number("achieved_per_s"),
        run.number("deliveries_per_s"),
        run.number("ack_ms.p50"),
        run.number("ack_ms.p90"),
        run.number("ack_ms.p99"),
        run.number("delivery_ms.p50"),
        run.number("delivery_ms.p99"),
        run.text("bottleneck"),
        shares.join(" | ")
    )
}

/// What the generator found to be the limit, and who used the processors.
pub(super) fn busiest(run: &Measured) -> String {
    format!(
        "{} ({:.0} % of the machine busy; of one processor: {})",
        run.text("bottleneck"),
        run.number("machine_cpu") * 100.0,
        shares(run)
    )
}

/// The shares of all, the largest first.
pub(super) fn shares(run: &Measured) -> String {
    let mut shares: Vec<_> = PROCESSES.iter().map(|(name, column)| (run.share(name), *column)).collect();
    shares.retain(|(share, _)| !share.is_nan());
    shares.sort_by(|one, other| other.0.total_cmp(&one.0));
    let shown: Vec<_> = shares.iter().map(|(share, name)| format!("{name} {}", percent(*share))).collect();
    shown.join(", ")
}

fn percent(share: f64) -> String {
    if share.is_nan() { "–".to_owned() } else { format!("{:.0} %", share * 100.0) }
}

#[cfg(test)]
mod tests {
    use super::{busiest, head, row};
    use crate::bench::measured::Measured;

    fn run(lost: u32) -> Measured {
        Measured::new(format!(
            "{{\n  \"bottleneck\": \"machine\",\n  \"cpu_by_process\": {{\n    \"PostgreSQL\": 0.2,\n    \"gateway\": 0.45\n  }},\n  \
             \"generator_cpu\": 0.1,\n  \"machine_cpu\": 0.9,\n  \"offered_per_s\": 5,\n  \"violations\": {{\n    \"duplicated\": 0,\n    \
             \"gaps\": 0,\n    \"lost\": {lost},\n    \"reordered\": 0\n  }}\n}}"
        ))
    }

    #[test]
    fn a_row_has_the_columns_of_its_head() {
        let columns = |line: &str| line.trim().matches('|').count();
        let head = head();
        let lines: Vec<_> = head.lines().collect();
        for line in [lines[1], &row(&run(0), (1.0, 2.0)), &row(&run(3), (1.0, 2.0))] {
            assert_eq!(columns(line), columns(lines[0]), "{line}");
        }
        assert!(row(&run(3), (1.0, 2.0)).contains("**3**"));
    }

    #[test]
    fn who_used_most_stands_first() {
        assert_eq!(
            busiest(&run(0)),
            "machine (90 % of the machine busy; of one processor: gateways 45 %, PostgreSQL 20 %, generator 10 %)"
        );
    }
}
