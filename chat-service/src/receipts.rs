//! Cursors: how far a member has read, and how far a member's devices have got it.
//!
//! They are no part of a room's rev. Those of one (room, user) that come within [`WINDOW`] become one, and all of them
//! one transaction; the answer comes after its commit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use parlance_proto::event::{MeChanged, Receipt};
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    tasks::Tasks,
};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::{
    App, accounts::blocks::blocked_direct, error::Result, messages::mentions::count_mentions, outbox::Announcement,
    rooms::MemberRow,
};

/// How long cursors are collected.
const WINDOW: Duration = Duration::from_millis(100);
/// (Room, user) pairs that may wait; more are asked to try again.
const WAITING: usize = 16_384;
/// Pairs of one transaction.
const TOGETHER: usize = 512;
/// In larger rooms receipts go to one's own devices only.
pub(crate) const MOST_MEMBERS: i64 = 100;

/// How a cursor is to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Read up to here; implies delivered.
    Read(i64),
    /// Arrived on a device up to here.
    Delivered(i64),
    /// Unread from here on: the one way back.
    Unread(i64),
}

impl Mark {
    fn seq(self) -> i64 {
        match self {
            Self::Read(seq) | Self::Delivered(seq) | Self::Unread(seq) => seq,
        }
    }
}

struct Ask {
    mark: Mark,
    reply: oneshot::Sender<Result<(), Fault>>,
}

/// Collects cursors and has them committed. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Cursors(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // Held to put in and take out, never across an await.
    waiting: Mutex<HashMap<(RoomId, UserId), Vec<Ask>>>,
    wake: Notify,
}

impl Cursors {
    /// Moves a cursor; returns after the commit.
    ///
    /// # Errors
    /// `bad_request` below 1, `not_found` for who is not in the room, `unprocessable` beyond its last message.
    pub(crate) async fn mark(&self, room: RoomId, user: UserId, mark: Mark) -> Result<(), Fault> {
        if mark.seq() < 1 {
            return Err(Fault::bad_request("seq: must be 1 or more"));
        }
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.len() >= WAITING {
                return Err(Fault::unavailable("too many cursors wait to be stored; send it again"));
            }
            waiting.entry((room, user)).or_default().push(Ask { mark, reply });
        }
        self.0.wake.notify_one();
        answer.await.map_err(|_| crate::commit::stopped())?
    }

    /// Starts the worker.
    pub(crate) fn start(&self, app: &Arc<App>, tasks: &Tasks) {
        let (cursors, app) = (self.clone(), Arc::clone(app));
        tasks.spawn_until_stop(async move {
            loop {
                cursors.0.wake.notified().await;
                tokio::time::sleep(WINDOW).await;
                let mut waiting = cursors.take();
                while !waiting.is_empty() {
                    let rest = waiting.split_off(waiting.len().min(TOGETHER));
                    settle(&app, waiting).await;
                    waiting = rest;
                }
            }
        });
    }

    fn take(&self) -> Vec<((RoomId, UserId), Vec<Ask>)> {
        let taken = std::mem::take(&mut *self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let mut taken: Vec<_> = taken.into_iter().collect();
        // Rows are locked in one order, so that two replicas do not wait for each other in a circle.
        taken.sort_by_key(|(key, _)| *key);
        taken
    }
}

/// A member and what its room knows, as read for a cursor.
#[derive(Debug, sqlx::FromRow)]
struct Place {
    #[sqlx(flatten)]
    member: MemberRow,
    seq: i64,
    member_count: i64,
    show_receipts: bool,
}

/// What one pair comes to.
struct Settled {
    answers: Vec<Result<(), Fault>>,
    moved: Option<Moved>,
}

struct Moved {
    place: Place,
    /// The read cursor moved, forth or back.
    read: bool,
    /// It moved forth: marking as unread is nobody else's business.
    advanced: bool,
    delivered: bool,
    /// Mentions that are not read where the cursor stands now.
    mentions: i64,
}

