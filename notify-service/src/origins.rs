//! Keeps one provider from delaying the others, and from a storm: how many pushes may be on their way to each, how many go out
//! in a second, and a pause when it fails.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use service_kit::clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::attempt::in_future;

/// Pushes on their way to one origin.
const TOGETHER: usize = 32;
/// Those, and those that wait for their turn.
const HELD: usize = 128;
/// How long one may wait for its turn: much shorter than it is claimed for.
const TURN: Duration = Duration::from_secs(5);
/// Failures in a row after which an origin is left alone for a while.
const FAILURES: u32 = 8;
/// How long. Short enough that a push that was not tried yet is tried within half a minute.
const PAUSE: Duration = Duration::from_secs(10);
/// Pushes that may go out at once of those of a second: a quarter. It is worth as long a silence before.
const BURST_US: i64 = 250_000;
/// A push that finds no room comes back after so long at least,
const BACK_US: i64 = 200_000;
/// and behind those that were sent back before it, at this pace when none is configured.
const BACK_PER_S: u32 = 5_000;
/// Origins that are remembered; those without a push on its way go first.
const REMEMBERED: usize = 10_000;

/// The origins that pushes go to.
pub(crate) struct Origins {
    known: Mutex<HashMap<String, Arc<Origin>>>,
    /// Pushes in a second to each; 0: as many as come.
    rate: u32,
}

/// One of them.
pub(crate) struct Origin {
    places: Arc<Semaphore>,
    slots: Semaphore,
    failures: AtomicU32,
    /// Nothing is sent before, in milliseconds since the epoch.
    closed_until: AtomicI64,
    pace: Mutex<Pace>,
}

/// When the next push may go out, and when the next one that found no room may come back, both as if each had come in its
/// turn (GCRA), in microseconds since the epoch.
struct Pace {
    rate: u32,
    out: i64,
    back: i64,
}

/// Whether a push may go now.
pub(crate) enum Entry {
    /// It may, in its [`Origin::turn`], and has a place while this is held.
    Open(OwnedSemaphorePermit),
    /// As many as may have a place or went out just now. It may come back then, in milliseconds since the epoch.
    Full(i64),
    /// It has failed, or has asked to wait, until then.
    Closed(i64),
}

impl Origins {
    /// With so many pushes in a second to each; 0: as many as come.
    pub(crate) fn new(rate: u32) -> Self {
        Self { known: Mutex::default(), rate }
    }

    /// The origin by its name.
    pub(crate) fn get(&self, name: &str) -> Arc<Origin> {
        let mut origins = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= REMEMBERED && !origins.contains_key(name) {
            origins.retain(|_, origin| origin.places.available_permits() < HELD);
        }
        Arc::clone(origins.entry(name.to_owned()).or_insert_with(|| {
            Arc::new(Origin {
                places: Arc::new(Semaphore::new(HELD)),
                slots: Semaphore::new(TOGETHER),
                failures: AtomicU32::new(0),
                closed_until: AtomicI64::new(0),
                pace: Mutex::new(Pace { rate: self.rate, out: 0, back: 0 }),
            })
        }))
    }
}

impl Origin {
    /// Asks to send one push at `now`.
    pub(crate) fn enter(&self, now: i64) -> Entry {
        if let Some(until) = self.closed(now) {
            return Entry::Closed(until);
        }
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) if pace.goes_out(now.saturating_mul(1000)) => Entry::Open(permit),
            _ => Entry::Full(pace.comes_back(now.saturating_mul(1000)) / 1000),
        }
    }

    /// Waits for the turn of one that has a place; it is on its way while this is held.
    ///
    /// # Errors
    /// With when it may come back, in milliseconds since the epoch, when that takes too long or the origin has failed.
    pub(crate) async fn turn(&self) -> Result<SemaphorePermit<'_>, i64> {
        let turn = tokio::time::timeout(TURN, self.slots.acquire()).await;
        match (turn, self.closed(clock::now_ms())) {
            (_, Some(until)) => Err(until),
            (Ok(Ok(permit)), None) => Ok(permit),
            _ => Err(self.back(clock::now_ms())),
        }
    }

    fn closed(&self, now: i64) -> Option<i64> {
        Some(self.closed_until.load(Ordering::Relaxed)).filter(|until| *until > now)
    }

    fn back(&self, now: i64) -> i64 {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        pace.comes_back(now.saturating_mul(1000)) / 1000
    }

    /// It has answered.
    pub(crate) fn worked(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It has not. `wait`: it asked for so long.
    pub(crate) fn failed(&self, wait: Option<Duration>) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let pause = wait.or((failures >= FAILURES).then_some(PAUSE));
        if let Some(pause) = pause {
            self.closed_until.fetch_max(in_future(pause), Ordering::Relaxed);
        }
    }
}

