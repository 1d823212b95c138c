//! This gateway's entries in the delivery directory: what it wants to hear of, and whose sessions it has.
//!
//! Operations are numbered and sent one batch after the other; whoever needs an entry waits until it is acknowledged. One
//! lease keeps all of them alive.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
    time::Duration,
};

use parlance_proto::presence::{
    LeaveRequest, LookupRequest, Op, RenewRequest, UpdateRequest, directory_client::DirectoryClient, op, renew_reply,
};
use service_kit::{
    bus::To,
    id::{BootId, RoomId, Topic, UserId},
    rpc::Client,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tonic::Code;
use uuid::Uuid;

use crate::hub::lock;

/// By how many operations the queue may be longer than registering everything again would be: then that is done instead.
const MAX_BEHIND: usize = 16_384;
/// Operations of one call.
const TOGETHER: usize = 512;
/// How often the lease is renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(3);
/// How long a connection waits for its entries before it goes on without: what it misses is repaired when they are there.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// How long after a failed call the next one is tried.
const PAUSE: Duration = Duration::from_millis(300);

/// What a renewal of the lease has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// All is well.
    Alive,
    /// Entries were lost: everything was queued to be registered again, and heads have to be compared.
    Registered,
    /// This boot has been declared dead: its connections have to go, and a new boot has to begin.
    Cleared,
    /// The directory cannot be reached.
    Unknown,
}

/// What became of a batch of operations.
enum Outcome {
    Done,
    /// The boot has been declared dead: nothing of it is taken any more.
    Cleared,
    Failed(String),
}

/// The entries of one boot.
pub(crate) struct Directory {
    boot: BootId,
    client: DirectoryClient<Client>,
    // Held to queue and to take, never across an await.
    state: Mutex<State>,
    wake: Notify,
    /// Operations up to this number are acknowledged.
    acked: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    number: u64,
    /// Never longer than all entries and [`MAX_BEHIND`].
    queue: VecDeque<(Op, u64)>,
    /// The queue got too long and was dropped: everything is to be registered again when the directory takes something.
    dropped: bool,
    /// The last operation of a full registration: nothing before it is acknowledged alone, since what others wait for
    /// may be anywhere in it.
    whole: u64,
    topics: HashMap<Topic, u64>,
    sessions: HashMap<(UserId, u64), (u64, bool)>,
    epoch: Option<String>,
    renewals: u64,
    /// Gateways with a live lease, as the last renewal counted; 0 when none did.
    gateways: u64,
    /// Somebody goes on without having waited for the operations up to this number; 0 when nobody does.
    impatient: u64,
    /// Renewals in a row that counted other entries than ours.
    differing: u32,
}

impl State {
    fn queue(&mut self, kind: op::Kind, topic: Option<Topic>, session: Option<(UserId, u64, bool)>) -> u64 {
        self.number += 1;
        let mut op = Op { kind: kind.into(), number: self.number, ..Op::default() };
        if let Some(topic) = topic {
            op.topic = topic.to_wire();
        }
        if let Some((user, connection, idle)) = session {
            (op.user, op.connection, op.idle) = (user.to_wire(), connection, idle);
        }
        if !self.dropped {
            self.queue.push_back((op, 0));
        }
        if self.queue.len() > MAX_BEHIND + self.entries() {
            tracing::warn!(
                queued = self.queue.len(),
                "the directory takes nothing; everything is registered again later"
            );
            self.dropped = true;
            self.queue = VecDeque::new();
        }
        self.number
    }

    fn entries(&self) -> usize {
        self.topics.len() + self.sessions.len()
    }
}

impl Directory {
    pub(crate) fn new(boot: BootId, client: DirectoryClient<Client>) -> Self {
        Self { boot, client, state: Mutex::default(), wake: Notify::new(), acked: watch::Sender::new(0) }
    }

    /// Wants to hear of these topics, and waits until every publisher knows. False when that took too long: it goes on
    /// in the background, and [`Directory::run`] tells when it is done.
    pub(crate) async fn attach(&self, topics: impl IntoIterator<Item = Topic>) -> bool {
        self.attach_within(topics, PATIENCE).await
    }

