//! What users are told of inside the program: a list that says who mentioned, answered or invited them, and in which direct
//! room something waits that they have missed.
//!
//! `note` writes what a batch gives, `missed` what a direct room gives when nobody has looked in time, and `tell` says it to
//! the connections of the user, who may miss it: the list is what counts. What was read in its room is read here.

pub(crate) mod missed;
pub(crate) mod note;
pub mod tell;

use std::time::Duration;

use parlance_proto::{event::user_event, v1};
use service_kit::{clock, db::Db, id::UserId, on_tx};
use uuid::Uuid;

use self::tell::Told;

/// How long they stay.
pub(crate) const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// What it is about. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[repr(i16)]
pub(crate) enum Kind {
    /// A message mentions the user, or all.
    Mention = 1,
    /// A message answers one of the user's.
    Reply = 2,
    /// The user was added to a room.
    Invitation = 3,
    /// Nobody was there to see what came in a direct room.
    Direct = 4,
}

impl Kind {
    fn to_wire(self) -> v1::NotificationKind {
        match self {
            Self::Mention => v1::NotificationKind::Mention,
            Self::Reply => v1::NotificationKind::Reply,
            Self::Invitation => v1::NotificationKind::Invitation,
            Self::Direct => v1::NotificationKind::Direct,
        }
    }
}

/// A row of `notifications`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Notification {
    pub(crate) id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) kind: Kind,
    pub(crate) room_id: Uuid,
    pub(crate) seq: i64,
    pub(crate) sender: Uuid,
    pub(crate) at: i64,
    #[sqlx(default)]
    pub(crate) read: bool,
}

impl Notification {
    /// The Notification object of the contract, without its message.
    pub(crate) fn to_wire(&self) -> v1::Notification {
        let id = |id: Uuid| id.as_bytes().to_vec().into();
        v1::Notification {
            id: id(self.id),
            kind: self.kind.to_wire().into(),
            room: id(self.room_id),
            seq: self.seq,
            sender: id(self.sender),
            at: self.at,
            read: self.read,
            message: None,
        }
    }

    /// What its user is told.
    pub(crate) fn told(&self) -> Told {
        (UserId(self.user_id), user_event::Kind::Notified(self.to_wire()))
    }
}

/// Those of a user that can be shown: in rooms that the user is in, of messages that stand, and of nobody whom the user blocks.
macro_rules! shown {
    () => {
        "from notifications n
         join members m on m.room_id = n.room_id and m.user_id = n.user_id and m.present
         left join messages w on w.room_id = n.room_id and w.seq = n.seq
         where n.user_id = $1 and (n.kind = 3 or (w.deleted_at is null and w.seq > m.visible_from_seq))
           and not exists (select 1 from blocks b where b.user_id = n.user_id and b.blocked = n.sender)"
    };
}

/// The notice of an invitation counts as read from the beginning; what comes after it does not.
macro_rules! is_read {
    () => {
        "(n.read_at is not null or m.read_seq > n.seq or (m.read_seq = n.seq and n.kind <> 3))"
    };
}

/// A page of a user's, the newest first, and how many are unread in all.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) items: Vec<Notification>,
    pub(crate) more: bool,
    pub(crate) unread: i64,
}

/// Those of a user that are older than `before`, at most `limit`.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn list(db: &Db, user: UserId, before: Option<Uuid>, limit: usize) -> sqlx::Result<List> {
    let mut tx = db.snapshot().await?;
    let mut items: Vec<Notification> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "select n.id, n.user_id, n.kind, n.room_id, n.seq, n.sender, n.at, ", is_read!(), " as read ", shown!(),
        " and n.id < $2 order by n.id desc limit $3"
    ))
    .bind(user)
    .bind(before.unwrap_or(Uuid::max()))
    .bind(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1))
    .fetch_all(c)
    .await)?;
    let (unread,): (i64,) = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "select count(*) ", shown!(), " and not ", is_read!()
    ))
    .bind(user)
    .fetch_one(c)
    .await)?;
    let more = items.len() > limit;
    items.truncate(limit);
    Ok(List { items, more, unread })
}

/// Marks a user's as read, up to this one and with it.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn read(db: &Db, user: UserId, up_to: Uuid) -> sqlx::Result<()> {
    let mut tx = db.begin().await?;
    on_tx!(&mut tx, c => sqlx::query(
        "update notifications set read_at = $3 where user_id = $1 and id <= $2 and read_at is null",
    )
    .bind(user)
    .bind(up_to)
    .bind(clock::now_ms())
    .execute(c)
    .await
    .map(|_| ()))?;
    tx.commit().await
}

/// Deletes those whose time is over.
pub(crate) const SWEEP: &str =
    "delete from notifications where id in (select id from notifications where at < $1 limit $2)";
