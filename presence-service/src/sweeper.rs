//! Clears gateways that are dead, and says of users whose grace is over that they are offline.

use std::time::{Duration, Instant};

use service_kit::admin::Readiness;
use tokio::time::MissedTickBehavior;

use crate::{
    announce::Announcer,
    error::Error,
    presence::Transition,
    store::{BATCH, Store},
};

/// How often it looks.
const PERIOD: Duration = Duration::from_secs(1);
/// The pause between two batches, in which the store serves others.
const PACE: Duration = Duration::from_millis(5);
/// Batches after which a step ends and the store is reached for anew.
const BATCHES: usize = 64;
/// The part of this process that is ready while the store answers.
const PART: &str = "presence_store";

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The store could not be reached.
    Unreached,
    /// It has been reached, but not for long enough to take a silent gateway for a dead one.
    Waiting,
    /// It did its work.
    Swept {
        /// Entries of dead gateways that were removed.
        cleared: usize,
        /// Users that were checked.
        checked: usize,
        /// There is more of either.
        more: bool,
    },
}

/// The worker: one in each replica, each on its own.
pub struct Sweeper {
    store: Store,
    announcer: Announcer,
    readiness: Readiness,
    lease: Duration,
    reach: Reach,
}

impl Sweeper {
    /// A sweeper that has not reached the store yet. `lease` is that of `Timing`.
    #[must_use]
    pub fn new(store: Store, announcer: Announcer, readiness: Readiness, lease: Duration) -> Self {
        readiness.set(PART, false);
        Self { store, announcer, readiness, lease, reach: Reach::default() }
    }

    /// Looks every second, for ever; at once again while there is more to do.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if !matches!(self.step(Instant::now()).await, Step::Swept { more: true, .. }) {
                ticks.tick().await;
            }
        }
    }

    /// Looks once. `now` is the caller's clock, which tells how long the store has been reached.
    pub async fn step(&mut self, now: Instant) -> Step {
        let probed = self.store.probe().await;
        self.readiness.set(PART, probed.is_ok());
        match probed {
            Ok(run) => self.reach.reached(now, run, self.lease),
            Err(error) => return self.unreached(&error),
        }
        if !self.reach.is_trusted(now, self.lease) {
            return Step::Waiting;
        }
        match self.sweep().await {
            Ok(step) => step,
            Err(error) => self.unreached(&error),
        }
    }

    fn unreached(&mut self, error: &Error) -> Step {
        tracing::warn!(error = %error, "the sweeper cannot reach the presence store, and takes nobody for dead");
        self.reach = Reach::default();
        Step::Unreached
    }

    async fn sweep(&self) -> Result<Step, Error> {
        let mut cleared = 0;
        let mut batches = 0;
        for dead in self.store.bury().await? {
            loop {
                let removed = self.told(async |out| self.store.clear(&dead, out).await).await?;
                cleared += removed;
                batches += 1;
                if removed < BATCH {
                    tracing::info!(boot.id = %dead.boot, dead.cleared, "a gateway's entries were removed");
                    break;
                }
                if batches >= BATCHES {
                    return Ok(Step::Swept { cleared, checked: 0, more: true });
                }
                tokio::time::sleep(PACE).await;
            }
        }
        let mut checked = 0;
        for _ in 0..BATCHES {
            let count = self.told(async |out| self.store.check(out).await).await?;
            checked += count;
            if count < BATCH {
                return Ok(Step::Swept { cleared, checked, more: false });
            }
            tokio::time::sleep(PACE).await;
        }
        Ok(Step::Swept { cleared, checked, more: true })
    }

    /// Runs one batch, and has its transitions told whether it succeeded as a whole or not.
    async fn told(
        &self,
        batch: impl AsyncFnOnce(&mut Vec<Transition>) -> Result<usize, Error>,
    ) -> Result<usize, Error> {
        let mut transitions = Vec::new();
        let outcome = batch(&mut transitions).await;
        self.announcer.tell(transitions).await;
        if let Ok(count) = outcome {
            metrics::counter!("presence_swept_total").increment(count as u64);
        }
        outcome
    }
}

/// How long the store has been reached without a failure, a pause of ours, or a restart of the server, each of which
/// may have kept gateways from renewing.
#[derive(Debug, Default)]
struct Reach {
    since: Option<Instant>,
    last: Option<Instant>,
    run: String,
}

impl Reach {
    fn reached(&mut self, now: Instant, run: String, lease: Duration) {
        // A process that was stopped for a while has not seen how the store was in the meantime.
        let paused = self.last.is_some_and(|last| now.saturating_duration_since(last) > lease / 3);
        if paused || self.run != run {
            self.since = None;
        }
        self.since.get_or_insert(now);
        self.last = Some(now);
        self.run = run;
    }

    fn is_trusted(&self, now: Instant, lease: Duration) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(10);

    /// Whether a sweeper trusts itself that saw these: second, run of the server.
    fn trusted(seen: &[(u64, &str)]) -> bool {
        let start = Instant::now();
        let mut reach = Reach::default();
        let mut trusted = false;
        for (second, run) in seen {
            let now = start + Duration::from_secs(*second);
            reach.reached(now, (*run).to_owned(), LEASE);
            trusted = reach.is_trusted(now, LEASE);
        }
        trusted
    }

    #[test]
    fn only_who_reached_the_store_throughout_a_lease_is_trusted() {
        assert!(trusted(&(0..=10).map(|second| (second, "a")).collect::<Vec<_>>()));
        assert!(!trusted(&(0..=9).map(|second| (second, "a")).collect::<Vec<_>>()));
    }

    #[test]
    fn a_pause_of_its_own_makes_it_wait_again() {
        let mut seen: Vec<_> = (0..=10).map(|second| (second, "a")).collect();
        seen.push((15, "a"));
        assert!(!trusted(&seen));
    }

    #[test]
    fn another_run_of_the_server_makes_it_wait_again() {
        let mut seen: Vec<_> = (0..=10).map(|second| (second, "a")).collect();
        seen.push((11, "b"));
        assert!(!trusted(&seen));
    }
}
