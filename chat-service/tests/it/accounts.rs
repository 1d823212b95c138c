//! Registering, logging in and out, refreshing, and finding users.

use std::time::Duration;

use parlance_proto::{
    chat,
    event::user_event::Kind::{OthersRevoked, SessionRevoked},
};
use service_kit::{auth::Verifier, on_tx};
use tonic::{Code, Request};
use uuid::Uuid;

use crate::{PASSWORD, Person, Service, refused, stories};

stories! {
    whoever_registers_can_log_in
    a_name_is_given_once
    wrong_input_is_refused_by_its_field
    nobody_learns_who_has_an_account
    a_refresh_token_is_spent_for_the_next_pair
    the_same_attempt_gets_the_same_pair
    a_token_spent_twice_ends_its_session
    two_refreshes_at_once_with_one_attempt_agree
    two_refreshes_at_once_without_an_attempt_end_the_session
    a_late_retry_ends_the_session
    an_unused_token_is_worth_nothing_after_thirty_days
    rows_of_old_tokens_go
    logout_ends_the_session
    a_user_ends_another_session
    a_new_password_ends_all_other_sessions
    a_login_with_the_old_password_does_not_outlive_it
    sessions_come_in_pages
    a_profile_is_changed_in_parts
    users_are_found_by_how_they_begin
}

async fn whoever_registers_can_log_in(service: &Service) {
    let request = chat::RegisterRequest {
        username: "Maja.K".to_owned(),
        password: PASSWORD.to_owned(),
        display_name: Some("Maja Krüger".to_owned()),
        device: Some("phone".to_owned()),
    };
    let maja = Person::from(service.accounts().register(request).await.unwrap().into_inner());
    assert_eq!((maja.user.username.as_str(), maja.user.display_name.as_str()), ("maja.k", "Maja Krüger"));

    let again = logs_in(service, "MAJA.k").await;
    assert_eq!(again.user, maja.user);
    assert_ne!(again.actor(), maja.actor());

    let keys = service.accounts().keys(chat::Empty {}).await.unwrap().into_inner();
    let claims = Verifier::from_jwks(&keys.jwks).unwrap().verify(&again.tokens.access_token).unwrap();
    assert_eq!((claims.sub, claims.sid.to_wire()), (maja.id, again.actor().session));
    assert_eq!(again.tokens.expires_in_s, 600);

    let sessions = service.accounts().list_sessions(sessions_of(&maja, 0, "")).await.unwrap().into_inner().items;
    let devices: Vec<_> = sessions.iter().map(|session| (session.device.as_deref(), session.current)).collect();
    assert_eq!(devices, [(None, false), (Some("phone"), true)]);
}

async fn a_name_is_given_once(service: &Service) {
    service.registers("maja").await;
    let refusal = refused(service.accounts().register(newcomer("MAJA")).await, Code::AlreadyExists);
    assert!(refusal.starts_with("username:"), "{refusal}");

    let (mut one, mut other) = (service.accounts(), service.accounts());
    let (one, other) = tokio::join!(one.register(newcomer("noor")), other.register(newcomer("Noor")));
    let (given, taken) = if one.is_ok() { (one, other) } else { (other, one) };
    assert!(given.is_ok());
    refused(taken, Code::AlreadyExists);
}

