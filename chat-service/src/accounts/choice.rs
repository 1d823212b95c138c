//! How users want to be shown: `dnd` and `invisible`, until changed. Shown by presence-service, kept here.

use std::collections::HashMap;

use parlance_proto::{chat, v1};
use service_kit::{clock, db::Tx, fault::Fault, id::UserId, on_db, on_tx};
use uuid::Uuid;

use crate::{App, actor::Actor, error::Result};

/// What a user can choose, as the column `state` has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[repr(i16)]
pub(crate) enum State {
    Online = 1,
    Dnd = 2,
    Invisible = 3,
}

/// A stored choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Choice {
    state: State,
    /// Grows with each choice of the user.
    version: i64,
}

impl State {
    /// Reads what somebody wants to be shown as.
    ///
    /// # Errors
    /// `bad_request` naming the field.
    pub(crate) fn from_wire(state: v1::PresenceState) -> Result<Self, Fault> {
        match state {
            v1::PresenceState::Online => Ok(Self::Online),
            v1::PresenceState::Dnd => Ok(Self::Dnd),
            v1::PresenceState::Invisible => Ok(Self::Invisible),
            _ => Err(Fault::bad_request("state: must be online, dnd or invisible")),
        }
    }
}

impl Choice {
    /// A choice from a row in which both are absent for who never chose.
    pub(crate) fn from_columns(state: Option<State>, version: Option<i64>) -> Option<Self> {
        Some(Self { state: state?, version: version? })
    }

    pub(crate) fn to_wire(self) -> chat::Choice {
        let state = match self.state {
            State::Online => v1::PresenceState::Online,
            State::Dnd => v1::PresenceState::Dnd,
            State::Invisible => v1::PresenceState::Invisible,
        };
        chat::Choice { state: state.into(), version: self.version }
    }
}

/// Stores how the actor wants to be shown. Nothing is written when that is so already, as each time that a client has been
/// idle and is not any more.
///
/// # Errors
/// When the database is not available.
pub(crate) async fn choose(app: &App, actor: Actor, state: State) -> Result<Choice> {
    let stored: Option<Choice> = on_db!(&app.db, pool => sqlx::query_as(
        "select state, version from choices where user_id = $1",
    )
    .bind(actor.user)
    .fetch_optional(pool)
    .await)?;
    if let Some(choice) = stored.filter(|choice| choice.state == state) {
        return Ok(choice);
    }
    let mut tx = app.db.begin().await?;
    // The instant, so that a choice counts more than those that a restored database has lost; and more than the one
    // before whatever the clocks say. The row's lock decides which of two is the later one.
    let choice: Choice = on_tx!(&mut tx, c => sqlx::query_as(
        "insert into choices (user_id, state, version) values ($1, $2, $3)
         on conflict (user_id) do update set
             state = excluded.state,
             version = case when choices.version < excluded.version then excluded.version else choices.version + 1 end
         returning state, version",
    )
    .bind(actor.user)
    .bind(state)
    .bind(clock::now_ms())
    .fetch_one(c)
    .await)?;
    tx.commit().await?;
    Ok(choice)
}

/// How these users want to be shown, in their order.
///
/// # Errors
/// When the database is not available.
pub(crate) async fn read(app: &App, users: &[UserId]) -> Result<Vec<Option<Choice>>> {
    let mut tx = app.db.snapshot().await?;
    let rows: Vec<(UserId, State, i64)> = match &mut tx {
        Tx::Postgres(tx) => {
            let ids: Vec<Uuid> = users.iter().map(|user| user.0).collect();
            sqlx::query_as("select user_id, state, version from choices where user_id = any($1)")
                .bind(ids)
                .fetch_all(&mut **tx)
                .await?
        }
        Tx::Sqlite(tx) => {
            let mut rows = Vec::new();
            for user in users {
                let row: Option<(UserId, State, i64)> =
                    sqlx::query_as("select user_id, state, version from choices where user_id = $1")
                        .bind(user)
                        .fetch_optional(&mut **tx)
                        .await?;
                rows.extend(row);
            }
            rows
        }
    };
    tx.commit().await?;
    let choices: HashMap<UserId, Choice> =
        rows.into_iter().map(|(user, state, version)| (user, Choice { state, version })).collect();
    Ok(users.iter().map(|user| choices.get(user).copied()).collect())
}
