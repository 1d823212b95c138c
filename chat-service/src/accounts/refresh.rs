//! The two tokens of a session: a short access token, and a refresh token that is spent for the next pair.
//!
//! Refresh tokens are random to everybody but us, and stored as hashes only. Spending one twice means that somebody
//! else has it, and ends the session; a retry with the same attempt is not that: its first answer was lost.

use std::sync::Arc;

use anyhow::anyhow;
use aws_lc_rs::{digest, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{SessionId, UserId},
    on_tx,
};
use uuid::Uuid;

use super::{check_text, detached, sessions};
use crate::{App, error::Result};

/// How long after its exchange a token may be sent again with the same attempt.
const RETRY_MS: i64 = 60_000;
/// How long a refresh token may stay unused.
const LIFE_MS: i64 = 30 * DAY_MS;
/// How long its row is kept: longer than it can be of use to anybody.
const KEPT_MS: i64 = 31 * DAY_MS;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a client authenticates with.
pub(crate) struct Tokens {
    pub(crate) access_token: String,
    /// Whole seconds that the access token is still valid.
    pub(crate) expires_in_s: i64,
    pub(crate) refresh_token: String,
}

/// A refresh token: 32 bytes, in base64url for the client.
struct Token([u8; 32]);

impl Token {
    fn random() -> Result<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| anyhow!("the system has no randomness"))?;
        Ok(Self(bytes))
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self(URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?))
    }

    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    fn hash(&self) -> Vec<u8> {
        digest::digest(&digest::SHA256, &self.0).as_ref().to_vec()
    }

    /// The token that follows this one when it is exchanged with an attempt: always the same one.
    fn successor(&self, app: &App, attempt: Uuid) -> Self {
        Self(app.signer.derive("refresh", &[self.0.as_slice(), attempt.as_bytes()].concat()))
    }
}

/// Makes the first pair of a new session.
///
/// # Errors
/// When the database does not store it.
pub(super) async fn first(app: &App, tx: &mut Tx, user: UserId, session: SessionId, now: i64) -> Result<Tokens> {
    let token = Token::random()?;
    store(tx, session, &token, now).await?;
    pair(app, user, session, now, &token)
}

/// Exchanges a refresh token for the next pair. The same `attempt` again within a minute gets the same pair again.
///
/// # Errors
/// `unauthenticated` when the token is not known, is older than 30 days or its session was revoked. Also when it was
/// spent before: then the session is revoked.
pub(crate) async fn refresh(app: &Arc<App>, token: &str, attempt: Option<Uuid>) -> Result<Tokens> {
    check_text("refresh_token", token, 0..=usize::MAX)?;
    let token = Token::parse(token).ok_or_else(not_valid)?;
    let work = exchange(Arc::clone(app), token, attempt);
    detached(app, work).await
}

async fn exchange(app: Arc<App>, token: Token, attempt: Option<Uuid>) -> Result<Tokens> {
    let mut tx = app.db.begin().await?;
    let now = clock::now_ms();
    // Locks the row as well: of two calls at once the second finds it spent.
    let unspent: Option<(SessionId,)> = on_tx!(&mut tx, c => sqlx::query_as(
        "update refresh_tokens set spent_at = $2, attempt = $3
        where hash = $1 and spent_at is null and issued_at > $4
        returning session_id",
    )
    .bind(token.hash())
    .bind(now)
    .bind(attempt)
    .bind(now - LIFE_MS)
    .fetch_optional(c)
    .await)?;
    match unspent {
        Some((session,)) => advance(&app, tx, session, &token, attempt, now).await,
        None => spent_before(&app, tx, &token, attempt, now).await,
    }
}

/// The token has just been spent: its successor takes its place.
async fn advance(
    app: &App,
    mut tx: Tx,
    session: SessionId,
    token: &Token,
    attempt: Option<Uuid>,
    now: i64,
) -> Result<Tokens> {
    on_tx!(&mut tx, c => sqlx::query("delete from refresh_tokens where session_id = $1 and issued_at < $2")
        .bind(session)
        .bind(now - KEPT_MS)
        .execute(c)
        .await
        .map(drop))?;
    let owner: Option<(UserId,)> = on_tx!(&mut tx, c => sqlx::query_as(
        "update sessions set last_used_at = $2 where id = $1 and revoked_at is null returning user_id",
    )
    .bind(session)
    .bind(now)
    .fetch_optional(c)
    .await)?;
    let (user,) = owner.ok_or_else(not_valid)?;
    let successor = match attempt {
        Some(attempt) => token.successor(app, attempt),
        None => Token::random()?,
    };
    store(&mut tx, session, &successor, now).await?;
    let tokens = pair(app, user, session, now, &successor)?;
    tx.commit().await?;
    Ok(tokens)
}

#[derive(sqlx::FromRow)]
struct Spent {
    issued_at: i64,
    spent_at: Option<i64>,
    attempt: Option<Uuid>,
    session_id: SessionId,
    user_id: UserId,
}

/// The token is not there to be spent: not known, too old, a retry, or in the wrong hands.
async fn spent_before(app: &App, mut tx: Tx, token: &Token, attempt: Option<Uuid>, now: i64) -> Result<Tokens> {
    let spent: Option<Spent> = on_tx!(&mut tx, c => sqlx::query_as(
        "select t.issued_at, t.spent_at, t.attempt, t.session_id, s.user_id
        from refresh_tokens t join sessions s on s.id = t.session_id
        where t.hash = $1 and s.revoked_at is null",
    )
    .bind(token.hash())
    .fetch_optional(c)
    .await)?;
    let spent = spent.filter(|spent| spent.issued_at > now - LIFE_MS).ok_or_else(not_valid)?;
    let spent_at = spent.spent_at.ok_or_else(not_valid)?;
    if let Some(attempt) = attempt.filter(|attempt| spent.attempt == Some(*attempt) && now - spent_at <= RETRY_MS) {
        return pair(app, spent.user_id, spent.session_id, spent_at, &token.successor(app, attempt));
    }
    if let Some(stored) = sessions::end(app, &mut tx, spent.user_id, spent.session_id).await? {
        tx.commit().await?;
        app.outbox.publish(stored);
        metrics::counter!("refresh_tokens_reused_total").increment(1);
        tracing::warn!(
            user.id = %spent.user_id,
            session.id = %spent.session_id,
            "a refresh token was spent twice; its session is revoked"
        );
    }
    Err(not_valid().into())
}

async fn store(tx: &mut Tx, session: SessionId, token: &Token, now: i64) -> Result<()> {
    on_tx!(tx, c => sqlx::query("insert into refresh_tokens (hash, session_id, issued_at) values ($1, $2, $3)")
        .bind(token.hash())
        .bind(session)
        .bind(now)
        .execute(c)
        .await
        .map(drop))?;
    Ok(())
}

/// The pair as it was issued at `issued_at`, whenever it is asked for.
fn pair(app: &App, user: UserId, session: SessionId, issued_at: i64, token: &Token) -> Result<Tokens> {
    let access_token = app.signer.sign(user, session, issued_at, app.access_ttl_s)?;
    let expires_at_s = issued_at / 1000 + app.access_ttl_s;
    let expires_in_s = (expires_at_s - clock::now_ms() / 1000).clamp(0, app.access_ttl_s);
    Ok(Tokens { access_token, expires_in_s, refresh_token: token.text() })
}

/// One answer for every reason: whoever guesses learns nothing.
fn not_valid() -> Fault {
    Fault::unauthenticated("refresh_token: is not valid any more; log in again")
}
