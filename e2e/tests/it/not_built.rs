//! What the contract names and nobody has built yet says so, instead of pretending. A line goes when its feature comes.

use e2e::Stack;
use parlance_client::{Code, Draft};
use reqwest::Method;
use serde_json::json;

use super::is_refused;

stories!(what_is_not_built_yet_says_so);

async fn what_is_not_built_yet_says_so(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let sent = desk.sends(room, "hi").await;

    for (method, path, body) in [
        (Method::GET, "/v1/search?q=hi", None),
        (Method::POST, "/v1/devices", Some(json!({ "platform": "fcm", "token": "t" }))),
        (Method::GET, "/v1/me/export", None),
    ] {
        is_refused(alice.api.call(method, path, body).await, Code::Unprocessable);
    }
    let threaded = Draft { thread: Some(sent.seq), ..Draft::text("aside") };
    is_refused(desk.connection.send(room, &threaded).await, Code::Unprocessable);
    is_refused(alice.api.post_message(room, &threaded).await, Code::Unprocessable);
    is_refused(desk.connection.react(room, sent.seq, "👍", true).await, Code::Unprocessable);
    let pin = json!({ "room": room, "seq": sent.seq, "on": true });
    is_refused(desk.connection.call::<serde_json::Value>("pin", pin).await, Code::Unprocessable);
}
