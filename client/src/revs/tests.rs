//! The rules of the revs, one by one.

use std::collections::HashSet;

use serde_json::{Value, json};
use uuid::Uuid;

use super::*;

const NOTHING: [i64; 0] = [];

fn room_id() -> RoomId {
    RoomId(Uuid::from_u128(1))
}

fn user_json() -> Value {
    json!({ "id": Uuid::from_u128(2), "username": "alice", "display_name": "Alice", "bot": false, "created_at": 1 })
}

fn room_json(rev: Rev, me_rev: Rev) -> Value {
    json!({
        "id": room_id(), "kind": "group", "name": "r", "created_at": 1, "first_seq": 1, "seq": rev, "rev": rev, "member_count": 2,
        "archived": false, "settings": { "history": "all", "announcement": false, "slow_mode_s": 0 },
        "me": { "rev": me_rev, "role": "member", "read_seq": 0, "unread": 0, "mentions": 0, "notify": "all", "favourite": false },
    })
}

fn room(rev: Rev) -> Room {
    serde_json::from_value(room_json(rev, 1)).expect("a room")
}

fn message(rev: Rev, prev: Option<Rev>) -> Event {
    let body = json!({
        "room": room_id(), "seq": rev, "rev": rev, "prev": prev, "id": Uuid::from_u128(9), "client_id": Uuid::from_u128(9),
        "sender": Uuid::from_u128(2), "kind": "text", "text": rev.to_string(), "at": 1, "pinned": false,
    });
    Event::parse("message", body).expect("a message")
}

fn changes(from_rev: Rev, rev: Rev) -> Changes {
    let messages = (from_rev + 1..=rev)
        .filter_map(|rev| match message(rev, None) {
            Event::Message(event) => Some(event.message),
            _ => None,
        })
        .collect();
    Changes {
        room: room_id(),
        from_rev,
        rev,
        messages,
        members: vec![],
        removed: vec![],
        info: None,
        more: false,
        truncated: false,
    }
}

fn holding(rev: Rev) -> Revs {
    let mut revs = Revs::default();
    assert_eq!(revs.listed(&[room(rev)]), []);
    revs
}

/// What a list of steps shows to the application, by rev; a question shows as the rev it asks after, negative.
fn shown(steps: &[Step]) -> Vec<i64> {
    let number = |rev: Rev| i64::try_from(rev).expect("small");
    steps
        .iter()
        .flat_map(|step| match step {
            Step::Deliver(event) => vec![event.place().map_or(0, |(_, rev, _)| number(rev))],
            Step::Apply(changes) => changes.messages.iter().map(|m| number(m.rev)).collect(),
            Step::Ask(ask) => vec![-number(ask.after)],
            Step::Find(_) => vec![-1_000],
        })
        .collect()
}

#[test]
fn the_next_rev_is_delivered_and_an_old_one_ignored() {
    let mut revs = holding(4);
    assert_eq!(shown(&revs.event(message(5, None))), [5]);
    assert_eq!(shown(&revs.event(message(5, None))), NOTHING);
    assert_eq!(shown(&revs.event(message(3, None))), NOTHING);
    assert_eq!(revs.held(room_id()), Some(5));
}

#[test]
fn prev_bridges_revs_that_this_client_does_not_need() {
    let mut revs = holding(4);
    assert_eq!(shown(&revs.event(message(9, Some(4)))), [9]);
    assert_eq!(shown(&revs.event(message(12, Some(7)))), [12], "prev below what is held is fine");
}

#[test]
fn a_gap_asks_once_and_keeps_what_follows() {
    let mut revs = holding(4);
    assert_eq!(shown(&revs.event(message(6, None))), [-4]);
    assert_eq!(shown(&revs.event(message(7, None))), NOTHING);
    assert_eq!(shown(&revs.event(message(8, None))), NOTHING);
    assert_eq!(shown(&revs.changes(changes(4, 7))), [5, 6, 7, 8], "7 came twice and is shown once");
    assert_eq!(revs.held(room_id()), Some(8));
}

#[test]
fn a_gap_behind_the_answer_asks_again() {
    let mut revs = holding(4);
    revs.event(message(6, None));
    revs.event(message(9, None));
    assert_eq!(shown(&revs.changes(changes(4, 6))), [5, 6, -6]);
    assert_eq!(shown(&revs.changes(changes(6, 9))), [7, 8, 9]);
}

#[test]
fn more_asks_for_the_rest_before_anything_kept_is_shown() {
    let mut revs = holding(0);
    revs.event(message(5, None));
    let first = Changes { more: true, ..changes(0, 2) };
    assert_eq!(shown(&revs.changes(first)), [1, 2, -2]);
    assert_eq!(shown(&revs.changes(changes(2, 4))), [3, 4, 5]);
}

#[test]
fn rows_that_were_seen_meanwhile_are_left_out() {
    let mut revs = holding(4);
    revs.event(message(5, None));
    assert_eq!(shown(&revs.changes(changes(3, 6))), [6]);
}

