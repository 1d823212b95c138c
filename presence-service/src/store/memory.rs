//! The directory and presence of one process: a pure structure, time passed in.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use service_kit::id::{BootId, Topic, UserId};
use uuid::Uuid;

use super::{BATCH, Change, Clock, Dead, Entry, Located, MAX_NUMBER, Op, Renewal, Standing, Timing};
use crate::{
    error::Error,
    presence::{Chosen, Known, Seen, Session, Transition, User, millis},
};

/// How often users who were not there for long are forgotten.
const PURGE_MS: i64 = 60 * 60 * 1000;

/// The memory store behind its lock, with its clock.
#[derive(Clone)]
pub struct Guarded {
    // Held for the length of one operation in memory, never across an await.
    memory: Arc<Mutex<Memory>>,
    clock: Clock,
}

impl Guarded {
    pub(super) fn new(memory: Memory, clock: Clock) -> Self {
        Self { memory: Arc::new(Mutex::new(memory)), clock }
    }

    pub(super) fn with<T>(&self, run: impl FnOnce(&mut Memory, i64) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that time does not run backwards between two operations.
        run(&mut memory, self.clock.now())
    }
}

#[derive(Default)]
struct Boot {
    entries: BTreeMap<Entry, u64>,
    /// Number of the last renewal.
    renewed: Option<u64>,
    expiry: Option<i64>,
    /// Its last sign of life, while its entries are being removed.
    clearing: Option<i64>,
    /// When it was taken for dead.
    cleared: Option<i64>,
}

pub(super) struct Memory {
    timing: Timing,
    epoch: String,
    topics: HashMap<Topic, BTreeMap<BootId, u64>>,
    boots: HashMap<BootId, Boot>,
    /// With the instant of the last step, from which a user without sessions is kept for a while.
    users: HashMap<UserId, (User, i64)>,
    due: BTreeSet<(i64, UserId)>,
    /// When users who are gone were last seen, until that is stored.
    unstored: BTreeMap<UserId, i64>,
    purge_at: i64,
}

impl Memory {
    pub(super) fn new(timing: Timing, now: i64) -> Self {
        Self {
            timing,
            epoch: format!("{}:{now}", Uuid::new_v4().simple()),
            topics: HashMap::new(),
            boots: HashMap::new(),
            users: HashMap::new(),
            due: BTreeSet::new(),
            unstored: BTreeMap::new(),
            purge_at: now + PURGE_MS,
        }
    }

    pub(super) fn update(
        &mut self,
        id: BootId,
        ops: &[Op],
        sweep_below: u64,
        now: i64,
        out: &mut Vec<Transition>,
    ) -> Result<(), Error> {
        let boot = self.boots.entry(id).or_default();
        if boot.cleared.is_some() {
            return Err(Error::Cleared);
        }
        if boot.clearing.is_some() {
            return Err(Error::Left);
        }
        // Not a renewal, but enough for a sweeper to find the boot whatever happens to it.
        boot.expiry.get_or_insert(now + millis(self.timing.lease));
        for op in ops {
            self.apply(id, op, now, out);
        }
        let entries = self.boots.get(&id).map(|boot| &boot.entries).into_iter().flatten();
        let stale = entries.filter(|(_, number)| **number < sweep_below).map(|(entry, _)| *entry);
        for entry in stale.collect::<Vec<_>>() {
            self.remove(id, entry, sweep_below, now, now, out);
        }
        Ok(())
    }

    fn apply(&mut self, id: BootId, op: &Op, now: i64, out: &mut Vec<Transition>) {
        let Some(boot) = self.boots.get_mut(&id) else { return };
        let entry = op.entry();
        if boot.entries.get(&entry).is_some_and(|stored| *stored >= op.number) {
            return;
        }
        if op.adds() {
            boot.entries.insert(entry, op.number);
        } else {
            boot.entries.remove(&entry);
        }
        match op.change {
            Change::Attach(topic) => {
                self.topics.entry(topic).or_default().insert(id, op.number);
            }
            Change::Detach(topic) => self.detach(topic, id),
            Change::Session { user, connection, idle, chosen } => {
                let session = Session { boot: id, connection };
                out.extend(self.step(user, now, |user| user.session(session, op.number, idle, chosen)));
            }
            Change::SessionEnd { user, connection } => {
                let session = Session { boot: id, connection };
                out.extend(self.step(user, now, |user| user.end(session, op.number, now)));
            }
        }
    }

    fn detach(&mut self, topic: Topic, id: BootId) {
        if let Some(boots) = self.topics.get_mut(&topic) {
            boots.remove(&id);
            if boots.is_empty() {
                self.topics.remove(&topic);
            }
        }
    }

    /// Removes one entry whose boot is over or has not registered it again.
    fn remove(&mut self, id: BootId, entry: Entry, below: u64, ended: i64, now: i64, out: &mut Vec<Transition>) {
        if let Some(boot) = self.boots.get_mut(&id) {
            boot.entries.remove(&entry);
        }
        match entry {
            Entry::Topic(topic) => self.detach(topic, id),
            Entry::Session(..) => {
                if let Some((user, session)) = entry.session(id) {
                    out.extend(self.step(user, now, |user| user.sweep(session, below, ended)));
                }
            }
        }
    }

