//! How long the stories wait: for a condition, and never merely for a time.

use std::time::Duration;

/// How long a story waits for what must come. Generous, because two cores carry every service and every test at once; a bound
/// that the contract states is asserted by its story itself.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// How often a condition without an event of its own is looked at.
const TICK: Duration = Duration::from_millis(50);

/// Tells a story to its end, on a runtime that goes with it: its sockets are closed before its stack is stopped, so that no
/// server waits in vain for a client that can not answer any more.
pub fn tell(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(story);
}

/// Lets a fault last: the one wait that is for a time, because the length of the fault is what the story is about.
pub async fn lasts(fault: Duration) {
    tokio::time::sleep(fault).await;
}

/// Waits for a future, and says what did not come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("in {PATIENCE:?} there was no {what}"),
    }
}

/// Looks again and again until there is an answer.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(TICK).await;
        }
    };
    within(what, looking).await
}
