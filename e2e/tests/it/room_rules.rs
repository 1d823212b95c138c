//! What the settings and the state of a room allow: announcements, slow mode, mutes, archives, transfers, the list of channels.

use e2e::{Stack, eventually};
use parlance_client::wire::Role;
use parlance_client::{Code, Draft, Event};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::is_refused;

stories!(
    only_admins_write_in_an_announcement_room,
    slow_mode_holds_members_back,
    a_muted_member_reads_only,
    who_is_added_muted_is_shown_muted,
    an_archived_room_stands_still,
    a_room_is_handed_over,
    channels_are_found_by_their_name,
    an_idempotency_key_is_its_users_own,
    users_are_found_by_the_beginning_of_their_name,
);

async fn only_admins_write_in_an_announcement_room(stack: &Stack) {
    let (alice, adam, mia) = (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await);
    let room = alice.makes_a_group("news", &[&adam, &mia]).await.id;
    alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();
    let (adams, mias) = (adam.on(0).await, mia.on(1).await);
    is_refused(mia.api.patch_room(room, json!({ "settings": { "announcement": true } })).await, Code::Forbidden);

    alice.api.patch_room(room, json!({ "settings": { "announcement": true } })).await.unwrap();
    mias.sees("announcement", |event| {
        matches!(event, Event::Room(e) if e.info.id == room && e.info.settings.announcement).then_some(())
    })
    .await;

    is_refused(mias.connection.send(room, &Draft::text("may I?")).await, Code::Forbidden);
    is_refused(mia.api_at(1).post_message(room, &Draft::text("may I?")).await, Code::Forbidden);
    adams.sends(room, "read this").await;
    mias.receives("read this").await;

    alice.api_at(1).patch_room(room, json!({ "settings": { "announcement": false } })).await.unwrap();
    mias.sends(room, "thank you").await;
}

async fn slow_mode_holds_members_back(stack: &Stack) {
    let (alice, mia) = (stack.user("alice").await, stack.user("mia").await);
    let room = alice.makes_a_group("slow", &[&mia]).await.id;
    alice.api.patch_room(room, json!({ "settings": { "slow_mode_s": 2 } })).await.unwrap();
    let (desk, mias) = (alice.on(0).await, mia.on(1).await);

    let (first, second) = (Draft::text("first"), Draft::text("second"));
    mias.sends_draft(room, &first).await;
    let refusal = mias.connection.send(room, &second).await.unwrap_err();
    assert_eq!(refusal.code(), Some(Code::RateLimited), "{refusal}");
    let wait = refusal.retry_after_ms().unwrap();
    assert!((1..=2_000).contains(&wait), "{wait}");
    assert!(mias.sends_draft(room, &first).await.duplicate, "a repeat is answered whatever the pause");
    desk.sends(room, "the owner may").await;
    desk.sends(room, "as often as she likes").await;

    let sent = eventually("the end of the pause", async || mias.connection.send(room, &second).await.ok()).await;
    assert!(!sent.duplicate);
    is_refused(alice.api.patch_room(room, json!({ "settings": { "slow_mode_s": -1 } })).await, Code::BadRequest);
}

async fn a_muted_member_reads_only(stack: &Stack) {
    let (alice, adam, mia) = (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await);
    let room = alice.makes_a_group("quiet", &[&adam, &mia]).await.id;
    alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();
    let mias = mia.on(1).await;
    let later = mias.welcome.server_time + 3_600_000;

    is_refused(mia.api.mute_member(room, adam.id(), later).await, Code::Forbidden);
    is_refused(adam.api.mute_member(room, alice.id(), later).await, Code::Forbidden);
    let muted = adam.api.mute_member(room, mia.id(), later).await.unwrap();
    assert_eq!((muted.muted_until, muted.role), (Some(later), Role::Member));
    mias.sees("mute", |event| {
        matches!(event, Event::Member(e) if e.member.user.id == mia.id() && e.member.muted_until == Some(later))
            .then_some(())
    })
    .await;

    is_refused(mias.connection.send(room, &Draft::text("mmm")).await, Code::Forbidden);
    alice.on(0).await.sends(room, "you can hear me").await;
    mias.receives("you can hear me").await;

    let lifted = adam.api_at(1).mute_member(room, mia.id(), 0).await.unwrap();
    assert_eq!(lifted.muted_until, None);
    mias.sends(room, "at last").await;
}

async fn who_is_added_muted_is_shown_muted(stack: &Stack) {
    let (alice, bob, mia) = (stack.user("alice").await, stack.user("bob").await, stack.user("mia").await);
    let room = alice.makes_a_group("quiet from the start", &[&bob]).await.id;
    let bobs = bob.on(1).await;
    let later = bobs.welcome.server_time + 3_600_000;

    let added = alice.api.mute_member(room, mia.id(), later).await.unwrap();
    assert_eq!(added.muted_until, Some(later));
    let told = bobs
        .sees("member", |event| match event {
            Event::Member(e) if e.member.user.id == mia.id() => Some(e.member.clone()),
            _ => None,
        })
        .await;
    assert_eq!((told.rev, told.muted_until), (added.rev, Some(later)), "the event says what is stored under its rev");
    is_refused(mia.on(0).await.connection.send(room, &Draft::text("mmm")).await, Code::Forbidden);
}

