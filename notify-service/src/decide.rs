//! Whether a push is still wanted when it is due. Pure: everything it depends on is in the row.

use service_kit::id::UserId;
use uuid::Uuid;

use crate::{
    devices::Platform,
    settings::{Privacy, is_quiet},
};

/// What was decided. The numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, sqlx::Type)]
#[repr(i16)]
pub(crate) enum Outcome {
    Sent = 1,
    Withdrawn = 2,
    Cancelled = 3,
    Skipped = 4,
    Failed = 5,
    DeadLettered = 6,
}

impl Outcome {
    /// As the contract calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Withdrawn => "withdrawn",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// What a user wants of a room. The numbers are stored by chat-service.
const NOTIFY_MENTIONS: i16 = 2;
const NOTIFY_NONE: i16 = 3;
/// A direct room, by the numbers of chat-service.
pub(crate) const DIRECT: i16 = 1;

/// A push that is due, with all that it depends on. What is absent is gone: the device, its session, the membership, the
/// message.
#[derive(Debug, Default, sqlx::FromRow)]
pub(crate) struct Due {
    pub(crate) room_id: Uuid,
    pub(crate) seq: i64,
    pub(crate) user_id: Uuid,
    pub(crate) device_id: Uuid,
    /// Failed tries; of what was sent, the looks whether it was read elsewhere.
    pub(crate) attempts: i16,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) platform: Option<Platform>,
    pub(crate) target: Option<String>,
    pub(crate) p256dh: Option<Vec<u8>>,
    pub(crate) auth: Option<Vec<u8>>,
    /// When the device was last registered, in milliseconds since the epoch.
    pub(crate) registered_at: Option<i64>,
    /// The session that registered the device, when it still stands.
    pub(crate) session_id: Option<Uuid>,
    /// Of the user in the room.
    pub(crate) read_seq: Option<i64>,
    pub(crate) me_muted_until: Option<i64>,
    pub(crate) notify: Option<i16>,
    pub(crate) room_kind: Option<i16>,
    pub(crate) room_name: Option<String>,
    /// The newest of the room.
    pub(crate) room_seq: Option<i64>,
    pub(crate) message_id: Option<Uuid>,
    pub(crate) sender: Option<Uuid>,
    pub(crate) sender_name: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) sent_at: Option<i64>,
    pub(crate) deleted_at: Option<i64>,
    /// Of the user, when there are any.
    pub(crate) privacy: Option<Privacy>,
    pub(crate) quiet_from: Option<i16>,
    pub(crate) quiet_to: Option<i16>,
    pub(crate) time_zone: Option<String>,
    /// Who wrote what it replies to.
    pub(crate) replied_to: Option<Uuid>,
    /// The user was added to the room: there may be no message, and the sender is who added.
    pub(crate) invitation: bool,
    /// With an invitation: there is a push of a message that came after it, and that takes its place at the receiver.
    pub(crate) overtaken: bool,
    /// The message mentions the user, or all.
    pub(crate) mentioned: bool,
    /// The user blocks the sender.
    pub(crate) blocked: bool,
}

impl Due {
    pub(crate) fn user(&self) -> UserId {
        UserId(self.user_id)
    }

    /// Whether the device belonged to a session that has ended. A webhook and an address are their user's, not a session's.
    pub(crate) fn is_orphan(&self) -> bool {
        matches!(self.platform, Some(Platform::WebPush | Platform::Fcm | Platform::Apns)) && self.session_id.is_none()
    }

    /// Whether it was sent, and is due to be taken back if it was read elsewhere.
    pub(crate) fn is_sent(&self) -> bool {
        self.outcome == Some(Outcome::Sent)
    }

    /// Whether the user has read it. The notice of an invitation counts as read from the beginning; what comes after it
    /// does not.
    fn is_read(&self) -> bool {
        self.read_seq.is_some_and(|read| read > self.seq || (read == self.seq && !self.invitation))
    }

    /// Whether the message answers one of the user's.
    fn is_reply(&self) -> bool {
        self.replied_to == Some(self.user_id)
    }

    /// What its receiver is told first: that somebody added them, answered, or mentioned them, or just that there is a message.
    pub(crate) fn kind(&self) -> &'static str {
        match (self.invitation, self.is_reply(), self.mentioned) {
            (true, ..) => "invitation",
            (_, true, _) => "reply",
            (_, _, true) => "mention",
            (false, false, false) => "message",
        }
    }
}

/// An end of a push, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) outcome: Outcome,
    pub(crate) reason: &'static str,
    pub(crate) detail: Option<&'static str>,
}

/// Why a push that is due is not sent; `None` when it is.
pub(crate) fn decide(due: &Due, online: bool, now: i64) -> Option<Verdict> {
    let verdict = |outcome, reason, detail| Some(Verdict { outcome, reason, detail });
    let gone = |detail| verdict(Outcome::Cancelled, "no_device", Some(detail));
    if due.platform.is_none() {
        return gone("the device was removed");
    }
    if due.is_orphan() {
        return gone("the session of the device has ended");
    }
    if due.read_seq.is_none() {
        return verdict(Outcome::Cancelled, "level", Some("not a member any more"));
    }
    if due.message_id.is_none() || due.deleted_at.is_some() {
        return verdict(Outcome::Cancelled, "read_elsewhere", Some("the message was deleted"));
    }
    if due.blocked {
        return verdict(Outcome::Skipped, "blocked", None);
    }
    if due.me_muted_until.is_some_and(|until| until > now) {
        return verdict(Outcome::Skipped, "muted", None);
    }
    match due.notify {
        Some(NOTIFY_NONE) => return verdict(Outcome::Skipped, "level", None),
        Some(NOTIFY_MENTIONS) if !(due.invitation || due.is_reply() || due.mentioned) => {
            return verdict(Outcome::Skipped, "level", None);
        }
        _ => {}
    }
    if let (Some(from), Some(to), Some(zone)) = (due.quiet_from, due.quiet_to, &due.time_zone)
        && is_quiet(from, to, zone, now)
    {
        return verdict(Outcome::Skipped, "quiet_hours", None);
    }
    if due.is_read() {
        return verdict(Outcome::Cancelled, "read_elsewhere", None);
    }
    if online {
        return verdict(Outcome::Skipped, "online", None);
    }
    if due.overtaken {
        return verdict(Outcome::Cancelled, "read_elsewhere", Some("a message came before the invitation was told"));
    }
    None
}

