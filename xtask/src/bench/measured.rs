//! Results of the load generator, read out of its JSON.
//!
//! This tool has no JSON library on purpose; the generator's files are ours, printed with one key a line and an indentation that
//! says how deep it is.

/// One result.
#[derive(Clone, Debug)]
pub(super) struct Measured(String);

impl Measured {
    pub(super) fn new(json: String) -> Self {
        Self(json)
    }

    /// A number by its key, or by the key of its object and its own: `ack_ms.p99`. Not a number when there is none.
    pub(super) fn number(&self, path: &str) -> f64 {
        self.value(path).and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
    }

    /// A text in the same way.
    pub(super) fn text(&self, path: &str) -> &str {
        self.value(path).map_or("", |value| value.trim_matches('"'))
    }

    /// Lost, doubled, out of order and holes together. What says nothing of them counts as one.
    pub(super) fn violations(&self) -> u64 {
        let kinds = ["lost", "duplicated", "reordered", "gaps"];
        let sum: f64 = kinds.iter().map(|kind| self.number(&format!("violations.{kind}"))).sum();
        if sum.is_nan() { 1 } else { sum as u64 }
    }

    /// The share of one processor of each kind of process.
    pub(super) fn share(&self, process: &str) -> f64 {
        if process == "generator" {
            return self.number("generator_cpu");
        }
        self.number(&format!("cpu_by_process.{process}"))
    }

    fn value(&self, path: &str) -> Option<&str> {
        match path.split_once('.') {
            None => value(&self.0, path, 1),
            Some((object, key)) => value(self.object(object)?, key, 2),
        }
    }

    /// The inside of an object.
    fn object(&self, key: &str) -> Option<&str> {
        let begin = self.0.find(&format!("\n  \"{key}\": {{\n"))? + 1;
        let rest = &self.0[begin..];
        let rest = &rest[rest.find('\n')?..];
        Some(&rest[..rest.find("\n  }")?])
    }
}

/// What stands behind a key at this depth, up to the end of its line.
fn value<'a>(json: &'a str, key: &str, depth: usize) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\n{}\"{key}\": ", "  ".repeat(depth)))?;
    Some(rest.lines().next()?.trim_end_matches(','))
}

/// Of several runs the one in the middle by this figure; one with a violation stands before all others.
pub(super) fn median(mut runs: Vec<Measured>, figure: &str) -> Option<Measured> {
    if let Some(wrong) = runs.iter().position(|run| run.violations() > 0) {
        return Some(runs.swap_remove(wrong));
    }
    runs.sort_by(|one, other| one.number(figure).total_cmp(&other.number(figure)));
    let middle = runs.len() / 2;
    (!runs.is_empty()).then(|| runs.swap_remove(middle))
}

/// Lowest and highest of a figure.
pub(super) fn range(runs: &[Measured], figure: &str) -> (f64, f64) {
    let values = runs.iter().map(|run| run.number(figure));
    (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max))
}

#[cfg(test)]
mod tests {
    use super::{Measured, median, range};

    const JSON: &str = r#"{
  "ack_ms": {
    "max": 40.5,
    "p50": 1.5,
    "p99": 9.25
  },
  "bottleneck": "none",
  "cpu_by_process": {
    "chat-service": 0.5
  },
  "deliveries_per_s": null,
  "generator_cpu": 0.1,
  "offered_per_s": 1000,
  "steps": [
    {
      "offered_per_s": 1,
      "violations": {
        "lost": 9
      }
    }
  ],
  "violations": {
    "duplicated": 0,
    "gaps": 2,
    "lost": 3,
    "reordered": 0
  }
}
"#;

    #[test]
    fn every_figure_is_found_at_its_own_depth() {
        let measured = Measured::new(JSON.to_owned());
        assert!((measured.number("ack_ms.p99") - 9.25).abs() < 1e-9);
        assert!((measured.number("offered_per_s") - 1_000.0).abs() < 1e-9);
        assert_eq!((measured.violations(), measured.text("bottleneck")), (5, "none"));
        assert!((measured.share("chat-service") - 0.5).abs() < 1e-9);
        assert!((measured.share("generator") - 0.1).abs() < 1e-9);
        assert!(measured.number("deliveries_per_s").is_nan() && measured.number("ack_ms.p95").is_nan());
        assert_eq!(Measured::new("{}".into()).violations(), 1);
    }

    #[test]
    fn the_middle_run_is_shown_and_a_wrong_one_before_all() {
        let run = |figure: u32, lost: u32| {
            let zero = "\"duplicated\": 0,\n    \"gaps\": 0,\n    \"reordered\": 0";
            Measured::new(format!(
                "{{\n  \"x\": {figure},\n  \"violations\": {{\n    \"lost\": {lost},\n    {zero}\n  }}\n}}"
            ))
        };
        let runs = vec![run(3, 0), run(1, 0), run(2, 0)];
        assert_eq!(range(&runs, "x"), (1.0, 3.0));
        assert!((median(runs, "x").unwrap().number("x") - 2.0).abs() < 1e-9);
        assert_eq!(median(vec![run(3, 0), run(9, 1)], "x").unwrap().violations(), 1);
        assert!(median(vec![], "x").is_none());
    }
}
