//! Frames of clients: which are none, which are refused and how, and what the others mean; the same in both formats.

use gateway::frame::{Format, Hello, History, Mentions, Parsed, Re, Send, State, Verb, parse, parse_proto};
use parlance_client::proto::encode;
use parlance_proto::client::{ClientFrame, Mark, Status, client_frame};
use prost::Message;
use serde_json::{Value, json};
use service_kit::{
    fault::Kind,
    id::{ClientId, RoomId, UserId},
};

const ROOM: &str = "0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a01";
const OTHER: &str = "0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a02";

fn room() -> RoomId {
    ROOM.parse().expect("a room id")
}

/// What `{"id": 7, verb: body}` means.
fn verb_of(verb: &str, body: &Value) -> Verb {
    let json = match parse(&json!({"id": 7, verb: body}).to_string()) {
        Parsed::Frame { re: Re { id: 7, format: Format::Json }, verb } => verb,
        other => panic!("{verb} {body} was read as {other:?}"),
    };
    match parse_proto(encode(7, verb, body).expect("a binary form").into()) {
        Parsed::Frame { re: Re { id: 7, format: Format::Proto }, verb } => assert_eq!(verb, json, "the formats differ"),
        other => panic!("{verb} {body} was read as {other:?}"),
    }
    json
}

/// The message with which a frame is refused.
fn refused(parsed: Parsed) -> String {
    match parsed {
        Parsed::Refused { re: Re { id: 7, .. }, fault, .. } => {
            assert_eq!(fault.kind, Kind::BadRequest);
            fault.message
        }
        other => panic!("this was read as {other:?}"),
    }
}

/// How a binary frame is refused.
fn refused_proto(verb: client_frame::Verb) -> String {
    refused(parse_proto(ClientFrame { id: 7, verb: Some(verb) }.encode_to_vec().into()))
}

