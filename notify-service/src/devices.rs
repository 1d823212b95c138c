//! Where a user's pushes go: adding, listing and removing targets.

use std::time::Duration;

use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{SessionId, UserId},
    on_db, on_tx,
};
use uuid::Uuid;
use web_push_native::p256::PublicKey;

use crate::{
    App, apns,
    attempt::{self, Tried},
    decide::{DIRECT, Due},
    email,
    error::Result,
    payload, target, webhook,
};

/// Devices of one user.
pub const MOST: i64 = 50;
/// How long a test push may take: its caller waits for it.
const TEST: Duration = Duration::from_secs(6);
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

impl Platform {
    /// As the contract calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::WebPush => "webpush",
            Self::Fcm => "fcm",
            Self::Apns => "apns",
            Self::Webhook => "webhook",
            Self::Email => "email",
        }
    }
}

/// What its user is told of a device.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Device {
    pub(crate) id: Uuid,
    pub(crate) platform: Platform,
    pub(crate) name: Option<String>,
    pub(crate) created_at: i64,
}

/// A device that was added or updated.
pub(crate) struct Registered {
    pub(crate) device: Device,
    pub(crate) added: bool,
    /// Of a new webhook, told this once: what it verifies signatures with.
    pub(crate) secret: Option<String>,
}

/// What a user asks to be pushed to.
pub(crate) struct New {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    pub(crate) platform: Platform,
    pub(crate) name: Option<String>,
    pub(crate) target: String,
    /// APNs: the bundle id of the app, and whether the token is of its development build.
    pub(crate) topic: String,
    pub(crate) sandbox: bool,
    pub(crate) p256dh: Vec<u8>,
    pub(crate) auth: Vec<u8>,
}

/// Where a test push goes.
#[derive(sqlx::FromRow)]
struct Target {
    platform: Platform,
    target: String,
    p256dh: Option<Vec<u8>>,
    auth: Option<Vec<u8>>,
}

/// Adds a device, or updates the one of the same user with the same target.
///
/// # Errors
/// `bad_request` naming the field; `unprocessable` when the platform is not configured, or the user has too many.
pub(crate) async fn register(app: &App, mut new: New) -> Result<Registered> {
    let target = check(app, &new)?;
    if new.platform == Platform::Webhook {
        new.auth = webhook::secret();
    }
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
    let secret = (added && new.platform == Platform::Webhook).then(|| webhook::shown(&new.auth));
    Ok(Registered { device, added, secret })
}

async fn upsert(tx: &mut Tx, id: Uuid, new: &New, target: &str) -> sqlx::Result<Device> {
    on_tx!(tx, c => sqlx::query_as(
        "insert into push_devices (id, user_id, session_id, platform, name, target, p256dh, auth, created_at, registered_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9)
         on conflict (user_id, platform, target) do update
         set session_id = excluded.session_id, name = excluded.name, p256dh = excluded.p256dh,
             registered_at = excluded.registered_at,
             auth = case when push_devices.platform = 4 then push_devices.auth else excluded.auth end
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
    match new.platform {
        Platform::WebPush => check_web_push(app, new),
        Platform::Webhook => Ok(target::read("url", &new.target, app.private_targets)?.into()),
        Platform::Fcm if app.fcm.is_some() => check_fcm(new),
        Platform::Apns if app.apns.is_some() => apns::target(&new.target, &new.topic, new.sandbox),
        Platform::Email if app.email.is_some() => email::target(&new.target),
        off => Err(Fault::unprocessable(format!("platform: {} is not configured here", off.word()))),
    }
}

fn check_fcm(new: &New) -> Result<String, Fault> {
    // As long as an index can hold; FCM's own are a few hundred characters.
    match (1..=target::MAX_URL).contains(&new.target.len()) {
        true => Ok(new.target.clone()),
        false => Err(Fault::bad_request("token: must have 1 to 2000 bytes")),
    }
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

/// Sends a test push to a device, at once and once.
///
/// # Errors
/// `not_found` when the user has none of this id; `unprocessable` with what its provider said, when that does not take it.
pub(crate) async fn test(app: &App, user: UserId, device: Uuid) -> Result<()> {
    let target: Option<Target> = on_db!(&app.db, pool => sqlx::query_as(
        "select platform, target, p256dh, auth from push_devices where id = $1 and user_id = $2",
    )
    .bind(device)
    .bind(user)
    .fetch_optional(pool)
    .await)?;
    let Target { platform, target, p256dh, auth } =
        target.ok_or_else(|| Fault::not_found("there is no such device"))?;
    let push = Due {
        device_id: device,
        platform: Some(platform),
        target: Some(target),
        p256dh,
        auth,
        room_kind: Some(DIRECT),
        message_id: Some(Uuid::now_v7()),
        sender: Some(user.0),
        sender_name: Some("Parlance".to_owned()),
        text: Some("This is a test.".to_owned()),
        sent_at: Some(clock::now_ms()),
        ..Due::default()
    };
    let attempt = async {
        match attempt::destination(app, &push) {
            Ok(url) => attempt::send(app, &push, &url, payload::of_message(&push, 0)).await,
            Err(tried) => tried,
        }
    };
    let attempt = tokio::time::timeout(TEST, attempt).await;
    let said = match attempt.unwrap_or_else(|_| Tried::Later("no answer in time".to_owned(), None)) {
        Tried::Accepted(_) => return Ok(()),
        Tried::Gone(said) | Tried::Later(said, _) | Tried::NotNow(said, _) | Tried::Refused(said) => said,
        Tried::Off => "its platform is not configured here".to_owned(),
    };
    Err(Fault::unprocessable(format!("the push was not taken: {said}")).into())
}
