//! Mail waits longer than other pushes, and one tells of everything that waits of its room: the first row that is due takes
//! the others along, under a claim of their own.

use std::{collections::HashSet, time::Duration};

use service_kit::{clock, db::Db};
use uuid::Uuid;

use crate::{
    decide::Due,
    devices::Platform,
    jobs::{self, Update},
};

/// Takes out of what was claimed the mail that was not tried yet and has not waited so long since its message was sent, and
/// has it wait for the rest.
pub(crate) fn put_off(claimed: &mut Vec<Due>, claim: Uuid, delay: Duration) -> Vec<Update> {
    let (now, delay) = (clock::now_ms(), i64::try_from(delay.as_millis()).unwrap_or(i64::MAX / 2));
    let until = |due: &Due| {
        let waits = is_mail(due) && due.outcome.is_none();
        due.sent_at.filter(|_| waits).map(|at| at.saturating_add(delay)).filter(|until| *until > now)
    };
    let early = claimed.extract_if(.., |due| until(due).is_some());
    early.map(|due| Update { due_at: until(&due), ..Update::of(&due, claim) }).collect()
}

/// Takes mail out of what is wanted: one row for each room of each device.
pub(crate) fn first_of_each(wanted: &mut Vec<Due>) -> Vec<Due> {
    let mut seen = HashSet::new();
    let mail = wanted.extract_if(.., |due| is_mail(due));
    mail.filter(|due| seen.insert((due.device_id, due.room_id))).collect()
}

/// Everything that waits beside this row, which is held under `claim`: under a claim of its own, the oldest first. Nothing
/// when another replica takes it along, or a mail of the room is on its way to the device.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn gather(db: &Db, first: &Due, claim: Uuid) -> sqlx::Result<(Vec<Due>, Uuid)> {
    let own = jobs::mail_claim();
    let mut rows = jobs::gather(db, first, claim, own).await?;
    rows.sort_unstable_by_key(|due| due.seq);
    Ok((rows, own))
}

pub(crate) fn is_mail(due: &Due) -> bool {
    due.platform == Some(Platform::Email)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::Outcome;

    #[test]
    fn mail_waits_for_its_delay_and_other_pushes_do_not() {
        let (now, delay) = (clock::now_ms(), Duration::from_secs(60));
        let mail = |sent_at, outcome| Due { platform: Some(Platform::Email), sent_at, outcome, ..Due::default() };
        let push = Due { platform: Some(Platform::Webhook), sent_at: Some(now), ..Due::default() };
        let tried = mail(Some(now), Some(Outcome::Failed));
        let mut claimed = vec![mail(Some(now), None), push, mail(Some(now - 60_000), None), tried, mail(None, None)];
        let early = put_off(&mut claimed, Uuid::nil(), delay);
        assert_eq!(early.iter().map(|update| update.due_at).collect::<Vec<_>>(), [Some(now + 60_000)]);
        assert_eq!(claimed.len(), 4);
    }

    #[test]
    fn one_row_stands_for_each_room_of_a_device() {
        let mail = |room, device| Due {
            platform: Some(Platform::Email),
            room_id: Uuid::from_u128(room),
            device_id: Uuid::from_u128(device),
            ..Due::default()
        };
        let mut wanted = vec![mail(1, 1), Due::default(), mail(1, 1), mail(2, 1), mail(1, 2)];
        assert_eq!(first_of_each(&mut wanted).len(), 3);
        assert_eq!(wanted.len(), 1);
    }
}
