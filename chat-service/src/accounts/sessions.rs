//! Sessions: one for each login. Their tokens are worth something only while they stand.

use std::sync::Arc;

use parlance_proto::event::{UserEvent, user_event};
use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{SessionId, UserId},
    on_db, on_tx,
};
use uuid::Uuid;

use super::{bump, detached};
use crate::{
    App,
    actor::Actor,
    error::Result,
    outbox::{Announcement, Stored},
    page::Page,
};

/// A session as its user sees it. Instants are milliseconds since the epoch.
#[derive(sqlx::FromRow)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) device: Option<String>,
    pub(crate) created_at: i64,
    pub(crate) last_used_at: i64,
}

/// Begins a session.
///
/// # Errors
/// When the database does not store it.
pub(super) async fn begin(tx: &mut Tx, user: UserId, device: Option<String>, now: i64) -> Result<SessionId> {
    let session = SessionId::generate();
    on_tx!(tx, c => sqlx::query(
        "insert into sessions (id, user_id, device, created_at, last_used_at) values ($1, $2, $3, $4, $4)",
    )
    .bind(session)
    .bind(user)
    .bind(device)
    .bind(now)
    .execute(c)
    .await
    .map(drop))?;
    Ok(session)
}

/// The sessions of the actor that stand, newest first, and the cursor of the next page.
///
/// # Errors
/// `bad_request` naming `cursor` when it is of another list.
pub(crate) async fn list(app: &App, actor: Actor, page: &Page) -> Result<(Vec<Session>, Option<String>)> {
    // Ids are made in the order of time, so that they serve as order and as cursor.
    let before = page.after()?.unwrap_or(Uuid::max());
    let mut rows: Vec<Session> = on_db!(&app.db, pool => sqlx::query_as(
        "select id, device, created_at, last_used_at from sessions
        where user_id = $1 and revoked_at is null and id < $2
        order by id desc limit $3",
    )
    .bind(actor.user)
    .bind(before)
    .bind(page.limit + 1)
    .fetch_all(pool)
    .await)?;
    let next = page.cut(&mut rows, |row| row.id.to_string());
    Ok((rows, next))
}

/// Ends the session that the actor asks in.
///
/// # Errors
/// `unauthenticated` when it was ended before.
pub(crate) async fn logout(app: &Arc<App>, actor: Actor) -> Result<()> {
    let ended = end_alone(app, actor.user, actor.session).await?;
    if ended { Ok(()) } else { Err(not_standing().into()) }
}

/// Ends a session of the actor.
///
/// # Errors
/// `not_found` when it is not the actor's or was ended before.
pub(crate) async fn revoke(app: &Arc<App>, actor: Actor, session: SessionId) -> Result<()> {
    let ended = end_alone(app, actor.user, session).await?;
    if ended { Ok(()) } else { Err(Fault::not_found("there is no such session").into()) }
}

async fn end_alone(app: &Arc<App>, user: UserId, session: SessionId) -> Result<bool> {
    let work = {
        let app = Arc::clone(app);
        async move {
            let mut tx = app.db.begin().await?;
            let Some(stored) = end(&app, &mut tx, user, session).await? else { return Ok(false) };
            tx.commit().await?;
            app.outbox.publish(stored);
            Ok(true)
        }
    };
    detached(app, work).await
}

/// Ends a session in a transaction; the announcement is to be published after its commit. None when there is nothing to
/// end: then the transaction must be given up, for it has taken a rev.
///
/// # Errors
/// When the database does not do it.
pub(super) async fn end(app: &App, tx: &mut Tx, user: UserId, session: SessionId) -> Result<Option<Stored>> {
    let rev = bump(tx, user).await?;
    let ended = on_tx!(tx, c => sqlx::query(
        "update sessions set revoked_at = $3 where id = $1 and user_id = $2 and revoked_at is null",
    )
    .bind(session)
    .bind(user)
    .bind(clock::now_ms())
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if ended == 0 {
        return Ok(None);
    }
    let kind = user_event::Kind::SessionRevoked(session.to_wire());
    announce(app, tx, user, rev, kind).await.map(Some)
}

/// Ends every session of the actor but the present one, in the transaction that took the user's `rev`.
///
/// # Errors
/// `unauthenticated` when the present one was ended meanwhile.
pub(super) async fn end_others(app: &App, tx: &mut Tx, actor: Actor, rev: i64) -> Result<Stored> {
    let present = on_tx!(tx, c => sqlx::query("select id from sessions where id = $1 and user_id = $2 and revoked_at is null")
        .bind(actor.session)
        .bind(actor.user)
        .fetch_optional(c)
        .await
        .map(|row| row.is_some()))?;
    if !present {
        return Err(not_standing().into());
    }
    on_tx!(tx, c => sqlx::query(
        "update sessions set revoked_at = $3 where user_id = $1 and id <> $2 and revoked_at is null",
    )
    .bind(actor.user)
    .bind(actor.session)
    .bind(clock::now_ms())
    .execute(c)
    .await
    .map(drop))?;
    let kind = user_event::Kind::OthersRevoked(actor.session.to_wire());
    announce(app, tx, actor.user, rev, kind).await
}

async fn announce(app: &App, tx: &mut Tx, user: UserId, rev: i64, kind: user_event::Kind) -> Result<Stored> {
    let mut announcement = Announcement::new();
    announcement.user(user, UserEvent { user: user.to_wire(), rev, kind: Some(kind), ..UserEvent::default() });
    app.outbox.store(tx, announcement).await
}

fn not_standing() -> Fault {
    Fault::unauthenticated("this session was ended; log in again")
}
