//! A store with a clock, gateways that register, a sweeper, and what came out of them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use presence_service::{
    announce::Announcer,
    error::Error,
    presence::{Choice, Chosen, State, Transition},
    store::{Change, Clock, Op, Renewal, Standing, Store, Timing},
    sweeper::{Step, Sweeper},
};
use service_kit::{
    admin::Readiness,
    id::{BootId, RoomId, Topic, UserId},
};
use tokio::sync::mpsc;

/// How long a story waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it looks.
const STEP: Duration = Duration::from_millis(20);

/// Short enough to wait for, long enough for a busy machine.
pub(crate) const TIMING: Timing = Timing {
    lease: Duration::from_millis(900),
    grace: Duration::from_millis(1_500),
    unknown: Duration::from_millis(900),
    remember: Duration::from_secs(3_600),
    keep: Duration::from_secs(3_600),
    resay: Duration::from_millis(500),
    claim: Duration::from_millis(500),
};

/// One store of its own.
pub(crate) struct World {
    pub(crate) store: Store,
    hand: Option<Arc<AtomicI64>>,
    started: Instant,
    choices: AtomicI64,
    /// Of the keys in Redis.
    pub(crate) prefix: String,
}

/// The Redis to test on. Missing it is a failure only where it was promised.
pub(crate) fn redis_url() -> Option<String> {
    #[allow(clippy::disallowed_methods, reason = "tests are told where their backends are by variables")]
    let var = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let url = var("PARLANCE_TEST_REDIS_URL");
    assert!(url.is_some() || var("PARLANCE_TEST_REQUIRED").is_none(), "PARLANCE_TEST_REDIS_URL is not set");
    url
}

impl World {
    pub(crate) fn memory() -> Self {
        let hand = Arc::new(AtomicI64::new(1_700_000_000_000));
        let store = Store::memory(TIMING, Clock::Hand(Arc::clone(&hand)));
        Self { store, hand: Some(hand), started: Instant::now(), choices: AtomicI64::new(0), prefix: String::new() }
    }

    pub(crate) fn redis(url: &str) -> Self {
        let prefix = format!("test-{}:", RoomId::generate());
        let store = Store::connect(url, &prefix, TIMING).unwrap();
        Self { store, hand: None, started: Instant::now(), choices: AtomicI64::new(0), prefix }
    }

    pub(crate) async fn passes(&self, time: Duration) {
        match &self.hand {
            Some(hand) => {
                hand.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
            }
            None => tokio::time::sleep(time).await,
        }
    }

    pub(crate) fn now(&self) -> Instant {
        match &self.hand {
            Some(hand) => {
                let passed = hand.load(Ordering::Relaxed) - 1_700_000_000_000;
                self.started + Duration::from_millis(u64::try_from(passed).unwrap())
            }
            None => Instant::now(),
        }
    }

    pub(crate) fn gateway(&self) -> Gateway {
        Gateway { store: self.store.clone(), boot: BootId::generate(), number: 0, renewals: 0 }
    }

    pub(crate) fn sweeper(&self) -> Watched {
        let (announcer, told) = Announcer::to_channel();
        let sweeper = Sweeper::new(self.store.clone(), announcer, Readiness::new(), TIMING.lease);
        Watched { sweeper, told, heard: Vec::new(), last: Step::Waiting }
    }

    pub(crate) async fn serves(&self, topic: Topic) -> HashSet<BootId> {
        self.store.lookup(&[topic]).await.unwrap().served.remove(0).into_iter().collect()
    }

    /// Somebody chooses, later than whoever chose before.
    pub(crate) async fn chooses(&self, user: UserId, choice: Choice) -> Option<Transition> {
        let version = self.choices.fetch_add(1, Ordering::Relaxed) + 1;
        self.store.choose(user, Chosen { choice, version }).await.unwrap()
    }

    pub(crate) async fn state(&self, user: UserId) -> State {
        self.store.states(&[user]).await.unwrap()[0].status.state
    }

