//! How many calls the database got, looked at from outside all along.
//!
//! `pg_stat_statements` counts every call when it ends. Without it, `pg_stat_database` counts transactions, which each connection
//! reports about once a second: good enough for windows of several seconds, and said in the result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor, Row};

use crate::setup::runtime;

const LOOK_EVERY: Duration = Duration::from_millis(100);
const STATEMENTS: &str = "select sum(calls)::bigint from pg_stat_statements(false) \
                          where dbid = (select oid from pg_database where datname = current_database())";
const TRANSACTIONS: &str =
    "select (xact_commit + xact_rollback)::bigint from pg_stat_database where datname = current_database()";

/// Looks until it is dropped.
pub(crate) struct Calls {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// What is counted.
    pub(crate) what: &'static str,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    // Written by the looking thread; held for an instant.
    looks: Mutex<Vec<(Instant, i64)>>,
}

impl Calls {
    /// Begins to look at this database.
    pub(crate) fn watch(url: &str) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let mut database = runtime.block_on(PgConnection::connect(url)).context("cannot connect to the database")?;
        let has_statements = runtime.block_on(database.fetch_one(STATEMENTS)).is_ok();
        let (query, what) = if has_statements { (STATEMENTS, "statements") } else { (TRANSACTIONS, "transactions") };
        let shared = Arc::new(Shared::default());
        let looking = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let mut own = 0;
            while !looking.stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                if let Ok(row) = runtime.block_on(database.fetch_one(query)) {
                    // Looking is a call, too.
                    let calls = row.try_get::<i64, _>(0).unwrap_or_default() - own;
                    own += 1;
                    lock(&looking.looks).push((begun, calls));
                }
                thread::sleep(LOOK_EVERY.saturating_sub(begun.elapsed()));
            }
        });
        Ok(Self { shared, thread: Some(thread), what })
    }

    /// Calls a second from one instant to another.
    pub(crate) fn per_s(&self, from: Instant, to: Instant) -> Option<f64> {
        rate(&lock(&self.shared.looks), from, to)
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has panicked at worst, and said so.
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between the looks nearest to both instants.
fn rate(looks: &[(Instant, i64)], from: Instant, to: Instant) -> Option<f64> {
    let near = |instant: Instant| {
        let apart = |look: &&(Instant, i64)| look.0.max(instant) - look.0.min(instant);
        looks.iter().min_by_key(apart)
    };
    let ((begun, first), (ended, last)) = (near(from)?, near(to)?);
    let seconds = ended.checked_duration_since(*begun)?.as_secs_f64();
    (seconds > 0.0).then(|| (last - first) as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::rate;

    #[test]
    fn the_rate_is_between_the_nearest_looks() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let looks = [(at(0), 0), (at(1_000), 100), (at(2_000), 400)];
        assert_eq!(rate(&looks, at(900), at(2_300)), Some(300.0));
        assert_eq!(rate(&looks, at(0), at(100)), None);
        assert_eq!(rate(&[], at(0), at(1)), None);
    }
}