    /// One step of a user: what `change` does, and what follows from it.
    fn step(&mut self, id: UserId, now: i64, change: impl FnOnce(&mut User)) -> Option<Transition> {
        let (user, touched) = self.users.entry(id).or_default();
        *touched = now;
        let before = user.seen();
        change(user);
        let boots = &self.boots;
        let status = user.settle(now, self.timing.grace, |boot| boots.get(&boot).and_then(|boot| boot.clearing));
        if let Some(due) = user.due(self.timing.grace) {
            self.due.insert((due, id));
        }
        if let Some(seen) = user.seen().filter(|seen| before != Some(*seen)) {
            self.unstored.insert(id, seen);
        }
        status.map(|status| Transition { user: id, status })
    }

    pub(super) fn renew(&mut self, id: BootId, number: u64, now: i64) -> Renewal {
        let remember = millis(self.timing.remember);
        self.boots.retain(|_, boot| boot.cleared.is_none_or(|at| at + remember > now || boot.clearing.is_some()));
        let boot = self.boots.entry(id).or_default();
        let standing = match (boot.cleared, boot.clearing, boot.renewed, boot.expiry) {
            (Some(_), ..) => Standing::Cleared,
            (None, None, Some(_), Some(expiry)) if expiry > now => Standing::Alive,
            _ => Standing::Expired,
        };
        let over = boot.cleared.is_some() || boot.clearing.is_some();
        if !over && boot.renewed.is_none_or(|stored| stored < number) {
            boot.renewed = Some(number);
            boot.expiry = Some(now + millis(self.timing.lease));
        }
        let entries = boot.entries.len() as u64;
        let gateways = self.boots.keys().filter(|id| self.is_alive(id, now)).count() as u64;
        Renewal { standing, entries, epoch: self.epoch.clone(), gateways }
    }

    fn is_alive(&self, id: &BootId, now: i64) -> bool {
        self.boots.get(id).and_then(|boot| boot.expiry).is_some_and(|expiry| expiry > now)
    }

    pub(super) fn lookup(&self, topics: &[Topic], now: i64) -> Located {
        let served = topics
            .iter()
            .map(|topic| {
                let boots = self.topics.get(topic);
                boots.map_or_else(Vec::new, |boots| boots.keys().filter(|id| self.is_alive(id, now)).copied().collect())
            })
            .collect();
        Located { unknown: false, served }
    }

    pub(super) fn leave(&mut self, id: BootId, now: i64) -> Dead {
        let boot = self.boots.entry(id).or_default();
        (boot.expiry, boot.renewed) = (None, None);
        let last_sign = *boot.clearing.get_or_insert(now);
        Dead { boot: id, last_sign, cleared: boot.cleared.is_some() }
    }

    pub(super) fn states(&self, users: &[UserId]) -> Vec<Known> {
        users.iter().map(|id| self.users.get(id).map(|(user, _)| user.known()).unwrap_or_default()).collect()
    }

    pub(super) fn choose(&mut self, user: UserId, chosen: Chosen, now: i64) -> Option<Transition> {
        self.step(user, now, |user| user.choose(chosen))
    }

    pub(super) fn take_seen(&self) -> Vec<Seen> {
        self.unstored.iter().take(BATCH).map(|(user, at)| Seen { user: *user, at: *at }).collect()
    }

    pub(super) fn seen_stored(&mut self, stored: &[Seen]) {
        for seen in stored {
            if self.unstored.get(&seen.user).is_some_and(|at| *at <= seen.at) {
                self.unstored.remove(&seen.user);
            }
        }
    }

    pub(super) fn bury(&mut self, now: i64) -> Vec<Dead> {
        let lease = millis(self.timing.lease);
        for boot in self.boots.values_mut() {
            if let Some(expiry) = boot.expiry.filter(|expiry| *expiry <= now) {
                (boot.expiry, boot.renewed) = (None, None);
                boot.clearing = Some(expiry - lease);
                boot.cleared = Some(now);
            }
        }
        let dead = |(id, boot): (&BootId, &Boot)| {
            boot.clearing.map(|last_sign| Dead { boot: *id, last_sign, cleared: boot.cleared.is_some() })
        };
        self.boots.iter().filter_map(dead).collect()
    }

    pub(super) fn clear(&mut self, dead: &Dead, now: i64, out: &mut Vec<Transition>) -> usize {
        let Some(boot) = self.boots.get(&dead.boot) else { return 0 };
        let entries: Vec<Entry> = boot.entries.keys().take(BATCH).copied().collect();
        for entry in &entries {
            self.remove(dead.boot, *entry, MAX_NUMBER, dead.last_sign, now, out);
        }
        if entries.len() < BATCH
            && let Some(boot) = self.boots.get_mut(&dead.boot)
        {
            boot.clearing = None;
            if boot.cleared.is_none() {
                self.boots.remove(&dead.boot);
            }
        }
        entries.len()
    }

    pub(super) fn check(&mut self, now: i64, out: &mut Vec<Transition>) -> usize {
        if now >= self.purge_at {
            self.purge_at = now + PURGE_MS;
            let keep = millis(self.timing.keep);
            self.users.retain(|_, (user, touched)| user.is_connected() || *touched + keep > now);
        }
        let due: Vec<_> = self.due.iter().take_while(|(at, _)| *at <= now).take(BATCH).copied().collect();
        for entry in &due {
            self.due.remove(entry);
            out.extend(self.step(entry.1, now, |_| {}));
        }
        due.len()
    }
}
