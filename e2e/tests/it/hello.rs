//! How a socket begins, and what `hello` and `renew` may say.

use std::time::Duration;

use e2e::{Raw, Stack};
use parlance_client::connection::Hello;
use parlance_client::{Code, Connection, Error};
use serde_json::json;

use super::is_refused;

stories!(
    welcome_says_what_the_contract_says,
    another_first_frame_closes_with_4001,
    no_first_frame_closes_with_4001,
    a_second_hello_is_a_conflict,
    the_sub_protocol_is_agreed,
    renewing_with_somebody_elses_token_is_forbidden,
    the_eleventh_connection_ends_the_first,
);

async fn welcome_says_what_the_contract_says(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let mut raw = stack.raw(0, &[]).await.unwrap();
    raw.writes(json!({ "id": 9, "hello": { "token": alice.token(), "device": "desk", "shoe_size": 43 } })).await;

    let welcome = raw.answer(9).await["welcome"].clone();

    assert_eq!(welcome["user"]["id"], json!(alice.id()));
    assert_eq!(welcome["session"], json!(alice.login.session));
    assert_eq!((&welcome["heartbeat_ms"], &welcome["max_frame"]), (&json!(25_000), &json!(65_536)));
    assert!(welcome["server_time"].is_i64() && welcome["connection"].is_string() && welcome["generation"].is_string());
    assert_eq!(
        (&welcome["next_cursor"], &welcome["changes"], &welcome["left"]),
        (&json!(null), &json!([]), &json!([]))
    );
    let rooms = welcome["rooms"].as_array().unwrap();
    assert_eq!(rooms.len(), 1);
    assert_eq!((&rooms[0]["id"], &rooms[0]["peer"]["id"]), (&json!(room), &json!(bob.id())));
}

async fn another_first_frame_closes_with_4001(stack: &Stack) {
    let mut raw = stack.raw(0, &[]).await.unwrap();
    raw.writes(json!({ "id": 1, "ping": {} })).await;
    raw.is_closed_with(4001).await;

    let mut raw = stack.raw(0, &[]).await.unwrap();
    raw.writes_text("garbage").await;
    raw.is_closed_with(4000).await;
}

async fn no_first_frame_closes_with_4001(stack: &Stack) {
    let mut raw = stack.raw(0, &[]).await.unwrap();
    let opened = std::time::Instant::now();
    raw.is_closed_with(4001).await;
    let waited = opened.elapsed();
    assert!(waited > Duration::from_secs(8) && waited < Duration::from_secs(13), "10 s, not {waited:?}");
}

async fn a_second_hello_is_a_conflict(stack: &Stack) {
    let alice = stack.user("alice").await;
    let device = alice.on(0).await;
    let again = device.connection.call::<serde_json::Value>("hello", json!({ "token": alice.token() })).await;
    is_refused(again, Code::Conflict);
    device.connection.ping().await.unwrap();
}

async fn the_sub_protocol_is_agreed(stack: &Stack) {
    for known in ["parlance.v1.json", "parlance.v1.proto"] {
        for asked in [known, &format!("chess.v7, {known}")] {
            let agreed = Raw::opens(stack.gateway(0), &[("sec-websocket-protocol", asked)]).await.unwrap();
            assert_eq!(agreed.protocol(), Some(known));
        }
    }
    let silent = Raw::opens(stack.gateway(0), &[]).await.unwrap();
    assert_eq!(silent.protocol(), None, "a client that asks for none must be given none");
    refuses_the_protocol(stack, "chess.v7").await;
}

/// RFC 6455 lets a client fail when none of its protocols is chosen, and ours does; so the socket is dialled by hand.
async fn refuses_the_protocol(stack: &Stack, protocol: &'static str) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let host = stack.gateway(0).trim_start_matches("http://").to_owned();
    let mut socket = tokio::net::TcpStream::connect(&host).await.unwrap();
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    e2e::within("end of the socket", async {
        let mut buffer = [0; 1024];
        // The server ends it, by a status or by a close frame (0x88) whose first two bytes are the code.
        while !closes(&answer) {
            match socket.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
            }
        }
    })
    .await;
    let text = String::from_utf8_lossy(&answer);
    assert!(closes(&answer) || text.starts_with("HTTP/1.1 4"), "neither 4009 nor a refused handshake: {text}");
}

fn closes(answer: &[u8]) -> bool {
    let code = 4009_u16.to_be_bytes();
    answer.windows(4).any(|window| window[0] == 0x88 && window[2..] == code)
}

async fn renewing_with_somebody_elses_token_is_forbidden(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let other_session = alice.logs_in_again().await;
    let device = alice.on(0).await;

    is_refused(device.connection.renew(bob.token()).await, Code::Forbidden);
    is_refused(device.connection.renew(other_session.token()).await, Code::Forbidden);
    is_refused(device.connection.renew("garbage").await, Code::Unauthenticated);

    let fresh = stack.api(1).refresh(&alice.login.tokens.refresh_token, None).await.unwrap();
    let life = device.connection.renew(&fresh.access_token).await.unwrap();
    assert!(life > 0 && life <= fresh.expires_in_s);
}

async fn the_eleventh_connection_ends_the_first(stack: &Stack) {
    let alice = stack.user("alice").await;
    let mut devices = Vec::new();
    for _ in 0..11 {
        devices.push(alice.on(0).await);
    }
    devices.remove(0).is_closed_with(4004).await;
    for device in &devices {
        device.connection.ping().await.unwrap();
    }
    let nobody = Connection::open(stack.gateway(0), &Hello::new("garbage")).await;
    assert!(matches!(nobody, Err(Error::HelloRefused { .. })), "{nobody:?}");
}
