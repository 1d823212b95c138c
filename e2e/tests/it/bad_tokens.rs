//! Tokens that no server may take, over REST and in `hello`.

use e2e::{Stack, forged};
use parlance_client::Code;
use serde_json::json;

use super::is_refused;

stories!(forged_tokens_are_refused, a_revoked_session_is_refused_in_hello, a_token_in_the_handshake_counts);

async fn forged_tokens_are_refused(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let device = alice.on(0).await;
    let forgeries = [
        "garbage".to_owned(),
        String::new(),
        alice.login.tokens.refresh_token.clone(),
        forged::without_algorithm(alice.token()),
        forged::by_another_key(alice.token()),
        forged::with_other_claims(alice.token(), |claims| claims["sub"] = json!(bob.id())),
        forged::with_other_claims(alice.token(), |claims| claims["exp"] = json!(4_000_000_000_u64)),
    ];
    for token in forgeries {
        is_refused(stack.api(0).with_token(&token).me().await, Code::Unauthenticated);
        let mut raw = stack.raw(1, &[]).await.unwrap();
        raw.writes(json!({ "id": 1, "hello": { "token": token } })).await;
        raw.is_refused(1, "unauthenticated").await;
        raw.is_closed_with(4001).await;
    }
    device.connection.ping().await.unwrap();
}

async fn a_revoked_session_is_refused_in_hello(stack: &Stack) {
    let alice = stack.user("alice").await;
    let phone = alice.logs_in_again().await;
    alice.api.revoke_session(phone.login.session).await.unwrap();

    let mut raw = stack.raw(1, &[]).await.unwrap();
    raw.writes(json!({ "id": 1, "hello": { "token": phone.token() } })).await;
    raw.is_refused(1, "unauthenticated").await;
    raw.is_closed_with(4003).await;
}

async fn a_token_in_the_handshake_counts(stack: &Stack) {
    let alice = stack.user("alice").await;
    let bearer = format!("Bearer {}", alice.token());
    let mut raw = stack.raw(0, &[("authorization", &bearer)]).await.unwrap();
    raw.writes(json!({ "id": 1, "hello": {} })).await;
    assert_eq!(raw.answer(1).await["welcome"]["user"]["id"], json!(alice.id()));
}
