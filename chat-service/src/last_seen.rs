//! When users were last seen: taken from presence-service in batches and stored, so that it outlives what Redis forgets.
//!
//! Presence waits for none of this. What is taken and not confirmed is handed out again, to any replica.

use std::{sync::Arc, time::Duration};

use parlance_proto::presence::{Seen, SeenList, TakeSeenRequest, presence_client::PresenceClient};
use service_kit::{
    db::Tx,
    id::UserId,
    rpc::{Client, MAX_MESSAGE},
    tasks::Tasks,
};
use tonic::Status;
use uuid::Uuid;

use crate::{App, error::Result};

/// How often it is asked who has gone.
const PERIOD: Duration = Duration::from_secs(1);
/// How long presence-service has for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long taking what is left may last when the service stops.
const LAST: Duration = Duration::from_secs(1);

/// The worker: one in each replica. What one has taken, the others do not get.
struct Recorder {
    app: Arc<App>,
    presence: PresenceClient<Client>,
    /// Whether the last step could not do its work: said once, not every second.
    failing: bool,
}

/// Starts taking and storing. When the tasks are stopped, what is left is taken once more: in a process of its own that
/// is next to nothing, in standalone it is everybody who was connected until now.
pub(crate) fn start(app: &Arc<App>, presence: Client, tasks: &Tasks) {
    let presence = PresenceClient::new(presence).max_decoding_message_size(MAX_MESSAGE);
    let mut recorder = Recorder { app: Arc::clone(app), presence, failing: false };
    let stopping = tasks.stopping();
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(PERIOD);
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                _ = ticks.tick() => recorder.drain().await,
                () = &mut stopping => break,
            }
        }
        let _ = tokio::time::timeout(LAST, recorder.drain()).await;
    });
}

impl Recorder {
    /// Works until nothing is left, or something fails: then the next tick tries again.
    async fn drain(&mut self) {
        loop {
            match self.step().await {
                Ok(more) => {
                    self.failing = false;
                    if !more {
                        return;
                    }
                }
                Err(error) => {
                    if !self.failing {
                        tracing::warn!(error = %error, "when users were last seen is not being stored; trying again");
                    }
                    self.failing = true;
                    return;
                }
            }
        }
    }

    /// Takes one batch, stores it, confirms it. Tells whether there is more.
    async fn step(&mut self) -> Result<bool> {
        let list = answer(self.presence.take_seen(TakeSeenRequest {})).await?;
        if list.items.is_empty() {
            return Ok(false);
        }
        store(&self.app, &list.items).await?;
        metrics::counter!("last_seen_stored_total").increment(list.items.len() as u64);
        let more = list.more;
        answer(self.presence.seen_stored(SeenList { items: list.items, more: false })).await?;
        Ok(more)
    }
}

/// An answer in time.
async fn answer<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T> {
    let answer = tokio::time::timeout(ANSWER, call).await.map_err(anyhow::Error::from)?;
    Ok(answer.map_err(anyhow::Error::from)?.into_inner())
}

/// Stores a batch, in one statement on PostgreSQL. What is stored already never moves back, in whichever order batches
/// of several replicas come, or come again.
async fn store(app: &App, items: &[Seen]) -> Result<()> {
    let mut seen =
        items.iter().map(|seen| Ok((UserId::from_wire(&seen.user, "user")?, seen.at))).collect::<Result<Vec<_>>>()?;
    // In the order of their ids, so that two batches never wait for each other's rows in a circle; each user once.
    seen.sort_unstable_by_key(|(user, at)| (user.0, std::cmp::Reverse(*at)));
    seen.dedup_by_key(|(user, _)| *user);
    let mut tx = app.db.begin().await?;
    match &mut tx {
        Tx::Postgres(tx) => {
            let (users, instants): (Vec<Uuid>, Vec<i64>) = seen.iter().map(|(user, at)| (user.0, *at)).unzip();
            sqlx::query(
                "insert into last_seen (user_id, at)
                 select user_id, at from unnest($1::uuid[], $2::bigint[]) as seen (user_id, at)
                 on conflict (user_id) do update set at = excluded.at where last_seen.at < excluded.at",
            )
            .bind(users)
            .bind(instants)
            .execute(&mut **tx)
            .await?;
        }
        Tx::Sqlite(tx) => {
            for (user, at) in &seen {
                sqlx::query(
                    "insert into last_seen (user_id, at) values ($1, $2)
                     on conflict (user_id) do update set at = excluded.at where last_seen.at < excluded.at",
                )
                .bind(user)
                .bind(at)
                .execute(&mut **tx)
                .await?;
            }
        }
    }
    tx.commit().await?;
    Ok(())
}
