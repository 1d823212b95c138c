//! What becomes of news: what goes into lists at once (`notifications`), who is looked at later, and one push for each device of
//! each other member, looked at after the delay.
//!
//! One statement plans the pushes of a batch, however large the rooms. Who is online, muted or has read is not asked here but
//! when the row is due: most have read by then. Being told of the same news twice gives the same rows.

use std::{sync::Arc, time::Duration};

use parlance_proto::presence::presence_client::PresenceClient;
use service_kit::{
    clock,
    db::{Db, Tx},
    on_db,
    rpc::Client,
};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    attempt::in_future,
    news::News,
    notifications::{Notification, missed::Looks, note, tell::Teller},
};

/// Plans. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Planner {
    db: Db,
    delay: Duration,
    looks: Looks,
    teller: Teller,
    planned: Arc<Notify>,
}

impl Planner {
    /// For this database, where a push waits so long for a read elsewhere, and `presence` says who is there.
    #[must_use]
    pub fn new(db: Db, delay: Duration, teller: Teller, presence: PresenceClient<Client>) -> Self {
        Self { db, delay, looks: Looks::new(delay, presence), teller, planned: Arc::default() }
    }

    /// Writes what these give. Tells how many pushes are new.
    ///
    /// # Errors
    /// When the database does not do it; the rest is done when it is told of them again.
    pub async fn plan(&self, news: &[News]) -> sqlx::Result<u64> {
        // First, for the push of an invitation is about its row in the list.
        let new = note::note(&self.db, news).await?;
        self.teller.tell(new.iter().map(Notification::told).collect());
        let pushes = self.plan_pushes(news).await?;
        // Last, for it waits for presence-service, and none of this does.
        self.looks.plan(&self.db, news).await?;
        Ok(pushes)
    }

    async fn plan_pushes(&self, news: &[News]) -> sqlx::Result<u64> {
        let messages: Vec<Place> = news.iter().filter_map(message).collect();
        let invitations: Vec<Place> = news.iter().filter_map(invitation).collect();
        if (messages.is_empty() && invitations.is_empty()) || !self.has_devices().await? {
            return Ok(0);
        }
        let due = in_future(self.delay);
        let mut tx = self.db.begin().await?;
        let mut rows = insert(&mut tx, MESSAGES, &messages, due).await?;
        rows += insert(&mut tx, INVITATIONS, &invitations, due).await?;
        tx.commit().await?;
        if rows > 0 {
            self.planned.notify_one();
        }
        Ok(rows)
    }

    /// Whether anybody has a device: where push is not used, a message costs this look, whatever the room's size.
    async fn has_devices(&self) -> sqlx::Result<bool> {
        let first: Option<(Uuid,)> =
            on_db!(&self.db, pool => sqlx::query_as("select id from push_devices limit 1").fetch_optional(pool).await)?;
        Ok(first.is_some())
    }

    /// Resolves when this process has planned a push since the last call.
    pub(crate) async fn planned(&self) {
        self.planned.notified().await;
    }

    /// Who is to be looked at.
    pub(crate) fn looks(&self) -> &Looks {
        &self.looks
    }
}

/// A message with its sender, or an invitation with whom it is for.
type Place = (Uuid, i64, Uuid);

fn message(news: &News) -> Option<Place> {
    let message = news.message()?;
    Some((Uuid::from_slice(&message.room).ok()?, message.seq, Uuid::from_slice(&message.sender).ok()?))
}

fn invitation(news: &News) -> Option<Place> {
    let News::Invitation(it) = news else { return None };
    Some((it.room, it.seq, it.user))
}

/// Writes the pushes of these places by the statement of the engine; tells how many are new.
async fn insert(tx: &mut Tx, [postgres, sqlite]: [&'static str; 2], places: &[Place], due: i64) -> sqlx::Result<u64> {
    if places.is_empty() {
        return Ok(0);
    }
    let now = clock::now_ms();
    match tx {
        Tx::Postgres(tx) => Ok(sqlx::query(postgres)
            .bind(places.iter().map(|place| place.0).collect::<Vec<_>>())
            .bind(places.iter().map(|place| place.1).collect::<Vec<_>>())
            .bind(places.iter().map(|place| place.2).collect::<Vec<_>>())
            .bind(now)
            .bind(due)
            .execute(&mut **tx)
            .await?
            .rows_affected()),
        Tx::Sqlite(tx) => {
            let mut rows = 0;
            for (room, seq, user) in places {
                let insert = sqlx::query(sqlite).bind(room).bind(seq).bind(user).bind(now).bind(due);
                rows += insert.execute(&mut **tx).await?.rows_affected();
            }
            Ok(rows)
        }
    }
}

/// To everybody else in the room. `offset 0` keeps the look at each room apart, whatever the planner believes of so many.
const MESSAGES: [&str; 2] = [
    "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
     select n.room_id, n.seq, w.user_id, w.device_id, w.platform, $4, $5, 0
     from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as n (room_id, seq, sender)
     cross join lateral (
         select m.user_id, d.id as device_id, d.platform
         from members m
         join push_devices d on d.user_id = m.user_id
         where m.room_id = n.room_id and m.present and m.user_id <> n.sender
         offset 0
     ) w
     on conflict (room_id, seq, user_id, device_id) do nothing",
    "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
     select m.room_id, $2, m.user_id, d.id, d.platform, $4, $5, 0
     from members m
     join push_devices d on d.user_id = m.user_id
     where m.room_id = $1 and m.present and m.user_id <> $3
     on conflict (room_id, seq, user_id, device_id) do nothing",
];
/// To those who are told at all: whose row is in the list. A device that came after its user did is not told of that.
const INVITATIONS: [&str; 2] = [
    "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
     select i.room_id, i.seq, i.user_id, d.id, d.platform, $4, $5, 0
     from unnest($1::uuid[], $2::bigint[], $3::uuid[]) as n (room_id, seq, user_id)
     join notifications i on i.room_id = n.room_id and i.seq = n.seq and i.user_id = n.user_id and i.kind = 3
     join members m on m.room_id = i.room_id and m.user_id = i.user_id and m.present
     join push_devices d on d.user_id = i.user_id and d.created_at < m.joined_at
     on conflict (room_id, seq, user_id, device_id) do nothing",
    "insert into pushes (room_id, seq, user_id, device_id, platform, at, due_at, attempts)
     select i.room_id, i.seq, i.user_id, d.id, d.platform, $4, $5, 0
     from notifications i
     join members m on m.room_id = i.room_id and m.user_id = i.user_id and m.present
     join push_devices d on d.user_id = i.user_id and d.created_at < m.joined_at
     where i.room_id = $1 and i.seq = $2 and i.user_id = $3 and i.kind = 3
     on conflict (room_id, seq, user_id, device_id) do nothing",
];
