//! Removing what boots leave behind that are dead, have left, or have registered anew.

use redis::Value;
use service_kit::id::{BootId, UserId};

use super::{
    Redis, boot_id,
    entries::decode,
    instant,
    link::{Batch, LONG, SHORT, take},
    users::{Verb, collect},
};
use crate::{
    error::Error,
    presence::{Session, Transition, millis},
    store::{BATCH, Dead, MAX_NUMBER, terms::Entry},
};

/// Boots that are being cleared, each with its last sign of life.
pub(super) type Clearing = Vec<(BootId, i64)>;

impl Redis {
    pub(in crate::store) async fn clear(&self, dead: &Dead, out: &mut Vec<Transition>) -> Result<usize, Error> {
        let removed = self.drain(dead.boot, MAX_NUMBER, dead.last_sign, dead.cleared, out).await?;
        if removed < BATCH {
            let mut batch = Batch::default();
            batch.command("zrem", |args| {
                args.arg(&self.keys.clearing).arg(dead.boot.0.as_bytes());
            });
            self.link.run(batch, SHORT).await?;
        }
        Ok(removed)
    }

    /// Removes up to [`BATCH`] entries of a boot with a number below `below`. Returns how many.
    pub(super) async fn drain(
        &self,
        boot: BootId,
        below: u64,
        ended: i64,
        mark: bool,
        out: &mut Vec<Transition>,
    ) -> Result<usize, Error> {
        let (entries, clearing) = self.stale(boot, below, mark).await?;
        if entries.is_empty() {
            return Ok(0);
        }
        let sessions: Vec<(UserId, Session)> = entries.iter().filter_map(|entry| entry.session(boot)).collect();
        let users: Vec<UserId> = sessions.iter().map(|(user, _)| *user).collect();
        let mut batch = Batch::default();
        self.schedule(&mut batch, millis(self.timing.grace), &users);
        let scheduled = usize::from(!users.is_empty());
        for (user, session) in sessions {
            self.step(&mut batch, user, &Verb::Sweep { session, below, ended }, &clearing);
        }
        for entry in &entries {
            if let Entry::Topic(topic) = entry {
                self.topic(&mut batch, *topic, "detach", boot, below);
            }
        }
        let mut answers = self.link.run(batch, LONG).await?.into_iter().skip(scheduled);
        let steps = users.iter().map(|user| self.settled(*user, answers.next()));
        let (settled, failed) = collect(steps, out);
        if let Some(error) = failed {
            return Err(error);
        }
        answers.try_for_each(|answer| take::<i64>(Some(answer), "topic").map(drop))?;
        let mut batch = Batch::default();
        // The grace of sessions that ended a while ago is over earlier than what was scheduled for safety.
        for step in &settled {
            if let Some(due) = step.due {
                batch.command("zadd", |args| {
                    args.arg(&self.keys.due).arg("lt").arg(due).arg(step.user.0.as_bytes());
                });
            }
        }
        self.repeat_unsaid(&mut batch, &settled);
        let gone: Vec<(u64, Entry)> = entries.iter().map(|entry| (below, *entry)).collect();
        self.forget(&mut batch, boot, &gone);
        self.link.run(batch, LONG).await?;
        Ok(entries.len())
    }

    /// Up to [`BATCH`] entries of a boot below a number. `mark`: from now on it can note nothing new.
    async fn stale(&self, boot: BootId, below: u64, mark: bool) -> Result<(Vec<Entry>, Clearing), Error> {
        let mut batch = Batch::default();
        if mark {
            batch.command("set", |args| {
                args.arg(self.keys.marker(boot)).arg(1).arg("px").arg(millis(self.timing.remember));
            });
        }
        batch.command("zrangebyscore", |args| {
            args.arg(self.keys.entries(boot)).arg("-inf").arg(format!("({below}")).arg("limit").arg(0).arg(BATCH);
        });
        self.read_clearing(&mut batch);
        let mut answers = self.link.run(batch, SHORT).await?.into_iter();
        if mark {
            take::<()>(answers.next(), "set")?;
        }
        let entries: Vec<Vec<u8>> = take(answers.next(), "zrangebyscore")?;
        let entries = entries.iter().map(|entry| decode(entry).ok_or(Error::Unexpected("entry")));
        Ok((entries.collect::<Result<_, _>>()?, read(answers.next())?))
    }

    /// The boots that are being cleared.
    pub(super) async fn clearing(&self) -> Result<Clearing, Error> {
        let mut batch = Batch::default();
        self.read_clearing(&mut batch);
        read(self.link.run(batch, SHORT).await?.pop())
    }

    pub(super) fn read_clearing(&self, batch: &mut Batch) {
        batch.command("zrange", |args| {
            args.arg(&self.keys.clearing).arg(0).arg(-1).arg("withscores");
        });
    }
}

/// Reads the answer to [`Redis::read_clearing`].
pub(super) fn read(answer: Option<Value>) -> Result<Clearing, Error> {
    let pairs: Vec<(Vec<u8>, String)> = take(answer, "zrange")?;
    pairs.iter().map(|(boot, at)| dead_pair(boot, at.as_bytes())).collect()
}

pub(super) fn dead_pair(boot: &[u8], at: &[u8]) -> Result<(BootId, i64), Error> {
    let at = std::str::from_utf8(at).map_err(|_| Error::Unexpected("clearing"))?;
    Ok((boot_id(boot.to_vec())?, instant(at, "clearing")?))
}