async fn an_archived_room_stands_still(stack: &Stack) {
    let (alice, bob, eve) = (stack.user("alice").await, stack.user("bob").await, stack.user("eve").await);
    let room = alice.makes_a_channel("over").await.id;
    bob.api.join(room).await.unwrap();
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let sent = desk.sends(room, "the last word").await;

    is_refused(bob.api.archive(room).await, Code::Forbidden);
    is_refused(eve.api.archive(room).await, Code::NotFound);
    alice.api.archive(room).await.unwrap();
    bobs.sees("archived", |event| {
        matches!(event, Event::Room(e) if e.info.id == room && e.info.archived).then_some(())
    })
    .await;

    is_refused(bobs.connection.send(room, &Draft::text("one more")).await, Code::Unprocessable);
    is_refused(desk.connection.edit(room, sent.seq, "another").await, Code::Unprocessable);
    is_refused(alice.api.patch_room(room, json!({ "name": "again" })).await, Code::Unprocessable);
    is_refused(alice.api.put_member(room, eve.id(), None).await, Code::Unprocessable);
    is_refused(eve.api.join(room).await, Code::Unprocessable);
    let page = bob.api_at(1).history(room, Default::default()).await.unwrap();
    assert!(page.items.iter().any(|message| message.text == "the last word"), "it can be read");
    alice.api.archive(room).await.unwrap();
    assert!(bob.api.room(room).await.unwrap().archived);
}

async fn a_room_is_handed_over(stack: &Stack) {
    let (alice, bob, eve) = (stack.user("alice").await, stack.user("bob").await, stack.user("eve").await);
    let room = alice.makes_a_group("inheritance", &[&bob]).await.id;
    let bobs = bob.on(1).await;

    is_refused(bob.api.transfer(room, bob.id()).await, Code::Forbidden);
    is_refused(alice.api.transfer(room, eve.id()).await, Code::Unprocessable);
    let handed = alice.api.transfer(room, bob.id()).await.unwrap();
    assert_eq!(handed.me.role, Role::Admin);
    for (user, role) in [(alice.id(), Role::Admin), (bob.id(), Role::Owner)] {
        bobs.sees("the new role", |event| {
            matches!(event, Event::Member(e) if e.member.user.id == user && e.member.role == role).then_some(())
        })
        .await;
    }

    assert_eq!(bob.api_at(1).room(room).await.unwrap().me.role, Role::Owner);
    is_refused(alice.api.archive(room).await, Code::Forbidden);
    is_refused(bob.api.leave(room).await, Code::Unprocessable);
    alice.api.leave(room).await.unwrap();
}

async fn channels_are_found_by_their_name(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let word = Uuid::new_v4().simple().to_string();
    let garden = alice.makes_a_channel(&format!("Garden {word}")).await.id;
    let percent = alice.makes_a_channel(&format!("100%_{word}")).await.id;
    let over = alice.makes_a_channel(&format!("Closed {word}")).await.id;
    alice.makes_a_group(&format!("Secret garden {word}"), &[]).await;
    alice.api.archive(over).await.unwrap();
    let found = async |query: &str| {
        let list = bob.api_at(1).channels(query, None).await.unwrap();
        list.items.into_iter().map(|room| room.id).collect::<Vec<_>>()
    };

    assert_eq!(found(&word).await, [percent, garden], "newest first; no groups, nothing archived");
    assert_eq!(found(&format!("garden {word}")).await, [garden], "in either case");
    assert_eq!(found(&format!("100%_{word}")).await, [percent]);
    assert_eq!(found(&format!("1%{word}")).await, [], "what is typed is no pattern");
    let joined = bob.api.join(garden).await.unwrap();
    assert_eq!(joined.me.role, Role::Member);
    assert!(found("").await.len() >= 2);
}

async fn an_idempotency_key_is_its_users_own(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let key = Uuid::new_v4().to_string();
    let make = async |person: &e2e::Person, name: &str| {
        let api = person.api_at(1).with_idempotency_key(&key);
        api.call(Method::POST, "/v1/rooms", Some(json!({ "kind": "channel", "name": name }))).await.unwrap()
    };
    let (first, other) = (make(&alice, "hers").await, make(&bob, "his").await);
    assert_ne!(first.1["id"], other.1["id"]);
    assert_eq!(make(&alice, "something else").await, first, "the same key, the same answer");
    let two_words = alice.api.with_idempotency_key("two words");
    let refused = two_words.call(Method::POST, "/v1/rooms", Some(json!({ "kind": "group", "name": "x" }))).await;
    is_refused(refused, Code::BadRequest);
}

async fn users_are_found_by_the_beginning_of_their_name(stack: &Stack) {
    let (alice, zoe) = (stack.user("alice").await, stack.user("zoe").await);
    let name = format!("Zoë {}", Uuid::new_v4().simple());
    zoe.api.patch_me(json!({ "display_name": name })).await.unwrap();
    let found = async |query: &str| {
        let list = alice.api_at(1).find_users(query).await.unwrap();
        list.items.into_iter().map(|user| user.id).collect::<Vec<_>>()
    };

    assert_eq!(found(&zoe.username).await, [zoe.id()]);
    assert_eq!(found(&zoe.username.to_uppercase()).await, [zoe.id()]);
    assert_eq!(found(&name[..20]).await, [zoe.id()], "by the name that is shown");
    assert_eq!(found(&name.to_lowercase()).await, [zoe.id()]);
    assert_eq!(found(&name[6..]).await, [], "not by its middle");
    is_refused(alice.api.find_users("").await, Code::BadRequest);
    is_refused(zoe.api.patch_me(json!({ "display_name": "" })).await, Code::BadRequest);
    is_refused(zoe.api.patch_me(json!({ "display_name": "x".repeat(129) })).await, Code::BadRequest);
    assert_eq!(zoe.api.me().await.unwrap().display_name, name);
}
