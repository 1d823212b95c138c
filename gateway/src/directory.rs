//! This gateway's entries in the delivery directory: what it wants to hear of, and whose sessions it has.
//!
//! Operations are numbered and sent one batch after the other; whoever needs an entry waits until it is acknowledged. One
//! lease keeps all of them alive.
//!
//! When everything is registered again, topics go at once. Sessions follow when it was read how their users want to be
//! shown: the directory may have lost that, and somebody invisible must not be online for a moment.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Mutex,
    time::Duration,
};

use parlance_proto::{
    chat::{Choice, ChoicesRequest, sync_client::SyncClient},
    presence::{
        LeaveRequest, LookupRequest, Op, RenewRequest, UpdateRequest, directory_client::DirectoryClient, op,
        renew_reply,
    },
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
use tonic::{Code, Status};
use uuid::Uuid;

use crate::hub::lock;

/// By how many operations the queue may be longer than registering everything again would be: then that is done instead.
const MAX_BEHIND: usize = 16_384;
/// Operations of one call.
const TOGETHER: usize = 512;
/// Users whose choice is read with one call.
const SLICE: usize = 4_096;
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
    /// Where it is stored how users want to be shown.
    sync: SyncClient<Client>,
    // Held to queue and to take, never across an await.
    state: Mutex<State>,
    wake: Notify,
    /// Sessions are to be registered again.
    wake_sessions: Notify,
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
    /// The last topic of a full registration: nothing before it is acknowledged alone, since what others wait for may be
    /// anywhere in it.
    whole: u64,
    /// The mark of a full registration whose sessions are still to be queued, with it at their end; 0 when there is none.
    owed: u64,
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
    /// Gives an operation its number, and queues it.
    fn queue(&mut self, op: Op) -> u64 {
        self.number += 1;
        if !self.dropped {
            self.queue.push_back((Op { number: self.number, ..op }, 0));
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

    fn register(&mut self, user: UserId, connection: u64, idle: bool, choice: Option<Choice>) {
        let choice = choice.unwrap_or_default();
        let op = of_session(op::Kind::Session, user, connection);
        let number = self.queue(Op { idle, choice: choice.state, choice_version: choice.version, ..op });
        self.sessions.insert((user, connection), (number, idle));
    }

    fn entries(&self) -> usize {
        self.topics.len() + self.sessions.len()
    }
}

impl Directory {
    pub(crate) fn new(boot: BootId, client: DirectoryClient<Client>, sync: SyncClient<Client>) -> Self {
        Self {
            boot,
            client,
            sync,
            state: Mutex::default(),
            wake: Notify::new(),
            wake_sessions: Notify::new(),
            acked: watch::Sender::new(0),
        }
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
                        let number = state.queue(of_topic(op::Kind::Attach, topic));
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
            state.queue(of_topic(op::Kind::Detach, topic));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A connection makes its user, who has chosen this, online.
    pub(crate) fn session(&self, user: UserId, connection: u64, choice: Option<Choice>) {
        let mut state = lock(&self.state);
        state.register(user, connection, false, choice);
        drop(state);
        self.wake.notify_one();
    }

    /// The same of a connection that does so already: it makes its user away when `idle`.
    pub(crate) fn idle(&self, user: UserId, connection: u64, idle: bool, choice: Choice) {
        let mut state = lock(&self.state);
        // It may have ended meanwhile.
        if state.sessions.contains_key(&(user, connection)) {
            state.register(user, connection, idle, Some(choice));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// A connection does so no longer.
    pub(crate) fn end_session(&self, user: UserId, connection: u64) {
        let mut state = lock(&self.state);
        if state.sessions.remove(&(user, connection)).is_some() {
            state.queue(of_session(op::Kind::SessionEnd, user, connection));
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Sends what is queued, until the boot is over. `late` is called after operations went through that had to be tried
    /// again, or that somebody did not wait for: what was published meanwhile may have been missed.
    pub(crate) async fn run(&self, late: impl Fn()) {
        tokio::select! {
            () = self.send(late) => {}
            () = self.bring_sessions() => {}
        }
    }

    async fn send(&self, late: impl Fn()) {
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

    /// Registers sessions again whenever that is owed, for ever.
    async fn bring_sessions(&self) {
        loop {
            let woken = self.wake_sessions.notified();
            let (owed, users) = {
                let state = lock(&self.state);
                let users: HashSet<UserId> = state.sessions.keys().map(|(user, _)| *user).collect();
                (state.owed, users.into_iter().collect::<Vec<_>>())
            };
            if owed == 0 {
                woken.await;
                continue;
            }
            match self.choices(&users).await {
                Ok(choices) => self.register_sessions(owed, &choices),
                Err(status) => {
                    tracing::warn!(error = %status, "how users want to be shown could not be read; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// How these users want to be shown.
    async fn choices(&self, users: &[UserId]) -> Result<HashMap<UserId, Choice>, Status> {
        let mut choices = HashMap::with_capacity(users.len());
        for slice in users.chunks(SLICE) {
            let request = ChoicesRequest { users: slice.iter().map(|user| user.to_wire()).collect() };
            match self.sync.clone().choices(request).await {
                Ok(reply) => choices.extend(slice.iter().copied().zip(reply.into_inner().items)),
                // A chat-service of the version before has none.
                Err(status) if status.code() == Code::Unimplemented => break,
                Err(status) => return Err(status),
            }
        }
        Ok(choices)
    }

    /// Queues the sessions of a full registration, and the mark that ends it; not when another one has begun meanwhile.
    /// Whoever came since the choices were read was queued with a choice already.
    fn register_sessions(&self, owed: u64, choices: &HashMap<UserId, Choice>) {
        let mut state = lock(&self.state);
        if state.owed != owed {
            return;
        }
        state.owed = 0;
        let stale: Vec<((UserId, u64), bool)> = state
            .sessions
            .iter()
            .filter(|(_, (number, _))| *number < owed)
            .map(|(key, (_, idle))| (*key, *idle))
            .collect();
        for ((user, connection), idle) in &stale {
            state.register(*user, *connection, *idle, choices.get(user).copied());
        }
        if stale.is_empty() {
            // The mark needs something to travel with, and taking back what is not there is harmless.
            state.queue(of_topic(op::Kind::Detach, Topic::Room(RoomId(Uuid::nil()))));
        }
        if let Some((_, sweep_below)) = state.queue.back_mut() {
            *sweep_below = owed;
        }
        drop(state);
        self.wake.notify_one();
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
            self.register_all(&mut state);
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
        let settled = state.queue.is_empty() && state.owed == 0 && *self.acked.borrow() >= state.number;
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
        self.register_all(&mut state);
        drop(state);
        self.wake.notify_one();
        Standing::Registered
    }

    /// How many gateways there are, as far as the directory has told: 0 when it has not.
    pub(crate) fn gateways(&self) -> u64 {
        lock(&self.state).gateways
    }

    /// Queues every topic again, and owes the sessions, with a mark that clears what is older. What was queued before is
    /// contained in that.
    fn register_all(&self, state: &mut State) {
        (state.queue, state.dropped) = (VecDeque::new(), false);
        state.owed = state.number + 1;
        let topics: Vec<Topic> = state.topics.keys().copied().collect();
        for topic in topics {
            let number = state.queue(of_topic(op::Kind::Attach, topic));
            state.topics.insert(topic, number);
        }
        state.whole = state.number;
        self.wake_sessions.notify_one();
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

fn of_topic(kind: op::Kind, topic: Topic) -> Op {
    Op { kind: kind.into(), topic: topic.to_wire(), ..Op::default() }
}

fn of_session(kind: op::Kind, user: UserId, connection: u64) -> Op {
    Op { kind: kind.into(), user: user.to_wire(), connection, ..Op::default() }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
