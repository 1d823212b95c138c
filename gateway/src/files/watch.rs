//! Looks whether the store is there, for operators: nothing depends on it, as every request finds out for itself.

use std::time::Duration;

use service_kit::admin::Readiness;

use super::store::Store;

/// What `/readyz` calls it.
pub(super) const NOTE: &str = "files";
/// How often it is asked.
const PROBE: Duration = Duration::from_secs(5);
/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(4);

/// Asks again and again, and says when it goes and when it comes back.
pub(super) async fn run(store: Store, readiness: Readiness) {
    let mut ticks = tokio::time::interval(PROBE);
    let mut was_there = true;
    loop {
        ticks.tick().await;
        let found = store.probe(ANSWER).await;
        let there = found.is_ok();
        readiness.note(NOTE, there);
        metrics::gauge!("files_store_up").set(if there { 1.0 } else { 0.0 });
        match found {
            Err(error) if was_there => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "the store of the files cannot be used; chat goes on without"
                );
            }
            Ok(()) if !was_there => tracing::info!("the store of the files is back"),
            _ => {}
        }
        was_there = there;
    }
}