async fn settle(app: &App, asks: Vec<((RoomId, UserId), Vec<Ask>)>) {
    let keys: Vec<(RoomId, UserId)> = asks.iter().map(|(key, _)| *key).collect();
    let marks: Vec<Vec<Mark>> = asks.iter().map(|(_, asks)| asks.iter().map(|ask| ask.mark).collect()).collect();
    match transact(app, &keys, &marks).await {
        Ok(settled) => {
            let mut announcement = Announcement::new();
            for ((_, asks), settled) in asks.into_iter().zip(settled) {
                if let Some(moved) = &settled.moved {
                    announce(&mut announcement, moved);
                }
                for (ask, answer) in asks.into_iter().zip(settled.answers) {
                    // Whoever asked may have gone.
                    let _ = ask.reply.send(answer);
                }
            }
            app.outbox.publish_droppable(announcement);
        }
        Err(error) => {
            let fault = error.into_fault();
            for ask in asks.into_iter().flat_map(|(_, asks)| asks) {
                let _ = ask.reply.send(Err(fault.clone()));
            }
        }
    }
}

async fn transact(app: &App, keys: &[(RoomId, UserId)], marks: &[Vec<Mark>]) -> Result<Vec<Settled>> {
    let mut tx = app.db.begin().await?;
    let mut places = read(&mut tx, keys).await?;
    let mut settled: Vec<Settled> =
        keys.iter().zip(marks).map(|(key, marks)| judge(places.remove(key), marks)).collect();
    let mut moved: Vec<&mut Moved> = settled.iter_mut().filter_map(|settled| settled.moved.as_mut()).collect();
    if !moved.is_empty() {
        write(&mut tx, &mut moved).await?;
        tx.commit().await?;
    }
    Ok(settled)
}

/// Applies the marks of one pair in order.
fn judge(place: Option<Place>, marks: &[Mark]) -> Settled {
    let Some(mut place) = place else {
        let refusal = || Err(Fault::not_found("there is no such room, or you are not in it"));
        return Settled { answers: marks.iter().map(|_| refusal()).collect(), moved: None };
    };
    let before = (place.member.read_seq, place.member.delivered_seq);
    let mut answers = Vec::with_capacity(marks.len());
    for mark in marks {
        if mark.seq() > place.seq {
            answers.push(Err(Fault::unprocessable("seq: is beyond the room's last message")));
            continue;
        }
        let member = &mut place.member;
        match *mark {
            Mark::Read(seq) => member.read_seq = member.read_seq.max(seq),
            Mark::Unread(seq) => member.read_seq = member.read_seq.min(seq - 1),
            Mark::Delivered(seq) => member.delivered_seq = member.delivered_seq.max(seq),
        }
        member.delivered_seq = member.delivered_seq.max(member.read_seq);
        answers.push(Ok(()));
    }
    let (read, delivered) = (before.0 != place.member.read_seq, before.1 != place.member.delivered_seq);
    if read {
        place.member.me_rev += 1;
    }
    let advanced = place.member.read_seq > before.0;
    let moved = (read || delivered).then_some(Moved { place, read, advanced, delivered, mentions: 0 });
    Settled { answers, moved }
}

/// Everybody in a small room hears of it, unless this member does not show receipts, or one of a direct room blocks the
/// other; one's own devices get their badge.
fn announce(announcement: &mut Announcement, moved: &Moved) {
    let Moved { place, read, advanced, delivered, mentions } = moved;
    let member = &place.member;
    if *read {
        let me = member.to_me(place.seq, *mentions);
        announcement.me(member.user_id, MeChanged { room: member.room_id.to_wire(), me: Some(me) });
    }
    if (*advanced || *delivered) && place.show_receipts && place.member_count <= MOST_MEMBERS {
        let receipt = Receipt {
            room: member.room_id.to_wire(),
            user: member.user_id.to_wire(),
            read_seq: advanced.then_some(member.read_seq),
            delivered_seq: delivered.then_some(member.delivered_seq),
        };
        announcement.receipt(member.room_id, receipt);
    }
}