/// What becomes of a push that was sent and is looked at again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It was read elsewhere: the receiver may take it away.
    Withdraw,
    /// Not yet.
    Later,
    /// There is nobody to tell.
    Over,
}

/// Looks again at a push that was sent.
pub(crate) fn look(due: &Due) -> Look {
    match due.read_seq {
        _ if due.platform.is_none() || due.is_orphan() => Look::Over,
        None => Look::Over,
        Some(_) if due.is_read() => Look::Withdraw,
        Some(_) => Look::Later,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn due() -> Due {
        let id = Uuid::from_u128;
        Due {
            seq: 5,
            user_id: id(1),
            platform: Some(Platform::WebPush),
            session_id: Some(id(2)),
            read_seq: Some(4),
            notify: Some(1),
            message_id: Some(id(3)),
            sender: Some(id(4)),
            ..Due::default()
        }
    }

    fn said(due: &Due, online: bool) -> Option<(&'static str, &'static str)> {
        decide(due, online, NOW).map(|verdict| (verdict.outcome.word(), verdict.reason))
    }

    #[test]
    fn what_is_unread_wanted_and_heard_by_nobody_is_sent() {
        assert_eq!(said(&due(), false), None);
        assert_eq!(said(&Due { me_muted_until: Some(NOW), ..due() }, false), None, "the mute is over");
        let webhook = Due { platform: Some(Platform::Webhook), session_id: None, ..due() };
        assert_eq!(said(&webhook, false), None, "it belongs to no session");
        assert_eq!(said(&Due { notify: Some(2), replied_to: Some(Uuid::from_u128(1)), ..due() }, false), None);
        assert_eq!(said(&Due { notify: Some(2), mentioned: true, ..due() }, false), None);
    }

    #[test]
    fn the_notice_of_an_invitation_counts_as_read_from_the_beginning_and_is_told_all_the_same() {
        let invitation = |read_seq| Due { invitation: true, read_seq: Some(read_seq), ..due() };
        assert_eq!((said(&invitation(5), false), look(&invitation(5))), (None, Look::Later));
        assert_eq!(said(&invitation(6), false), Some(("cancelled", "read_elsewhere")));
        assert_eq!(look(&invitation(6)), Look::Withdraw);
        assert_eq!(said(&Due { message_id: None, ..invitation(5) }, false), Some(("cancelled", "read_elsewhere")));
        assert_eq!(said(&Due { notify: Some(2), ..invitation(5) }, false), None);
    }

    #[test]
    fn what_was_sent_is_withdrawn_once_it_is_read() {
        assert_eq!(look(&due()), Look::Later);
        assert_eq!(look(&Due { read_seq: Some(5), ..due() }), Look::Withdraw);
        assert_eq!(look(&Due { read_seq: Some(5), platform: None, ..due() }), Look::Over);
        assert_eq!(look(&Due { read_seq: Some(5), session_id: None, ..due() }), Look::Over);
        assert_eq!(look(&Due { read_seq: None, ..due() }), Look::Over);
    }

    #[test]
    fn what_is_not_sent_says_why() {
        assert_eq!(said(&due(), true), Some(("skipped", "online")));
        assert_eq!(said(&Due { read_seq: Some(5), ..due() }, false), Some(("cancelled", "read_elsewhere")));
        let blocked = Due { blocked: true, mentioned: true, ..due() };
        assert_eq!(said(&blocked, false), Some(("skipped", "blocked")));
        assert_eq!(said(&Due { me_muted_until: Some(NOW + 1), ..due() }, false), Some(("skipped", "muted")));
        assert_eq!(said(&Due { notify: Some(3), mentioned: true, ..due() }, false), Some(("skipped", "level")));
        assert_eq!(said(&Due { notify: Some(2), ..due() }, false), Some(("skipped", "level")));
        let quiet = Due { quiet_from: Some(0), quiet_to: Some(60), time_zone: Some("UTC".to_owned()), ..due() };
        assert_eq!(said(&quiet, false), Some(("skipped", "quiet_hours")));
        assert_eq!(said(&Due { quiet_from: Some(59), ..quiet }, false), None, "a quarter past midnight");
        assert_eq!(said(&Due { platform: None, ..due() }, false), Some(("cancelled", "no_device")));
        assert_eq!(said(&Due { session_id: None, ..due() }, false), Some(("cancelled", "no_device")));
        assert_eq!(said(&Due { read_seq: None, ..due() }, false), Some(("cancelled", "level")));
        assert_eq!(said(&Due { deleted_at: Some(1), ..due() }, false), Some(("cancelled", "read_elsewhere")));
        assert_eq!(said(&Due { message_id: None, ..due() }, false), Some(("cancelled", "read_elsewhere")));
        let overtaken = Due { invitation: true, overtaken: true, ..due() };
        assert_eq!(said(&overtaken, false), Some(("cancelled", "read_elsewhere")));
        assert_eq!(said(&overtaken, true), Some(("skipped", "online")));
    }
}