#[test]
fn without_json_an_object_or_an_id_it_is_no_frame() {
    for text in [
        "",
        "x",
        "[]",
        "7",
        "null",
        "{",
        "{}",
        r#"{"ping":{}}"#,
        r#"{"id":0,"ping":{}}"#,
        r#"{"id":-1,"ping":{}}"#,
        r#"{"id":1.5,"ping":{}}"#,
        r#"{"id":"1","ping":{}}"#,
        r#"{"id":null,"ping":{}}"#,
        r#"{"id":4294967296,"ping":{}}"#,
        r#"{"id":1,"ping":{}} x"#,
    ] {
        assert!(matches!(parse(text), Parsed::NotAFrame), "{text}");
    }
    assert!(matches!(
        parse(r#"{"id":4294967295,"ping":{}}"#),
        Parsed::Frame { re: Re { id: u32::MAX, .. }, verb: Verb::Ping }
    ));
}

#[test]
fn a_valid_id_without_exactly_one_known_verb_is_refused() {
    for text in [r#"{"id":1}"#, r#"{"id":1,"ping":{},"typing":{}}"#, r#"{"id":1,"shout":{}}"#, r#"{"id":1,"ping":3}"#] {
        assert!(
            matches!(parse(text), Parsed::Refused { re: Re { id: 1, .. }, fault, .. } if fault.kind == Kind::BadRequest),
            "{text}"
        );
    }
}

#[test]
fn a_refusal_begins_with_the_name_of_the_field() {
    let long = "x".repeat(8_001);
    let send = |extra: Value| {
        let mut body = json!({"room": ROOM, "client_id": OTHER, "text": "hi"});
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        body
    };
    let ids = |count: usize| (0..count).map(|_| UserId::generate().to_string()).collect::<Vec<_>>();
    for (verb, body, field) in [
        ("send", json!({"room": ROOM}), "client_id"),
        ("send", json!({"client_id": OTHER, "text": "hi"}), "room"),
        ("send", send(json!({"room": "general"})), "room"),
        ("send", send(json!({"room": ROOM.replace('-', "")})), "room"),
        ("send", send(json!({"text": null})), "text"),
        ("send", send(json!({"text": ""})), "text"),
        ("send", send(json!({"text": long})), "text"),
        ("send", send(json!({"text": "a\u{0}b"})), "text"),
        ("send", send(json!({"reply_to": 0})), "reply_to"),
        ("send", send(json!({"reply_to": 1.0})), "reply_to"),
        ("send", send(json!({"thread": "1"})), "thread"),
        ("send", send(json!({"meta": []})), "meta"),
        ("send", send(json!({"meta": {"a": "x".repeat(4096)}})), "meta"),
        ("send", send(json!({"meta": {"a": ["\u{0}"]}})), "meta"),
        ("send", send(json!({"mentions": ["everyone"]})), "mentions"),
        ("send", send(json!({"mentions": ids(51)})), "mentions"),
        ("send", send(json!({"attachments": ids(11)})), "attachments"),
        ("send", send(json!({"attachments": [1]})), "attachments"),
        ("edit", json!({"room": ROOM, "seq": 1, "text": "a".repeat(8_001)}), "text"),
        ("edit", json!({"room": ROOM, "seq": 0, "text": "x"}), "seq"),
        ("delete", json!({"room": ROOM}), "seq"),
        ("react", json!({"room": ROOM, "seq": 1, "emoji": "x".repeat(33), "on": true}), "emoji"),
        ("react", json!({"room": ROOM, "seq": 1, "emoji": "👍"}), "on"),
        ("pin", json!({"room": ROOM, "seq": 1, "on": "yes"}), "on"),
        ("read", json!({"room": ROOM, "seq": -3}), "seq"),
        ("delivered", json!({"room": ROOM, "seq": u64::MAX}), "seq"),
        ("typing", json!({"room": ROOM}), "on"),
        ("watch", json!({"add": ids(300), "remove": ids(201)}), "add"),
        ("watch", json!({"add": "all"}), "add"),
        ("watch", json!({"remove": ["x"]}), "remove"),
        ("status", json!({"state": "offline"}), "state"),
        ("history", json!({"room": ROOM, "limit": 201}), "limit"),
        ("history", json!({"room": ROOM, "limit": 0}), "limit"),
        ("history", json!({"room": ROOM, "before": -1}), "before"),
        ("history", json!({"room": ROOM, "before": 1, "after": 1}), "after"),
        ("history", json!({"room": ROOM, "after": 1, "around": 1}), "around"),
        ("changes", json!({"room": ROOM}), "after_rev"),
        ("changes", json!({"room": ROOM, "after_rev": -1}), "after_rev"),
        ("changes", json!({"room": ROOM, "after_rev": 0, "limit": 501}), "limit"),
        ("renew", json!({}), "token"),
        ("hello", json!({"token": 1}), "token"),
        ("hello", json!({"presence": "no"}), "presence"),
        ("hello", json!({"rooms": []}), "rooms"),
        ("hello", json!({"rooms": {"general": 1}}), "rooms.general"),
        ("hello", json!({"rooms": {ROOM: -1}}), &format!("rooms.{ROOM}")),
        ("hello", json!({"rooms": {ROOM: [1]}}), &format!("rooms.{ROOM}")),
        ("hello", json!({"rooms": {ROOM: [1, 2, 3]}}), &format!("rooms.{ROOM}")),
        ("hello", json!({"rooms": {ROOM: "1"}}), &format!("rooms.{ROOM}")),
    ] {
        let json = refused(parse(&json!({"id": 7, verb: body}).to_string()));
        // What has another type than the contract says has no binary form.
        let proto = encode(7, verb, &body).ok().map(|bytes| refused(parse_proto(bytes.into())));
        for message in [Some(json), proto].into_iter().flatten() {
            assert!(message.starts_with(&format!("{field}: ")), "{verb}: expected {field}, got {message}");
        }
    }
}

#[test]
fn a_hello_says_what_the_client_holds() {
    let verb = verb_of(
        "hello",
        &json!({
            "token": "t", "device": "phone", "generation": "g", "rooms": {ROOM: 5, OTHER: [6, 2]}, "later": 1,
        }),
    );
    let expected = Hello {
        token: Some("t".to_owned()),
        device: Some("phone".to_owned()),
        generation: Some("g".to_owned()),
        rooms: vec![(room(), 5, None), (OTHER.parse().expect("a room id"), 6, Some(2))],
        presence: true,
    };
    assert_eq!(verb, Verb::Hello(expected));
    let bare = Hello { token: None, device: None, generation: None, rooms: Vec::new(), presence: false };
    assert_eq!(verb_of("hello", &json!({"presence": false, "token": null})), Verb::Hello(bare));
}

#[test]
fn a_send_in_good_form_keeps_its_text_and_meta() {
    let text = "é".repeat(8_000);
    let send = Send {
        room: room(),
        client_id: OTHER.parse::<ClientId>().expect("an id"),
        text: text.clone(),
        reply_to: Some(3),
        meta: Some(r#"{"a":0.1,"b":[1]}"#.to_owned()),
        mentions: Mentions { users: vec![OTHER.parse::<UserId>().expect("an id")], all: true },
        attachments: vec![ROOM.parse().expect("an id")],
        unbuilt: false,
    };
    let body = json!({"room": ROOM, "client_id": OTHER, "text": text, "reply_to": 3, "meta": {"b": [1], "a": 0.1},
                      "mentions": [OTHER, "all", OTHER], "attachments": [ROOM], "thread": null});
    assert_eq!(verb_of("send", &body), Verb::Send(send));
}

#[test]
fn what_is_not_built_yet_is_read_and_said() {
    let body = json!({"room": ROOM, "client_id": OTHER, "text": "hi", "thread": 2});
    let Verb::Send(send) = verb_of("send", &body) else { panic!("not a send") };
    assert!(send.unbuilt);
}

#[test]
fn the_other_verbs_carry_their_fields() {
    let user: UserId = OTHER.parse().expect("an id");
    let room = room();
    for (verb, body, expected) in [
        ("edit", json!({"room": ROOM, "seq": 2, "text": "x"}), Verb::Edit { room, seq: 2, text: "x".to_owned() }),
        ("delete", json!({"room": ROOM, "seq": 2}), Verb::Delete { room, seq: 2 }),
        (
            "react",
            json!({"room": ROOM, "seq": 2, "emoji": "👍", "on": false}),
            Verb::React { room, seq: 2, emoji: "👍".to_owned(), on: false },
        ),
        ("pin", json!({"room": ROOM, "seq": 2, "on": true}), Verb::Pin { room, seq: 2, on: true }),
        ("read", json!({"room": ROOM, "seq": 2}), Verb::Read { room, seq: 2 }),
        ("delivered", json!({"room": ROOM, "seq": 2}), Verb::Delivered { room, seq: 2 }),
        ("typing", json!({"room": ROOM, "on": true}), Verb::Typing { room, on: true }),
        ("watch", json!({"add": [OTHER, OTHER]}), Verb::Watch { add: vec![user], remove: Vec::new() }),
        ("status", json!({"state": "dnd"}), Verb::Status(State::Dnd)),
        (
            "history",
            json!({"room": ROOM, "before": 9, "limit": 200}),
            Verb::History(History { room, before: Some(9), after: None, around: None, limit: 200, thread: None }),
        ),
        ("changes", json!({"room": ROOM, "after_rev": 0}), Verb::Changes { room, after_rev: 0, limit: 0 }),
        ("renew", json!({"token": "t"}), Verb::Renew { token: "t".to_owned() }),
        ("ping", json!({}), Verb::Ping),
    ] {
        assert_eq!(verb_of(verb, &body), expected);
    }
}

#[test]
fn without_protobuf_or_an_id_it_is_no_binary_frame() {
    let ping = encode(7, "ping", &json!({})).expect("a frame");
    let without_id = ClientFrame { id: 0, ..ClientFrame::decode(&*ping).expect("a frame") }.encode_to_vec();
    // `text` of a send, which is not UTF-8.
    let not_utf8 = [vec![8, 7, 26, 3, 26, 1], vec![0xff]].concat();
    for bytes in
        [Vec::new(), vec![0xff; 12], br#"{"id":7,"ping":{}}"#.to_vec(), without_id, ping[..3].to_vec(), not_utf8]
    {
        assert!(matches!(parse_proto(bytes.clone().into()), Parsed::NotAFrame), "{bytes:?}");
    }
    assert!(matches!(parse_proto(ping.into()), Parsed::Frame { re: Re { id: 7, .. }, verb: Verb::Ping }));
}

#[test]
fn a_binary_frame_without_exactly_one_known_verb_is_refused() {
    let ping = encode(7, "ping", &json!({})).expect("a frame");
    let typing = encode(7, "typing", &json!({"room": ROOM, "on": true})).expect("a frame");
    // Field 100, which no verb has, with an empty message.
    let unknown = [0xa2, 0x06, 0x00];
    let id_alone = ClientFrame { id: 7, verb: None }.encode_to_vec();
    for bytes in [
        id_alone.clone(),
        [ping.clone(), typing].concat(),
        [ping.clone(), ping.clone()].concat(),
        [id_alone, unknown.to_vec()].concat(),
        [ping, unknown.to_vec()].concat(),
    ] {
        refused(parse_proto(bytes.into()));
    }
}

#[test]
fn what_only_a_binary_frame_can_get_wrong_is_refused_by_name() {
    let short = Mark { room: Some(vec![1; 15].into()), seq: Some(1) };
    assert!(refused_proto(client_frame::Verb::Read(short)).starts_with("room: "));
    for state in [0, 1, 77] {
        assert!(refused_proto(client_frame::Verb::Status(Status { state })).starts_with("state: "), "{state}");
    }
    let meta = client_frame::Verb::Send(parlance_proto::client::Send {
        room: Some(vec![1; 16].into()),
        client_id: Some(vec![2; 16].into()),
        text: Some("hi".to_owned()),
        meta: Some("[1]".to_owned()),
        ..parlance_proto::client::Send::default()
    });
    assert!(refused_proto(meta).starts_with("meta: "));
}
