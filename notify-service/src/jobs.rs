//! The rows of `pushes` as work: claimed by time, so that replicas share them and none is lost with a replica; ended with
//! an outcome, which stays for 7 days.

use std::{collections::HashMap, time::Duration};

use service_kit::{
    clock,
    db::{Db, Tx},
    id::UserId,
    on_db, on_tx,
};
use uuid::Uuid;

use crate::{
    attempt::in_future,
    decide::{Due, Outcome},
};

/// How long whoever has claimed a row keeps it: longer than a try may take.
const LEASE: Duration = Duration::from_secs(60);
/// When mail is due again that another replica is to take along.
const AGAIN: Duration = Duration::from_secs(1);
/// Messages of one room that one mail tells of.
const GATHERED: i64 = 500;
/// How long an outcome stays.
pub(crate) const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a row says from now on. It holds only as long as the claim does.
#[derive(Debug)]
pub(crate) struct Update {
    pub(crate) claim: Uuid,
    pub(crate) room: Uuid,
    pub(crate) seq: i64,
    pub(crate) user: Uuid,
    pub(crate) device: Uuid,
    /// When it is due again; absent when it is decided for good.
    pub(crate) due_at: Option<i64>,
    pub(crate) attempts: i16,
    /// As before when absent.
    pub(crate) outcome: Option<(Outcome, &'static str, Option<String>)>,
    /// The device is of no use any more.
    pub(crate) drop_device: bool,
    /// What the device was sent in the room up to this seq is withdrawn as well.
    pub(crate) withdrawn_up_to: Option<i64>,
}

impl Update {
    /// Of this row, saying nothing yet.
    pub(crate) fn of(due: &Due, claim: Uuid) -> Self {
        Self {
            claim,
            room: due.room_id,
            seq: due.seq,
            user: due.user_id,
            device: due.device_id,
            due_at: None,
            attempts: due.attempts,
            outcome: None,
            drop_device: false,
            withdrawn_up_to: None,
        }
    }
}

/// When the next row is due, in milliseconds since the epoch.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn next_due(db: &Db) -> sqlx::Result<Option<i64>> {
    let (due,): (Option<i64>,) = on_db!(db, pool => sqlx::query_as(
        "select min(due_at) from pushes where due_at is not null",
    )
    .fetch_one(pool)
    .await)?;
    Ok(due)
}

/// Claims rows that are due, at most so many, the longest waiting first, and reads what they depend on.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn claim(db: &Db, claim: Uuid, most: i64) -> sqlx::Result<Vec<Due>> {
    let (now, lease) = (clock::now_ms(), in_future(LEASE));
    let mut tx = db.begin().await?;
    let sql = if tx.is_postgres() { CLAIM_POSTGRES } else { CLAIM_SQLITE };
    let claimed = on_tx!(&mut tx, c => sqlx::query(sql)
        .bind(claim)
        .bind(lease)
        .bind(now)
        .bind(most)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    let due = match claimed {
        0 => Vec::new(),
        _ => on_tx!(&mut tx, c => sqlx::query_as(READ).bind(claim).fetch_all(c).await)?,
    };
    tx.commit().await?;
    Ok(due)
}

/// The claim of a mail that is on its way. Those of rows that are only looked at are of version 7.
pub(crate) fn mail_claim() -> Uuid {
    Uuid::new_v4()
}

/// Puts everything that waits of the room and the device of this row, which is held under `claim`, under the claim `own`, a
/// [`mail_claim`], and reads it as [`claim`] does. Of replicas that hold rows of one room at the same instant, the one with
/// the first of them takes them all; the others get none, and what they held is due a moment later if it is still there.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn gather(db: &Db, first: &Due, claim: Uuid, own: Uuid) -> sqlx::Result<Vec<Due>> {
    let lease = in_future(LEASE);
    let mut tx = db.begin().await?;
    if !leads(&mut tx, first, claim).await? {
        put_back(&mut tx, first, claim).await?;
        tx.commit().await?;
        return Ok(Vec::new());
    }
    on_tx!(&mut tx, c => sqlx::query(
        "update pushes set claim = $1, due_at = $2
         where (room_id, seq, user_id, device_id) in (
            select room_id, seq, user_id, device_id from pushes
            where device_id = $3 and room_id = $4 and platform = 5 and due_at is not null and coalesce(outcome, 5) = 5
            order by seq limit $5
         )",
    )
    .bind(own)
    .bind(lease)
    .bind(first.device_id)
    .bind(first.room_id)
    .bind(GATHERED)
    .execute(c)
    .await
    .map(|_| ()))?;
    let due = on_tx!(&mut tx, c => sqlx::query_as(READ).bind(own).fetch_all(c).await)?;
    tx.commit().await?;
    Ok(due)
}

