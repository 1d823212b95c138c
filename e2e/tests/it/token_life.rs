//! The end of an access token's life. These need a standalone of their own, whose tokens live for four seconds.

use e2e::{PATIENCE, Stack, eventually};
use parlance_client::session::Update;
use parlance_client::{Code, Draft, Event};
use serde_json::json;

use super::is_refused;

own_standalone_stories!(
    [("PARLANCE_ACCESS_TOKEN_TTL_S", "4")];
    an_expired_token_is_told_apart, renewing_in_band_keeps_the_socket_open, a_session_outlives_its_tokens,
);

async fn an_expired_token_is_told_apart(stack: &Stack) {
    let alice = stack.user("alice").await;
    let device = alice.on(0).await;

    device.is_closed_with(4002).await;
    eventually("expiry on REST", async || alice.api.me().await.err()).await;
    is_refused(alice.api.me().await, Code::TokenExpired);
    let mut raw = stack.raw(0, &[]).await.unwrap();
    raw.writes(json!({ "id": 1, "hello": { "token": alice.token() } })).await;
    raw.is_refused(1, "token_expired").await;
    raw.is_closed_with(4002).await;
    // The session still stands, so the refresh token works.
    stack.api(0).refresh(&alice.login.tokens.refresh_token, None).await.unwrap();
}

async fn renewing_in_band_keeps_the_socket_open(stack: &Stack) {
    let alice = stack.user("alice").await;
    let device = alice.on(0).await;
    let mut tokens = alice.login.tokens.clone();
    let old = alice.api.clone();

    // Until the first token has surely expired, and beyond.
    eventually("expiry of the first token", async || {
        tokens = stack.api(0).refresh(&tokens.refresh_token, None).await.unwrap();
        let life = device.connection.renew(&tokens.access_token).await.unwrap();
        assert!((1..=4).contains(&life), "{life}");
        old.me().await.err()
    })
    .await;
    device.connection.ping().await.unwrap();
}

async fn a_session_outlives_its_tokens(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (session, mut updates) = bob.stays_on(&[0]);

    let mut renewed = 0;
    let reading = async {
        while renewed < 3 {
            match updates.next().await.expect("it goes on") {
                Update::Tokens(_) => renewed += 1,
                Update::Ended(error) => panic!("{error}"),
                _ => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("three renewals");
    let sent = session.send(room, Draft::text("still here")).await.unwrap();
    let hearing = async {
        loop {
            if let Update::Event(Event::Message(e)) = updates.next().await.expect("it goes on") {
                return e.message;
            }
        }
    };
    assert_eq!(tokio::time::timeout(PATIENCE, hearing).await.expect("one's own message").seq, sent.seq);
}
