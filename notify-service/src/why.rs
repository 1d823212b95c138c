//! Why a push of a message was sent to a user or not, device by device.

use service_kit::{
    clock,
    id::{RoomId, UserId},
    on_db,
};
use uuid::Uuid;

use crate::{App, decide::Outcome, devices::Platform, error::Result, jobs::KEPT};

/// What is known of one device. Without an outcome it is still open.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct Planned {
    pub(crate) device_id: Uuid,
    pub(crate) platform: Platform,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) reason: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) at: i64,
}

/// Everything that was planned of a message for a user. Nothing, when the user had no device as the message came,
/// when it has only just come, or when it is longer ago than outcomes are kept.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn why(app: &App, room: RoomId, seq: i64, user: UserId) -> Result<Vec<Planned>> {
    Ok(on_db!(&app.db, pool => sqlx::query_as(
        "select device_id, platform, outcome, reason, detail, at from pushes
         where room_id = $1 and seq = $2 and user_id = $3 order by device_id",
    )
    .bind(room)
    .bind(seq)
    .bind(user)
    .fetch_all(pool)
    .await)?)
}

/// Whether nothing that is known contradicts that the user had no device at this instant of the last 7 days.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn had_no_device(app: &App, user: UserId, at: i64) -> Result<bool> {
    if at < clock::now_ms() - i64::try_from(KEPT.as_millis()).unwrap_or_default() {
        return Ok(false);
    }
    let (devices,): (i64,) = on_db!(&app.db, pool => sqlx::query_as(
        "select count(*) from push_devices where user_id = $1 and created_at <= $2",
    )
    .bind(user)
    .bind(at)
    .fetch_one(pool)
    .await)?;
    Ok(devices == 0)
}
