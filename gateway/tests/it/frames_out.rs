//! What the server writes, to the letter of docs/protocol.md, and that both formats say the same.

use gateway::frame::{self, Event, Format, Re, Welcome};
use gateway::socket::Frame;
use parlance_proto::{chat, event as bus, v1};
use serde_json::{Value, json};
use service_kit::{
    fault::{Fault, Kind},
    id::{ClientId, RoomId, SessionId, UserId},
};
use uuid::Uuid;

/// A UUID that ends with this digit.
fn id(digit: u8) -> Uuid {
    Uuid::from_u128(0x0190_b6a4_6b1f_7c3a_9d52_3b1f_0c8e_7a00 + u128::from(digit))
}

fn wire(digit: u8) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(id(digit).as_bytes())
}

/// What an event says: the same in both formats.
fn event(event: Event<'_>) -> Value {
    same(|format| event.write(format))
}

/// What the answer to frame 7 says: the same in both formats.
fn answer(write: impl Fn(Re) -> Frame) -> Value {
    same(|format| write(Re { id: 7, format }))
}

fn same(write: impl Fn(Format) -> Frame) -> Value {
    let json = serde_json::from_slice(write(Format::Json).payload()).expect("JSON");
    let proto = parlance_client::proto::decode(write(Format::Proto).payload()).expect("a binary frame");
    assert_eq!(Value::Object(proto), json, "the formats differ");
    json
}

fn alice() -> v1::User {
    v1::User {
        id: wire(1),
        username: "alice".to_owned(),
        display_name: "Alice".to_owned(),
        created_at: 10,
        ..v1::User::default()
    }
}

fn alice_json() -> Value {
    json!({"id": id(1), "username": "alice", "display_name": "Alice", "bot": false, "created_at": 10})
}

