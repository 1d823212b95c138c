//! Where a user's pushes go: adding, listing and removing targets.

use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{SessionId, UserId},
    on_db, on_tx,
};
use uuid::Uuid;
use web_push_native::p256::PublicKey;

use crate::{App, error::Result, target};

/// Devices of one user.
pub const MOST: i64 = 50;
/// Characters of a device's name.
const MAX_NAME: usize = 100;
/// Bytes of the secret of a Web Push subscription (RFC 8291, section 3.2).
const AUTH_LEN: usize = 16;

/// What a target is. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[repr(i16)]
pub(crate) enum Platform {
    WebPush = 1,
    Fcm = 2,
    Apns = 3,
    Webhook = 4,
    Email = 5,
}

/// What its user is told of a device.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Device {
    pub(crate) id: Uuid,
    pub(crate) platform: Platform,
    pub(crate) name: Option<String>,
    pub(crate) created_at: i64,
}

/// What a user asks to be pushed to.
pub(crate) struct New {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) platform: Platform,
    pub(crate) name: Option<String>,
    pub(crate) target: String,
    pub(crate) p256dh: Vec<u8>,
    pub(crate) auth: Vec<u8>,
}

/// Adds a device, or updates the one of the same user with the same target. Tells whether it was added.
///
/// # Errors
/// `bad_request` naming the field; `unprocessable` when the platform is not configured, or the user has too many.
pub(crate) async fn register(app: &App, new: New) -> Result<(Device, bool)> {
    let target = check(app, &new)?;
    let mut tx = app.db.begin().await?;
    let own: (i64,) = on_tx!(&mut tx, c => sqlx::query_as(
        "select count(*) from push_devices where user_id = $1 and not (platform = $2 and target = $3)",
    )
    .bind(new.user)
    .bind(new.platform)
    .bind(&target)
    .fetch_one(c)
    .await)?;
    if own.0 >= MOST {
        return Err(Fault::unprocessable(format!("you have {MOST} devices already; remove one first")).into());
    }
    let id = Uuid::now_v7();
    let device = upsert(&mut tx, id, &new, &target).await?;
    tx.commit().await?;
    let added = device.id == id;
    Ok((device, added))
}

async fn upsert(tx: &mut Tx, id: Uuid, new: &New, target: &str) -> sqlx::Result<Device> {
    on_tx!(tx, c => sqlx::query_as(
        "insert into push_devices (id, user_id, session_id, platform, name, target, p256dh, auth, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         on conflict (user_id, platform, target) do update
         set session_id = excluded.session_id, name = excluded.name, p256dh = excluded.p256dh, auth = excluded.auth
         returning id, platform, name, created_at",
    )
    .bind(id)
    .bind(new.user)
    .bind(new.session)
    .bind(new.platform)
    .bind(&new.name)
    .bind(target)
    .bind(&new.p256dh)
    .bind(&new.auth)
    .bind(clock::now_ms())
    .fetch_one(c)
    .await)
}

/// The form of a new device. Gives its target in the one way in which it is written.
fn check(app: &App, new: &New) -> Result<String, Fault> {
    if new.name.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME) {
        return Err(Fault::bad_request(format!("name: must have 0 to {MAX_NAME} characters")));
    }
    let word = match new.platform {
        Platform::WebPush => return check_web_push(app, new),
        Platform::Fcm => "fcm",
        Platform::Apns => "apns",
        Platform::Webhook => "webhook",
        Platform::Email => "email",
    };
    Err(Fault::unprocessable(format!("platform: {word} is not configured here")))
}

fn check_web_push(app: &App, new: &New) -> Result<String, Fault> {
    let target = target::read("endpoint", &new.target, app.private_targets)?;
    if PublicKey::from_sec1_bytes(&new.p256dh).is_err() {
        return Err(Fault::bad_request("keys.p256dh: must be a P-256 point"));
    }
    if new.auth.len() != AUTH_LEN {
        return Err(Fault::bad_request("keys.auth: must be 16 bytes"));
    }
    app.vapid()?;
    Ok(target.into())
}

/// All devices of a user, the oldest first.
pub(crate) async fn list(app: &App, user: UserId) -> Result<Vec<Device>> {
    Ok(on_db!(&app.db, pool => sqlx::query_as(
        "select id, platform, name, created_at from push_devices where user_id = $1 order by id",
    )
    .bind(user)
    .fetch_all(pool)
    .await)?)
}

/// Removes a device.
///
/// # Errors
/// `not_found` when the user has none of this id.
pub(crate) async fn remove(app: &App, user: UserId, device: Uuid) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let removed = on_tx!(&mut tx, c => sqlx::query("delete from push_devices where id = $1 and user_id = $2")
        .bind(device)
        .bind(user)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    tx.commit().await?;
    if removed == 0 {
        return Err(Fault::not_found("there is no such device").into());
    }
    Ok(())
}