async fn wrong_input_is_refused_by_its_field(service: &Service) {
    let mut accounts = service.accounts();
    let (short, long) = ("seven77".to_owned(), "x".repeat(257));
    let register = |edit: &dyn Fn(&mut chat::RegisterRequest)| {
        let mut request = newcomer("somebody");
        edit(&mut request);
        request
    };
    let table = [
        ("username", register(&|r| r.username = "ab".to_owned())),
        ("username", register(&|r| r.username = "a".repeat(33))),
        ("username", register(&|r| r.username = "with space".to_owned())),
        ("username", register(&|r| r.username = "grüße".to_owned())),
        // The Kelvin sign: its lower case is an ordinary k.
        ("username", register(&|r| r.username = "\u{212A}elvin".to_owned())),
        ("username", register(&|r| r.username = "nul\0nul".to_owned())),
        ("password", register(&|r| r.password.clone_from(&short))),
        ("password", register(&|r| r.password.clone_from(&long))),
        ("password", register(&|r| r.password = "eight\0888".to_owned())),
        ("display_name", register(&|r| r.display_name = Some(String::new()))),
        ("display_name", register(&|r| r.display_name = Some("x".repeat(129)))),
        ("display_name", register(&|r| r.display_name = Some("a\0".to_owned()))),
        ("device", register(&|r| r.device = Some("x".repeat(129)))),
        ("device", register(&|r| r.device = Some("\0".to_owned()))),
    ];
    for (field, request) in table {
        let refusal = refused(accounts.register(request).await, Code::InvalidArgument);
        assert!(refusal.starts_with(&format!("{field}:")), "{field}: {refusal}");
    }
    // A character is a Unicode scalar value, not a byte.
    let mut request = newcomer("somebody");
    request.password = "ü".repeat(256);
    request.display_name = Some("😀".repeat(128));
    let maja = Person::from(accounts.register(request).await.unwrap().into_inner());

    let named = |refusal: String, field: &str| assert!(refusal.starts_with(&format!("{field}:")), "{field}: {refusal}");
    let bad = Code::InvalidArgument;
    named(refused(accounts.login(login("a\0b", PASSWORD)).await, bad), "username");
    named(refused(accounts.login(login("maja", "eight\0888")).await, bad), "password");
    named(refused(accounts.login(login("maja", &long)).await, bad), "password");
    named(refused(accounts.refresh(refresh("a\0", None)).await, bad), "refresh_token");
    let request = chat::RefreshRequest { refresh_token: String::new(), attempt: Some(vec![1, 2].into()) };
    named(refused(accounts.refresh(request).await, bad), "attempt");
    named(refused(accounts.change_password(change(&maja, "\0", PASSWORD)).await, bad), "old");
    named(refused(accounts.change_password(change(&maja, PASSWORD, &short)).await, bad), "new");
    named(refused(accounts.change_password(change(&maja, PASSWORD, &long)).await, bad), "new");
    named(refused(accounts.find_users(find(&maja, "", 0, "")).await, bad), "query");
    named(refused(accounts.find_users(find(&maja, &"x".repeat(65), 0, "")).await, bad), "query");
    named(refused(accounts.find_users(find(&maja, "a\0", 0, "")).await, bad), "query");
    named(refused(accounts.find_users(find(&maja, "a", 201, "")).await, bad), "limit");
    named(refused(accounts.find_users(find(&maja, "a", 0, "?")).await, bad), "cursor");
    named(refused(accounts.list_sessions(sessions_of(&maja, -1, "")).await, bad), "limit");
    named(refused(accounts.list_sessions(sessions_of(&maja, 0, "bWFqYQ")).await, bad), "cursor");
    let request =
        chat::PatchMeRequest { actor: maja.actor.clone(), display_name: Some("\0".to_owned()), ..Default::default() };
    named(refused(accounts.patch_me(request).await, bad), "display_name");
    let request = chat::GetUserRequest { actor: maja.actor.clone(), user: vec![1].into() };
    named(refused(accounts.get_user(request).await, bad), "user");
}

