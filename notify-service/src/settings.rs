//! What a user wants of pushes in general: how much they say, and when they are quiet.

use chrono::{DateTime, Timelike as _};
use chrono_tz::Tz;
use service_kit::{fault::Fault, id::UserId, on_db, on_tx};

use crate::{App, error::Result};

/// Minutes of a day.
const DAY: i16 = 24 * 60;

/// How much a push says. The numbers are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::Type)]
#[repr(i16)]
pub(crate) enum Privacy {
    /// Who, where and what.
    #[default]
    Full = 1,
    /// Who and where.
    Sender = 2,
    /// That there is something.
    Nothing = 3,
}

/// Of a user.
#[derive(Clone, Debug, Default, sqlx::FromRow)]
pub(crate) struct Settings {
    pub(crate) privacy: Privacy,
    /// Quiet from this minute of the day on, up to the other one, perhaps of the next day. All three or none.
    pub(crate) quiet_from: Option<i16>,
    pub(crate) quiet_to: Option<i16>,
    /// A name of the IANA time zone database.
    pub(crate) time_zone: Option<String>,
}

/// A user's settings, or the default.
///
/// # Errors
/// When the database does not say.
pub(crate) async fn get(app: &App, user: UserId) -> Result<Settings> {
    let settings: Option<Settings> = on_db!(&app.db, pool => sqlx::query_as(
        "select privacy, quiet_from, quiet_to, time_zone from push_settings where user_id = $1",
    )
    .bind(user)
    .fetch_optional(pool)
    .await)?;
    Ok(settings.unwrap_or_default())
}

/// Replaces a user's settings.
///
/// # Errors
/// `bad_request`, naming the field.
pub(crate) async fn put(app: &App, user: UserId, settings: Settings) -> Result<()> {
    if let (Some(from), Some(to), Some(zone)) = (settings.quiet_from, settings.quiet_to, &settings.time_zone) {
        check(from, to, zone)?;
    }
    let mut tx = app.db.begin().await?;
    on_tx!(&mut tx, c => sqlx::query(
        "insert into push_settings (user_id, privacy, quiet_from, quiet_to, time_zone) values ($1, $2, $3, $4, $5)
         on conflict (user_id) do update
         set privacy = excluded.privacy, quiet_from = excluded.quiet_from, quiet_to = excluded.quiet_to,
             time_zone = excluded.time_zone",
    )
    .bind(user)
    .bind(settings.privacy)
    .bind(settings.quiet_from)
    .bind(settings.quiet_to)
    .bind(&settings.time_zone)
    .execute(c)
    .await
    .map(|_| ()))?;
    tx.commit().await?;
    Ok(())
}

fn check(from: i16, to: i16, zone: &str) -> Result<(), Fault> {
    if !(0..DAY).contains(&from) {
        return Err(Fault::bad_request("quiet_hours.from: must be a time of the day"));
    }
    if !(0..DAY).contains(&to) || from == to {
        return Err(Fault::bad_request("quiet_hours.to: must be another time of the day than from"));
    }
    if zone.parse::<Tz>().is_err() {
        return Err(Fault::bad_request("quiet_hours.time_zone: is not a name of the IANA time zone database"));
    }
    Ok(())
}

/// Whether an instant, in milliseconds since the epoch, is in these quiet hours. They begin and end by the clock on the
/// user's wall, also when that is put forward or back.
pub(crate) fn is_quiet(from: i16, to: i16, zone: &str, now: i64) -> bool {
    let (Ok(zone), Some(now)) = (zone.parse::<Tz>(), DateTime::from_timestamp_millis(now)) else { return false };
    let local = now.with_timezone(&zone);
    let minute = i16::try_from(local.hour() * 60 + local.minute()).unwrap_or_default();
    if from < to { (from..to).contains(&minute) } else { minute >= from || minute < to }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
    }

    #[test]
    fn quiet_hours_are_those_of_the_clock_on_the_wall_summer_and_winter() {
        let berlin = |instant| is_quiet(22 * 60, 7 * 60 + 30, "Europe/Berlin", at(instant));
        assert!(berlin("2026-01-15T21:00:00Z") && !berlin("2026-01-15T20:59:59Z"), "22:00 in winter");
        assert!(berlin("2026-07-15T20:00:00Z") && !berlin("2026-07-15T19:59:59Z"), "22:00 in summer");
        assert!(berlin("2026-01-15T06:29:59Z") && !berlin("2026-01-15T06:30:00Z"), "the next morning");
        let noon = |instant| is_quiet(12 * 60, 13 * 60, "Asia/Kolkata", at(instant));
        assert!(noon("2026-01-15T06:30:00Z") && !noon("2026-01-15T07:30:00Z"), "half an hour off");
    }

    #[test]
    fn the_form_of_quiet_hours_is_checked() {
        assert!(check(0, DAY - 1, "UTC").is_ok());
        for (from, to, zone, field) in
            [(-1, 5, "UTC", "from"), (DAY, 5, "UTC", "from"), (5, 5, "UTC", "to"), (5, 6, "Berlin", "time_zone")]
        {
            let refused = check(from, to, zone).unwrap_err();
            assert!(refused.message.starts_with(&format!("quiet_hours.{field}: ")), "{refused}");
        }
    }
}