macro_rules! held {
    () => {
        "select claim from pushes
         where device_id = $1 and room_id = $2 and platform = 5 and claim is not null and due_at > $3
           and coalesce(outcome, 5) = 5
         order by seq"
    };
}

/// Whether the first of the rows that are held of this room and device is held under `claim`, and none is on its way. On
/// PostgreSQL they are locked, so that two who ask at once see each other's answer.
async fn leads(tx: &mut Tx, first: &Due, claim: Uuid) -> sqlx::Result<bool> {
    let sql = if tx.is_postgres() { concat!(held!(), " for update") } else { held!() };
    let held: Vec<(Uuid,)> = on_tx!(tx, c => sqlx::query_as(sql)
        .bind(first.device_id)
        .bind(first.room_id)
        .bind(clock::now_ms())
        .fetch_all(c)
        .await)?;
    let on_its_way = held.iter().any(|(claim,)| claim.get_version_num() == 4);
    Ok(!on_its_way && held.first().is_some_and(|(first,)| *first == claim))
}

async fn put_back(tx: &mut Tx, first: &Due, claim: Uuid) -> sqlx::Result<()> {
    on_tx!(tx, c => sqlx::query(
        "update pushes set claim = null, due_at = $1
         where claim = $2 and device_id = $3 and room_id = $4 and platform = 5 and due_at is not null",
    )
    .bind(in_future(AGAIN))
    .bind(claim)
    .bind(first.device_id)
    .bind(first.room_id)
    .execute(c)
    .await
    .map(|_| ()))
}

/// Unread messages in all rooms of each user of this claim.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn badges(db: &Db, claim: Uuid) -> sqlx::Result<HashMap<UserId, i64>> {
    let badges: Vec<(UserId, i64)> = on_db!(db, pool => sqlx::query_as(
        "select c.user_id,
                cast(sum(case when r.seq > m.read_seq then r.seq - m.read_seq else 0 end) as bigint)
         from (select distinct user_id from pushes where claim = $1) c
         join user_rooms ur on ur.user_id = c.user_id
         join rooms r on r.id = ur.room_id
         join members m on m.room_id = ur.room_id and m.user_id = ur.user_id
         where m.present
         group by c.user_id",
    )
    .bind(claim)
    .fetch_all(pool)
    .await)?;
    Ok(badges.into_iter().collect())
}

/// Writes what became of rows.
///
/// # Errors
/// When the database does not do it; then nothing is written, and the rows come again when their claim has run out.
pub(crate) async fn update(db: &Db, updates: &[Update]) -> sqlx::Result<()> {
    if updates.is_empty() {
        return Ok(());
    }
    let mut tx = db.begin().await?;
    for update in updates {
        write(&mut tx, update).await?;
    }
    tx.commit().await
}

