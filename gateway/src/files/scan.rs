//! Has clamd look at the files that chat-service holds. Every gateway takes some, as many as it has room for; what one has
//! taken, the others do not get until its time is over. A file is only looked at further when it was found clean.

use std::{sync::Arc, time::Duration};

use anyhow::anyhow;
use parlance_proto::files as wire;
use service_kit::{admin::Readiness, id::FileId};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{
    Keeper, Part,
    clamd::{Clamd, Verdict},
    upload::rejected,
};
use crate::{error::Problem, services::Services};

/// Files that a gateway has scanned at once: below the threads that clamd has when nothing else is said (`MaxThreads` 10).
const AT_ONCE: usize = 4;
/// How often what waits is asked for, and whether clamd is there, when nothing is uploaded.
const EVERY: Duration = Duration::from_secs(5);
/// Milliseconds that one scan may take: what clamd gives itself when nothing else is said (`MaxScanTime`), and time to send.
const MOST_MS: u64 = 150_000;
/// How long a scan may go on when the gateway stops.
const LAST: Duration = Duration::from_secs(3);

/// What scans, and what waits for it.
pub(super) struct Antivirus {
    clamd: Clamd,
    /// Something was held just now, or there is room again.
    wake: Notify,
    room: Arc<Semaphore>,
    /// How long one scan may take.
    most: Duration,
}

impl Antivirus {
    /// With the clamd that listens there; a scan may take `most_ms`, when that is said.
    pub(super) fn new(clamd: Clamd, most_ms: Option<u64>) -> Self {
        let most = Duration::from_millis(most_ms.unwrap_or(MOST_MS));
        Self { clamd, wake: Notify::new(), room: Arc::new(Semaphore::new(AT_ONCE)), most }
    }

    /// Something is held: it is scanned now, when there is room.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// How long a file is another gateway's before anybody takes it: one that died may not hold it up for long, and one that
    /// is slow may end.
    fn lease_ms(&self) -> i64 {
        i64::try_from(self.most.as_millis() * 3 / 2).unwrap_or(i64::MAX)
    }
}

/// Scans what is held, again and again.
pub(super) async fn run(keeper: Arc<Keeper>, services: Services, readiness: Readiness) {
    let Some(antivirus) = keeper.antivirus.clone() else { return };
    let mut was_there = true;
    loop {
        let there = antivirus.clamd.ping().await;
        readiness.note("clamd", there.is_ok());
        match &there {
            Ok(()) if !was_there => tracing::info!("clamd answers again"),
            Err(error) if was_there => {
                tracing::warn!(error = format!("{error:#}"), "clamd does not answer: files wait to be scanned");
            }
            _ => {}
        }
        was_there = there.is_ok();
        // Nothing is taken that could not be scanned now, but it is told how much waits.
        let room = if was_there { antivirus.room.available_permits() } else { 0 };
        if let Err(error) = step(&keeper, &antivirus, &services, room).await {
            tracing::warn!(error = format!("{error:#}"), "held files are not to be had; trying again");
        }
        let _ = timeout(EVERY, antivirus.wake.notified()).await;
    }
}

/// Takes as many files as there is room for, and begins to scan each.
async fn step(
    keeper: &Arc<Keeper>,
    antivirus: &Arc<Antivirus>,
    services: &Services,
    room: usize,
) -> anyhow::Result<()> {
    let limit = i64::try_from(room)?;
    let request = wire::TakeHeldRequest { limit, lease_ms: antivirus.lease_ms() };
    let taken = services.files.clone().take_held(request).await?.into_inner();
    for held in taken.files {
        let permit = Arc::clone(&antivirus.room).try_acquire_owned()?;
        let scanning = one(Arc::clone(keeper), Arc::clone(antivirus), services.clone(), held, permit);
        let stopping = keeper.tasks.stopping();
        keeper.tasks.spawn(async move {
            let overdue = async {
                stopping.await;
                tokio::time::sleep(LAST).await;
            };
            tokio::select! {
                () = scanning => {}
                () = overdue => {}
            }
        });
    }
    Ok(())
}

/// Scans one file and says what came of it. When nothing did, it comes again.
async fn one(
    keeper: Arc<Keeper>,
    antivirus: Arc<Antivirus>,
    services: Services,
    held: wire::Held,
    permit: OwnedSemaphorePermit,
) {
    let begun = Instant::now();
    let outcome = match judge(&keeper, &antivirus, &services, &held).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let file = FileId::from_wire(&held.file, "file").map(|file| file.to_string()).unwrap_or_default();
            tracing::warn!(file.id = file, error = format!("{error:#}"), "a file was not scanned; it will be again");
            "failed"
        }
    };
    metrics::counter!("files_scanned_total", "outcome" => outcome).increment(1);
    metrics::histogram!("files_scan_seconds").record(begun.elapsed());
    drop(permit);
    antivirus.wake();
}

async fn judge(
    keeper: &Arc<Keeper>,
    antivirus: &Antivirus,
    services: &Services,
    held: &wire::Held,
) -> anyhow::Result<&'static str> {
    let file = FileId::from_wire(&held.file, "file")?;
    let mut size = 0;
    let scanning = async {
        let (length, bytes) = keeper.store.read_all(file, Part::Original).await.map_err(refused)?;
        size = length;
        antivirus.clamd.scan(bytes, size).await
    };
    let (outcome, found) = match timeout(antivirus.most, scanning).await?? {
        Verdict::Clean => ("clean", keeper.look(file, &held.media_type, size).await.map_err(refused)?),
        Verdict::Infected(name) => {
            tracing::warn!(file.id = %file, signature = name, "a virus was found in a file");
            ("infected", rejected(format!("a virus was found in it: {name}")))
        }
        Verdict::TooLarge => {
            tracing::warn!(file.id = %file, size, "a file is above StreamMaxLength of clamd");
            ("too_large", rejected("it is larger than the virus scanner takes (StreamMaxLength)".to_owned()))
        }
    };
    let finish = wire::FinishRequest { file: held.file.clone(), media_type: held.media_type.clone(), ..found };
    keeper.finish(services, file, finish).await.map_err(refused)?;
    Ok(outcome)
}

fn refused(problem: Problem) -> anyhow::Error {
    anyhow!("{}", problem.detail())
}