async fn nobody_learns_who_has_an_account(service: &Service) {
    service.registers("maja").await;
    let mut accounts = service.accounts();
    let mut answers = Vec::new();
    for request in [login("maja", "wrong password"), login("nobody", PASSWORD), login("maja", "short"), login("a", "b")]
    {
        answers.push(refused(accounts.login(request).await, Code::Unauthenticated));
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
}

async fn a_refresh_token_is_spent_for_the_next_pair(service: &Service) {
    let maja = service.registers("maja").await;
    let mut accounts = service.accounts();
    let mut token = maja.tokens.refresh_token.clone();
    for attempt in [None, Some(Uuid::new_v4()), None] {
        let next = accounts.refresh(refresh(&token, attempt)).await.unwrap().into_inner();
        assert_eq!(next.expires_in_s, 600);
        assert_ne!(next.refresh_token, token);
        token = next.refresh_token;
    }
    for unknown in ["", "no token", &"A".repeat(43), &format!("{token}A")] {
        refused(accounts.refresh(refresh(unknown, None)).await, Code::Unauthenticated);
    }
    accounts.check(maja.actor()).await.expect("guessing ends nobody's session");
}

async fn the_same_attempt_gets_the_same_pair(service: &Service) {
    let maja = service.registers("maja").await;
    let mut accounts = service.accounts();
    let request = refresh(&maja.tokens.refresh_token, Some(Uuid::new_v4()));
    let first = accounts.refresh(request.clone()).await.unwrap().into_inner();
    let retry = accounts.refresh(request.clone()).await.unwrap().into_inner();
    assert_eq!((&first.access_token, &first.refresh_token), (&retry.access_token, &retry.refresh_token));

    // Still so when the answer was not lost after all, and its token is spent too.
    accounts.refresh(refresh(&first.refresh_token, None)).await.unwrap();
    let late = accounts.refresh(request).await.unwrap().into_inner();
    assert_eq!(first.refresh_token, late.refresh_token);
    accounts.check(maja.actor()).await.unwrap();
}

async fn a_token_spent_twice_ends_its_session(service: &Service) {
    let mut accounts = service.accounts();
    let [one, other] = [Uuid::new_v4(), Uuid::new_v4()];
    let cases = [(None, None), (Some(one), None), (None, Some(one)), (Some(one), Some(other))];
    for (place, (attempt, again)) in cases.into_iter().enumerate() {
        let maja = service.registers(&format!("maja{place}")).await;
        let token = &maja.tokens.refresh_token;
        let next = accounts.refresh(refresh(token, attempt)).await.unwrap().into_inner();
        refused(accounts.refresh(refresh(token, again)).await, Code::Unauthenticated);

        let event = service.user_event(maja.id).await;
        assert_eq!((event.rev, event.kind), (1, Some(SessionRevoked(maja.actor().session))));
        refused(accounts.check(maja.actor()).await, Code::Unauthenticated);
        refused(accounts.refresh(refresh(&next.refresh_token, None)).await, Code::Unauthenticated);
        refused(accounts.refresh(refresh(token, attempt)).await, Code::Unauthenticated);
    }
}

async fn two_refreshes_at_once_with_one_attempt_agree(service: &Service) {
    let maja = service.registers("maja").await;
    let mut token = maja.tokens.refresh_token.clone();
    for _ in 0..10 {
        let request = refresh(&token, Some(Uuid::new_v4()));
        let (mut one, mut other) = (service.accounts(), service.accounts());
        let (one, other) = tokio::join!(one.refresh(request.clone()), other.refresh(request));
        let (one, other) = (one.unwrap().into_inner(), other.unwrap().into_inner());
        assert_eq!((one.access_token, &one.refresh_token), (other.access_token, &other.refresh_token));
        token = one.refresh_token;
    }
}

async fn two_refreshes_at_once_without_an_attempt_end_the_session(service: &Service) {
    let maja = service.registers("maja").await;
    let request = refresh(&maja.tokens.refresh_token, None);
    let (mut one, mut other) = (service.accounts(), service.accounts());
    let (one, other) = tokio::join!(one.refresh(request.clone()), other.refresh(request));
    assert_ne!(one.is_ok(), other.is_ok(), "one of them was first");
    refused(service.accounts().check(maja.actor()).await, Code::Unauthenticated);
}

async fn a_late_retry_ends_the_session(service: &Service) {
    let maja = service.registers("maja").await;
    let request = refresh(&maja.tokens.refresh_token, Some(Uuid::new_v4()));
    let mut accounts = service.accounts();
    let first = accounts.refresh(request.clone()).await.unwrap().into_inner();
    service.changes("update refresh_tokens set spent_at = spent_at - 50000").await;
    // The access token says when it was issued, so that the pair is another one; it is the refresh token that counts.
    let retry = accounts.refresh(request.clone()).await.unwrap().into_inner();
    assert_eq!(retry.refresh_token, first.refresh_token);
    assert!((549..=550).contains(&retry.expires_in_s), "counted from the first answer: {}", retry.expires_in_s);

    service.changes("update refresh_tokens set spent_at = spent_at - 11000").await;
    refused(accounts.refresh(request).await, Code::Unauthenticated);
    assert_eq!(service.user_event(maja.id).await.kind, Some(SessionRevoked(maja.actor().session)));
}

async fn an_unused_token_is_worth_nothing_after_thirty_days(service: &Service) {
    let maja = service.registers("maja").await;
    service.changes("update refresh_tokens set issued_at = issued_at - 2592000000").await;
    refused(service.accounts().refresh(refresh(&maja.tokens.refresh_token, None)).await, Code::Unauthenticated);
    service.accounts().check(maja.actor()).await.expect("too late is not reuse");
}

async fn rows_of_old_tokens_go(service: &Service) {
    let (maja, noor) = (service.registers("maja").await, service.registers("noor").await);
    let mut accounts = service.accounts();
    accounts.refresh(refresh(&noor.tokens.refresh_token, None)).await.unwrap();
    let next = accounts.refresh(refresh(&maja.tokens.refresh_token, None)).await.unwrap().into_inner();
    service.changes("update refresh_tokens set issued_at = issued_at - 2678401000 where spent_at is not null").await;
    accounts.refresh(refresh(&next.refresh_token, None)).await.unwrap();
    let left = service.changes("update refresh_tokens set issued_at = issued_at").await;
    assert_eq!(left, 4, "two of each: only the session that is refreshed is cleaned up");
}

async fn logout_ends_the_session(service: &Service) {
    let maja = service.registers("maja").await;
    let other = logs_in(service, "maja").await;
    let mut accounts = service.accounts();
    accounts.logout(maja.actor()).await.unwrap();

    let event = service.user_event(maja.id).await;
    assert_eq!((event.rev, event.kind), (1, Some(SessionRevoked(maja.actor().session))));
    refused(accounts.logout(maja.actor()).await, Code::Unauthenticated);
    refused(accounts.check(maja.actor()).await, Code::Unauthenticated);
    refused(accounts.get_me(maja.actor()).await, Code::Unauthenticated);
    refused(accounts.refresh(refresh(&maja.tokens.refresh_token, None)).await, Code::Unauthenticated);
    accounts.check(other.actor()).await.unwrap();
    // Neither the refused logout nor the refused refresh took a rev.
    accounts.logout(other.actor()).await.unwrap();
    assert_eq!(service.user_event(maja.id).await.rev, 2);
}

async fn a_user_ends_another_session(service: &Service) {
    let (maja, noor) = (service.registers("maja").await, service.registers("noor").await);
    let phone = logs_in(service, "maja").await;
    let mut accounts = service.accounts();
    let revoke = |actor: &Person, session: &Person| chat::RevokeSessionRequest {
        actor: actor.actor.clone(),
        session: session.actor().session,
    };
    refused(accounts.revoke_session(revoke(&noor, &phone)).await, Code::NotFound);
    accounts.check(phone.actor()).await.unwrap();

    accounts.revoke_session(revoke(&maja, &phone)).await.unwrap();
    assert_eq!(service.user_event(maja.id).await.kind, Some(SessionRevoked(phone.actor().session)));
    refused(accounts.check(phone.actor()).await, Code::Unauthenticated);
    refused(accounts.revoke_session(revoke(&maja, &phone)).await, Code::NotFound);
    refused(accounts.revoke_session(revoke(&phone, &maja)).await, Code::Unauthenticated);
    let unknown =
        chat::RevokeSessionRequest { actor: maja.actor.clone(), session: Uuid::now_v7().as_bytes().to_vec().into() };
    refused(accounts.revoke_session(unknown).await, Code::NotFound);
    accounts.check(maja.actor()).await.unwrap();
}

async fn a_new_password_ends_all_other_sessions(service: &Service) {
    let maja = service.registers("maja").await;
    let others = [logs_in(service, "maja").await, logs_in(service, "maja").await];
    let mut accounts = service.accounts();
    refused(accounts.change_password(change(&maja, "wrong password", "new password")).await, Code::PermissionDenied);
    refused(accounts.change_password(change(&maja, "short", "new password")).await, Code::PermissionDenied);
    accounts.change_password(change(&maja, PASSWORD, "new password")).await.unwrap();

    let event = service.user_event(maja.id).await;
    assert_eq!((event.rev, event.kind), (1, Some(OthersRevoked(maja.actor().session))));
    accounts.check(maja.actor()).await.unwrap();
    accounts.refresh(refresh(&maja.tokens.refresh_token, None)).await.unwrap();
    for other in &others {
        refused(accounts.check(other.actor()).await, Code::Unauthenticated);
        refused(accounts.refresh(refresh(&other.tokens.refresh_token, None)).await, Code::Unauthenticated);
    }
    refused(accounts.login(login("maja", PASSWORD)).await, Code::Unauthenticated);
    accounts.login(login("maja", "new password")).await.unwrap();
}

async fn a_login_with_the_old_password_does_not_outlive_it(service: &Service) {
    service.registers("maja").await;
    // A change of the password that has not committed yet, and a login that has verified the old one.
    let (_db, mut change) = service.begins().await;
    let sql = "update users set password_hash = null";
    on_tx!(&mut change, c => sqlx::query(sql).execute(c).await.map(drop)).unwrap();
    let mut accounts = service.accounts();
    let mut granted = Box::pin(accounts.login(login("maja", PASSWORD)));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut granted).await.is_err(), "it waits for the change");
    change.commit().await.unwrap();
    refused(granted.await, Code::Unauthenticated);
}

