//! The open loops: sends at growing rates, the knee, and one to one.

use crate::bench::Bench;
use crate::bench::measured::{Measured, median, range};
use crate::bench::page::{Section, Target};
use crate::bench::scale::Scale;
use crate::bench::tables::{busiest, head, row};

/// The ack p99 that a rate of sends has to hold.
const SLO_MS: f64 = 50.0;

impl Bench<'_> {
    pub(super) async fn sends(&mut self) -> anyhow::Result<Section> {
        let Scale { rates, seconds, .. } = self.scale;
        let mut text = format!(
            "`loadtest sends --url <gateway 1> --url <gateway 2> --rooms 100 --members 10 --rate <offered> --seconds {seconds}`\n\n\
             Rooms of 10 members, all online, spread over both gateways; texts of 128 bytes. Open loop: every send has a planned\n\
             instant, and every latency counts from it. An acknowledgement means committed.\n\n{}",
            head()
        );
        let (mut held, mut p99_at_12k) = (0.0, f64::NAN);
        let mut is_held = true;
        for rate in *rates {
            let more = [("--rate", rate.to_string()), ("--seconds", seconds.to_string())];
            let runs = self.several("sends", 2, &more, rate).await?;
            let spread = range(&runs, "ack_ms.p99");
            let Some(run) = median(runs, "ack_ms.p99") else { continue };
            text.push_str(&row(&run, spread));
            let p99 = run.number("ack_ms.p99");
            is_held &= run.violations() == 0 && p99 <= SLO_MS;
            if is_held {
                held = run.number("offered_per_s");
            }
            if *rate == 12_000 && run.violations() == 0 {
                p99_at_12k = p99;
            }
            if run.violations() > 0 || p99 > 20.0 * SLO_MS {
                break;
            }
        }
        text.push_str(&format!(
            "\nLatencies in ms; shares of one processor, while it was measured. Every rate up to **{held:.0}/s** was held with ack\n\
             p99 ≤ {SLO_MS} ms and no violation.\n"
        ));
        let target = Target {
            what: "persisted sends, rooms of 10 over two gateways",
            asked: "12,000/s at ack p99 ≤ 50 ms",
            goal: "20,000/s",
            measured: match p99_at_12k.is_nan() {
                true => format!("{held:.0}/s held"),
                false => format!("{held:.0}/s held; 12,000/s at {p99_at_12k:.1} ms"),
            },
            is_reached: held >= 12_000.0,
            is_goal_reached: held >= 20_000.0,
        };
        Ok(Section { name: "sends", text, targets: vec![target] })
    }

    pub(super) async fn knee(&mut self) -> anyhow::Result<Section> {
        let run = self.find_knee("knee sends").await?;
        let text = format!(
            "`loadtest knee sends --url <gateway 1> --url <gateway 2> --slo-ms {SLO_MS} --from {} --to {} --seconds {}`\n\n\
             The highest rate that holds ack p99 ≤ {SLO_MS} ms with 99.9 % acknowledged and no violation, held twice:\n\
             **{:.0}/s** with ack p99 {:.1} ms and {:.0} deliveries/s. Limited by: {}.\n",
            self.scale.knee.0,
            self.scale.knee.1,
            self.scale.seconds,
            run.number("knee_per_s"),
            run.number("ack_ms.p99"),
            run.number("deliveries_per_s"),
            busiest(&run)
        );
        Ok(Section { name: "knee", text, targets: vec![] })
    }

    async fn find_knee(&mut self, command: &str) -> anyhow::Result<Measured> {
        let Scale { knee, seconds, .. } = self.scale;
        let more = [
            ("--slo-ms", SLO_MS.to_string()),
            ("--from", knee.0.to_string()),
            ("--to", knee.1.to_string()),
            ("--seconds", seconds.to_string()),
        ];
        self.once(command, 2, &more, 1).await
    }

    pub(super) async fn pairs(&mut self) -> anyhow::Result<Section> {
        let knee = self.find_knee("knee pairs").await?.number("knee_per_s");
        let rate = if knee.is_nan() { 1 } else { (knee / 5.0) as u32 };
        let more = [("--rate", rate.to_string()), ("--seconds", self.scale.seconds.to_string())];
        let runs = self.several("pairs", 2, &more, &rate).await?;
        let spread = range(&runs, "ack_ms.p99");
        let run = median(runs, "ack_ms.p99").unwrap_or_else(|| Measured::new(String::new()));
        let (ack, delivery) = (run.number("ack_ms.p99"), run.number("delivery_ms.p99"));
        let text = format!(
            "`loadtest pairs --url <gateway 1> --url <gateway 2> --pairs 100 --rate {rate} --seconds {}`\n\n\
             Direct rooms, the two of each on different gateways, at 20 % of their knee of {knee:.0}/s\n\
             (`loadtest knee pairs --slo-ms {SLO_MS}`). Deliveries are timed at the other side.\n\n{}{}",
            self.scale.seconds,
            head(),
            row(&run, spread)
        );
        let is_right = run.violations() == 0;
        let target = Target {
            what: "1:1 between gateways at 20 % of the knee",
            asked: "ack p99 ≤ 8 ms",
            goal: "≤ 6 ms",
            measured: format!("{rate}/s: ack p99 {ack:.1} ms, delivery p99 {delivery:.1} ms"),
            is_reached: is_right && ack <= 8.0,
            is_goal_reached: is_right && ack <= 6.0,
        };
        Ok(Section { name: "pairs", text, targets: vec![target] })
    }
}
