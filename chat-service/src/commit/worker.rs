//! The worker of the group commit: takes a batch, commits it, tells everybody, answers.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures_util::future::BoxFuture;
use parlance_proto::event::{RoomEvent, room_event};
use service_kit::{clock, db::Tx, fault::Fault, id::RoomId, tasks::Tasks, telemetry};
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    Item,
    decide::{self, Outcome, Plan},
    postgres,
    queue::{Batch, Committer, Missed},
    sqlite,
};
use crate::{
    App,
    error::{self, Error, Result},
    files::attach::{self, Known},
    messages,
    outbox::{self, Announcement, Stored},
};

/// Works until the process stops and nothing waits any more.
pub(super) async fn run(app: Arc<App>, committer: Committer, tasks: Tasks) {
    let mut stopping = std::pin::pin!(tasks.stopping());
    loop {
        let batch = tokio::select! {
            biased;
            batch = committer.take() => batch,
            () = &mut stopping => return,
        };
        commit_batch(&app, &committer, &tasks, batch).await;
    }
}

async fn commit_batch(app: &Arc<App>, committer: &Committer, tasks: &Tasks, batch: Batch) {
    metrics::histogram!("commit_batch_messages").record(precise(batch.items.len()));
    let missed = commit(app, batch.items, None).await;
    let mut by_room: HashMap<RoomId, Vec<Item>> = HashMap::new();
    for item in missed {
        by_room.entry(item.room).or_default().push(item);
    }
    let (missed, reached): (Vec<RoomId>, Vec<RoomId>) =
        batch.rooms.into_iter().partition(|room| by_room.contains_key(room));
    committer.release(&reached, true);
    for room in missed {
        let next = committer.put_back(room, by_room.remove(&room).unwrap_or_default());
        let (app, committer) = (Arc::clone(app), committer.clone());
        // The room stays held meanwhile: nobody else tries it, and no other room waits for it.
        tasks.spawn(async move {
            match next {
                Missed::Rest(rest) => tokio::time::sleep(rest).await,
                Missed::Wait => {
                    let items = committer.take_room(room);
                    commit(&app, items, Some(room)).await;
                    committer.waited();
                }
                Missed::GiveUp => {
                    for item in committer.take_room(room) {
                        item.reply.refuse(Fault::unavailable("the room is busy at the moment; send it again"));
                    }
                }
            }
            committer.release(&[room], !matches!(next, Missed::Rest(_)));
        });
    }
}

/// Commits items and answers them; gives back those whose room somebody else holds. With `wait_for` all items are of
/// that room, which is then waited for. A batch that fails for a reason of its own is halved until the culprit stands alone.
fn commit(app: &Arc<App>, items: Vec<Item>, wait_for: Option<RoomId>) -> BoxFuture<'_, Vec<Item>> {
    Box::pin(async move {
        if items.is_empty() {
            return items;
        }
        let began = Instant::now();
        let span = tracing::info_span!("commit", batch.len = items.len());
        let trace = items.iter().map(|item| item.traceparent.as_str()).find(|text| !text.is_empty());
        telemetry::adopt(&span, trace);
        let mut done = transact(app, &items, wait_for).instrument(span.clone()).await;
        if done.as_ref().is_err_and(error::is_deadlock) {
            metrics::counter!("commit_deadlocks_total").increment(1);
            done = transact(app, &items, wait_for).instrument(span).await;
        }
        match done {
            Ok((plan, stored)) => {
                metrics::histogram!("commit_duration_seconds").record(began.elapsed().as_secs_f64());
                // Published before the room is free for the next batch: one replica publishes in commit order.
                if let Some(stored) = stored {
                    app.outbox.publish(stored);
                }
                answer(items, plan.outcomes)
            }
            Err(Error::Database(error)) if !error::is_passing(&error) && items.len() > 1 => {
                tracing::warn!(error = %error, batch.len = items.len(), "a batch failed; looking for the culprit");
                let mut first = items;
                let second = first.split_off(first.len() / 2);
                let mut missed = commit(app, first, wait_for).await;
                // Whose room was missed just now waits behind what missed it: nothing overtakes in a room.
                let behind: HashSet<RoomId> = missed.iter().map(|item| item.room).collect();
                let (behind, second) = second.into_iter().partition(|item| behind.contains(&item.room));
                missed.extend::<Vec<Item>>(behind);
                missed.extend(commit(app, second, wait_for).await);
                missed
            }
            Err(error) => {
                let fault = error.into_fault();
                for item in items {
                    item.reply.send(Err(fault.clone()));
                }
                Vec::new()
            }
        }
    })
}

