//! Results of the load generator, read out of its JSON.
//!
//! This tool has no JSON library on purpose; the generator's files are ours, flat, and one key a line.

/// One latency, in milliseconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Latency {
    pub(super) p50: f64,
    pub(super) p90: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// A run of `loadtest sends`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sends {
    pub(super) offered_per_s: f64,
    pub(super) achieved_per_s: f64,
    pub(super) deliveries_per_s: f64,
    pub(super) ack: Latency,
    pub(super) delivery: Latency,
    /// Lost, doubled, out of order and holes together.
    pub(super) violations: u64,
    pub(super) connections: f64,
    pub(super) generator_cpu: f64,
    pub(super) machine_cpu: f64,
    pub(super) bottleneck: String,
    /// Lowest and highest ack p99 of the runs that this one is the median of.
    pub(super) p99_range: (f64, f64),
}

/// A run of `loadtest idle`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Idle {
    pub(super) bytes_per_connection: f64,
    pub(super) cpu_us_per_s_per_connection: f64,
}

impl Sends {
    pub(super) fn read(json: &str) -> Option<Self> {
        let violations = object(json, "violations")?;
        let kinds = ["lost", "duplicated", "reordered", "gaps"].map(|kind| number(violations, kind));
        Some(Self {
            offered_per_s: number(json, "offered_per_s")?,
            achieved_per_s: number(json, "achieved_per_s")?,
            deliveries_per_s: number(json, "deliveries_per_s")?,
            ack: Latency::read(object(json, "ack_ms")?)?,
            delivery: Latency::read(object(json, "delivery_ms")?)?,
            violations: kinds.into_iter().sum::<Option<f64>>()? as u64,
            connections: number(json, "connections")?,
            generator_cpu: number(json, "generator_cpu")?,
            machine_cpu: number(json, "machine_cpu")?,
            bottleneck: value(json, "bottleneck")?.trim_matches('"').to_owned(),
            p99_range: (0.0, 0.0),
        })
    }
}

impl Idle {
    pub(super) fn read(json: &str) -> Option<Self> {
        Some(Self {
            bytes_per_connection: number(json, "bytes_per_connection")?,
            cpu_us_per_s_per_connection: number(json, "cpu_us_per_s_per_connection")?,
        })
    }
}

impl Latency {
    fn read(json: &str) -> Option<Self> {
        let [p50, p90, p99, max] = ["p50", "p90", "p99", "max"].map(|key| number(json, key));
        Some(Self { p50: p50?, p90: p90?, p99: p99?, max: max? })
    }
}

/// Lowest and highest ack p99.
pub(super) fn range(runs: &[Sends]) -> (f64, f64) {
    let p99s = runs.iter().map(|run| run.ack.p99);
    (p99s.clone().fold(f64::INFINITY, f64::min), p99s.fold(0.0, f64::max))
}

/// What stands behind a key, up to the end of its line.
fn value<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\": "))?;
    Some(rest.lines().next()?.trim_end_matches(','))
}

fn number(json: &str, key: &str) -> Option<f64> {
    value(json, key)?.parse().ok()
}

/// The inside of an object that holds no other one.
fn object<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(&format!("\"{key}\": {{"))?;
    Some(rest.split_once('}')?.0)
}

#[cfg(test)]
mod tests {
    use super::{Idle, Latency, Sends, range};

    const JSON: &str = r#"{
  "ack_ms": {
    "max": 40.5,
    "p50": 1.5,
    "p90": 2.0,
    "p99": 9.25
  },
  "achieved_per_s": 999.5,
  "bottleneck": "none",
  "connections": 250,
  "deliveries_per_s": 9995.0,
  "delivery_ms": {
    "max": 4.0,
    "p50": 1.0,
    "p90": 2.0,
    "p99": 3.0
  },
  "generator_cpu": 0.1,
  "machine_cpu": 0.5,
  "offered_per_s": 1000,
  "violations": {
    "duplicated": 0,
    "gaps": 2,
    "lost": 3,
    "reordered": 0
  }
}"#;

    #[test]
    fn every_figure_is_found_in_its_object() {
        let sends = Sends::read(JSON).unwrap();
        assert_eq!(sends.ack, Latency { p50: 1.5, p90: 2.0, p99: 9.25, max: 40.5 });
        assert_eq!(sends.delivery.p99, 3.0);
        assert_eq!((sends.violations, sends.bottleneck.as_str()), (5, "none"));
        assert_eq!((sends.offered_per_s, sends.connections), (1_000.0, 250.0));
        assert_eq!(Sends::read("{}"), None);
        assert_eq!(
            range(&[sends.clone(), Sends { ack: Latency { p99: 5.0, ..sends.ack.clone() }, ..sends }]),
            (5.0, 9.25)
        );
    }

    #[test]
    fn an_idle_connection_may_cost_less_than_nothing() {
        let idle =
            Idle::read("{\n  \"bytes_per_connection\": -12.0,\n  \"cpu_us_per_s_per_connection\": 1.5\n}").unwrap();
        assert_eq!((idle.bytes_per_connection, idle.cpu_us_per_s_per_connection), (-12.0, 1.5));
    }
}
