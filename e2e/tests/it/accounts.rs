//! Accounts: registering, logging in, profiles.

use e2e::Stack;
use parlance_client::{Api, Code};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::is_refused;

stories!(
    a_username_is_taken_once,
    upper_case_is_folded,
    a_wrong_password_and_an_unknown_user_look_alike,
    the_form_of_a_registration_is_checked,
    a_profile_can_be_changed,
    rest_needs_a_token,
);

async fn a_username_is_taken_once(stack: &Stack) {
    let alice = stack.user("alice").await;
    is_refused(stack.api(1).register(&alice.username, "another password", None).await, Code::Conflict);
    is_refused(stack.api(1).register(&alice.username.to_uppercase(), "another password", None).await, Code::Conflict);
}

async fn upper_case_is_folded(stack: &Stack) {
    let alice = stack.user("alice").await;
    let shouted = stack.api(1).login(&alice.username.to_uppercase(), &alice.password, None).await.unwrap();
    assert_eq!((shouted.user.id, shouted.user.username), (alice.id(), alice.username));
    assert_ne!(shouted.session, alice.login.session);
}

async fn a_wrong_password_and_an_unknown_user_look_alike(stack: &Stack) {
    let alice = stack.user("alice").await;
    let nobody = format!("nobody-{}", &Uuid::new_v4().simple().to_string()[..12]);

    let wrong = stack.api(0).login(&alice.username, "not her password", None).await.unwrap_err();
    let unknown = stack.api(0).login(&nobody, "not her password", None).await.unwrap_err();

    let told = |error: parlance_client::Error| match error {
        parlance_client::Error::Problem(problem) => (problem.status, problem.code, problem.title, problem.detail),
        other => panic!("{other}"),
    };
    let wrong = told(wrong);
    assert_eq!((wrong.0, wrong.1), (401, Code::Unauthenticated));
    assert_eq!(wrong, told(unknown));
}

async fn the_form_of_a_registration_is_checked(stack: &Stack) {
    let good = || format!("u{}", &Uuid::new_v4().simple().to_string()[..12]);
    for body in [
        json!({ "username": "ab", "password": "long enough" }),
        json!({ "username": "a".repeat(33), "password": "long enough" }),
        json!({ "username": "with space", "password": "long enough" }),
        json!({ "username": good(), "password": "short" }),
        json!({ "username": good(), "password": "x".repeat(257) }),
        json!({ "username": good(), "password": "nul\u{0}nul-nul" }),
        json!({ "username": good() }),
        json!({ "username": 5, "password": "long enough" }),
    ] {
        let refused = stack.api(0).call(Method::POST, "/v1/auth/register", Some(body.clone())).await;
        assert_eq!(
            refused.as_ref().err().and_then(parlance_client::Error::code),
            Some(Code::BadRequest),
            "{body}: {refused:?}"
        );
    }
    let unknown_fields = json!({ "username": good(), "password": "long enough", "shoe_size": 43 });
    stack.api(0).call(Method::POST, "/v1/auth/register", Some(unknown_fields)).await.unwrap();
}

async fn a_profile_can_be_changed(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let changed = alice.api.patch_me(json!({ "display_name": "Alice Liddell" })).await.unwrap();
    assert_eq!(changed.display_name, "Alice Liddell");
    assert_eq!(bob.api_at(1).user(alice.id()).await.unwrap(), changed);
    assert_eq!(alice.api_at(1).me().await.unwrap(), changed);
    is_refused(bob.api.user(parlance_client::UserId(Uuid::now_v7())).await, Code::NotFound);
}

async fn rest_needs_a_token(stack: &Stack) {
    let anonymous: Api = stack.api(0);
    for (method, path) in [(Method::GET, "/v1/me"), (Method::GET, "/v1/rooms"), (Method::POST, "/v1/sync")] {
        let refused = anonymous.call(method, path, Some(json!({ "rooms": {} }))).await;
        is_refused(refused.map(|(_, body): (_, Value)| body), Code::Unauthenticated);
    }
}
