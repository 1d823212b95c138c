//! Sessions: refreshing, logging out, revoking, changing the password.

use e2e::{Person, Stack};
use parlance_client::Code;
use uuid::Uuid;

use super::is_refused;

stories!(
    a_refresh_token_is_spent_once,
    a_lost_answer_of_a_refresh_is_given_again,
    logging_out_ends_the_session,
    sessions_are_listed_and_revoked,
    a_new_password_revokes_the_others,
);

async fn a_refresh_token_is_spent_once(stack: &Stack) {
    let alice = stack.user("alice").await;
    let device = alice.on(1).await;
    let first = &alice.login.tokens;
    let second = stack.api(1).refresh(&first.refresh_token, None).await.unwrap();
    assert_ne!(second.refresh_token, first.refresh_token);
    alice.api.with_token(&second.access_token).me().await.unwrap();

    // Somebody has the old one: whoever it is, the session is not safe any more.
    is_refused(stack.api(0).refresh(&first.refresh_token, None).await, Code::Unauthenticated);
    is_refused(stack.api(0).refresh(&second.refresh_token, None).await, Code::Unauthenticated);
    is_refused(alice.api.with_token(&second.access_token).me().await, Code::Unauthenticated);
    device.is_closed_with(4003).await;
}

async fn a_lost_answer_of_a_refresh_is_given_again(stack: &Stack) {
    let alice = stack.user("alice").await;
    let first = &alice.login.tokens.refresh_token;
    let attempt = Some(Uuid::new_v4());

    let answer = stack.api(0).refresh(first, attempt).await.unwrap();
    let again = stack.api(1).refresh(first, attempt).await.unwrap();
    assert_eq!(again.refresh_token, answer.refresh_token, "the same pair again");
    assert_eq!(again.access_token, answer.access_token, "the same pair again");

    let next = stack.api(0).refresh(&answer.refresh_token, Some(Uuid::new_v4())).await.unwrap();
    alice.api.with_token(&next.access_token).me().await.unwrap();
    // Another attempt with a spent token is a theft.
    is_refused(stack.api(0).refresh(&answer.refresh_token, Some(Uuid::new_v4())).await, Code::Unauthenticated);
    is_refused(alice.api.with_token(&next.access_token).me().await, Code::Unauthenticated);
}

async fn logging_out_ends_the_session(stack: &Stack) {
    let alice = stack.user("alice").await;
    let phone = alice.logs_in_again().await;
    let (desk, phones) = (alice.on(0).await, phone.on(1).await);

    phone.api.logout().await.unwrap();

    phones.is_closed_with(4003).await;
    is_refused(phone.api.me().await, Code::Unauthenticated);
    is_refused(stack.api(0).refresh(&phone.login.tokens.refresh_token, None).await, Code::Unauthenticated);
    desk.connection.ping().await.unwrap();
    alice.api.me().await.unwrap();
}

async fn sessions_are_listed_and_revoked(stack: &Stack) {
    let (alice, eve) = (stack.user("alice").await, stack.user("eve").await);
    let phone = alice.logs_in_again().await;
    assert_eq!(listed(&alice).await, sorted([alice.login.session, phone.login.session]));

    is_refused(eve.api.revoke_session(phone.login.session).await, Code::NotFound);
    alice.api_at(1).revoke_session(phone.login.session).await.unwrap();

    assert_eq!(listed(&alice).await, [alice.login.session]);
    is_refused(phone.api.me().await, Code::Unauthenticated);
}

async fn a_new_password_revokes_the_others(stack: &Stack) {
    let alice = stack.user("alice").await;
    let phone = alice.logs_in_again().await;
    let (desk, phones) = (alice.on(0).await, phone.on(1).await);

    is_refused(alice.api.change_password("not her password", "something new").await, Code::Forbidden);
    alice.api.change_password(&alice.password, "something new").await.unwrap();

    phones.is_closed_with(4003).await;
    desk.connection.ping().await.unwrap();
    is_refused(stack.api(0).login(&alice.username, &alice.password, None).await, Code::Unauthenticated);
    stack.api(1).login(&alice.username, "something new", None).await.unwrap();
}

async fn listed(person: &Person) -> Vec<parlance_client::SessionId> {
    let sessions = person.api.sessions().await.unwrap();
    let mut ids: Vec<_> = sessions.into_iter().map(|session| session.id).collect();
    ids.sort();
    ids
}

fn sorted<const N: usize>(mut ids: [parlance_client::SessionId; N]) -> Vec<parlance_client::SessionId> {
    ids.sort();
    ids.to_vec()
}