    /// The same with another patience: none for whoever has waited before.
    pub(crate) async fn attach_within(&self, topics: impl IntoIterator<Item = Topic>, patience: Duration) -> bool {
        let last = {
            let mut state = lock(&self.state);
            let mut last = 0;
            for topic in topics {
                let number = match state.topics.get(&topic) {
                    Some(number) => *number,
                    None => {
                        let number = state.queue(op::Kind::Attach, Some(topic), None);
                        state.topics.insert(topic, number);
                        number
                    }
                };
                last = last.max(number);
            }
            last
        };
        self.wake.notify_one();
        let mut acked = self.acked.subscribe();
        if timeout(patience, acked.wait_for(|acked| *acked >= last)).await.is_ok() {
            return true;
        }
        let mut state = lock(&self.state);
        let late = *self.acked.borrow() < last;
        if late {
            state.impatient = state.impatient.max(last);
        }
        !late
    }

    /// Does not want to hear of a topic any more.
    pub(crate) fn detach(&self, topic: Topic) {
        let mut state = lock(&self.state);
        if state.topics.remove(&topic).is_some() {
            state.queue(op::Kind::Detach, Some(topic), None);
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A connection makes its user online, or away when `idle`.
    pub(crate) fn session(&self, user: UserId, connection: u64, idle: bool) {
        let mut state = lock(&self.state);
        let number = state.queue(op::Kind::Session, None, Some((user, connection, idle)));
        state.sessions.insert((user, connection), (number, idle));
        drop(state);
        self.wake.notify_one();
    }

    /// A connection does so no longer.
    pub(crate) fn end_session(&self, user: UserId, connection: u64) {
        let mut state = lock(&self.state);
        if state.sessions.remove(&(user, connection)).is_some() {
            state.queue(op::Kind::SessionEnd, None, Some((user, connection, false)));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Sends what is queued, for ever. `late` is called after operations went through that had to be tried again, or that
    /// somebody did not wait for: what was published meanwhile may have been missed.
    pub(crate) async fn run(&self, late: impl Fn()) {
        loop {
            let woken = self.wake.notified();
            let (ops, sweep_below) = self.take();
            if ops.is_empty() {
                woken.await;
                continue;
            }
            let last = ops.last().map_or(0, |op| op.number);
            let request = UpdateRequest { boot: self.boot.to_wire(), ops, sweep_below };
            let mut failed = false;
            loop {
                match self.update(request.clone()).await {
                    Outcome::Done => break,
                    // The next renewal says so too, and ends this life.
                    Outcome::Cleared => return,
                    Outcome::Failed(problem) if !failed => {
                        tracing::warn!(problem, "the directory takes no entries; trying again");
                    }
                    Outcome::Failed(_) => {}
                }
                failed = true;
                tokio::time::sleep(PAUSE).await;
            }
            if self.acknowledge(last) || failed {
                late();
            }
        }
    }

    /// Notes that operations up to `last` are acknowledged; true when somebody has not waited for that.
    fn acknowledge(&self, last: u64) -> bool {
        let mut state = lock(&self.state);
        if last < state.whole {
            return false;
        }
        self.acked.send_replace(last);
        let impatient = state.impatient;
        if impatient <= last {
            state.impatient = 0;
        }
        impatient > 0
    }

    async fn update(&self, request: UpdateRequest) -> Outcome {
        match timeout(DEADLINE, self.client.clone().update(request)).await {
            Ok(Ok(_)) => Outcome::Done,
            Ok(Err(status)) if status.code() == Code::FailedPrecondition => Outcome::Cleared,
            Ok(Err(status)) => Outcome::Failed(status.to_string()),
            Err(_) => Outcome::Failed("it did not answer in time".to_owned()),
        }
    }

    /// The next operations; a mark that ends a full registration ends the batch too.
    fn take(&self) -> (Vec<Op>, u64) {
        let mut state = lock(&self.state);
        if state.dropped {
            register_all(&mut state);
            // Whatever was published for an entry that was dropped may have been missed.
            state.impatient = state.number;
        }
        let mut ops = Vec::new();
        while ops.len() < TOGETHER
            && let Some((op, sweep_below)) = state.queue.pop_front()
        {
            ops.push(op);
            if sweep_below != 0 {
                return (ops, sweep_below);
            }
        }
        (ops, 0)
    }

    /// Renews the lease, and registers everything anew when the directory has lost it.
    pub(crate) async fn renew(&self) -> Standing {
        let number = {
            let mut state = lock(&self.state);
            state.renewals += 1;
            state.renewals
        };
        let request = RenewRequest { boot: self.boot.to_wire(), number };
        let Ok(Ok(reply)) = timeout(DEADLINE, self.client.clone().renew(request)).await else {
            return Standing::Unknown;
        };
        let reply = reply.into_inner();
        let mut state = lock(&self.state);
        state.gateways = reply.gateways;
        let first = state.epoch.is_none();
        let new_epoch = state.epoch.replace(reply.epoch.clone()).is_some_and(|epoch| epoch != reply.epoch);
        let standing = reply.standing();
        if standing == renew_reply::Standing::Cleared {
            return Standing::Cleared;
        }
        let ours = u64::try_from(state.entries()).unwrap_or(u64::MAX);
        let settled = state.queue.is_empty() && *self.acked.borrow() >= state.number;
        state.differing = if settled && reply.entries != ours { state.differing + 1 } else { 0 };
        let expired = standing == renew_reply::Standing::Expired && !first;
        if !(new_epoch || expired || state.differing >= 2) {
            return Standing::Alive;
        }
        tracing::warn!(
            ours,
            stored = reply.entries,
            new_epoch,
            expired,
            "registering everything in the directory again"
        );
        state.differing = 0;
        register_all(&mut state);
        drop(state);
        self.wake.notify_one();
        Standing::Registered
    }

    /// How many gateways there are, as far as the directory has told: 0 when it has not.
    pub(crate) fn gateways(&self) -> u64 {
        lock(&self.state).gateways
    }

    /// Waits until everything that is queued now is acknowledged, at most `patience`.
    pub(crate) async fn settled(&self, patience: Duration) -> bool {
        let last = lock(&self.state).number;
        timeout(patience, self.acked.subscribe().wait_for(|acked| *acked >= last)).await.is_ok()
    }

    /// Takes everything of this boot out of the directory, at the end of its life.
    pub(crate) async fn leave(&self) {
        let request = LeaveRequest { boot: self.boot.to_wire() };
        if timeout(DEADLINE, self.client.clone().leave(request)).await.is_err() {
            tracing::warn!("could not leave the directory in time; the lease will run out");
        }
    }

    /// Where to publish what concerns this topic.
    pub(crate) async fn lookup(&self, topic: Topic) -> Vec<To> {
        let request = LookupRequest { topics: vec![topic.to_wire()] };
        match timeout(PAUSE, self.client.clone().lookup(request)).await {
            Ok(Ok(reply)) if !reply.get_ref().unknown => {
                let boots = &reply.get_ref().boots;
                boots.iter().filter_map(|boot| BootId::from_wire(boot, "boot").ok()).map(To::Gateway).collect()
            }
            _ => vec![To::All],
        }
    }
}

/// Queues every entry again, and a mark that clears what is older. What was queued before is contained in that.
fn register_all(state: &mut State) {
    (state.queue, state.dropped) = (VecDeque::new(), false);
    let below = state.number + 1;
    let topics: Vec<Topic> = state.topics.keys().copied().collect();
    for topic in topics {
        let number = state.queue(op::Kind::Attach, Some(topic), None);
        state.topics.insert(topic, number);
    }
    let sessions: Vec<((UserId, u64), bool)> = state.sessions.iter().map(|(key, (_, idle))| (*key, *idle)).collect();
    for ((user, connection), idle) in sessions {
        let number = state.queue(op::Kind::Session, None, Some((user, connection, idle)));
        state.sessions.insert((user, connection), (number, idle));
    }
    if state.number < below {
        // Nothing is ours: the mark needs something to travel with, and taking back what is not there is harmless.
        state.queue(op::Kind::Detach, Some(Topic::Room(RoomId(Uuid::nil()))), None);
    }
    if let Some((_, sweep_below)) = state.queue.back_mut() {
        *sweep_below = below;
    }
    state.whole = state.number;
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
