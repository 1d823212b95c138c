//! Keys of access tokens: kept, fetched again for an unknown one, and never asked for in a storm.

use service_kit::auth::Rejected;

use crate::fake_chat::{edge, signer, token};

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new) = (signer(), signer());
    let (edge, keys, _) = edge(&old, false).await;
    assert!(edge.tokens.verify(&token(&old, 0)).await.is_ok());
    assert_eq!(keys.asked(), 1);
    keys.publish(&new);
    assert!(edge.tokens.verify(&token(&new, 0)).await.is_ok());
    assert_eq!(keys.asked(), 2);
}

#[tokio::test]
async fn tokens_with_unknown_keys_cause_one_fetch_and_no_more() {
    let ours = signer();
    let (edge, keys, _) = edge(&ours, false).await;
    let foreign = token(&signer(), 0);
    let tries = (0..50).map(|_| edge.tokens.verify(&foreign));
    let outcomes = futures_util::future::join_all(tries).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(Rejected::UnknownKey))));
    assert_eq!(keys.asked(), 2);
}

#[tokio::test]
async fn when_fresh_keys_cannot_be_read_the_old_ones_stay() {
    let ours = signer();
    let (edge, keys, _) = edge(&ours, false).await;
    keys.break_down();
    assert!(edge.tokens.verify(&token(&signer(), 0)).await.is_err());
    assert!(edge.tokens.verify(&token(&ours, 0)).await.is_ok());
    assert_eq!(edge.tokens.verify(&token(&ours, 120_000)).await, Err(Rejected::Expired));
}
