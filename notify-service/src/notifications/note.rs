//! Whom a batch tells something that goes into their list at once: who is mentioned, answered or invited.

use service_kit::{
    clock,
    db::{Db, Tx},
};
use uuid::Uuid;

use super::{Kind, Notification};
use crate::news::News;

/// Members of the largest room of which all are told that all are mentioned. In a larger one it counts among the room's
/// mentions, and is in nobody's list.
const MOST_MENTIONED: i64 = 1000;

/// One reason to tell somebody.
#[derive(Clone, Copy, Debug)]
struct Reason {
    kind: Kind,
    room: Uuid,
    seq: i64,
    sender: Uuid,
    /// Whom. Without it: whoever wrote what is replied to, or all.
    target: Option<Uuid>,
    reply_to: Option<i64>,
}

/// Somebody who is to be told.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
struct Told {
    kind: Kind,
    room_id: Uuid,
    seq: i64,
    sender: Uuid,
    user_id: Uuid,
}

/// Writes what this gives, each once however often it is heard of. Gives what is new.
///
/// # Errors
/// When the database does not do it; then nothing is written.
pub(crate) async fn note(db: &Db, news: &[News]) -> sqlx::Result<Vec<Notification>> {
    let reasons: Vec<Reason> = news.iter().flat_map(reasons).collect();
    if reasons.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = db.begin().await?;
    let mut told = whom(&mut tx, &reasons).await?;
    // Who is answered and mentioned at once is told of the answer.
    told.sort_unstable_by_key(|told| (told.room_id, told.seq, told.user_id, std::cmp::Reverse(told.kind)));
    told.dedup_by_key(|told| (told.room_id, told.seq, told.user_id));
    let at = clock::now_ms();
    let notifications = told.into_iter().map(|Told { kind, room_id, seq, sender, user_id }| Notification {
        id: Uuid::now_v7(),
        user_id,
        kind,
        room_id,
        seq,
        sender,
        at,
        read: false,
    });
    let new = insert(&mut tx, notifications.collect()).await?;
    tx.commit().await?;
    Ok(new)
}

fn reasons(news: &News) -> Vec<Reason> {
    let message = match news {
        News::Message { message, .. } => message,
        News::Invitation(it) => {
            let target = Some(it.user);
            return vec![Reason {
                kind: Kind::Invitation,
                room: it.room,
                seq: it.seq,
                sender: it.by,
                target,
                reply_to: None,
            }];
        }
    };
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).ok();
    let (Some(room), Some(sender)) = (id(&message.room), id(&message.sender)) else { return Vec::new() };
    let reason = |kind, target, reply_to| Reason { kind, room, seq: message.seq, sender, target, reply_to };
    let mentioned =
        message.mentions.iter().filter_map(|user| id(user)).map(|user| reason(Kind::Mention, Some(user), None));
    let all = message.mentions_all.then(|| reason(Kind::Mention, None, None));
    let answered = message.reply_to.map(|seq| reason(Kind::Reply, None, Some(seq)));
    mentioned.chain(all).chain(answered).collect()
}

async fn whom(tx: &mut Tx, reasons: &[Reason]) -> sqlx::Result<Vec<Told>> {
    match tx {
        Tx::Postgres(tx) => {
            sqlx::query_as::<_, Told>(told_for!(
                "select * from unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::uuid[], $5::uuid[],
                 $6::bigint[]) as n (kind, room_id, seq, sender, target, reply_to)"
            ))
            .bind(reasons.iter().map(|reason| reason.kind as i16).collect::<Vec<_>>())
            .bind(reasons.iter().map(|reason| reason.room).collect::<Vec<_>>())
            .bind(reasons.iter().map(|reason| reason.seq).collect::<Vec<_>>())
            .bind(reasons.iter().map(|reason| reason.sender).collect::<Vec<_>>())
            .bind(reasons.iter().map(|reason| reason.target).collect::<Vec<_>>())
            .bind(reasons.iter().map(|reason| reason.reply_to).collect::<Vec<_>>())
            .bind(MOST_MENTIONED)
            .fetch_all(&mut **tx)
            .await
        }
        Tx::Sqlite(tx) => {
            let mut told = Vec::new();
            for reason in reasons {
                let of_one = sqlx::query_as::<_, Told>(told_for!(
                    "select $1 as kind, $2 as room_id, $3 as seq, $4 as sender, $5 as target, $6 as reply_to"
                ));
                let of_one = of_one.bind(reason.kind).bind(reason.room).bind(reason.seq).bind(reason.sender);
                let of_one = of_one.bind(reason.target).bind(reason.reply_to).bind(MOST_MENTIONED);
                told.extend(of_one.fetch_all(&mut **tx).await?);
            }
            Ok(told)
        }
    }
}

/// Inserts those that are not there yet, and gives them.
pub(super) async fn insert(tx: &mut Tx, mut wanted: Vec<Notification>) -> sqlx::Result<Vec<Notification>> {
    let new: Vec<(Uuid,)> = match tx {
        Tx::Postgres(tx) => {
            sqlx::query_as(
                "insert into notifications (id, user_id, kind, room_id, seq, sender, at)
                 select * from unnest($1::uuid[], $2::uuid[], $3::smallint[], $4::uuid[], $5::bigint[], $6::uuid[], $7::bigint[])
                 on conflict (room_id, seq, user_id) do nothing returning id",
            )
            .bind(wanted.iter().map(|row| row.id).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.user_id).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.kind as i16).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.room_id).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.seq).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.sender).collect::<Vec<_>>())
            .bind(wanted.iter().map(|row| row.at).collect::<Vec<_>>())
            .fetch_all(&mut **tx)
            .await?
        }
        Tx::Sqlite(tx) => {
            let mut new = Vec::new();
            for row in &wanted {
                let insert = sqlx::query_as::<_, (Uuid,)>(
                    "insert into notifications (id, user_id, kind, room_id, seq, sender, at)
                     values ($1, $2, $3, $4, $5, $6, $7) on conflict (room_id, seq, user_id) do nothing returning id",
                );
                let insert = insert.bind(row.id).bind(row.user_id).bind(row.kind).bind(row.room_id).bind(row.seq);
                new.extend(insert.bind(row.sender).bind(row.at).fetch_optional(&mut **tx).await?);
            }
            new
        }
    };
    let new: std::collections::HashSet<Uuid> = new.into_iter().map(|(id,)| id).collect();
    wanted.retain(|row| new.contains(&row.id));
    Ok(wanted)
}

/// From reasons, which `$source` gives, to those who are told: present members other than the sender who want to hear of the
/// room at all, and do not block the sender. An invitation is told before anything can be wanted.
macro_rules! told_for {
    ($source:literal) => {
        concat!(
            "with n as (",
            $source,
            "), who as (
                select n.kind, n.room_id, n.seq, n.sender, n.target as user_id from n where n.target is not null
                union all
                select n.kind, n.room_id, n.seq, n.sender, o.sender from n
                join messages o on o.room_id = n.room_id and o.seq = n.reply_to
                union all
                select n.kind, n.room_id, n.seq, n.sender, e.user_id from n
                join rooms r on r.id = n.room_id and r.member_count <= $7
                join members e on e.room_id = n.room_id
                where n.target is null and n.reply_to is null
             )
             select w.kind, w.room_id, w.seq, w.sender, w.user_id from who w
             join members m on m.room_id = w.room_id and m.user_id = w.user_id and m.present
             where w.user_id <> w.sender and (w.kind = 3 or m.notify <> 3)
               and not exists (select 1 from blocks b where b.user_id = w.user_id and b.blocked = w.sender)"
        )
    };
}
use told_for;
