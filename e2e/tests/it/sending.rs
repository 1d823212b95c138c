//! What a message may be, over REST and over the socket alike.

use e2e::Stack;
use parlance_client::{Code, Draft, Format};
use serde_json::json;

use super::is_refused;

stories!(rest_creates_once, the_length_of_a_text, replies_and_meta_are_kept, what_the_socket_refuses_leaves_it_open);

async fn rest_creates_once(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let draft = Draft::text("by REST");

    let first = alice.api.post_message(room, &draft).await.unwrap();
    let second = alice.api_at(1).post_message(room, &draft).await.unwrap();

    assert!(first.created && !second.created);
    assert_eq!(first.body, second.body);
    assert_eq!(bob.api.message(room, first.body.seq).await.unwrap().text, "by REST");
}

async fn the_length_of_a_text(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;

    // A character is a Unicode scalar value: these take three bytes each.
    desk.sends(room, &"語".repeat(8_000)).await;
    for text in ["語".repeat(8_001), String::new(), "a\0b".to_owned()] {
        let draft = Draft::text(text);
        is_refused(desk.connection.send(room, &draft).await, Code::BadRequest);
        is_refused(alice.api.post_message(room, &draft).await, Code::BadRequest);
    }
    assert_eq!(desk.sends(room, "still here").await.seq, 2, "what was refused took no seq");
}

async fn replies_and_meta_are_kept(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    let question = desk.sends(room, "lunch?").await;
    let meta = json!({ "app": { "card": 7 } });
    let reply = Draft { reply_to: Some(question.seq), meta: Some(meta.clone()), ..Draft::text("yes") };
    bobs.sends_draft(room, &reply).await;

    let heard = desk.receives("yes").await;
    assert_eq!((heard.reply_to, heard.meta), (Some(question.seq), Some(meta)));
    let to_nothing = Draft { reply_to: Some(99), ..Draft::text("to what?") };
    is_refused(desk.connection.send(room, &to_nothing).await, Code::Unprocessable);
    let too_much = Draft { meta: Some(json!({ "padding": "x".repeat(4_096) })), ..Draft::text("too much") };
    is_refused(desk.connection.send(room, &too_much).await, Code::BadRequest);
    let no_object = Draft { meta: Some(json!([1])), ..Draft::text("no object") };
    is_refused(alice.api.post_message(room, &no_object).await, Code::BadRequest);
}

async fn what_the_socket_refuses_leaves_it_open(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;

    let mut bodies = vec![
        json!({ "room": room, "text": "no client_id" }),
        json!({ "client_id": Draft::text("").client_id, "text": "no room" }),
        json!({ "room": room, "client_id": Draft::text("").client_id, "text": "" }),
    ];
    // Protobuf has its types: these frames cannot be written in it.
    let only_in_json = [
        json!({ "room": room, "client_id": "no uuid", "text": "x" }),
        json!({ "room": room, "client_id": Draft::text("").client_id, "text": 5 }),
        json!({ "room": "no uuid", "client_id": Draft::text("").client_id, "text": "x" }),
    ];
    if stack.format() == Format::Json {
        bodies.extend(only_in_json);
    }
    for body in bodies {
        is_refused(desk.connection.call::<serde_json::Value>("send", body).await, Code::BadRequest);
    }
    desk.sends(room, "well-formed").await;
}
