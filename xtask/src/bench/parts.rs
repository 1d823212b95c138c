//! The parts of the bench: which loads each runs, and what it says about them.

mod gateways;
mod rates;

use clap::ValueEnum;

use super::Bench;
use super::measured::Measured;
use super::page::{Section, Target};
use super::scale::Scale;
use super::tables::busiest;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    Sends,
    Knee,
    Pairs,
    Fanout,
    Reads,
    Idle,
    Storm,
}

impl Bench<'_> {
    /// Runs a part to its end.
    pub(super) async fn part(&mut self, part: Part) -> anyhow::Result<Section> {
        match part {
            Part::Sends => self.sends().await,
            Part::Knee => self.knee().await,
            Part::Pairs => self.pairs().await,
            Part::Fanout => self.fanout().await,
            Part::Reads => self.reads().await,
            Part::Idle => self.idle().await,
            Part::Storm => self.storm().await,
        }
    }

    async fn fanout(&mut self) -> anyhow::Result<Section> {
        let (members, turns) = (self.scale.fanout_members, self.repeat);
        let seconds = self.scale.seconds.min(30) * u16::from(turns);
        let more =
            [("--members", members.to_string()), ("--seconds", seconds.to_string()), ("--turns", turns.to_string())];
        let run = self.once("fanout", 1, &more, 1).await?;
        let (rate, bare) = (run.number("deliveries_per_s"), run.number("bare_deliveries_per_s"));
        let of_bare = run.number("of_bare");
        let text = format!(
            "`loadtest fanout --url <gateway 1> --members {members} --seconds {seconds} --turns {turns}`\n\n\
             One room of {members} members, all online at one gateway, as fast as it goes with {:.0} messages of {:.0} bytes under\n\
             way. In turn with it, a bare broadcast of as long frames through the same WebSocket library to as many sockets of the\n\
             same client code. Medians of {turns} turns.\n\n\
             | | deliveries/s | generator | machine |\n| --- | ---: | ---: | ---: |\n\
             | Parlance | {rate:.0} | {:.0} % | {:.0} % |\n| bare broadcast | {bare:.0} | {:.0} % | |\n\n\
             {of_bare:.2} of the bare broadcast; {:.0} persisted sends/s; ack p99 {:.1} ms, delivery p99 {:.1} ms in that window;\n\
             violations: {}. Limited by: {}.\n",
            run.number("window"),
            run.number("frame_bytes"),
            run.share("generator") * 100.0,
            run.number("machine_cpu") * 100.0,
            run.number("bare_generator_cpu") * 100.0,
            run.number("achieved_per_s"),
            run.number("ack_ms.p99"),
            run.number("delivery_ms.p99"),
            run.violations(),
            busiest(&run)
        );
        let is_right = run.violations() == 0;
        let target = Target {
            what: "deliveries in a room of 1,000",
            asked: "600,000/s and ≥ 0.6 of the bare broadcast",
            goal: "1,000,000/s and ≥ 0.8",
            measured: format!("{rate:.0}/s and {of_bare:.2} of {bare:.0}/s"),
            is_reached: is_right && rate >= 600_000.0 && of_bare >= 0.6,
            is_goal_reached: is_right && rate >= 1_000_000.0 && of_bare >= 0.8,
        };
        Ok(Section { name: "fanout", text, targets: vec![target] })
    }

    async fn reads(&mut self) -> anyhow::Result<Section> {
        let Scale { read_messages, read_rooms, .. } = *self.scale;
        let more = [
            ("--messages", read_messages.to_string()),
            ("--rooms", read_rooms.to_string()),
            ("--postgres", self.cluster().await?.ready.postgres.clone()),
        ];
        let run = self.once("reads", 1, &more, 1).await?;
        let (history, sync) = (run.number("history_ms.p99"), run.number("sync_ms.p99"));
        let text = format!(
            "`loadtest reads --url <gateway 1> --messages {read_messages} --rooms {read_rooms} --postgres <database>`\n\n\
             Pages of 50 at random places of a room of {read_messages} messages, and `POST /v1/sync` of a user in {read_rooms} rooms, of\n\
             which 20 have 5 messages to come. Closed loop of two readers: latencies of the calls, not of a load. `--postgres`\n\
             writes the long room's messages into the database of a quiet cluster, instead of sending them first.\n\n\
             | | p50 | p90 | p99 | max | calls/s |\n| --- | ---: | ---: | ---: | ---: | ---: |\n{}{}\n\
             Limited by: {}.\n",
            reading(&run, "history"),
            reading(&run, "sync"),
            busiest(&run)
        );
        let is_right = run.violations() == 0;
        let is_reached = is_right && history <= 5.0 && sync <= 15.0;
        let target = Target {
            what: "history page of 50 out of 1,000,000 messages; `sync` of a user with 500 rooms",
            asked: "p99 ≤ 5 ms; ≤ 15 ms",
            goal: "",
            measured: format!("{history:.1} ms; {sync:.1} ms"),
            is_reached,
            is_goal_reached: false,
        };
        Ok(Section { name: "reads", text, targets: vec![target] })
    }
}

/// A line of the table of reads.
fn reading(run: &Measured, what: &str) -> String {
    let figure = |key: &str| run.number(&format!("{what}_ms.{key}"));
    let name = if what == "history" { "history page of 50" } else { "sync" };
    format!(
        "| {name} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} |\n",
        figure("p50"),
        figure("p90"),
        figure("p99"),
        figure("max"),
        run.number(&format!("{what}_per_s"))
    )
}
