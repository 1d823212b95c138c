//! Rate limits, which are on unless they are switched off, and origins. These need a standalone of their own.

use e2e::{Heard, Raw, Stack};
use reqwest::StatusCode;
use serde_json::json;

own_standalone_stories!(
    [("PARLANCE_RATE_LIMITS", "on"), ("PARLANCE_ALLOWED_ORIGINS", "https://chat.example,https://app.example:8443")];
    a_login_spray_is_told_to_wait,
    a_flood_of_frames_is_refused_and_then_closed,
    only_allowed_origins_open_a_socket,
);

async fn a_login_spray_is_told_to_wait(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let login = async |username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        let request = reqwest::Client::new().post(format!("{}/v1/auth/login", stack.gateway(0))).json(&body);
        request.send().await.unwrap()
    };
    let mut refused = None;
    for _ in 0..50 {
        let answer = login(&alice.username, "a guess at her password").await;
        if answer.status() == StatusCode::TOO_MANY_REQUESTS {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }

    let refused = refused.expect("fifty guesses in a row are too many");
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(problem["code"], "rate_limited");
    let wait_ms = problem["retry_after_ms"].as_u64().unwrap();
    assert!(wait >= 1 && wait * 1_000 >= wait_ms && wait_ms > 0, "{wait} s, {wait_ms} ms");
    // Her right password has to wait as well, and nobody else has.
    assert_eq!(login(&alice.username, &alice.password).await.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(login(&bob.username, &bob.password).await.status(), StatusCode::OK);
}

async fn a_flood_of_frames_is_refused_and_then_closed(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let bobs = bob.on(0).await;
    let mut flood = stack.welcomed(0, alice.token()).await;
    for id in 2..1_500_u32 {
        flood.writes(json!({ "id": id, "ping": {} })).await;
    }

    let (mut answered, mut refused) = (0, 0);
    let (code, reason) = loop {
        match flood.hears().await {
            Heard::Frame(frame) if frame.get("pong").is_some() => answered += 1,
            Heard::Frame(frame) => {
                assert_eq!(frame["error"]["code"], "rate_limited", "{frame}");
                assert!(frame["error"]["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{frame}");
                refused += 1;
            }
            Heard::Closed(code, reason) => break (code, reason),
        }
    };
    assert!(answered >= 100 && refused >= 50, "{answered} were answered, {refused} refused");
    assert_eq!(code, 4029);
    assert!(reason.parse::<u64>().is_ok_and(|wait| wait > 0), "the reason says how long to stay away: `{reason}`");
    bobs.connection.ping().await.unwrap();
}

async fn only_allowed_origins_open_a_socket(stack: &Stack) {
    let own = stack.gateway(0);
    for origin in [own, "https://chat.example", "https://app.example:8443"] {
        assert!(Raw::opens(own, &[("origin", origin)]).await.is_ok(), "{origin}");
    }
    assert!(Raw::opens(own, &[]).await.is_ok(), "who is no browser has none");
    for origin in [
        "null",
        "https://evil.example",
        "http://chat.example",
        "https://chat.example.evil.example",
        "https://chat.example:8443",
        "https://app.example",
        "https://sub.chat.example",
    ] {
        assert_eq!(Raw::opens(own, &[("origin", origin)]).await.unwrap_err(), 403, "{origin}");
    }
}
