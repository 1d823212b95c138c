//! Registering, logging in and changing the password: everything that takes a password.

use std::{ops::RangeInclusive, sync::Arc};

use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{SessionId, UserId},
    on_db, on_tx,
};

use super::{
    UserRow, check_text, detached,
    profile::check_display_name,
    refresh::{self, Tokens},
    sessions, user_columns,
};
use crate::{App, actor::Actor, error::Result};

/// Characters of a username; which ones, see [`fold_username`].
const USERNAME: RangeInclusive<usize> = 3..=32;
/// Characters of a password.
const PASSWORD: RangeInclusive<usize> = 8..=256;
/// Most characters of what a client calls its device.
const DEVICE: usize = 128;

/// Who wants to become a user.
pub(crate) struct Newcomer {
    pub(crate) username: String,
    pub(crate) password: String,
    /// The username when absent.
    pub(crate) display_name: Option<String>,
    pub(crate) device: Option<String>,
}

/// A user in a new session, with its first tokens.
pub(crate) struct Grant {
    pub(crate) user: UserRow,
    pub(crate) session: SessionId,
    pub(crate) tokens: Tokens,
}

/// Makes an account and logs in.
///
/// # Errors
/// `bad_request` naming the field, `conflict` when the username is taken, `unavailable` when too many log in.
pub(crate) async fn register(app: &App, newcomer: Newcomer) -> Result<Grant> {
    let username = fold_username(&newcomer.username)?;
    check_text("password", &newcomer.password, PASSWORD)?;
    let display_name = newcomer.display_name.unwrap_or_else(|| username.clone());
    check_display_name(&display_name)?;
    check_device(newcomer.device.as_deref())?;

    let password_hash = app.passwords.hash(newcomer.password).await?;

    let mut tx = app.db.begin().await?;
    let now = clock::now_ms();
    // The unique index decides between two who want the same name at once.
    let user: Option<UserRow> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "insert into users
            (id, username, display_name, name_folded, bot, password_hash, rev, created_at, show_receipts, show_presence)
        values ($1, $2, $3, $4, false, $5, 0, $6, true, true)
        on conflict (username) do nothing
        returning ", user_columns!(),
    ))
    .bind(UserId::generate())
    .bind(&username)
    .bind(&display_name)
    .bind(display_name.to_lowercase())
    .bind(&password_hash)
    .bind(now)
    .fetch_optional(c)
    .await)?;
    let user = user.ok_or_else(|| Fault::conflict("username: is taken"))?;
    grant(app, tx, user, newcomer.device, now).await
}

/// Logs in with a password.
///
/// # Errors
/// `unauthenticated`, alike in text and time, for a wrong password and for a user who does not exist; `bad_request`
/// naming the field; `unavailable` when too many log in.
pub(crate) async fn login(app: &App, username: &str, password: String, device: Option<String>) -> Result<Grant> {
    // What is too short is wrong like any other; what is too long is not worth the work.
    check_text("username", username, 0..=*USERNAME.end())?;
    check_text("password", &password, 0..=*PASSWORD.end())?;
    check_device(device.as_deref())?;

    let username = username.to_ascii_lowercase();
    let found: Option<(UserId, Option<String>)> = on_db!(&app.db, pool => sqlx::query_as(
        "select id, password_hash from users where username = $1",
    )
    .bind(&username)
    .fetch_optional(pool)
    .await)?;
    let (user, password_hash) = found.map_or((None, None), |(user, password_hash)| (Some(user), password_hash));
    let right = app.passwords.verify(password, password_hash.clone()).await?;
    let (Some(user), Some(password_hash), true) = (user, password_hash, right) else { return Err(wrong().into()) };

    let mut tx = app.db.begin().await?;
    let user = hold(&mut tx, user, &password_hash).await?.ok_or_else(wrong)?;
    grant(app, tx, user, device, clock::now_ms()).await
}

/// Reads a user who still has this password, and keeps it from being changed until the transaction ends: a change
/// revokes all other sessions, and must not miss one that is just being made.
async fn hold(tx: &mut Tx, user: UserId, password_hash: &str) -> Result<Option<UserRow>> {
    const SQLITE: &str = concat!("select ", user_columns!(), " from users where id = $1 and password_hash = $2");
    const POSTGRES: &str =
        concat!("select ", user_columns!(), " from users where id = $1 and password_hash = $2 for share");
    let sql = if tx.is_postgres() { POSTGRES } else { SQLITE };
    Ok(on_tx!(tx, c => sqlx::query_as(sql).bind(user).bind(password_hash).fetch_optional(c).await)?)
}

async fn grant(app: &App, mut tx: Tx, user: UserRow, device: Option<String>, now: i64) -> Result<Grant> {
    let session = sessions::begin(&mut tx, user.id, device, now).await?;
    let tokens = refresh::first(app, &mut tx, user.id, session, now).await?;
    tx.commit().await?;
    Ok(Grant { user, session, tokens })
}

/// Changes the password of the actor and ends all other sessions.
///
/// # Errors
/// `forbidden` when `old` is wrong, `bad_request` naming the field, `unavailable` when too many log in.
pub(crate) async fn change_password(app: &Arc<App>, actor: Actor, old: String, new: String) -> Result<()> {
    check_text("old", &old, 0..=*PASSWORD.end())?;
    check_text("new", &new, PASSWORD)?;

    let found: Option<(Option<String>,)> = on_db!(&app.db, pool => sqlx::query_as(
        "select password_hash from users where id = $1",
    )
    .bind(actor.user)
    .fetch_optional(pool)
    .await)?;
    let old_hash = found.and_then(|(password_hash,)| password_hash);
    let right = app.passwords.verify(old, old_hash.clone()).await?;
    let (Some(old_hash), true) = (old_hash, right) else { return Err(wrong_old().into()) };
    let new_hash = app.passwords.hash(new).await?;

    let work = replace_password(Arc::clone(app), actor, old_hash, new_hash);
    detached(app, work).await
}

async fn replace_password(app: Arc<App>, actor: Actor, old_hash: String, new_hash: String) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let rev: Option<(i64,)> = on_tx!(&mut tx, c => sqlx::query_as(
        "update users set password_hash = $3, rev = rev + 1 where id = $1 and password_hash = $2 returning rev",
    )
    .bind(actor.user)
    .bind(&old_hash)
    .bind(&new_hash)
    .fetch_optional(c)
    .await)?;
    // None when it was changed while ours was being verified.
    let (rev,) = rev.ok_or_else(wrong_old)?;
    let stored = sessions::end_others(&app, &mut tx, actor, rev).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(())
}

/// A username as it is stored. Only `A-Z` is folded: other letters that have such a lower case are refused.
fn fold_username(username: &str) -> Result<String> {
    let folded = username.to_ascii_lowercase();
    check_text("username", &folded, USERNAME)?;
    if folded.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-')) {
        Ok(folded)
    } else {
        Err(Fault::bad_request("username: may hold a-z, 0-9, _ . and - only").into())
    }
}

fn check_device(device: Option<&str>) -> Result<()> {
    device.map_or(Ok(()), |device| check_text("device", device, 0..=DEVICE))
}

fn wrong() -> Fault {
    Fault::unauthenticated("wrong username or password")
}

fn wrong_old() -> Fault {
    Fault::forbidden("old: is not the present password")
}