    /// Lets time pass with these gateways renewing and this sweeper sweeping, until `done`.
    pub(crate) async fn until(
        &self,
        gateways: &mut [&mut Gateway],
        sweeper: &mut Watched,
        what: &str,
        mut done: impl FnMut(&Watched) -> bool,
    ) {
        let end = self.now() + PATIENCE;
        loop {
            for gateway in &mut *gateways {
                gateway.renews().await;
            }
            sweeper.steps(self.now()).await;
            if done(sweeper) {
                return;
            }
            assert!(self.now() < end, "waited in vain until {what}; heard {:?}", sweeper.heard);
            self.passes(STEP).await;
        }
    }

    /// The same for a certain time.
    pub(crate) async fn lives(&self, gateways: &mut [&mut Gateway], sweeper: &mut Watched, time: Duration) {
        let end = self.now() + time;
        self.until(gateways, sweeper, "time passed", |_| self.now() >= end).await;
    }
}

/// A sweeper and the transitions that came out of it.
pub(crate) struct Watched {
    sweeper: Sweeper,
    told: mpsc::Receiver<Vec<Transition>>,
    pub(crate) heard: Vec<Transition>,
    pub(crate) last: Step,
}

impl Watched {
    pub(crate) async fn steps(&mut self, now: Instant) -> Step {
        self.last = self.sweeper.step(now).await;
        while let Ok(transitions) = self.told.try_recv() {
            self.heard.extend(transitions);
        }
        self.last
    }

    pub(crate) fn trusts_itself(&self) -> bool {
        matches!(self.last, Step::Swept { .. })
    }

    pub(crate) fn heard_of(&self, user: UserId) -> Vec<Transition> {
        self.heard.iter().filter(|transition| transition.user == user).copied().collect()
    }
}

/// A gateway as the store sees it.
pub(crate) struct Gateway {
    store: Store,
    pub(crate) boot: BootId,
    pub(crate) number: u64,
    renewals: u64,
}

impl Gateway {
    pub(crate) async fn renews(&mut self) -> Renewal {
        self.renewals += 1;
        self.store.renew(self.boot, self.renewals).await.unwrap()
    }

    pub(crate) async fn renews_as(&self, number: u64) -> Standing {
        self.store.renew(self.boot, number).await.unwrap().standing
    }

    fn next(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    pub(crate) async fn tries(&self, ops: &[Op], sweep_below: u64) -> Result<Vec<Transition>, Error> {
        let mut out = Vec::new();
        self.store.update(self.boot, ops, sweep_below, &mut out).await.map(|()| out)
    }

    pub(crate) async fn does(&mut self, change: Change) -> Vec<Transition> {
        let number = self.next();
        self.does_as(number, change).await
    }

    /// Confirms what came of it, as the announcer does.
    pub(crate) async fn does_as(&self, number: u64, change: Change) -> Vec<Transition> {
        let told = self.tries(&[Op { number, change }], 0).await.unwrap();
        self.store.said(&told).await.unwrap();
        told
    }

    pub(crate) async fn attaches(&mut self, topic: Topic) {
        self.does(Change::Attach(topic)).await;
    }

    pub(crate) async fn detaches(&mut self, topic: Topic) {
        self.does(Change::Detach(topic)).await;
    }

    pub(crate) async fn connects(&mut self, user: UserId, connection: u64) -> Vec<Transition> {
        self.does(Change::Session { user, connection, idle: false, chosen: None }).await
    }

    pub(crate) async fn idles(&mut self, user: UserId, connection: u64) -> Vec<Transition> {
        self.does(Change::Session { user, connection, idle: true, chosen: None }).await
    }

    pub(crate) async fn disconnects(&mut self, user: UserId, connection: u64) -> Vec<Transition> {
        self.does(Change::SessionEnd { user, connection }).await
    }
}

/// The states that transitions went to.
pub(crate) fn states(transitions: &[Transition]) -> Vec<State> {
    transitions.iter().map(|transition| transition.status.state).collect()
}

pub(crate) fn room() -> Topic {
    Topic::Room(RoomId::generate())
}
