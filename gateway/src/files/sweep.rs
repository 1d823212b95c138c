//! Removes the bytes of files whose time is over, and then has them forgotten.

use std::time::Duration;

use parlance_proto::files::{DeadList, TakeDeadRequest, files_client::FilesClient};
use service_kit::{id::FileId, rpc::Client};

use super::store::Store;

/// Files that are taken at once.
const BATCH: i64 = 64;
/// How long chat-service may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Sweeps again and again. Every gateway does; what one has taken, the others do not get.
pub(super) async fn run(store: Store, mut files: FilesClient<Client>, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        loop {
            match step(&store, &mut files).await {
                Ok(0) => break,
                Ok(count) => metrics::counter!("files_removed_total").increment(count),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "files are not being removed; trying again");
                    break;
                }
            }
        }
    }
}

/// Takes one batch, removes its bytes, confirms it. Tells how many were removed.
async fn step(store: &Store, files: &mut FilesClient<Client>) -> anyhow::Result<u64> {
    let dead = tokio::time::timeout(ANSWER, files.take_dead(TakeDeadRequest { limit: BATCH })).await??.into_inner();
    let mut removed = Vec::with_capacity(dead.files.len());
    for id in dead.files {
        store.remove(FileId::from_wire(&id, "file")?).await?;
        removed.push(id);
    }
    let count = removed.len() as u64;
    if count > 0 {
        tokio::time::timeout(ANSWER, files.removed(DeadList { files: removed })).await??;
    }
    Ok(count)
}
