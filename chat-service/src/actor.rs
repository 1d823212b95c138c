//! Who asks: a user in a session that still stands.

use parlance_proto::chat;
use service_kit::{
    fault::Fault,
    id::{SessionId, UserId},
    on_db,
};

use crate::{App, error::Result};

/// A user and the session that they ask in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Actor {
    /// The user.
    pub(crate) user: UserId,
    /// The session.
    pub(crate) session: SessionId,
}

impl Actor {
    /// Reads the actor of a call, without looking whether the session stands.
    ///
    /// # Errors
    /// `bad_request` when a call was made without one.
    pub(crate) fn from_wire(actor: Option<chat::Actor>) -> Result<Self> {
        let actor = actor.ok_or_else(|| Fault::bad_request("actor: is missing"))?;
        Ok(Self {
            user: UserId::from_wire(&actor.user, "actor.user")?,
            session: SessionId::from_wire(&actor.session, "actor.session")?,
        })
    }

    /// Reads the actor of a call whose session must stand.
    ///
    /// # Errors
    /// `unauthenticated` when the session was revoked.
    pub(crate) async fn standing(app: &App, actor: Option<chat::Actor>) -> Result<Self> {
        let actor = Self::from_wire(actor)?;
        let stands: Option<(i64,)> = on_db!(&app.db, pool => sqlx::query_as(
            "select created_at from sessions where id = $1 and user_id = $2 and revoked_at is null",
        )
        .bind(actor.session)
        .bind(actor.user)
        .fetch_optional(pool)
        .await)?;
        if stands.is_none() {
            return Err(Fault::unauthenticated("this session was ended; log in again").into());
        }
        Ok(actor)
    }
}
