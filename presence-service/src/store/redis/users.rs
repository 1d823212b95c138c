//! Steps of users: one script each, many to a round trip.

use redis::Value;
use service_kit::id::UserId;
use uuid::Uuid;

use super::{
    RESAY_SLACK_MS, Redis,
    clearing::{Clearing, read},
    entries::field,
    link::{Batch, LONG, SHORT, take},
    script::{CLAIM, FINISH, USER},
    status,
};
use crate::{
    error::Error,
    presence::{Chosen, Session, Transition, millis},
    store::BATCH,
};

/// What a step does to a user.
pub(super) enum Verb {
    /// A session is there, of a user who has chosen this.
    Session { session: Session, number: u64, idle: bool, chosen: Option<Chosen> },
    /// It ended.
    End { session: Session, number: u64 },
    /// As `End` for numbers below this one, at an instant; 0 is now.
    Sweep { session: Session, below: u64, ended: i64 },
    /// The user has chosen how to be shown.
    Choose(Chosen),
    /// Time has passed.
    Check,
}

/// What came of a step.
pub(super) struct Settled {
    pub(super) user: UserId,
    pub(super) transition: Option<Transition>,
    /// When to check the user again.
    pub(super) due: Option<i64>,
}

impl Redis {
    pub(in crate::store) async fn check(&self, out: &mut Vec<Transition>) -> Result<usize, Error> {
        let mut batch = Batch::default();
        batch.call(&CLAIM, &[&self.keys.due, &self.keys.claimed], |args| {
            args.arg(BATCH).arg(millis(self.timing.claim));
        });
        self.read_clearing(&mut batch);
        let mut answers = self.link.run(batch, SHORT).await?.into_iter();
        let users: Vec<Vec<u8>> = take(answers.next(), "claim")?;
        let clearing = read(answers.next())?;
        let users: Vec<UserId> = users.iter().filter_map(|user| Uuid::from_slice(user).ok().map(UserId)).collect();
        if users.is_empty() {
            return Ok(0);
        }
        let mut batch = Batch::default();
        for user in &users {
            self.step(&mut batch, *user, &Verb::Check, &clearing);
        }
        let answers = self.link.run(batch, LONG).await?;
        let steps = users.iter().zip(answers).map(|(user, answer)| self.settled(*user, Some(answer)));
        let (settled, failed) = collect(steps, out);
        let mut batch = Batch::default();
        batch.call(&FINISH, &[&self.keys.due, &self.keys.claimed], |args| {
            for step in &settled {
                args.arg(step.user.0.as_bytes()).arg(step.due.unwrap_or(0));
            }
        });
        self.repeat_unsaid(&mut batch, &settled);
        self.link.run(batch, LONG).await?;
        failed.map_or(Ok(users.len()), Err)
    }

    /// Whoever is told of these transitions may be gone before they are published: they are looked at once more.
    pub(super) fn repeat_unsaid(&self, batch: &mut Batch, settled: &[Settled]) {
        let told: Vec<UserId> = settled.iter().filter(|step| step.transition.is_some()).map(|step| step.user).collect();
        self.schedule(batch, millis(self.timing.resay) + RESAY_SLACK_MS, &told);
    }

    pub(super) fn step(&self, batch: &mut Batch, user: UserId, verb: &Verb, clearing: &Clearing) {
        batch.call(&USER, &[&self.keys.user(user)], |args| {
            let word = match verb {
                Verb::Session { .. } => "session",
                Verb::End { .. } => "end",
                Verb::Sweep { .. } => "sweep",
                Verb::Choose(_) => "choose",
                Verb::Check => "check",
            };
            args.arg(word).arg(millis(self.timing.grace)).arg(millis(self.timing.keep)).arg(millis(self.timing.resay));
            match verb {
                Verb::Session { session, number, idle, .. } => {
                    args.arg(session_field(session)).arg(*number).arg(u8::from(*idle)).arg(0)
                }
                Verb::End { session, number } => args.arg(session_field(session)).arg(*number).arg(0).arg(0),
                Verb::Sweep { session, below, ended } => {
                    args.arg(session_field(session)).arg(*below).arg(0).arg(*ended)
                }
                Verb::Choose(_) | Verb::Check => args.arg("").arg(0).arg(0).arg(0),
            };
            match verb {
                Verb::Session { chosen: Some(chosen), .. } | Verb::Choose(chosen) => {
                    args.arg(chosen.choice.as_str()).arg(chosen.version)
                }
                _ => args.arg("").arg(0),
            };
            for (boot, last_sign) in clearing {
                args.arg(boot.0.as_bytes()).arg(*last_sign);
            }
        });
    }

    pub(super) fn settled(&self, user: UserId, answer: Option<Value>) -> Result<Settled, Error> {
        let (tell, state, version, seen, due): (i64, String, i64, i64, i64) = take(answer, "user")?;
        let status = status(&state, version, Some(seen))?;
        let transition = (tell == 1).then_some(Transition { user, status });
        Ok(Settled { user, transition, due: (due > 0).then_some(due) })
    }
}

/// Keeps the transitions of what succeeded, whatever else failed, and the first error.
pub(super) fn collect(
    steps: impl Iterator<Item = Result<Settled, Error>>,
    out: &mut Vec<Transition>,
) -> (Vec<Settled>, Option<Error>) {
    let mut failed = None;
    let mut settled = Vec::new();
    for step in steps {
        match step {
            Ok(step) => {
                out.extend(step.transition);
                settled.push(step);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    (settled, failed)
}

fn session_field(session: &Session) -> Vec<u8> {
    field(session.boot.0, session.connection)
}
