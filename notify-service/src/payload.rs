//! What a target is told, as JSON (docs/protocol.md, "Push").

use serde::Serialize;
use uuid::Uuid;

use crate::{
    decide::{DIRECT, Due},
    settings::Privacy,
};

/// Most bytes of a payload: what RFC 8291 lets a push service take at least, less what encryption adds.
pub(crate) const MAX: usize = 3900;
/// What stands in the place of a text, and of a title, that a user wants nobody to see.
const HIDDEN: (&str, &str) = ("New message", "Parlance");
/// The same of an invitation.
const INVITED: &str = "You were added to a room";
/// Bytes of a text to begin with.
const TEXT: usize = 2048;

/// What takes a notification away.
#[derive(Serialize)]
struct Withdrawal {
    kind: &'static str,
    id: Uuid,
    room: Uuid,
    seq: i64,
    unread: i64,
    badge: i64,
}

#[derive(Serialize)]
struct Payload<'a> {
    kind: &'static str,
    id: Uuid,
    room: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    room_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_name: Option<&'a str>,
    seq: i64,
    title: &'a str,
    body: String,
    unread: i64,
    badge: i64,
    at: i64,
}

/// The payload that takes back what was sent of a room, up to where its user has read.
#[must_use]
pub(crate) fn of_withdrawal(due: &Due, badge: i64) -> Vec<u8> {
    let seq = due.read_seq.unwrap_or_default();
    let unread = (due.room_seq.unwrap_or_default() - seq).max(0);
    let id = due.message_id.unwrap_or_default();
    let withdrawal = Withdrawal { kind: "withdraw", id, room: due.room_id, seq, unread, badge: badge.max(unread) };
    serde_json::to_vec(&withdrawal).unwrap_or_default()
}

/// The payload of a message, or of an invitation, for one of its receivers, whose unread messages are `badge` in all rooms. A long text is cut.
#[must_use]
pub(crate) fn of_message(due: &Due, badge: i64) -> Vec<u8> {
    let privacy = due.privacy.unwrap_or_default();
    let told = privacy != Privacy::Nothing;
    let sender_name = due.sender_name.as_deref().unwrap_or_default();
    let room_name = due.room_name.as_deref();
    let direct = due.room_kind == Some(DIRECT);
    let unread = (due.room_seq.unwrap_or_default() - due.read_seq.unwrap_or_default()).max(0);
    // A message of attachments alone has no text to show.
    let text = due.text.as_deref().filter(|text| privacy == Privacy::Full && !text.is_empty()).unwrap_or(HIDDEN.0);
    let said = |text: String| match (told, due.invitation) {
        (true, true) => format!("{sender_name} added you"),
        (false, true) => INVITED.to_owned(),
        (true, false) if !direct => format!("{sender_name}: {text}"),
        _ => text,
    };
    let mut most = TEXT;
    loop {
        let text = cut(text, most);
        let payload = Payload {
            kind: due.kind(),
            id: due.message_id.unwrap_or_default(),
            room: due.room_id,
            room_name: room_name.filter(|_| told),
            sender: due.sender.filter(|_| told),
            sender_name: told.then_some(sender_name),
            seq: due.seq,
            title: if told { room_name.filter(|_| !direct).unwrap_or(sender_name) } else { HIDDEN.1 },
            body: said(text),
            unread,
            badge: badge.max(unread),
            at: due.sent_at.unwrap_or_default(),
        };
        // Writing such a value cannot fail. A text of control characters grows sixfold, and is cut again.
        let json = serde_json::to_vec(&payload).unwrap_or_default();
        if json.len() <= MAX || most == 0 {
            return json;
        }
        most /= 2;
    }
}

/// The beginning of a text in at most so many bytes, with an ellipsis when something is missing.
pub(crate) fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(most)])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn due(text: &str) -> Due {
        Due {
            seq: 7,
            room_kind: Some(2),
            room_name: Some("team".to_owned()),
            room_seq: Some(9),
            read_seq: Some(5),
            sender_name: Some("Maja".to_owned()),
            text: Some(text.to_owned()),
            ..Due::default()
        }
    }

    #[test]
    fn a_group_is_the_title_and_a_direct_room_is_its_sender() {
        let group: Value = serde_json::from_slice(&of_message(&due("hi"), 6)).unwrap();
        assert_eq!((&group["title"], &group["body"]), (&"team".into(), &"Maja: hi".into()));
        assert_eq!((&group["unread"], &group["badge"], &group["kind"]), (&4.into(), &6.into(), &"message".into()));
        let direct = Due { room_kind: Some(DIRECT), room_name: None, replied_to: Some(Uuid::nil()), ..due("hi") };
        let direct: Value = serde_json::from_slice(&of_message(&direct, 6)).unwrap();
        assert_eq!((&direct["title"], &direct["body"]), (&"Maja".into(), &"hi".into()));
        assert_eq!((direct.get("room_name"), &direct["kind"]), (None, &"reply".into()));
        let mention: Value = serde_json::from_slice(&of_message(&Due { mentioned: true, ..due("hi") }, 6)).unwrap();
        assert_eq!(mention["kind"], "mention");
    }

    #[test]
    fn privacy_hides_the_text_and_then_who_and_where() {
        let of = |privacy| of_message(&Due { privacy: Some(privacy), sender: Some(Uuid::nil()), ..due("secret") }, 6);
        let sender: Value = serde_json::from_slice(&of(Privacy::Sender)).unwrap();
        assert_eq!((&sender["title"], &sender["body"]), (&"team".into(), &"Maja: New message".into()));
        let nothing = String::from_utf8(of(Privacy::Nothing)).unwrap();
        assert!(["secret", "Maja", "team", "sender"].iter().all(|word| !nothing.contains(word)), "{nothing}");
        let nothing: Value = serde_json::from_str(&nothing).unwrap();
        assert_eq!((&nothing["title"], &nothing["body"]), (&"Parlance".into(), &"New message".into()));
        assert_eq!(nothing["unread"], 4);
    }

    #[test]
    fn the_longest_text_of_any_kind_fits() {
        for letter in ["x", "é", "👍", "\u{1}", "\"", "\\"] {
            let json = of_message(&due(&letter.repeat(8000)), 1);
            assert!(json.len() <= MAX, "{letter:?}: {}", json.len());
            let payload: Value = serde_json::from_slice(&json).unwrap();
            assert!(payload["body"].as_str().unwrap().ends_with('…'));
        }
    }
}
