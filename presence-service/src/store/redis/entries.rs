//! Updates of gateways.
//!
//! The order is always the same. A boot's own list names an entry from before it exists until after it is gone, and a
//! check is scheduled before a session ends: whoever stops half-way leaves something that is found and finished.

use std::time::Duration;

use service_kit::id::{BootId, Topic, UserId};
use uuid::Uuid;

use super::{
    Redis,
    clearing::{Clearing, dead_pair},
    link::{Batch, LONG, SHORT, take},
    script::{REVERSE_ADD, REVERSE_REMOVE, TOPIC, TOUCH},
    users::{Verb, collect},
};
use crate::{
    error::Error,
    presence::{Session, Transition, millis},
    store::{
        BATCH,
        terms::{Change, Entry, Op},
    },
};

/// Operations that still are not a batch, as of one connection that comes or goes.
const FEW: usize = 32;

impl Redis {
    pub(in crate::store) async fn update(
        &self,
        boot: BootId,
        ops: &[Op],
        sweep_below: u64,
        out: &mut Vec<Transition>,
    ) -> Result<(), Error> {
        if ops.is_empty() {
            self.apply(boot, ops, out).await?;
        }
        for ops in ops.chunks(BATCH) {
            self.apply(boot, ops, out).await?;
        }
        if sweep_below > 0 {
            while self.drain(boot, sweep_below, 0, false, out).await? == BATCH {}
        }
        Ok(())
    }

    /// One chunk of an update.
    async fn apply(&self, boot: BootId, ops: &[Op], out: &mut Vec<Transition>) -> Result<(), Error> {
        let clearing = self.prepare(boot, ops).await?;
        let mut batch = Batch::default();
        let mut users = Vec::new();
        for op in ops {
            users.push(self.change(&mut batch, boot, op, &clearing));
        }
        let answers = self.link.run(batch, patience(ops)).await?;
        let steps = users.into_iter().zip(answers).map(|(user, answer)| match user {
            Some(user) => self.settled(user, Some(answer)).map(Some),
            None => take::<i64>(Some(answer), "topic").map(|_| None),
        });
        let (_, failed) = collect(steps.filter_map(Result::transpose), out);
        if let Some(error) = failed {
            return Err(error);
        }
        let gone: Vec<(u64, Entry)> = ops.iter().filter(|op| !op.adds()).map(|op| (op.number, op.entry())).collect();
        let mut batch = Batch::default();
        self.forget(&mut batch, boot, &gone);
        let mut answers = self.link.run(batch, patience(ops)).await?.into_iter();
        answers.try_for_each(|answer| take::<i64>(Some(answer), "reverse").map(drop))
    }

    /// Notes what comes and schedules checks for what goes. Returns the boots that are being cleared.
    async fn prepare(&self, boot: BootId, ops: &[Op]) -> Result<Clearing, Error> {
        let mut batch = Batch::default();
        batch.call(&TOUCH, &[&self.keys.leases, &self.keys.clearing, &self.keys.cleared], |args| {
            args.arg(boot.0.as_bytes()).arg(millis(self.timing.lease));
        });
        batch.call(&REVERSE_ADD, &[&self.keys.entries(boot), &self.keys.marker(boot)], |args| {
            for op in ops.iter().filter(|op| op.adds()) {
                args.arg(op.number).arg(encode(op.entry()));
            }
        });
        let ended = ops.iter().filter_map(|op| match op.change {
            Change::SessionEnd { user, .. } => Some(user),
            _ => None,
        });
        self.schedule(&mut batch, millis(self.timing.grace), &ended.collect::<Vec<_>>());
        let mut answers = self.link.run(batch, patience(ops)).await?.into_iter();
        let touched: Vec<Vec<u8>> = take(answers.next(), "touch")?;
        let noted: i64 = take(answers.next(), "reverse")?;
        answers.try_for_each(|answer| take::<i64>(Some(answer), "schedule").map(drop))?;
        let (word, clearing) = touched.split_first().ok_or(Error::Unexpected("touch"))?;
        match word.as_slice() {
            b"ok" if noted == 1 => clearing.chunks_exact(2).map(|pair| dead_pair(&pair[0], &pair[1])).collect(),
            b"left" => Err(Error::Left),
            _ => Err(Error::Cleared),
        }
    }

    /// Adds an operation to a batch. Returns the user whose step it is.
    fn change(&self, batch: &mut Batch, boot: BootId, op: &Op, clearing: &Clearing) -> Option<UserId> {
        let number = op.number;
        match op.change {
            Change::Attach(topic) => self.topic(batch, topic, "attach", boot, number),
            Change::Detach(topic) => self.topic(batch, topic, "detach", boot, number),
            Change::Session { user, connection, idle, chosen } => {
                let session = Session { boot, connection };
                self.step(batch, user, &Verb::Session { session, number, idle, chosen }, clearing);
                return Some(user);
            }
            Change::SessionEnd { user, connection } => {
                let session = Session { boot, connection };
                self.step(batch, user, &Verb::End { session, number }, clearing);
                return Some(user);
            }
        }
        None
    }

    pub(super) fn topic(&self, batch: &mut Batch, topic: Topic, verb: &str, boot: BootId, number: u64) {
        batch.call(&TOPIC, &[&self.keys.topic(topic)], |args| {
            args.arg(verb).arg(boot.0.as_bytes()).arg(number);
        });
    }

    pub(super) fn forget(&self, batch: &mut Batch, boot: BootId, entries: &[(u64, Entry)]) {
        if !entries.is_empty() {
            batch.call(&REVERSE_REMOVE, &[&self.keys.entries(boot)], |args| {
                for (number, entry) in entries {
                    args.arg(*number).arg(encode(*entry));
                }
            });
        }
    }
}

/// How long a round trip of an update may take.
fn patience(ops: &[Op]) -> Duration {
    if ops.len() > FEW { LONG } else { SHORT }
}

/// 17 bytes of a topic, or 25 of a session: 's', user, connection.
fn encode(entry: Entry) -> Vec<u8> {
    match entry {
        Entry::Topic(topic) => topic.to_wire().to_vec(),
        Entry::Session(user, connection) => field(user.0, connection),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Option<Entry> {
    match bytes {
        [b's', rest @ ..] => {
            let (user, connection) = rest.split_at_checked(16)?;
            let connection = u64::from_be_bytes(connection.try_into().ok()?);
            Some(Entry::Session(UserId(Uuid::from_slice(user).ok()?), connection))
        }
        _ => Topic::from_wire(bytes).ok().map(Entry::Topic),
    }
}

/// 's', an id, and a connection: 25 bytes.
pub(super) fn field(id: Uuid, connection: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(25);
    bytes.push(b's');
    bytes.extend_from_slice(id.as_bytes());
    bytes.extend_from_slice(&connection.to_be_bytes());
    bytes
}