async fn write(tx: &mut Tx, update: &Update) -> sqlx::Result<()> {
    let outcome = update.outcome.as_ref();
    on_tx!(tx, c => sqlx::query(
        "update pushes
         set claim = null, at = $6, due_at = $7, attempts = $8, outcome = coalesce($9, outcome),
             reason = coalesce($10, reason), detail = case when $9 is null then detail else $11 end
         where room_id = $1 and seq = $2 and user_id = $3 and device_id = $4 and claim = $5",
    )
    .bind(update.room)
    .bind(update.seq)
    .bind(update.user)
    .bind(update.device)
    .bind(update.claim)
    .bind(clock::now_ms())
    .bind(update.due_at)
    .bind(update.attempts)
    .bind(outcome.map(|(outcome, _, _)| *outcome))
    .bind(outcome.map(|(_, reason, _)| *reason))
    .bind(outcome.and_then(|(_, _, detail)| detail.clone()))
    .execute(c)
    .await
    .map(|_| ()))?;
    if let Some(seq) = update.withdrawn_up_to {
        on_tx!(tx, c => sqlx::query(
            "update pushes
             set claim = null, due_at = null, at = $5, outcome = 2, reason = 'read_elsewhere'
             where room_id = $1 and seq <= $2 and user_id = $3 and device_id = $4 and outcome = 1",
        )
        .bind(update.room)
        .bind(seq)
        .bind(update.user)
        .bind(update.device)
        .bind(clock::now_ms())
        .execute(c)
        .await
        .map(|_| ()))?;
    }
    if update.drop_device {
        on_tx!(tx, c => sqlx::query("delete from push_devices where id = $1")
            .bind(update.device)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    Ok(())
}

/// Pushes that wait for their time, and how long the longest waiting one has been due, in milliseconds.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn backlog(db: &Db) -> sqlx::Result<(i64, i64)> {
    let (waiting, first): (i64, Option<i64>) = on_db!(db, pool => sqlx::query_as(
        "select count(*), min(due_at) from pushes where due_at is not null and coalesce(outcome, 0) <> 1",
    )
    .fetch_one(pool)
    .await)?;
    Ok((waiting, first.map_or(0, |due| (clock::now_ms() - due).max(0))))
}

/// Deletes outcomes whose time is over.
pub(crate) const SWEEP: &str = "delete from pushes where (room_id, seq, user_id, device_id) in (
        select room_id, seq, user_id, device_id from pushes where due_at is null and at < $1 limit $2
    )";
const CLAIM_POSTGRES: &str = "update pushes set claim = $1, due_at = $2
    where (room_id, seq, user_id, device_id) in (
        select room_id, seq, user_id, device_id from pushes where due_at <= $3
        order by due_at limit $4 for update skip locked
    )";
const CLAIM_SQLITE: &str = "update pushes set claim = $1, due_at = $2
    where (room_id, seq, user_id, device_id) in (
        select room_id, seq, user_id, device_id from pushes where due_at <= $3 order by due_at limit $4
    )";
const READ: &str = "select p.room_id, p.seq, p.user_id, p.device_id, p.attempts, p.outcome,
        d.platform, d.target, d.p256dh, d.auth, coalesce(d.registered_at, d.created_at) as registered_at, s.id as session_id,
        m.read_seq, m.me_muted_until, m.notify,
        r.kind as room_kind, r.name as room_name, r.seq as room_seq,
        coalesce(i.id, w.id) as message_id, coalesce(i.sender, w.sender) as sender, u.display_name as sender_name,
        w.text, coalesce(i.at, w.at) as sent_at, w.deleted_at, o.sender as replied_to, i.id is not null as invitation,
        i.id is not null and exists (select 1 from pushes q
            where q.room_id = p.room_id and q.seq > p.seq and q.user_id = p.user_id and q.device_id = p.device_id
        ) as overtaken,
        exists (select 1 from mentions c
            where c.room_id = p.room_id and c.seq = p.seq and c.target in (p.user_id, p.room_id)) as mentioned,
        exists (select 1 from blocks b
            where b.user_id = p.user_id and b.blocked = coalesce(i.sender, w.sender)) as blocked,
        g.privacy, g.quiet_from, g.quiet_to, g.time_zone
    from pushes p
    left join push_devices d on d.id = p.device_id
    left join sessions s on s.id = d.session_id and s.revoked_at is null
    left join members m on m.room_id = p.room_id and m.user_id = p.user_id and m.present
    left join push_settings g on g.user_id = p.user_id
    left join rooms r on r.id = p.room_id
    left join messages w on w.room_id = p.room_id and w.seq = p.seq
    left join notifications i on i.room_id = p.room_id and i.seq = p.seq and i.user_id = p.user_id and i.kind = 3
    left join users u on u.id = coalesce(i.sender, w.sender)
    left join messages o on o.room_id = p.room_id and o.seq = w.reply_to
    where p.claim = $1";