#[test]
fn truncated_holds_the_new_rev_even_when_it_is_lower() {
    let mut revs = holding(40);
    let truncated = Changes { truncated: true, messages: vec![], ..changes(0, 7) };
    revs.changes(truncated);
    assert_eq!(revs.held(room_id()), Some(7));
}

#[test]
fn resync_asks_after_its_time_and_moves_nothing() {
    let mut revs = holding(4);
    let resync = json!({ "room": room_id(), "rev": 9, "after_ms": 250 });
    let steps = revs.event(Event::parse("resync", resync).expect("resync"));
    assert_eq!(steps, [Step::Ask(Ask { room: room_id(), after: 4, wait_ms: 250 })]);
    assert_eq!(revs.held(room_id()), Some(4));
    assert_eq!(shown(&revs.event(message(5, None))), NOTHING, "later events wait for the answer");
    assert_eq!(shown(&revs.changes(changes(4, 9))), [5, 6, 7, 8, 9]);
}

#[test]
fn more_events_than_are_kept_are_asked_for_again() {
    let mut revs = holding(0);
    let last = KEPT_BOUND as Rev + 10;
    for rev in 2..=last {
        revs.event(message(rev, None));
    }
    let steps = revs.changes(changes(0, 1));
    let kept_to = KEPT_BOUND as Rev + 1;
    assert_eq!(shown(&steps).last(), Some(&-(KEPT_BOUND as i64 + 1)));
    assert_eq!(revs.held(room_id()), Some(kept_to));
    assert_eq!(shown(&revs.changes(changes(kept_to, last))).len() as Rev, last - kept_to);
}

#[test]
fn an_unknown_room_is_looked_up_once_and_starts_at_its_item() {
    let mut revs = Revs::default();
    assert_eq!(shown(&revs.event(message(5, None))), [-1_000]);
    assert_eq!(shown(&revs.event(message(6, None))), NOTHING);
    assert_eq!(shown(&revs.listed(&[room(5)])), [6]);
    assert_eq!(revs.held(room_id()), Some(6));
}

#[test]
fn own_state_moves_by_its_own_rev() {
    let mut revs = holding(4);
    let me = |rev: Rev| {
        let mut body = room_json(4, rev)["me"].clone();
        body["room"] = json!(room_id());
        Event::parse("me", body).expect("me")
    };
    assert_eq!(revs.event(me(3)).len(), 1);
    assert_eq!(revs.event(me(2)).len(), 0);
    assert_eq!(revs.hello().1[&room_id()], HeldRevs::Both(4, 3));
}

#[test]
fn joined_starts_a_room_and_left_ends_it() {
    let mut revs = Revs::default();
    let joined = |rev| Event::Joined(Box::new(room(rev)));
    assert_eq!(revs.event(joined(7)).len(), 1);
    assert_eq!(revs.event(joined(7)).len(), 0);
    assert_eq!(shown(&revs.event(message(8, None))), [8]);
    let left = Event::parse("left", json!({ "room": room_id() })).expect("left");
    assert_eq!(revs.event(left).len(), 1);
    assert_eq!(revs.held(room_id()), None);
}

fn heads(rooms: Vec<Room>, changes: Vec<Changes>) -> Heads {
    Heads { generation: "g".into(), rooms, next_cursor: None, changes, left: vec![] }
}

#[test]
fn welcome_gives_the_rows_of_a_named_room() {
    let mut revs = holding(4);
    let named = HashSet::from([room_id()]);
    let steps = revs.heads(&heads(vec![room(6)], vec![changes(4, 6)]), &named);
    assert_eq!(shown(&steps), [5, 6]);
    assert_eq!(revs.held(room_id()), Some(6));
}

#[test]
fn welcome_of_a_room_that_was_held_but_not_named_asks() {
    let mut revs = holding(4);
    let steps = revs.heads(&heads(vec![room(6)], vec![]), &HashSet::new());
    assert_eq!(shown(&steps), [-4]);
    assert_eq!(revs.held(room_id()), Some(4));
}

#[test]
fn a_lost_connection_forgets_what_was_kept() {
    let mut revs = holding(4);
    revs.event(message(6, None));
    revs.disconnected();
    assert_eq!(shown(&revs.event(message(5, None))), [5]);
}

#[test]
fn a_welcome_parses_as_the_contract_writes_it() {
    let welcome = json!({
        "connection": "c1", "user": user_json(), "session": Uuid::from_u128(3), "server_time": 1, "heartbeat_ms": 25000,
        "max_frame": 65536, "generation": "g", "rooms": [room_json(3, 1)], "next_cursor": null, "changes": [], "left": [],
    });
    let welcome: crate::wire::Welcome = serde_json::from_value(welcome).expect("a welcome");
    assert_eq!(welcome.rooms[0].rev, 3);
}
