use std::time::Duration;

use parlance_client::RoomId;
use serde_json::json;

use super::Tally;
use crate::check::{Head, Violations};
use crate::plan::{self, Cast};

const CAST: Cast = Cast { rooms: 1, members: 2, users: 2, devices: 1 };
const NOW: Duration = Duration::ZERO;

fn tally(room: RoomId) -> Tally {
    Tally::new(CAST.at(10, 0, 1), 7, &[room], &[Head { seq: 5, rev: 6 }], false)
}

fn message(room: RoomId, number: u64) -> serde_json::Value {
    let mut text = String::new();
    plan::text(&mut text, 7, &CAST.at(10, 0, 1).told(number), 64);
    let (seq, rev) = (number + 6, number + 7);
    json!({ "room": room, "seq": seq, "rev": rev, "id": room, "kind": "text", "text": text, "at": 1 })
}

/// As the server writes it: `room`, `seq` and `rev` first.
fn event(room: RoomId, number: u64) -> Vec<u8> {
    let message = message(room, number);
    format!(
        r#"{{"event":{{"message":{{"room":"{room}","seq":{},"rev":{},"text":{}}}}}}}"#,
        message["seq"], message["rev"], message["text"]
    )
    .into_bytes()
}

fn welcome(room: RoomId, changes: &serde_json::Value) -> Vec<u8> {
    let heads = json!({ "generation": "g", "rooms": [], "changes": [changes], "left": [] });
    let _ = room;
    format!(r#"{{"re":4294967295,"welcome":{heads}}}"#).into_bytes()
}

fn room() -> RoomId {
    "01900000-0000-7000-8000-000000000001".parse().unwrap()
}

#[test]
fn what_a_resumed_connection_missed_comes_with_its_welcome() {
    let (room, mut tally) = (room(), tally(room()));
    tally.take(0, &event(room, 0), NOW);
    let changes = json!({ "room": room, "from_rev": 7, "rev": 9, "messages": [message(room, 1), message(room, 2)] });
    tally.take(0, &welcome(room, &changes), NOW);
    assert_eq!(tally.resumed, [0]);
    assert_eq!(tally.check.held(0, 0), Some(Head { seq: 8, rev: 9 }));
    tally.take(0, &event(room, 3), NOW);
    assert!(!tally.check.verdict().any());
    tally.take(0, &event(room, 2), NOW);
    assert_eq!(tally.check.verdict(), Violations { duplicated: 1, ..Violations::default() });
}

#[test]
fn what_was_truncated_is_read_page_by_page_while_events_wait() {
    let (room, mut tally) = (room(), tally(room()));
    tally.take(0, &welcome(room, &json!({ "room": room, "rev": 8, "truncated": true })), NOW);
    assert_eq!((tally.asks.len(), tally.is_catching_up()), (1, true));
    tally.take(0, &event(room, 2), NOW);
    let page = |numbers: &[u64], has_more: bool| {
        let items: Vec<_> = numbers.iter().map(|number| message(room, *number)).collect();
        format!(r#"{{"re":4026531840,"messages":{}}}"#, json!({ "items": items, "has_more": has_more, "rev": 9 }))
    };
    tally.take(0, page(&[0], true).as_bytes(), NOW);
    assert_eq!(tally.asks.len(), 2);
    tally.take(0, page(&[1, 2], false).as_bytes(), NOW);
    assert!(!tally.is_catching_up());
    tally.take(0, &event(room, 3), NOW);
    assert_eq!(tally.check.held(0, 0), Some(Head { seq: 9, rev: 10 }));
    assert!(!tally.check.verdict().any());
}