macro_rules! places_sql {
    ($from:literal, $lock:literal) => {
        concat!(
            "select m.room_id, m.user_id, m.present, m.role, m.joined_at, m.rev, m.joined_rev, m.visible_from_seq,
                 m.read_seq, m.delivered_seq, m.muted_until, m.me_rev, m.me_muted_until, m.notify, m.favourite, m.draft,
                 r.seq, r.member_count,
                 u.show_receipts and not (r.kind = 1 and ", blocked_direct!("r.id"), ") as show_receipts
             from ", $from, "
             join members m on m.room_id = k.room_id and m.user_id = k.user_id and m.present
             join rooms r on r.id = m.room_id
             join users u on u.id = m.user_id ",
            $lock
        )
    };
}

/// Reads and, on PostgreSQL, locks the members of these pairs.
async fn read(tx: &mut Tx, keys: &[(RoomId, UserId)]) -> Result<HashMap<(RoomId, UserId), Place>> {
    let rows: Vec<Place> = match tx {
        Tx::Postgres(tx) => {
            let rooms: Vec<Uuid> = keys.iter().map(|(room, _)| room.0).collect();
            let users: Vec<Uuid> = keys.iter().map(|(_, user)| user.0).collect();
            let sql = places_sql!(
                "unnest($1::uuid[], $2::uuid[]) as k(room_id, user_id)",
                "order by m.room_id, m.user_id for no key update of m"
            );
            sqlx::query_as(sql).bind(rooms).bind(users).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            let mut rows = Vec::with_capacity(keys.len());
            for (room, user) in keys {
                let sql = places_sql!("(select $1 as room_id, $2 as user_id) as k", "");
                rows.extend(sqlx::query_as::<_, Place>(sql).bind(room).bind(user).fetch_optional(&mut **tx).await?);
            }
            rows
        }
    };
    Ok(rows.into_iter().map(|row| ((row.member.room_id, row.member.user_id), row)).collect())
}

macro_rules! returning {
    () => {
        concat!(
            " returning members.room_id, members.user_id, (select seq from rooms where id = members.room_id) as seq, ",
            count_mentions!("members"),
            " as mentions"
        )
    };
}

/// Writes the cursors that moved, and reads what is behind them now: the last seq and the mentions in one snapshot.
async fn write(tx: &mut Tx, moved: &mut [&mut Moved]) -> Result<()> {
    let members = moved.iter().map(|moved| &moved.place.member);
    let rows: Vec<(RoomId, UserId, i64, i64)> = match tx {
        Tx::Postgres(tx) => {
            sqlx::query_as(concat!(
                "update members set read_seq = n.read_seq, delivered_seq = n.delivered_seq, me_rev = n.me_rev
                 from unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[])
                     as n(room_id, user_id, read_seq, delivered_seq, me_rev)
                 where members.room_id = n.room_id and members.user_id = n.user_id",
                returning!()
            ))
            .bind(members.clone().map(|member| member.room_id.0).collect::<Vec<Uuid>>())
            .bind(members.clone().map(|member| member.user_id.0).collect::<Vec<Uuid>>())
            .bind(members.clone().map(|member| member.read_seq).collect::<Vec<i64>>())
            .bind(members.clone().map(|member| member.delivered_seq).collect::<Vec<i64>>())
            .bind(members.map(|member| member.me_rev).collect::<Vec<i64>>())
            .fetch_all(&mut **tx)
            .await?
        }
        Tx::Sqlite(tx) => {
            let mut rows = Vec::with_capacity(moved.len());
            for member in members {
                let row = sqlx::query_as::<_, (RoomId, UserId, i64, i64)>(concat!(
                    "update members set read_seq = $3, delivered_seq = $4, me_rev = $5
                     where room_id = $1 and user_id = $2",
                    returning!()
                ))
                .bind(member.room_id)
                .bind(member.user_id)
                .bind(member.read_seq)
                .bind(member.delivered_seq)
                .bind(member.me_rev);
                rows.extend(row.fetch_optional(&mut **tx).await?);
            }
            rows
        }
    };
    let behind: HashMap<_, _> = rows.into_iter().map(|(room, user, seq, count)| ((room, user), (seq, count))).collect();
    for moved in moved {
        let member = &moved.place.member;
        if let Some((seq, mentions)) = behind.get(&(member.room_id, member.user_id)) {
            (moved.place.seq, moved.mentions) = (*seq, *mentions);
        }
    }
    Ok(())
}