async fn sessions_come_in_pages(service: &Service) {
    let maja = service.registers("maja").await;
    let mut expected = vec![maja.actor().session];
    for _ in 0..4 {
        expected.push(logs_in(service, "maja").await.actor().session);
    }
    service.registers("noor").await;
    expected.reverse();
    let mut accounts = service.accounts();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = accounts.list_sessions(sessions_of(&maja, 2, &cursor)).await.unwrap().into_inner();
        assert!(page.items.len() <= 2);
        seen.extend(page.items.into_iter().map(|session| session.id));
        let Some(next) = page.next_cursor else { break };
        cursor = next;
    }
    assert_eq!(seen, expected);
    let all = accounts.list_sessions(sessions_of(&maja, 5, "")).await.unwrap().into_inner();
    assert_eq!((all.items.len(), all.next_cursor), (5, None), "a full last page is the last one");
}

async fn a_profile_is_changed_in_parts(service: &Service) {
    let maja = service.registers("maja").await;
    let mut accounts = service.accounts();
    let me = accounts.get_me(maja.actor()).await.unwrap().into_inner();
    assert_eq!(me.user, Some(maja.user.clone()));
    assert_eq!(me.privacy, Some(chat::Privacy { receipts: true, presence: true }));

    let patch = chat::PatchMeRequest { actor: maja.actor.clone(), receipts: Some(false), ..Default::default() };
    let patched = accounts.patch_me(patch).await.unwrap().into_inner();
    assert_eq!(patched.user, me.user);
    assert_eq!(patched.privacy, Some(chat::Privacy { receipts: false, presence: true }));

    let patch =
        chat::PatchMeRequest { actor: maja.actor.clone(), display_name: Some("Zoé".to_owned()), ..Default::default() };
    accounts.patch_me(patch).await.unwrap();
    let me = accounts.get_me(maja.actor()).await.unwrap().into_inner();
    assert_eq!(me.privacy, Some(chat::Privacy { receipts: false, presence: true }));

    let request = chat::GetUserRequest { actor: maja.actor.clone(), user: maja.id.to_wire() };
    assert_eq!(me.user, Some(accounts.get_user(request).await.unwrap().into_inner()));
    assert_eq!(found(service, &maja, "zOÉ", 0).await, ["maja"], "the new name is found");
    let unknown = chat::GetUserRequest { actor: maja.actor.clone(), user: Uuid::now_v7().as_bytes().to_vec().into() };
    refused(accounts.get_user(unknown).await, Code::NotFound);
}

