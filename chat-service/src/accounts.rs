//! Accounts: who somebody is, and what every other part of this service needs of it.

pub(crate) mod blocks;
pub(crate) mod choice;
pub(crate) mod login;
pub(crate) mod password;
pub(crate) mod profile;
pub(crate) mod refresh;
pub(crate) mod sessions;

use parlance_proto::v1;
use service_kit::{db::Tx, fault::Fault, id::UserId, on_tx};
use tracing::Instrument;
use uuid::Uuid;

use crate::{App, error::Result};

/// The columns of a [`UserRow`], for `concat!`: SQL texts are constants.
macro_rules! user_columns {
    () => {
        "users.id, users.username, users.display_name, users.avatar, users.bot, users.created_at"
    };
}
pub(crate) use user_columns;

/// A user as everybody may see them. Inside a larger row: `#[sqlx(flatten)]`.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct UserRow {
    pub(crate) id: UserId,
    pub(crate) username: String,
    pub(crate) display_name: String,
    pub(crate) avatar: Option<Uuid>,
    pub(crate) bot: bool,
    /// Milliseconds since the epoch.
    pub(crate) created_at: i64,
}

impl UserRow {
    /// The User object of the contract.
    pub(crate) fn into_wire(self) -> v1::User {
        v1::User {
            id: self.id.to_wire(),
            username: self.username,
            display_name: self.display_name,
            avatar: self.avatar.map(|file| file.as_bytes().to_vec().into()),
            bot: self.bot,
            created_at: self.created_at,
            deleted: false,
        }
    }
}

/// Takes the next rev of a user, and with it the lock on the user's row until the transaction ends. So that no two
/// transactions wait for each other, rows of rooms are locked before, several users in the order of their ids, and
/// sessions afterwards.
///
/// # Errors
/// `not_found` when there is no such user.
pub(crate) async fn bump(tx: &mut Tx, user: UserId) -> Result<i64> {
    let rev: Option<(i64,)> = on_tx!(tx, c => sqlx::query_as("update users set rev = rev + 1 where id = $1 returning rev")
        .bind(user)
        .fetch_optional(c)
        .await)?;
    Ok(rev.ok_or_else(|| Fault::not_found("there is no such user"))?.0)
}

/// Runs work to its end even when the caller is gone: what follows a commit must not be skipped because a call was
/// cancelled between the two.
///
/// # Errors
/// What the work fails with, or that it panicked.
pub(crate) async fn detached<T: Send + 'static>(
    app: &App,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    app.tasks.spawn(work.in_current_span()).await.map_err(anyhow::Error::from)?
}

/// Refuses a text with U+0000, which PostgreSQL does not take, or with less or more characters than allowed.
///
/// # Errors
/// `bad_request` naming the field.
fn check_text(field: &str, text: &str, characters: std::ops::RangeInclusive<usize>) -> Result<()> {
    if text.contains('\0') {
        return Err(Fault::bad_request(format!("{field}: must not hold U+0000")).into());
    }
    if !characters.contains(&text.chars().count()) {
        let (least, most) = (characters.start(), characters.end());
        return Err(Fault::bad_request(format!("{field}: must have {least} to {most} characters")).into());
    }
    Ok(())
}
