//! Direct messages that nobody was there to see. When one comes and the other member has no live session, that member is looked at
//! after the delay: who has read everything by then, or has come back, has missed nothing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use parlance_proto::presence::presence_client::PresenceClient;
use service_kit::{
    clock,
    db::{Db, Tx},
    id::UserId,
    on_db, on_tx,
    rpc::Client,
};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Kind, Notification, note};
use crate::{App, attempt::in_future, deliver, news::News};

/// Rows that are looked at together.
const CLAIMED: i64 = 512;
/// How long whoever has claimed a row keeps it.
const LEASE: Duration = Duration::from_secs(60);
/// How long looks wait at least for others that are due soon after: nobody is in a hurry.
const GATHER: Duration = Duration::from_millis(200);
/// How often it is looked for what is due when nothing announces itself.
const POLL: Duration = Duration::from_secs(1);
/// How long presence-service may take when a message comes: the next messages wait for it. Who is not known to be there is looked
/// at, and it is asked again then.
const ASKING: Duration = Duration::from_millis(500);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// Rooms that are remembered to have a look ahead of them.
const REMEMBERED: usize = 65_536;

/// Has members looked at. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Looks {
    delay: Duration,
    /// Who is there to see what comes.
    presence: PresenceClient<Client>,
    /// Until when, by room and sender, nothing is to be done: a look is ahead that also covers what comes before it, or the other
    /// one was there a moment ago. A plain lock, never held across an await.
    ahead: Arc<Mutex<HashMap<(Uuid, Uuid), Instant>>>,
    planned: Arc<Notify>,
}

impl Looks {
    /// Looks come this long after a message.
    pub(crate) fn new(delay: Duration, presence: PresenceClient<Client>) -> Self {
        Self { delay, presence, ahead: Arc::default(), planned: Arc::default() }
    }

    /// Has the receivers of direct messages looked at who have no live session now: the others see what comes, and most of what
    /// is said is said between two who are there. Costs nothing while a look is ahead.
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
        let mut receivers = receivers(db, &pairs).await?;
        let users = receivers.iter().map(|(user, _)| *user);
        let online = deliver::online(&self.presence, users, ASKING).await.unwrap_or_default();
        receivers.retain(|(user, _)| !online.get(user).copied().unwrap_or_default());
        if !receivers.is_empty() {
            insert(db, &receivers, in_future(self.delay)).await?;
            self.planned.notify_one();
        }
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

/// The other members of these rooms.
async fn receivers(db: &Db, pairs: &[(Uuid, Uuid)]) -> sqlx::Result<Vec<(UserId, Uuid)>> {
    match db {
        Db::Postgres(pool) => {
            sqlx::query_as(
                "select m.user_id, m.room_id from unnest($1::uuid[], $2::uuid[]) as n (room_id, sender)
                 join members m on m.room_id = n.room_id and m.user_id <> n.sender and m.present",
            )
            .bind(pairs.iter().map(|(room, _)| *room).collect::<Vec<_>>())
            .bind(pairs.iter().map(|(_, sender)| *sender).collect::<Vec<_>>())
            .fetch_all(pool)
            .await
        }
        Db::Sqlite(sqlite) => {
            let mut receivers = Vec::with_capacity(pairs.len());
            for (room, sender) in pairs {
                let of_one = sqlx::query_as::<_, (UserId, Uuid)>(
                    "select user_id, room_id from members where room_id = $1 and user_id <> $2 and present",
                );
                receivers.extend(of_one.bind(room).bind(sender).fetch_all(&sqlite.read).await?);
            }
            Ok(receivers)
        }
    }
}

async fn insert(db: &Db, receivers: &[(UserId, Uuid)], due: i64) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    match &mut tx {
        Tx::Postgres(tx) => {
            sqlx::query(
                "insert into missed (user_id, room_id, due_at)
                 select user_id, room_id, $3 from unnest($1::uuid[], $2::uuid[]) as n (user_id, room_id)
                 on conflict (user_id, room_id) do nothing",
            )
            .bind(receivers.iter().map(|(user, _)| user.0).collect::<Vec<_>>())
            .bind(receivers.iter().map(|(_, room)| *room).collect::<Vec<_>>())
            .bind(due)
            .execute(&mut **tx)
            .await?;
        }
        Tx::Sqlite(tx) => {
            for (user, room) in receivers {
                let insert = sqlx::query(
                    "insert into missed (user_id, room_id, due_at) values ($1, $2, $3)
                     on conflict (user_id, room_id) do nothing",
                );
                insert.bind(user).bind(room).bind(due).execute(&mut **tx).await?;
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
    tokio::time::sleep(GATHER.min(app.timing.delay)).await;
    Ok(())
}

async fn step(app: &App) -> anyhow::Result<()> {
    let claim = Uuid::now_v7();
    let looks = take(&app.db, claim).await?;
    if looks.is_empty() {
        return Ok(());
    }
    // Without an answer the rows come again when the claim has run out: nobody is offline only because it is not said.
    let users = looks.iter().map(|look| UserId(look.user_id));
    let online = deliver::online(&app.presence, users, deliver::ASKING).await?;
    let is_online = |look: &Look| online.get(&UserId(look.user_id)).copied().unwrap_or_default();
    let missed = looks.iter().filter_map(|look| look.missed(is_online(look))).collect();
    let mut tx = app.db.begin().await?;
    let new = note::insert(&mut tx, missed).await?;
    for look in &looks {
        finish(&mut tx, look, claim, in_future(app.timing.delay)).await?;
    }
    tx.commit().await?;
    app.teller.tell(new.iter().map(Notification::told).collect());
    Ok(())
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