async fn users_are_found_by_how_they_begin(service: &Service) {
    let maja = service.registers("maja").await;
    for (username, display_name) in
        [("zed", "Maria K."), ("mar_1", "x"), ("mar.2", "x"), ("marx", "Marx"), ("amar", "100%"), ("max", "ÄPFEL")]
    {
        let request = chat::RegisterRequest { display_name: Some(display_name.to_owned()), ..newcomer(username) };
        service.accounts().register(request).await.unwrap();
    }
    let by_bytes = ["mar.2", "mar_1", "marx", "zed"];
    for limit in [0, 4, 3, 1] {
        assert_eq!(found(service, &maja, "MAR", limit).await, by_bytes, "in pages of {limit}");
    }
    // Neither of these is a wildcard.
    assert_eq!(found(service, &maja, "mar_", 0).await, ["mar_1"]);
    assert_eq!(found(service, &maja, "100%", 0).await, ["amar"]);
    assert!(found(service, &maja, "%", 0).await.is_empty());
    assert_eq!(found(service, &maja, "äp", 0).await, ["max"]);
    assert_eq!(found(service, &maja, "maja", 0).await, ["maja"]);
}

// === what the stories say ===

fn newcomer(username: &str) -> chat::RegisterRequest {
    chat::RegisterRequest { username: username.to_owned(), password: PASSWORD.to_owned(), ..Default::default() }
}

