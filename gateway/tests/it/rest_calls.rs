//! REST calls in good form: which service call they become, and with what status they answer.

use serde_json::{Value, json};

use crate::rest::{Api, is_problem};

const ROOM: &str = "/v1/rooms/0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a05";
const SECRET: &str = "/v1/rooms/0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a09";
const NEW: &str = "0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a02";
const KNOWN: &str = "0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a01";

/// The method of `line` on a path below the room.
fn in_room(line: &str) -> String {
    let (method, rest) = line.split_once(' ').expect("a method and a path");
    format!("{method} {ROOM}{rest}")
}

#[tokio::test]
async fn creating_is_201_changing_200_and_setting_204() {
    let api = Api::start().await;
    let message = |client_id: &str| json!({"client_id": client_id, "text": "hi"});
    for (line, body, status, call) in [
        ("POST /v1/rooms".to_owned(), json!({"kind": "group", "name": "x"}), 201, "create"),
        ("POST /v1/direct".to_owned(), json!({"user": NEW}), 201, "open_direct"),
        ("POST /v1/direct".to_owned(), json!({"user": KNOWN}), 200, "open_direct"),
        ("GET /v1/rooms".to_owned(), json!({}), 200, "list"),
        (in_room("GET "), json!({}), 200, "get"),
        (in_room("PATCH "), json!({"name": "y"}), 200, "patch"),
        (in_room("DELETE "), json!({}), 204, "archive"),
        (in_room("POST /join"), json!({}), 200, "join"),
        (in_room("POST /leave"), json!({}), 204, "leave"),
        (in_room("POST /transfer"), json!({"user": KNOWN}), 200, "transfer"),
        (in_room("GET /members"), json!({}), 200, "list_members"),
        (in_room(&format!("PUT /members/{NEW}")), json!({}), 201, "put_member"),
        (in_room(&format!("PUT /members/{KNOWN}")), json!({"role": "admin"}), 200, "put_member"),
        (in_room(&format!("DELETE /members/{KNOWN}")), json!({}), 204, "remove_member"),
        (in_room("PATCH /me"), json!({"favourite": true}), 200, "patch_mine"),
        (in_room("POST /messages"), message(NEW), 201, "post"),
        (in_room("POST /messages"), message(KNOWN), 200, "post"),
        (in_room("GET /messages?before=3&limit=2"), json!({}), 200, "history"),
        (in_room("GET /messages/3"), json!({}), 200, "get"),
        (in_room("PATCH /messages/3"), json!({"text": "x"}), 200, "edit"),
        (in_room("DELETE /messages/3"), json!({}), 204, "delete"),
        (in_room("PUT /read"), json!({"seq": 3}), 204, "KIND_READ 3"),
        (in_room("PUT /delivered"), json!({"seq": 3}), 204, "KIND_DELIVERED 3"),
        (in_room("PUT /unread"), json!({"seq": 3}), 204, "KIND_UNREAD 3"),
        (in_room("GET /changes?after_rev=0"), json!({}), 200, "changes"),
    ] {
        let reply = api.call(&line, Some(body)).await;
        assert_eq!(reply.status.as_u16(), status, "{line}: {}", reply.body);
        assert_eq!(reply.body == Value::Null, status == 204, "{line}: {}", reply.body);
        assert!(api.last_call().starts_with(call), "{line}: {}", api.last_call());
    }
    let list = api.call("GET /v1/rooms", None).await.body;
    assert_eq!((list["items"].as_array().map(Vec::len), &list["next_cursor"]), (Some(1), &json!("next")));
    let members = api.call(&in_room("GET /members"), None).await.body;
    assert_eq!(members, json!({"items": [], "next_cursor": null}));
}

#[tokio::test]
async fn in_a_patch_null_removes_and_absent_stays() {
    let api = Api::start().await;
    api.call(&in_room("PATCH "), Some(json!({"topic": null, "settings": {"retention_days": null}}))).await;
    let call = api.last_call();
    for field in ["name: None", "topic: Some(\"\")", "retention_days: Some(0)", "history_joined: None"] {
        assert!(call.contains(field), "{field} in {call}");
    }
    api.call(&in_room("PATCH /me"), Some(json!({"muted_until": null, "draft": null}))).await;
    let call = api.last_call();
    for field in ["muted_until: Some(0)", "draft: Some(\"\")", "notify: None", "favourite: None"] {
        assert!(call.contains(field), "{field} in {call}");
    }
    api.call(&in_room("PATCH "), Some(json!({"avatar": KNOWN, "settings": {"history": "joined"}}))).await;
    let call = api.last_call();
    for field in ["topic: None", "history_joined: Some(true)", "avatar: Some(", "retention_days: None"] {
        assert!(call.contains(field), "{field} in {call}");
    }
}

#[tokio::test]
async fn for_what_is_not_built_yet_chat_service_says_who_may_know_of_it() {
    let api = Api::start().await;
    for (line, body, seq) in [
        ("GET /pins", json!({}), 0),
        ("GET /bans", json!({}), 0),
        ("POST /invites", json!({"max_uses": 3}), 0),
        ("DELETE /members/0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a02?ban=true", json!({}), 0),
        ("PUT /messages/3/reactions/%F0%9F%91%8D", json!({}), 3),
        ("DELETE /messages/3/pin", json!({}), 3),
        ("GET /messages/3/receipts", json!({}), 3),
        ("POST /messages/3/report", json!({"reason": "spam"}), 3),
        ("GET /messages?thread=4", json!({}), 4),
    ] {
        let (method, rest) = line.split_once(' ').expect("a method and a path");
        is_problem(&api.call(&format!("{method} {ROOM}{rest}"), Some(body.clone())).await, 422, "unprocessable");
        assert_eq!(api.last_call(), format!("unbuilt {seq}"), "{line}");
        is_problem(&api.call(&format!("{method} {SECRET}{rest}"), Some(body)).await, 404, "not_found");
    }
    let unbuilt = json!({"client_id": NEW, "text": "", "attachments": [NEW], "thread": 1});
    api.call(&in_room("POST /messages"), Some(unbuilt)).await;
    assert!(api.last_call().contains("unbuilt: true"));
}
