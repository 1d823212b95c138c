//! What operators ask on the command line: `admin dead-letters list|replay`.
//!
//! It works on the database, and on the broker when there is one, beside the running service, which takes what was made due.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, SecondsFormat};
use serde_json::json;
use service_kit::{
    bus::{Bus, Depth},
    db::Db,
    env::{Invalid, Settings},
    id::RoomId,
    program,
    tasks::Tasks,
};

use crate::{
    GROUP,
    dead_letters::{self, DeadLetter, Which},
};

/// How many are listed when nobody says.
const LISTED: i64 = 100;
/// And at most.
const MOST_LISTED: i64 = 10_000;
/// How long saying goodbye to the broker may take.
const GOODBYE: Duration = Duration::from_secs(5);
const USAGE: &str = "admin dead-letters list [--limit N] [--json], or
admin dead-letters replay --all | --room ROOM [--seq SEQ]…
and the settings that name the database and the bus";

/// Where the dead letters are.
pub struct Stores {
    /// The database.
    pub database_url: String,
    /// The bus; what is on `memory:` has no dead letters.
    pub amqp_url: String,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    List { limit: i64, json: bool },
    Replay(Which),
}

/// Runs the command that these arguments, which followed `admin`, ask for. `stores` reads from the settings where it is to
/// look.
pub fn run(name: &'static str, args: Vec<String>, stores: fn(&Settings) -> anyhow::Result<Stores>) -> ExitCode {
    let asked = match read(args) {
        Ok(asked) => asked,
        Err(error) => return program::misused(name, &error),
    };
    let (command, rest) = asked;
    program::once(name, rest, stores, |stores| answer(command, stores))
}

/// The command, and the arguments that are left to be read as settings.
fn read(args: Vec<String>) -> Result<(Command, Vec<String>), Invalid> {
    let mut args = args.into_iter();
    let words = (args.next(), args.next());
    let list = match (words.0.as_deref(), words.1.as_deref()) {
        (Some("dead-letters"), Some("list")) => true,
        (Some("dead-letters"), Some("replay")) => false,
        _ => return Err(Invalid::new("usage", USAGE)),
    };
    let (mut limit, mut json, mut all, mut room, mut seqs, mut rest) = (LISTED, false, false, None, vec![], vec![]);
    while let Some(arg) = args.next() {
        let (flag, glued) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg.clone(), None),
        };
        let mut value = || glued.clone().or_else(|| args.next()).ok_or_else(|| Invalid::new(&flag, "needs a value"));
        match (flag.as_str(), list) {
            ("--json", true) => json = true,
            ("--limit", true) => limit = number(&flag, &value()?, MOST_LISTED)?,
            ("--all", false) => all = true,
            ("--room", false) => {
                room = Some(value()?.parse::<RoomId>().map_err(|_| Invalid::new(&flag, "must be the id of a room"))?);
            }
            ("--seq", false) => seqs.push(number(&flag, &value()?, i64::MAX)?),
            _ => rest.push(arg),
        }
    }
    let command = match (list, all, room) {
        (true, ..) => Command::List { limit, json },
        (false, true, None) if seqs.is_empty() => Command::Replay(Which::All),
        (false, false, Some(room)) => Command::Replay(Which::Of(room, seqs)),
        _ => return Err(Invalid::new("usage", USAGE)),
    };
    Ok((command, rest))
}

fn number(flag: &str, text: &str, most: i64) -> Result<i64, Invalid> {
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(Invalid::new(flag, format!("must be a number from 1 to {most}"))),
    }
}

async fn answer(command: Command, stores: Stores) -> anyhow::Result<()> {
    let db = Db::open(&stores.database_url).await?;
    let tasks = Tasks::new();
    let bus = match stores.amqp_url.starts_with("memory:") {
        true => None,
        false => Some(Bus::connect(&stores.amqp_url, "admin", &tasks).await.context("PARLANCE_AMQP_URL")?),
    };
    let answered = match command {
        Command::List { limit, json } => list(&db, bus.as_ref(), limit, json).await,
        Command::Replay(which) => replay(&db, bus.as_ref(), &which).await,
    };
    drop(bus);
    tasks.shutdown(GOODBYE).await;
    db.close().await;
    answered
}

