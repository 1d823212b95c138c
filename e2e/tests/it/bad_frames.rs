//! Frames that break the contract: each gets its code, and nobody else notices.

use e2e::{Heard, Raw, Stack};
use parlance_client::Draft;
use serde_json::json;

stories!(
    what_is_no_frame_closes_with_4000,
    a_frame_that_is_too_large_closes_with_1009,
    a_wrong_verb_is_answered_and_the_socket_stays,
    bad_fields_are_answered_and_the_socket_stays,
    a_foreign_origin_is_refused,
    nobody_else_notices,
);

async fn what_is_no_frame_closes_with_4000(stack: &Stack) {
    let alice = stack.user("alice").await;
    let too_large_an_id = u64::from(u32::MAX) + 1;
    let bad = [
        "not json",
        "",
        "[]",
        "7",
        "{}",
        r#"{"ping":{}}"#,
        r#"{"id":0,"ping":{}}"#,
        r#"{"id":-1,"ping":{}}"#,
        r#"{"id":"1","ping":{}}"#,
    ];
    let mut bad: Vec<String> = bad.into_iter().map(str::to_owned).collect();
    bad.push(format!(r#"{{"id":{too_large_an_id},"ping":{{}}}}"#));
    for text in bad {
        let mut raw = stack.welcomed(0, alice.token()).await;
        raw.writes_text(&text).await;
        assert!(matches!(raw.hears().await, Heard::Closed(4000, _)), "`{text}`");
    }
    let mut raw = stack.welcomed(1, alice.token()).await;
    raw.writes_binary(br#"{"id":2,"ping":{}}"#).await;
    raw.is_closed_with(4000).await;
}

async fn a_frame_that_is_too_large_closes_with_1009(stack: &Stack) {
    let alice = stack.user("alice").await;
    let mut raw = stack.welcomed(0, alice.token()).await;
    let padding = "x".repeat(65 * 1024);
    raw.writes(json!({ "id": 2, "renew": { "token": padding } })).await;
    raw.is_closed_with(1009).await;

    let mut raw = stack.welcomed(0, alice.token()).await;
    let padding = "x".repeat(65_000);
    raw.writes(json!({ "id": 2, "renew": { "token": padding } })).await;
    raw.is_refused(2, "unauthenticated").await;
}

async fn a_wrong_verb_is_answered_and_the_socket_stays(stack: &Stack) {
    let alice = stack.user("alice").await;
    let mut raw = stack.welcomed(0, alice.token()).await;
    raw.writes(json!({ "id": 2 })).await;
    raw.is_refused(2, "bad_request").await;
    raw.writes(json!({ "id": 3, "ping": {}, "typing": {} })).await;
    raw.is_refused(3, "bad_request").await;
    raw.writes(json!({ "id": 4, "levitate": {} })).await;
    raw.is_refused(4, "bad_request").await;
    raw.writes(json!({ "id": 5, "ping": {} })).await;
    assert!(raw.answer(5).await.get("pong").is_some());
}

async fn bad_fields_are_answered_and_the_socket_stays(stack: &Stack) {
    let (alice, eve) = (stack.user("alice").await, stack.user("eve").await);
    let room = alice.direct_with(&stack.user("bob").await).await;
    let mut raw = stack.welcomed(0, alice.token()).await;
    let client_id = Draft::text("").client_id;
    let bad = [
        json!({ "id": 2, "send": { "room": room, "client_id": client_id, "text": 5 } }),
        json!({ "id": 2, "send": { "room": room, "client_id": client_id, "text": "x".repeat(8_001) } }),
        json!({ "id": 2, "send": { "room": room, "client_id": client_id } }),
        json!({ "id": 2, "send": "hi" }),
        json!({ "id": 2, "read": { "room": room, "seq": "1" } }),
        json!({ "id": 2, "typing": { "room": room, "on": "yes" } }),
        json!({ "id": 2, "watch": { "add": "everybody" } }),
        json!({ "id": 2, "history": { "room": room, "before": 1, "after": 2 } }),
        json!({ "id": 2, "history": { "room": room, "limit": 0 } }),
        json!({ "id": 2, "changes": { "room": room } }),
        json!({ "id": 2, "status": { "state": "asleep" } }),
    ];
    for frame in bad {
        if !raw.can_write(&frame) {
            continue;
        }
        raw.writes(frame).await;
        raw.is_refused(2, "bad_request").await;
    }
    let mut eves = stack.welcomed(0, eve.token()).await;
    for verb in ["send", "read", "typing", "history", "changes"] {
        eves.writes(
            json!({ "id": 3, verb: { "room": room, "client_id": client_id, "text": "x", "seq": 1, "on": true, "after_rev": 0 } }),
        )
        .await;
        eves.is_refused(3, "not_found").await;
    }
}

async fn a_foreign_origin_is_refused(stack: &Stack) {
    let foreign = stack.raw(0, &[("origin", "https://evil.example")]).await;
    assert_eq!(foreign.err(), Some(403));
    let own = stack.gateway(0).to_owned();
    assert!(Raw::opens(&own, &[("origin", &own)]).await.is_ok(), "its own origin is allowed");
}

async fn nobody_else_notices(stack: &Stack) {
    let (alice, bob, eve) = (stack.user("alice").await, stack.user("bob").await, stack.user("eve").await);
    let room = alice.makes_a_group("calm", &[&bob, &eve]).await.id;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    for n in 0..20 {
        let mut raw = stack.welcomed(n, eve.token()).await;
        let text = if n % 2 == 0 { "garbage".to_owned() } else { "x".repeat(70_000) };
        raw.writes_text(&text).await;
        raw.is_closed_with(if n % 2 == 0 { 4000 } else { 1009 }).await;
        desk.sends(room, &format!("calm {n}")).await;
    }

    assert_eq!(bobs.has_texts(room, 20).await.len(), 20);
    assert_eq!(bobs.connection.close_seen(), None);
    desk.connection.ping().await.unwrap();
}