fn answer(items: Vec<Item>, outcomes: Vec<Outcome>) -> Vec<Item> {
    let mut missed = Vec::new();
    for (item, outcome) in items.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Accept(accepted) => item.reply.send(Ok(accepted)),
            Outcome::Refuse(fault) => item.reply.send(Err(fault)),
            Outcome::Missed => missed.push(item),
        }
    }
    missed
}

async fn transact(app: &App, items: &[Item], wait_for: Option<RoomId>) -> Result<(Plan, Option<Stored>)> {
    let rooms: Vec<RoomId> = items.iter().map(|item| item.room).collect::<HashSet<_>>().into_iter().collect();
    let mut tx = app.db.begin().await?;
    let attached = items.iter().any(|item| !item.attachments.is_empty());
    let (rooms, states, known) = match &mut tx {
        Tx::Postgres(tx) => {
            let rooms = match wait_for {
                Some(room) => postgres::wait_for(tx, room).await?,
                None => postgres::lock(tx, &rooms).await?,
            };
            let (states, known) = if attached {
                postgres::read_with_files(tx, items).await?
            } else {
                (postgres::read(tx, items).await?, Known::new())
            };
            (rooms, states, known)
        }
        Tx::Sqlite(tx) => (sqlite::rooms(tx, &rooms).await?, sqlite::read(tx, items).await?, Known::new()),
    };
    if states.len() != items.len() {
        return Err(Error::Internal(anyhow::anyhow!("read {} states for {} items", states.len(), items.len())));
    }
    let wanted = items.iter().map(|item| (item.sender, item.attachments.as_slice()));
    let known = if tx.is_postgres() { known } else { attach::known(&mut tx, wanted).await? };
    let plan = decide::decide(items, &rooms, &states, &known, clock::now_ms());
    if plan.inserts.is_empty() {
        return Ok((plan, None));
    }
    let (stored, row) = outbox::prepare(announce(&plan));
    let published = app.outbox.take_published();
    let written = async {
        write(&mut tx, &plan, &row, &published).await?;
        tx.commit().await
    };
    if let Err(error) = written.await {
        app.outbox.give_back(published);
        return Err(error.into());
    }
    Ok((plan, Some(stored)))
}

async fn write(tx: &mut Tx, plan: &Plan, row: &outbox::Row, published: &[uuid::Uuid]) -> sqlx::Result<()> {
    if let Tx::Postgres(tx) = tx {
        return postgres::write(tx, plan, row, published).await;
    }
    for message in &plan.inserts {
        messages::insert(tx, message).await?;
    }
    if let Tx::Sqlite(tx) = tx {
        sqlite::write(tx, plan).await?;
    }
    attach::hold(tx, &plan.refs).await?;
    outbox::insert(tx, row).await?;
    outbox::delete(tx, published).await
}

fn announce(plan: &Plan) -> Announcement {
    let mut announcement = Announcement::new();
    for message in &plan.inserts {
        let kind = Some(room_event::Kind::Message(message.clone().into_wire()));
        let room = message.room_id;
        let direct = plan.rooms.get(&room).is_some_and(|moved| moved.direct);
        announcement.room(room, RoomEvent { room: room.to_wire(), rev: message.rev, prev: 0, kind, direct });
    }
    announcement
}

#[allow(clippy::cast_precision_loss, reason = "a batch is far smaller than what f64 holds exactly")]
fn precise(count: usize) -> f64 {
    count as f64
}

/// What a caller is told whose answer never came: the process is stopping.
pub(crate) fn stopped() -> Fault {
    Fault::unavailable("the service is stopping; send it again")
}
