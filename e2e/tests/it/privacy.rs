//! What a user has switched off is not shown to others.

use e2e::{Device, Person, Stack, eventually};
use parlance_client::wire::Member;
use parlance_client::{Event, RoomId, UserId};
use serde_json::json;

stories!(receipts_can_be_switched_off, presence_can_be_switched_off, who_shares_no_room_any_more_is_not_reported);

async fn member(asker: &Person, room: RoomId, user: UserId) -> Member {
    let members = asker.api_at(1).members(room, None).await.unwrap().items;
    members.into_iter().find(|member| member.user.id == user).unwrap()
}

async fn receipts_can_be_switched_off(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    bob.api.patch_me(json!({ "privacy": { "receipts": false } })).await.unwrap();

    let first = desk.sends(room, "read this").await;
    bobs.receives("read this").await;
    bobs.connection.read(room, first.seq).await.unwrap();
    assert_eq!(member(&alice, room, bob.id()).await.read_seq, None);
    assert_eq!(member(&bob, room, bob.id()).await.read_seq, Some(first.seq), "his own he sees");
    assert_eq!(bob.api.room(room).await.unwrap().me.unread, 0);

    bob.api.patch_me(json!({ "privacy": { "receipts": true } })).await.unwrap();
    let second = desk.sends(room, "and this").await;
    bobs.receives("and this").await;
    bobs.connection.read(room, second.seq).await.unwrap();
    let read = |event: &Event| match event {
        Event::Receipt(receipt) if receipt.room == room && receipt.user == bob.id() => receipt.read_seq,
        _ => None,
    };
    desk.sees("receipt", |event| (read(event) == Some(second.seq)).then_some(())).await;
    assert!(!desk.heard().iter().any(|event| read(event) == Some(first.seq)), "read while it was switched off");
}

async fn presence_can_be_switched_off(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    alice.makes_a_group("present", &[&bob, &carol]).await;
    let (desk, bobs, carols) = (alice.on(0).await, bob.on(1).await, carol.on(1).await);
    desk.connection.watch(&[bob.id(), carol.id()], &[]).await.unwrap();
    eventually("bob online", async || (state(&desk, bob.id()).await == "online").then_some(())).await;

    bob.api.patch_me(json!({ "privacy": { "presence": false } })).await.unwrap();
    eventually("bob hidden", async || (state(&desk, bob.id()).await == "offline").then_some(())).await;
    bobs.connection.status("dnd").await.unwrap();
    carols.connection.status("away").await.unwrap();
    desk.sees("carol away", |event| said(event, carol.id(), "away").then_some(())).await;
    assert!(!desk.heard().iter().any(|event| said(event, bob.id(), "dnd")), "it was switched off");
    let asked = alice.api_at(1).presence(&[bob.id()]).await.unwrap();
    assert!(asked.iter().all(|p| p.state == "offline" && p.last_seen.is_none()), "{asked:?}");

    bob.api.patch_me(json!({ "privacy": { "presence": true } })).await.unwrap();
    eventually("bob shown again", async || (state(&desk, bob.id()).await == "dnd").then_some(())).await;
}

async fn who_shares_no_room_any_more_is_not_reported(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = bob.makes_a_group("shared", &[&alice]).await.id;
    alice.direct_with(&carol).await;
    let (desk, bobs, carols) = (alice.on(0).await, bob.on(1).await, carol.on(1).await);
    desk.connection.watch(&[bob.id(), carol.id()], &[]).await.unwrap();
    bobs.connection.status("away").await.unwrap();
    desk.sees("bob away", |event| said(event, bob.id(), "away").then_some(())).await;

    bob.api_at(1).remove_member(room, alice.id()).await.unwrap();
    desk.sees("left", |event| matches!(event, Event::Left(left) if left.room == room).then_some(())).await;
    assert_eq!(state(&desk, bob.id()).await, "offline", "she may not ask any more");
    bobs.connection.status("dnd").await.unwrap();
    carols.connection.status("away").await.unwrap();
    desk.sees("carol away", |event| said(event, carol.id(), "away").then_some(())).await;
    assert!(!desk.heard().iter().any(|event| said(event, bob.id(), "dnd")), "nor is she told");
}

/// What watching says now; who is left out is as good as offline.
async fn state(device: &Device, user: UserId) -> String {
    let watched = device.connection.watch(&[user], &[]).await.unwrap().presence;
    watched.into_iter().find(|p| p.user == user).map_or_else(|| "offline".to_owned(), |p| p.state)
}

fn said(event: &Event, user: UserId, state: &str) -> bool {
    matches!(event, Event::Presence(p) if p.user == user && p.state == state)
}
