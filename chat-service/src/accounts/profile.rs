//! Profiles: what users say of themselves, whom they let see what, and how they are found.

use std::ops::RangeInclusive;

use service_kit::{
    fault::Fault,
    id::{FileId, UserId},
    on_db, on_tx,
};

use super::{UserRow, check_text, user_columns};
use crate::{
    App,
    actor::Actor,
    error::Result,
    files::attach::{self, OPEN_AVATAR},
    outbox::Announcement,
    page::Page,
};

/// Characters of a display name.
const DISPLAY_NAME: RangeInclusive<usize> = 1..=128;
/// Characters of a search for users.
const QUERY: RangeInclusive<usize> = 1..=64;

/// A user as they see themselves.
#[derive(sqlx::FromRow)]
pub(crate) struct Profile {
    #[sqlx(flatten)]
    pub(crate) user: UserRow,
    /// Whether others see this user's receipts.
    pub(crate) show_receipts: bool,
    /// Whether others see this user's presence.
    pub(crate) show_presence: bool,
}

/// What is to change in a profile; absent fields stay.
pub(crate) struct Patch {
    pub(crate) display_name: Option<String>,
    pub(crate) show_receipts: Option<bool>,
    pub(crate) show_presence: Option<bool>,
    /// A picture, or none.
    pub(crate) avatar: Option<Option<FileId>>,
}

/// The profile of the actor.
///
/// # Errors
/// `not_found` when the account is gone.
pub(crate) async fn get_me(app: &App, actor: Actor) -> Result<Profile> {
    let profile: Option<Profile> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", user_columns!(), ", show_receipts, show_presence from users where id = $1",
    ))
    .bind(actor.user)
    .fetch_optional(pool)
    .await)?;
    profile.ok_or_else(|| no_such_user().into())
}

/// Changes the profile of the actor.
///
/// # Errors
/// `bad_request` naming the field; what [`attach::change_avatar`] refuses.
pub(crate) async fn patch_me(app: &App, actor: Actor, patch: Patch) -> Result<Profile> {
    if let Some(display_name) = &patch.display_name {
        check_display_name(display_name)?;
    }
    let mut tx = app.db.begin().await?;
    if let Some(avatar) = patch.avatar {
        let user = actor.user;
        on_tx!(&mut tx, c => sqlx::query("update users set avatar = $2 where id = $1")
            .bind(user)
            .bind(avatar)
            .execute(c)
            .await
            .map(|_| ()))?;
        attach::change_avatar(&mut tx, user, (user.0, OPEN_AVATAR), avatar).await?;
    }
    let profile: Option<Profile> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "update users set
            display_name = coalesce($2, display_name),
            name_folded = coalesce($3, name_folded),
            show_receipts = coalesce($4, show_receipts),
            show_presence = coalesce($5, show_presence)
        where id = $1
        returning ", user_columns!(), ", show_receipts, show_presence",
    ))
    .bind(actor.user)
    .bind(&patch.display_name)
    .bind(patch.display_name.as_deref().map(str::to_lowercase))
    .bind(patch.show_receipts)
    .bind(patch.show_presence)
    .fetch_optional(c)
    .await)?;
    let profile = profile.ok_or_else(no_such_user)?;
    if patch.show_presence.is_none() {
        tx.commit().await?;
        return Ok(profile);
    }
    let mut announcement = Announcement::new();
    announcement.privacy(actor.user);
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(profile)
}

/// A user by id.
///
/// # Errors
/// `not_found` when there is none.
pub(crate) async fn get_user(app: &App, user: UserId) -> Result<UserRow> {
    let found: Option<UserRow> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", user_columns!(), " from users where id = $1",
    ))
    .bind(user)
    .fetch_optional(pool)
    .await)?;
    found.ok_or_else(|| no_such_user().into())
}

/// Users whose username or display name begins with `query`, whatever the case, by username; and the cursor of the next
/// page.
///
/// # Errors
/// `bad_request` naming `query`.
pub(crate) async fn find(app: &App, query: &str, page: &Page) -> Result<(Vec<UserRow>, Option<String>)> {
    check_text("query", query, QUERY)?;
    let from = query.to_lowercase();
    // Both columns compare byte by byte, so that a prefix is a range: no `like`, no escapes, alike on both engines.
    let to = format!("{from}\u{10FFFF}");
    let mut rows: Vec<UserRow> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", user_columns!(), " from users
        where ((username >= $1 and username < $2) or (name_folded >= $1 and name_folded < $2)) and username > $3
        order by username limit $4",
    ))
    .bind(&from)
    .bind(&to)
    .bind(page.after.as_deref().unwrap_or_default())
    .bind(page.limit + 1)
    .fetch_all(pool)
    .await)?;
    let next = page.cut(&mut rows, |row| row.username.clone());
    Ok((rows, next))
}

/// Refuses what may not be a display name.
///
/// # Errors
/// `bad_request` naming `display_name`.
pub(super) fn check_display_name(display_name: &str) -> Result<()> {
    check_text("display_name", display_name, DISPLAY_NAME)
}

fn no_such_user() -> Fault {
    Fault::not_found("there is no such user")
}