fn login(username: &str, password: &str) -> chat::LoginRequest {
    chat::LoginRequest { username: username.to_owned(), password: password.to_owned(), device: None }
}

pub(crate) async fn logs_in(service: &Service, username: &str) -> Person {
    Person::from(service.accounts().login(login(username, PASSWORD)).await.unwrap().into_inner())
}

fn refresh(token: &str, attempt: Option<Uuid>) -> chat::RefreshRequest {
    chat::RefreshRequest {
        refresh_token: token.to_owned(),
        attempt: attempt.map(|attempt| attempt.as_bytes().to_vec().into()),
    }
}

fn change(person: &Person, old: &str, new: &str) -> chat::ChangePasswordRequest {
    chat::ChangePasswordRequest { actor: person.actor.clone(), old: old.to_owned(), new: new.to_owned() }
}

fn sessions_of(person: &Person, limit: i64, cursor: &str) -> Request<chat::ListSessionsRequest> {
    let page = Some(chat::Page { limit, cursor: cursor.to_owned() });
    Request::new(chat::ListSessionsRequest { actor: person.actor.clone(), page })
}

fn find(person: &Person, query: &str, limit: i64, cursor: &str) -> chat::FindUsersRequest {
    let page = Some(chat::Page { limit, cursor: cursor.to_owned() });
    chat::FindUsersRequest { actor: person.actor.clone(), query: query.to_owned(), page }
}

/// The usernames that a search gives, page by page.
async fn found(service: &Service, person: &Person, query: &str, limit: i64) -> Vec<String> {
    let (mut usernames, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = service.accounts().find_users(find(person, query, limit, &cursor)).await.unwrap().into_inner();
        usernames.extend(page.items.into_iter().map(|user| user.username));
        match page.next_cursor {
            Some(next) => cursor = next,
            None => return usernames,
        }
    }
}
