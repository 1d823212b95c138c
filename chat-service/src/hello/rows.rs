//! What a hello begins with: whose sessions stand, and which rooms they have.

use std::collections::HashMap;

use parlance_proto::chat;
use service_kit::{
    db::Tx,
    id::{RoomId, SessionId, UserId},
};
use uuid::Uuid;

use super::Hello;
use crate::{
    accounts::{
        UserRow,
        choice::{self, Choice},
        user_columns,
    },
    error::Result,
};

/// A user with the session that asks.
#[derive(Clone, sqlx::FromRow)]
pub(super) struct Person {
    session_id: SessionId,
    pub(super) user_rev: i64,
    pub(super) generation: String,
    choice_state: Option<choice::State>,
    choice_version: Option<i64>,
    #[sqlx(flatten)]
    pub(super) user: UserRow,
}

impl Person {
    pub(super) fn choice(&self) -> Option<Choice> {
        Choice::from_columns(self.choice_state, self.choice_version)
    }
}

/// A membership, as light as possible: a user may have thousands.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct Light {
    pub(crate) user_id: UserId,
    pub(crate) room_id: RoomId,
    pub(crate) rev: i64,
    pub(crate) me_rev: i64,
    pub(crate) joined_rev: i64,
    pub(crate) visible_from_seq: i64,
    pub(crate) direct: bool,
}

impl Light {
    pub(crate) fn to_wire(&self) -> chat::Membership {
        chat::Membership {
            room: self.room_id.to_wire(),
            rev: self.rev,
            visible_from_seq: self.visible_from_seq,
            joined_rev: self.joined_rev,
            direct: self.direct,
        }
    }
}

/// The users whose sessions stand, by session.
pub(super) async fn people(tx: &mut Tx, hellos: &[Hello]) -> Result<HashMap<SessionId, Person>> {
    let rows: Vec<Person> = match tx {
        Tx::Postgres(tx) => {
            let users: Vec<Uuid> = hellos.iter().map(|hello| hello.actor.user.0).collect();
            let sessions: Vec<Uuid> = hellos.iter().map(|hello| hello.actor.session.0).collect();
            let sql = concat!(
                "select distinct s.id as session_id, users.rev as user_rev, g.value as generation,
                     c.state as choice_state, c.version as choice_version, ",
                user_columns!(),
                "
                 from unnest($1::uuid[], $2::uuid[]) as k(user_id, session_id)
                 join sessions s on s.id = k.session_id and s.user_id = k.user_id and s.revoked_at is null
                 join users on users.id = s.user_id
                 join facts g on g.name = 'generation'
                 left join choices c on c.user_id = users.id"
            );
            sqlx::query_as(sql).bind(users).bind(sessions).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            let mut rows = Vec::with_capacity(hellos.len());
            for hello in hellos {
                let sql = concat!(
                    "select s.id as session_id, users.rev as user_rev, g.value as generation,
                     c.state as choice_state, c.version as choice_version, ",
                    user_columns!(),
                    "
                     from sessions s join users on users.id = s.user_id join facts g on g.name = 'generation'
                     left join choices c on c.user_id = users.id
                     where s.id = $2 and s.user_id = $1 and s.revoked_at is null"
                );
                rows.extend(
                    sqlx::query_as::<_, Person>(sql)
                        .bind(hello.actor.user)
                        .bind(hello.actor.session)
                        .fetch_optional(&mut **tx)
                        .await?,
                );
            }
            rows
        }
    };
    Ok(rows.into_iter().map(|row| (row.session_id, row)).collect())
}

macro_rules! memberships_sql {
    ($condition:literal) => {
        concat!(
            "select k.user_id, k.room_id, r.rev, m.me_rev, m.joined_rev, m.visible_from_seq, r.kind = 1 as direct
             from user_rooms k
             join rooms r on r.id = k.room_id
             join members m on m.room_id = k.room_id and m.user_id = k.user_id and m.present
             where ",
            $condition,
            " order by r.active_at desc, r.id desc"
        )
    };
}

/// The rooms of these users, newest activity first.
pub(crate) async fn memberships(tx: &mut Tx, users: &[UserId]) -> Result<HashMap<UserId, Vec<Light>>> {
    let rows: Vec<Light> = match tx {
        Tx::Postgres(tx) => {
            let users: Vec<Uuid> = users.iter().map(|user| user.0).collect();
            sqlx::query_as(memberships_sql!("k.user_id = any($1)")).bind(users).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            let mut rows = Vec::new();
            for user in users {
                let sql = memberships_sql!("k.user_id = $1");
                rows.extend(sqlx::query_as::<_, Light>(sql).bind(user).fetch_all(&mut **tx).await?);
            }
            rows
        }
    };
    let mut by_user: HashMap<UserId, Vec<Light>> = HashMap::new();
    for row in rows {
        by_user.entry(row.user_id).or_default().push(row);
    }
    Ok(by_user)
}
