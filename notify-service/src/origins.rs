//! Keeps one provider from delaying the others: how many pushes may be on their way to each, and a pause when it fails.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attempt::in_future;

/// Pushes on their way to one origin.
const TOGETHER: usize = 32;
/// Failures in a row after which an origin is left alone for a while.
const FAILURES: u32 = 8;
/// How long. Short enough that a push that was not tried yet is tried within half a minute.
const PAUSE: Duration = Duration::from_secs(10);
/// Origins that are remembered; those without a push on its way go first.
const REMEMBERED: usize = 10_000;

/// The origins that pushes go to.
#[derive(Default)]
pub(crate) struct Origins(Mutex<HashMap<String, Arc<Origin>>>);

/// One of them.
pub(crate) struct Origin {
    slots: Arc<Semaphore>,
    failures: AtomicU32,
    /// Nothing is sent before, in milliseconds since the epoch.
    closed_until: AtomicI64,
}

/// Whether a push may go now.
pub(crate) enum Entry {
    /// It may, and counts as on its way while this is held.
    Open(OwnedSemaphorePermit),
    /// As many as may are on their way.
    Full,
    /// It has failed, or has asked to wait, until then.
    Closed(i64),
}

impl Origins {
    /// The origin by its name.
    pub(crate) fn get(&self, name: &str) -> Arc<Origin> {
        let mut origins = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= REMEMBERED && !origins.contains_key(name) {
            origins.retain(|_, origin| origin.slots.available_permits() < TOGETHER);
        }
        Arc::clone(origins.entry(name.to_owned()).or_insert_with(|| {
            let slots = Arc::new(Semaphore::new(TOGETHER));
            Arc::new(Origin { slots, failures: AtomicU32::new(0), closed_until: AtomicI64::new(0) })
        }))
    }
}

impl Origin {
    /// Asks to send one push at `now`.
    pub(crate) fn enter(&self, now: i64) -> Entry {
        let until = self.closed_until.load(Ordering::Relaxed);
        if until > now {
            return Entry::Closed(until);
        }
        Arc::clone(&self.slots).try_acquire_owned().map_or(Entry::Full, Entry::Open)
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

#[cfg(test)]
mod tests {
    use service_kit::clock;

    use super::*;

    #[test]
    fn an_origin_that_is_full_or_fails_is_left_alone_and_the_others_are_not() {
        let (origins, now) = (Origins::default(), clock::now_ms());
        let hanging = origins.get("https://a");
        let held: Vec<_> = (0..TOGETHER).map(|_| hanging.enter(now)).collect();
        assert!(held.iter().all(|entry| matches!(entry, Entry::Open(_))));
        assert!(matches!(origins.get("https://a").enter(now), Entry::Full));
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
    fn a_provider_that_asks_to_wait_is_waited_for() {
        let (origins, now) = (Origins::default(), clock::now_ms());
        let busy = origins.get("https://a");
        busy.failed(Some(Duration::from_secs(90)));
        assert!(matches!(busy.enter(now), Entry::Closed(until) if until >= now + 90_000));
    }
}
