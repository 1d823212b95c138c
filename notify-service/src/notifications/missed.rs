//! Direct messages that nobody was there to see. A message has the other member looked at after the delay: who has read
//! everything by then, or has a live session, has missed nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use service_kit::{
    clock,
    db::{Db, Tx},
    id::UserId,
    on_db, on_tx,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Kind, Notification, note, tell::Told};
use crate::{App, attempt::in_future, deliver, news::News};

/// Rows that are looked at together.
const CLAIMED: i64 = 128;
/// How long whoever has claimed a row keeps it.
const LEASE: Duration = Duration::from_secs(60);
/// How often it is looked for what is due when nothing announces itself.
const POLL: Duration = Duration::from_secs(1);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Rooms that are remembered to have a look ahead of them.
const REMEMBERED: usize = 65_536;

/// Has members looked at. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    delay: Duration,
    /// Until when, by room and sender, a look is ahead that also covers what comes before it. A plain lock, never held across
    /// an await.
    ahead: Arc<Mutex<HashMap<(Uuid, Uuid), Instant>>>,
    planned: Arc<Notify>,
}

impl Looks {
    /// Looks come this long after a message.
    pub(crate) fn new(delay: Duration) -> Self {
        Self { delay, ahead: Arc::default(), planned: Arc::default() }
    }

    /// Has the receivers of direct messages looked at. Costs nothing while such a look is ahead.
    ///
    /// # Errors
    /// When the database does not do it.
    pub(crate) async fn plan(&self, db: &Db, news: &[News]) -> sqlx::Result<()> {
        let now = Instant::now();
        let mut pairs: Vec<(Uuid, Uuid)> = news.iter().filter_map(direct).collect();
        pairs.sort_unstable();
        pairs.dedup();
        {
            let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            pairs.retain(|pair| ahead.get(pair).is_none_or(|until| *until <= now));
        }
        if pairs.is_empty() {
            return Ok(());
        }
        insert(db, &pairs, in_future(self.delay)).await?;
        self.planned.notify_one();
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.len() + pairs.len() > REMEMBERED {
            ahead.retain(|_, until| *until > now);
        }
        if ahead.len() + pairs.len() <= REMEMBERED {
            ahead.extend(pairs.into_iter().map(|pair| (pair, now + self.delay)));
        }
        Ok(())
    }
}

/// The room and the sender, when it is a direct message.
fn direct(news: &News) -> Option<(Uuid, Uuid)> {
    let News::Message { message, direct: true } = news else { return None };
    Some((Uuid::from_slice(&message.room).ok()?, Uuid::from_slice(&message.sender).ok()?))
}

async fn insert(db: &Db, pairs: &[(Uuid, Uuid)], due: i64) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    match &mut tx {
        Tx::Postgres(tx) => {
            sqlx::query(
                "insert into missed (user_id, room_id, due_at)
                 select m.user_id, m.room_id, $3 from unnest($1::uuid[], $2::uuid[]) as n (room_id, sender)
                 join members m on m.room_id = n.room_id and m.user_id <> n.sender and m.present
                 on conflict (user_id, room_id) do nothing",
            )
            .bind(pairs.iter().map(|(room, _)| *room).collect::<Vec<_>>())
            .bind(pairs.iter().map(|(_, sender)| *sender).collect::<Vec<_>>())
            .bind(due)
            .execute(&mut **tx)
            .await?;
        }
        Tx::Sqlite(tx) => {
            for (room, sender) in pairs {
                sqlx::query(
                    "insert into missed (user_id, room_id, due_at)
                     select m.user_id, m.room_id, $3 from members m
                     where m.room_id = $1 and m.user_id <> $2 and m.present
                     on conflict (user_id, room_id) do nothing",
                )
                .bind(room)
                .bind(sender)
                .bind(due)
                .execute(&mut **tx)
                .await?;
            }
        }
    }
    tx.commit().await
}

/// A member to look at, with all that the look depends on. What is absent is gone.
#[derive(Debug, sqlx::FromRow)]
struct Look {
    user_id: Uuid,
    room_id: Uuid,
    /// The newest of the room.
    room_seq: Option<i64>,
    /// The room is muted, or nothing of it is wanted.
    unwanted: bool,
    /// The oldest unread message that stands, and that no notification which was marked as read has told of.
    seq: Option<i64>,
    sender: Option<Uuid>,
    /// The user blocks its sender.
    blocked: bool,
    /// The user was told already that something waits there.
    told: bool,
}

impl Look {
    /// What is missed, when something is.
    fn missed(&self, online: bool) -> Option<Notification> {
        let (user_id, room_id, seq, sender) = (self.user_id, self.room_id, self.seq?, self.sender?);
        let silent = online || self.unwanted || self.blocked || self.told;
        (!silent).then(|| Notification {
            id: Uuid::now_v7(),
            user_id,
            kind: Kind::Direct,
            room_id,
            seq,
            sender,
            at: clock::now_ms(),
            read: false,
        })
    }
}