async fn list(db: &Db, bus: Option<&Bus>, limit: i64, as_json: bool) -> anyhow::Result<()> {
    let (pushes, in_all) = dead_letters::list(db, limit).await?;
    // A broker that is away hides no pushes.
    let batches = match bus {
        Some(bus) => bus.depth(GROUP).await,
        None => Ok(Depth::default()),
    };
    let out = std::io::stdout();
    if as_json {
        let (items, batches): (Vec<_>, _) = (pushes.iter().map(DeadLetter::shown).collect(), batches.ok());
        let batches = batches.map(|depth| depth.dead);
        program::say(out, &json!({ "pushes": items, "pushes_in_all": in_all, "batches": batches }).to_string());
        return Ok(());
    }
    for push in &pushes {
        program::say(&out, &line(push));
    }
    program::say(&out, &format!("{in_all} pushes were given up, {} are shown", pushes.len()));
    let batches =
        batches.map_or_else(|error| format!("it is not known how many ({error:#})"), |it| it.dead.to_string());
    program::say(out, &format!("batches of events that are dead: {batches}"));
    Ok(())
}

fn line(push: &DeadLetter) -> String {
    let at = DateTime::from_timestamp_millis(push.at).unwrap_or_default();
    let DeadLetter { room_id, seq, user_id, device_id, platform, attempts, .. } = push;
    format!(
        "{} {} room {room_id} seq {seq} user {user_id} device {device_id} tries {attempts} {}: {}",
        at.to_rfc3339_opts(SecondsFormat::Secs, true),
        platform.word(),
        push.reason.as_deref().unwrap_or_default(),
        push.detail.as_deref().unwrap_or_default(),
    )
}

async fn replay(db: &Db, bus: Option<&Bus>, which: &Which) -> anyhow::Result<()> {
    let pushes = dead_letters::replay(db, which).await?;
    program::say(std::io::stdout(), &format!("pushes that are tried again: {pushes}"));
    // A batch is of many rooms: only all of them can be asked for.
    if let (Some(bus), Which::All) = (bus, which) {
        let batches = bus.replay(GROUP).await?;
        program::say(std::io::stdout(), &format!("batches of events that are tried again: {batches}"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn asks(line: &str) -> Result<(Command, Vec<String>), Invalid> {
        read(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn what_is_asked_is_read_and_settings_are_left() {
        let room = RoomId::generate();
        for (line, command, rest) in [
            ("dead-letters list", Command::List { limit: LISTED, json: false }, 0),
            ("dead-letters list --json --data x --limit 5", Command::List { limit: 5, json: true }, 2),
            ("dead-letters replay --all --data=x", Command::Replay(Which::All), 1),
            (&format!("dead-letters replay --room {room}"), Command::Replay(Which::Of(room, vec![])), 0),
            (
                &format!("dead-letters replay --seq 3 --room={room} --seq=5"),
                Command::Replay(Which::Of(room, vec![3, 5])),
                0,
            ),
        ] {
            let (read, left) = asks(line).unwrap();
            assert_eq!((read, left.len()), (command, rest), "{line}");
        }
        let both = format!("dead-letters replay --all --room {room}");
        for line in [
            "",
            "dead-letters",
            "dead-letters drop",
            "dead-letters replay",
            "dead-letters replay --seq 1",
            "dead-letters replay --room x",
            "dead-letters replay --all --seq 1",
            "dead-letters list --limit 0",
            "dead-letters list --limit",
            &both,
        ] {
            assert!(asks(line).is_err(), "{line}");
        }
    }
}