impl Pace {
    /// Whether one may go out at `now`; if so, it has.
    fn goes_out(&mut self, now: i64) -> bool {
        if self.rate == 0 {
            return true;
        }
        let turn = self.out.max(now);
        let goes = turn - now <= BURST_US - step(self.rate).min(BURST_US);
        if goes {
            self.out = turn + step(self.rate);
        }
        goes
    }

    /// When one that found no room at `now` may come back. So many come back in a second as may go out.
    fn comes_back(&mut self, now: i64) -> i64 {
        let rate = if self.rate == 0 { BACK_PER_S } else { self.rate };
        self.back = self.back.max(now + BACK_US) + step(rate);
        self.back
    }
}

/// Microseconds between two.
fn step(rate: u32) -> i64 {
    1_000_000 / i64::from(rate.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_is_full_or_fails_is_left_alone_and_the_others_are_not() {
        let (origins, now) = (Origins::new(0), clock::now_ms());
        let hanging = origins.get("https://a");
        let held: Vec<_> = (0..HELD).map(|_| hanging.enter(now)).collect();
        assert!(held.iter().all(|entry| matches!(entry, Entry::Open(_))));
        assert!(matches!(origins.get("https://a").enter(now), Entry::Full(_)));
        assert!(matches!(origins.get("https://b").enter(now), Entry::Open(_)));
        drop(held);
        assert!(matches!(hanging.enter(now), Entry::Open(_)));

        for _ in 1..FAILURES {
            hanging.failed(None);
        }
        assert!(matches!(hanging.enter(now), Entry::Open(_)));
        hanging.failed(None);
        assert!(matches!(hanging.enter(now), Entry::Closed(until) if until >= now + 10_000));
        assert!(matches!(hanging.enter(now + 20_000), Entry::Open(_)), "it is tried again");
    }

    #[test]
    fn no_more_go_out_in_a_second_than_the_rate_and_what_is_left_comes_back_at_that_rate() {
        let (origins, begin) = (Origins::new(100), 1_000_000);
        let origin = origins.get("https://a");
        let goes = |now| matches!(origin.enter(now), Entry::Open(_));
        let at_once = (0..1_000).filter(|_| goes(begin)).count();
        assert_eq!(at_once, 25, "a quarter of a second's");
        let of_a_second = (1..=1_000).filter(|ms| goes(begin + ms)).count();
        assert_eq!(of_a_second, 100);
        assert!(matches!(origins.get("https://b").enter(begin + 1_000), Entry::Open(_)), "each has its own");
        let silence = begin + 3_600_000;
        assert_eq!((0..1_000).filter(|_| goes(silence)).count(), 25, "nothing is saved up");

        let slow = origins.get("https://c");
        let back: Vec<i64> = (0..1_025)
            .filter_map(|_| match slow.enter(begin) {
                Entry::Full(back) => Some(back),
                _ => None,
            })
            .collect();
        assert_eq!((back[0], back[999], back.len()), (begin + 210, begin + 10_200, 1_000), "1,000 in ten seconds");
        let mut later = back.iter().filter(|back| matches!(slow.enter(**back), Entry::Open(_)));
        assert_eq!(later.by_ref().count(), 1_000, "and each of them goes then");
    }

    #[test]
    fn every_rate_lets_some_out_and_none_is_no_bound() {
        for rate in [1, 2, 3, 4, 5, 1_000, 1_000_000, u32::MAX] {
            let origin = Origins::new(rate).get("https://a");
            assert!(matches!(origin.enter(1_000), Entry::Open(_)), "{rate}");
            assert!(matches!(origin.enter(2_001), Entry::Open(_)), "{rate}: after a second");
        }
        let origin = Origins::new(0).get("https://a");
        assert!((0..100_000).all(|_| matches!(origin.enter(1_000), Entry::Open(_))));
    }

    #[tokio::test]
    async fn only_some_are_on_their_way_and_who_waits_hears_of_a_failure() {
        let origin = Origins::new(0).get("https://a");
        let mut turns = Vec::new();
        for _ in 0..TOGETHER {
            turns.push(origin.turn().await.ok());
        }
        let waiting = origin.turn();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        origin.failed(Some(Duration::from_secs(90)));
        drop(turns);
        assert!(waiting.await.is_err_and(|until| until > clock::now_ms() + 80_000));
    }

    #[test]
    fn a_provider_that_asks_to_wait_is_waited_for() {
        let (origins, now) = (Origins::new(0), clock::now_ms());
        let busy = origins.get("https://a");
        busy.failed(Some(Duration::from_secs(90)));
        assert!(matches!(busy.enter(now), Entry::Closed(until) if until >= now + 90_000));
    }
}
