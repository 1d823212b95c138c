//! Stories that break a cluster. Each starts its own, and one at a time: two cores carry one cluster in trouble, not several.

mod broker_away;
mod broker_objects;
mod broker_restarted;
mod chat_service_killed;
mod gateway_killed;
mod gateway_leaves;
mod gateway_paused;
mod logs;
mod one_trace;
mod postgres_killed;
mod publish_held;
mod redis_away;
mod redis_emptied;
mod scans;
mod sink;
mod witness;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits for the turn of a fault story. One that failed does not take the turns of the others with it.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