fn message() -> v1::Message {
    v1::Message {
        room: wire(2),
        seq: 4,
        rev: 9,
        id: wire(3),
        client_id: wire(4),
        sender: wire(1),
        kind: v1::MessageKind::Text.into(),
        text: "hi".to_owned(),
        meta: Some(r#"{"n":1.10}"#.to_owned()),
        mentions: vec![wire(5)],
        mentions_all: true,
        at: 20,
        ..v1::Message::default()
    }
}

fn message_json() -> Value {
    json!({"room": id(2), "seq": 4, "rev": 9, "id": id(3), "client_id": id(4), "sender": id(1), "kind": "text",
           "text": "hi", "mentions": [id(5), "all"], "attachments": [], "reactions": [], "pinned": false, "meta": {"n": 1.10}, "at": 20})
}

fn room() -> v1::Room {
    v1::Room {
        id: wire(2),
        kind: v1::RoomKind::Group.into(),
        name: Some("team".to_owned()),
        created_at: 11,
        first_seq: 1,
        seq: 4,
        rev: 9,
        member_count: 2,
        settings: Some(v1::RoomSettings { retention_days: Some(30), ..v1::RoomSettings::default() }),
        me: Some(me()),
        last_message: Some(message()),
        ..v1::Room::default()
    }
}

fn shared_json() -> Value {
    json!({"id": id(2), "kind": "group", "name": "team", "created_at": 11, "first_seq": 1, "seq": 4, "rev": 9,
           "member_count": 2, "archived": false,
           "settings": {"history": "all", "announcement": false, "slow_mode_s": 0, "retention_days": 30}})
}

fn me() -> v1::Me {
    v1::Me {
        rev: 3,
        role: v1::Role::Owner.into(),
        read_seq: 4,
        notify: v1::Notify::Mentions.into(),
        draft: Some("so".to_owned()),
        ..v1::Me::default()
    }
}

fn me_json() -> Value {
    json!({"rev": 3, "role": "owner", "read_seq": 4, "unread": 0, "mentions": 0, "notify": "mentions",
           "favourite": false, "draft": "so"})
}

/// An object with more fields.
fn with(mut object: Value, more: &Value) -> Value {
    let fields = more.as_object().expect("an object").clone();
    object.as_object_mut().expect("an object").extend(fields);
    object
}

fn room_json() -> Value {
    with(shared_json(), &json!({"me": me_json(), "last_message": message_json()}))
}

#[test]
fn durable_events_are_flat_and_carry_prev_only_when_given() {
    let room_id = RoomId(id(2));
    assert_eq!(
        event(Event::Message { message: &message(), prev: None }),
        json!({"event": {"message": message_json()}})
    );
    assert_eq!(
        event(Event::Message { message: &message(), prev: Some(6) }),
        json!({"event": {"message": with(message_json(), &json!({"prev": 6}))}})
    );
    assert_eq!(
        event(Event::Skip { room: room_id, rev: 9, prev: Some(7) }),
        json!({"event": {"skip": {"room": id(2), "rev": 9, "prev": 7}}})
    );
    let member = v1::Member {
        user: Some(alice()),
        role: v1::Role::Admin.into(),
        joined_at: 12,
        rev: 9,
        read_seq: Some(4),
        delivered_seq: Some(4),
        muted_until: None,
    };
    assert_eq!(
        event(Event::Member { room: room_id, member: &member, prev: None }),
        json!({"event": {"member": {"room": id(2), "user": alice_json(), "role": "admin", "joined_at": 12, "rev": 9}}})
    );
    assert_eq!(
        event(Event::Removed { room: room_id, rev: 9, user: UserId(id(1)), prev: None }),
        json!({"event": {"removed": {"room": id(2), "rev": 9, "user": id(1)}}})
    );
    assert_eq!(
        event(Event::Room { room: &room(), prev: Some(3) }),
        json!({"event": {"room": with(shared_json(), &json!({"room": id(2), "prev": 3}))}})
    );
}

#[test]
fn events_of_the_user_name_the_room_beside_its_fields() {
    let room_id = RoomId(id(2));
    assert_eq!(event(Event::Joined(&room())), json!({"event": {"joined": with(room_json(), &json!({"room": id(2)}))}}));
    assert_eq!(event(Event::Left(room_id)), json!({"event": {"left": {"room": id(2)}}}));
    assert_eq!(
        event(Event::Me { room: room_id, me: &me() }),
        json!({"event": {"me": with(me_json(), &json!({"room": id(2)}))}})
    );
}

#[test]
fn passing_events_and_controls() {
    let room_id = RoomId(id(2));
    let receipt = bus::Receipt { room: wire(2), user: wire(1), read_seq: Some(4), delivered_seq: None };
    assert_eq!(
        event(Event::Receipt(&receipt)),
        json!({"event": {"receipt": {"room": id(2), "user": id(1), "read_seq": 4}}})
    );
    assert_eq!(
        event(Event::Typing { room: room_id, user: UserId(id(1)), on: false }),
        json!({"event": {"typing": {"room": id(2), "user": id(1), "on": false}}})
    );
    let mut presence =
        v1::Presence { user: wire(1), state: v1::PresenceState::Away.into(), last_seen: None, version: 5 };
    assert_eq!(event(Event::Presence(&presence)), json!({"event": {"presence": {"user": id(1), "state": "away"}}}));
    presence.state = v1::PresenceState::Invisible.into();
    presence.last_seen = Some(8);
    assert_eq!(
        event(Event::Presence(&presence)),
        json!({"event": {"presence": {"user": id(1), "state": "offline", "last_seen": 8}}})
    );
    assert_eq!(
        event(Event::Resync { room: room_id, rev: 9, after_ms: 250 }),
        json!({"event": {"resync": {"room": id(2), "rev": 9, "after_ms": 250}}})
    );
    let (notification, kind) = (v1::Notification::default(), v1::NotificationKind::Direct.into());
    let notification =
        v1::Notification { id: wire(9), kind, room: wire(2), seq: 4, sender: wire(1), at: 20, ..notification };
    let direct = json!({
        "id": id(9), "kind": "direct", "room": id(2), "seq": 4, "sender": id(1), "at": 20, "read": false,
    });
    assert_eq!(event(Event::Notification(&notification)), json!({"event": {"notification": direct}}));
    assert_eq!(
        event(Event::NotificationsRead { up_to: id(9) }),
        json!({"event": {"notifications_read": {"up_to": id(9)}}})
    );
    assert_eq!(event(Event::GoingAway(700)), json!({"event": {"going_away": {"reconnect_after_ms": 700}}}));
}

#[test]
fn answers_carry_the_number_of_their_frame() {
    let sent = chat::Sent { id: wire(3), seq: 4, rev: 9, at: 20, duplicate: true };
    assert_eq!(
        answer(|re| frame::sent(re, &RoomId(id(2)), &ClientId(id(4)), &sent)),
        json!({"re": 7, "sent": {"room": id(2), "client_id": id(4), "id": id(3), "seq": 4, "rev": 9, "at": 20, "duplicate": true}})
    );
    assert_eq!(answer(frame::ok), json!({"re": 7, "ok": {}}));
    assert_eq!(answer(|re| frame::ok_rev(re, 9)), json!({"re": 7, "ok": {"rev": 9}}));
    let away = v1::Presence { user: wire(1), state: v1::PresenceState::Away.into(), ..v1::Presence::default() };
    assert_eq!(
        answer(|re| frame::ok_presence(re, std::slice::from_ref(&away))),
        json!({"re": 7, "ok": {"presence": [{"user": id(1), "state": "away"}]}})
    );
    // Protobuf does not tell an empty list from none.
    let nobody = frame::ok_presence(Re { id: 7, format: Format::Json }, &[]);
    assert_eq!(nobody.payload(), br#"{"re":7,"ok":{"presence":[]}}"#);
    assert_eq!(answer(|re| frame::ok_expires(re, 600)), json!({"re": 7, "ok": {"expires_in_s": 600}}));
    assert_eq!(answer(|re| frame::pong(re, 99)), json!({"re": 7, "pong": {"server_time": 99}}));
    let history = chat::HistoryReply { items: vec![message()], has_more: true, rev: 9 };
    assert_eq!(
        answer(|re| frame::messages(re, &history)),
        json!({"re": 7, "messages": {"items": [message_json()], "has_more": true, "rev": 9}})
    );
    let wait = Fault::new(Kind::RateLimited, "wait").retry_after(std::time::Duration::from_millis(40));
    assert_eq!(
        answer(|re| frame::error(re, &wait)),
        json!({"re": 7, "error": {"code": "rate_limited", "message": "wait", "retry_after_ms": 40}})
    );
    assert_eq!(
        answer(|re| frame::error(re, &Fault::conflict("no")))["error"],
        json!({"code": "conflict", "message": "no"})
    );
    assert_eq!(answer(frame::token_expired)["error"]["code"], "token_expired");
}

#[test]
fn a_welcome_holds_rooms_and_changes() {
    let changes = v1::Changes {
        room: wire(2),
        from_rev: 5,
        rev: 9,
        messages: vec![message()],
        removed: vec![wire(6)],
        info: Some(room()),
        ..v1::Changes::default()
    };
    let changes_json = json!({"room": id(2), "from_rev": 5, "rev": 9, "messages": [message_json()], "members": [],
                              "removed": [id(6)], "info": shared_json(), "more": false, "truncated": false});
    assert_eq!(answer(|re| frame::changes(re, &changes)), json!({"re": 7, "changes": changes_json}));
    let reply = chat::HelloReply {
        user: Some(alice()),
        generation: "g".to_owned(),
        rooms: vec![room()],
        changes: vec![changes],
        left: vec![wire(8)],
        ..chat::HelloReply::default()
    };
    let welcome = Welcome { connection: id(9), session: SessionId(id(5)), server_time: 99, reply: &reply };
    assert_eq!(
        answer(|re| frame::welcome(re, &welcome)),
        json!({"re": 7, "welcome": {
            "connection": id(9), "user": alice_json(), "session": id(5), "server_time": 99, "heartbeat_ms": 25000,
            "max_frame": 65536, "generation": "g", "rooms": [room_json()], "next_cursor": null,
            "changes": [changes_json], "left": [id(8)],
        }})
    );
}

#[test]
fn an_erased_user_is_an_id_and_nothing_else() {
    let erased = v1::User { id: wire(1), deleted: true, ..v1::User::default() };
    let direct = v1::Room { kind: v1::RoomKind::Direct.into(), peer: Some(erased), ..room() };
    assert_eq!(event(Event::Joined(&direct))["event"]["joined"]["peer"], json!({"id": id(1), "deleted": true}));
}