/// Looks at those who are due, again and again.
pub(crate) async fn run(app: Arc<App>) {
    loop {
        let worked = async {
            wait(&app).await?;
            step(&app).await
        };
        if let Err(error) = worked.await {
            tracing::warn!(error = format!("{error:#}"), "it cannot be seen who misses a direct message; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn wait(app: &App) -> anyhow::Result<()> {
    let now = clock::now_ms();
    let (due,): (Option<i64>,) = on_db!(&app.db, pool => sqlx::query_as("select min(due_at) from missed")
        .fetch_one(pool)
        .await)?;
    let wait = due.map_or(POLL, |due| Duration::from_millis((due - now).try_into().unwrap_or(0)).min(POLL));
    if !wait.is_zero() {
        let _ = tokio::time::timeout(wait, app.planner.looks().planned.notified()).await;
    }
    Ok(())
}

async fn step(app: &App) -> anyhow::Result<()> {
    let claim = Uuid::now_v7();
    let looks = take(&app.db, claim).await?;
    if looks.is_empty() {
        return Ok(());
    }
    // Without an answer the rows come again when the claim has run out: nobody is offline only because it is not said.
    let online = deliver::online(app, looks.iter().map(|look| UserId(look.user_id))).await?;
    let is_online = |look: &Look| online.get(&UserId(look.user_id)).copied().unwrap_or_default();
    let missed = looks.iter().filter_map(|look| look.missed(is_online(look))).collect();
    let mut tx = app.db.begin().await?;
    let new = note::insert(&mut tx, missed).await?;
    for look in &looks {
        finish(&mut tx, look, claim, in_future(app.timing.delay)).await?;
    }
    tx.commit().await?;
    app.teller.tell(new.iter().map(told).collect());
    Ok(())
}

/// What a user is told of one.
pub(crate) fn told(new: &Notification) -> Told {
    (UserId(new.user_id), parlance_proto::event::user_event::Kind::Notified(new.to_wire()))
}

async fn take(db: &Db, claim: Uuid) -> sqlx::Result<Vec<Look>> {
    let mut tx = db.begin().await?;
    let sql = if tx.is_postgres() { CLAIM_POSTGRES } else { CLAIM_SQLITE };
    let claimed = on_tx!(&mut tx, c => sqlx::query(sql)
        .bind(claim)
        .bind(in_future(LEASE))
        .bind(clock::now_ms())
        .bind(CLAIMED)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    let looks = match claimed {
        0 => Vec::new(),
        _ => on_tx!(&mut tx, c => sqlx::query_as(READ).bind(claim).bind(clock::now_ms()).fetch_all(c).await)?,
    };
    tx.commit().await?;
    Ok(looks)
}

/// Takes the row away, unless something has come since it was read: then it is looked at once more.
async fn finish(tx: &mut Tx, look: &Look, claim: Uuid, again: i64) -> sqlx::Result<()> {
    on_tx!(tx, c => sqlx::query(
        "update missed set claim = null, due_at = $5
         where user_id = $1 and room_id = $2 and claim = $3
           and exists (select 1 from rooms r where r.id = missed.room_id and r.seq > $4)",
    )
    .bind(look.user_id)
    .bind(look.room_id)
    .bind(claim)
    .bind(look.room_seq.unwrap_or(i64::MAX))
    .bind(again)
    .execute(c)
    .await
    .map(|_| ()))?;
    on_tx!(tx, c => sqlx::query("delete from missed where user_id = $1 and room_id = $2 and claim = $3")
        .bind(look.user_id)
        .bind(look.room_id)
        .bind(claim)
        .execute(c)
        .await
        .map(|_| ()))
}

const CLAIM_POSTGRES: &str = "update missed set claim = $1, due_at = $2
    where (user_id, room_id) in (
        select user_id, room_id from missed where due_at <= $3 order by due_at limit $4 for update skip locked
    )";
const CLAIM_SQLITE: &str = "update missed set claim = $1, due_at = $2
    where (user_id, room_id) in (select user_id, room_id from missed where due_at <= $3 order by due_at limit $4)";
const READ: &str = "select x.user_id, x.room_id, r.seq as room_seq,
        coalesce(m.notify = 3 or m.me_muted_until > $2, false) as unwanted,
        w.seq, w.sender,
        exists (select 1 from blocks b where b.user_id = x.user_id and b.blocked = w.sender) as blocked,
        exists (select 1 from notifications n
            join messages v on v.room_id = n.room_id and v.seq = n.seq and v.deleted_at is null
            where n.user_id = x.user_id and n.room_id = x.room_id and n.kind = 4 and n.read_at is null
              and n.seq > m.read_seq) as told
    from missed x
    left join rooms r on r.id = x.room_id
    left join members m on m.room_id = x.room_id and m.user_id = x.user_id and m.present
    left join messages w on w.room_id = x.room_id and w.seq = (
        select min(v.seq) from messages v
        where v.room_id = x.room_id and v.deleted_at is null and v.seq > m.read_seq
          and v.seq > coalesce((
            select max(n.seq) from notifications n
            where n.user_id = x.user_id and n.room_id = x.room_id and n.kind = 4 and n.read_at is not null
          ), 0)
    )
    where x.claim = $1";
