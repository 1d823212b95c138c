//! Who is away is pushed, and everybody is told why or why not.

use e2e::{Person, PushService, Stack, eventually};
use parlance_client::{Code, RoomId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::is_refused;

stories!(
    who_is_away_gets_a_push_unless_it_was_read_elsewhere,
    devices_are_listed_updated_and_removed,
    settings_are_kept_and_checked,
);

async fn get(person: &Person, path: &str) -> Value {
    person.api_at(1).call(Method::GET, path, None).await.unwrap().1
}

async fn push_service(person: &Person) -> PushService {
    let vapid = get(person, "/v1/devices/vapid").await;
    PushService::start(vapid["public_key"].as_str().unwrap()).await
}

/// Waits for the one decision on a message.
async fn why(person: &Person, room: RoomId, seq: u64, outcome: &str) -> Value {
    let path = format!("/v1/rooms/{room}/messages/{seq}/why");
    eventually(outcome, async || {
        let why = get(person, &path).await;
        let decision = why["decisions"].get(0).cloned()?;
        assert_eq!((&why["message"]["seq"], &why["decisions"].as_array().unwrap().len()), (&json!(seq), &1));
        (decision["outcome"] == outcome).then_some(decision)
    })
    .await
}

async fn who_is_away_gets_a_push_unless_it_was_read_elsewhere(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = alice.makes_a_group("team", &[&bob, &carol]).await.id;
    let service = push_service(&bob).await;
    let (status, device) = bob.api.call(Method::POST, "/v1/devices", Some(service.subscription())).await.unwrap();
    assert_eq!(status, StatusCode::CREATED);
    let desk = alice.on(0).await;

    let sent = desk.sends(room, "are you there?").await;
    let decision = why(&bob, room, sent.seq, "sent").await;
    assert_eq!((&decision["reason"], &decision["platform"]), (&"delivered".into(), &"webpush".into()));
    assert_eq!(decision["device"], device["id"]);
    let [push] = &service.pushes()[..] else { panic!("one push: {:?}", service.pushes()) };
    let body = format!("{}: are you there?", alice.user().display_name);
    assert_eq!((&push["kind"], &push["title"], &push["body"]), (&"message".into(), &"team".into(), &body.into()));
    assert_eq!((&push["room"], &push["seq"]), (&json!(room), &json!(sent.seq)));
    assert_eq!((&push["sender"], &push["room_name"]), (&json!(alice.id()), &"team".into()));

    let read = desk.sends(room, "read on another device").await;
    let path = format!("/v1/rooms/{room}/read");
    bob.api_at(1).call(Method::PUT, &path, Some(json!({ "seq": read.seq }))).await.unwrap();
    assert_eq!(why(&bob, room, read.seq, "cancelled").await["reason"], "read_elsewhere");
    let again = service.pushes().iter().filter(|push| push["seq"] == read.seq && push["kind"] == "message").count();
    assert_eq!(again, 0, "it was read");

    let bobs = bob.on(1).await;
    let seen = desk.sends(room, "welcome back").await;
    bobs.receives("welcome back").await;
    assert_eq!(why(&bob, room, seen.seq, "skipped").await["reason"], "online");
    bobs.connection.status("invisible").await.unwrap();
    eventually("bob is hidden", async || {
        let watched = desk.connection.watch(&[bob.id()], &[]).await.unwrap().presence;
        watched.iter().any(|presence| presence.state == "offline").then_some(())
    })
    .await;
    let unseen = desk.sends(room, "are you still there?").await;
    bobs.receives("are you still there?").await;
    assert_eq!(why(&bob, room, unseen.seq, "skipped").await["reason"], "online", "he has it on his screen");

    assert_eq!(why(&carol, room, seen.seq, "skipped").await["reason"], "no_device");
    let own = get(&alice, &format!("/v1/rooms/{room}/messages/{}/why", seen.seq)).await;
    assert_eq!(own["decisions"], json!([]), "nobody is pushed what they wrote");
    let others = format!("/v1/rooms/{room}/messages/{}/why?user={}", seen.seq, bob.id());
    is_refused(alice.api.call(Method::GET, &others, None).await, Code::Forbidden);
    let stranger = stack.user("dave").await;
    is_refused(stranger.api.call(Method::GET, &others, None).await, Code::NotFound);
}

async fn devices_are_listed_updated_and_removed(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let service = push_service(&alice).await;
    let mut subscription = service.subscription();
    let (status, first) = alice.api.call(Method::POST, "/v1/devices", Some(subscription.clone())).await.unwrap();
    assert_eq!((status, &first["platform"]), (StatusCode::CREATED, &"webpush".into()));
    subscription["name"] = "laptop".into();
    let (status, again) = alice.api_at(1).call(Method::POST, "/v1/devices", Some(subscription)).await.unwrap();
    assert_eq!((status, &again["id"], &again["name"]), (StatusCode::OK, &first["id"], &"laptop".into()));
    assert_eq!(get(&alice, "/v1/devices").await, json!({ "items": [again], "next_cursor": null }));
    assert_eq!(get(&bob, "/v1/devices").await["items"], json!([]));

    let path = format!("/v1/devices/{}", first["id"].as_str().unwrap());
    let test = format!("{path}/test");
    is_refused(bob.api.call(Method::POST, &test, None).await, Code::NotFound);
    let (status, _) = alice.api_at(1).call(Method::POST, &test, None).await.unwrap();
    assert_eq!((status, service.pushes().len()), (StatusCode::NO_CONTENT, 1));
    is_refused(bob.api.call(Method::DELETE, &path, None).await, Code::NotFound);
    let (status, _) = alice.api.call(Method::DELETE, &path, None).await.unwrap();
    assert_eq!(status, StatusCode::NO_CONTENT);
    is_refused(alice.api.call(Method::DELETE, &path, None).await, Code::NotFound);
    let mail = json!({ "platform": "email", "address": "a@example.com" });
    is_refused(alice.api.call(Method::POST, "/v1/devices", Some(mail)).await, Code::Unprocessable);
}

async fn settings_are_kept_and_checked(stack: &Stack) {
    let alice = stack.user("alice").await;
    let path = "/v1/notifications/settings";
    assert_eq!(get(&alice, path).await, json!({ "privacy": "full", "quiet_hours": null }));
    let quiet = json!({ "from": "22:00", "to": "07:30", "time_zone": "Europe/Berlin" });
    let settings = json!({ "privacy": "sender", "quiet_hours": quiet });
    let (status, _) = alice.api.call(Method::PUT, path, Some(settings.clone())).await.unwrap();
    assert_eq!((status, get(&alice, path).await), (StatusCode::NO_CONTENT, settings.clone()));
    for (field, value) in [("from", "24:00"), ("from", "7:30"), ("to", "22:00"), ("to", "+1:00"), ("time_zone", "x")] {
        let mut bad = settings.clone();
        bad["quiet_hours"][field] = value.into();
        is_refused(alice.api.call(Method::PUT, path, Some(bad)).await, Code::BadRequest);
    }
    assert_eq!(get(&alice, path).await, settings);
    alice.api.call(Method::PUT, path, Some(json!({}))).await.unwrap();
    assert_eq!(get(&alice, path).await, json!({ "privacy": "full", "quiet_hours": null }));
}
