//! Rooms: making, listing, changing, joining and leaving them.

use e2e::Stack;
use futures_util::future::join;
use parlance_client::wire::{Role, RoomKind};
use parlance_client::{Code, Event, RoomId};
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::is_refused;

stories!(
    a_direct_room_is_the_same_from_both_sides,
    members_of_a_new_group_are_told,
    a_repeated_creation_makes_one_room,
    the_list_pages_newest_activity_first,
    a_room_can_be_renamed,
    a_channel_is_joined_and_left,
    the_owner_does_not_leave,
    direct_rooms_do_not_change,
);

async fn a_direct_room_is_the_same_from_both_sides(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let bobs_api = bob.api_at(1);

    let (hers, his) = join(alice.api.direct(bob.id()), bobs_api.direct(alice.id())).await;
    let (hers, his) = (hers.unwrap(), his.unwrap());

    assert_eq!(hers.body.id, his.body.id);
    assert_ne!(hers.created, his.created, "one of them made it");
    assert!(!alice.api.direct(bob.id()).await.unwrap().created);
    assert_eq!((hers.body.kind, hers.body.seq, hers.body.member_count), (RoomKind::Direct, 0, 2));
    assert_eq!(hers.body.peer.as_ref().map(|peer| peer.id), Some(bob.id()));
    assert_eq!(his.body.peer.as_ref().map(|peer| peer.id), Some(alice.id()));
    for device in [&desk, &bobs] {
        device
            .sees("joined", |event| matches!(event, Event::Joined(room) if room.id == hers.body.id).then_some(()))
            .await;
    }
    is_refused(alice.api.direct(parlance_client::UserId(Uuid::now_v7())).await, Code::NotFound);
}

async fn members_of_a_new_group_are_told(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let bobs = bob.on(1).await;

    let room = alice.makes_a_group("tea party", &[&bob, &carol]).await;

    assert_eq!((room.kind, room.name.as_deref(), room.member_count), (RoomKind::Group, Some("tea party"), 3));
    assert_eq!(room.me.role, Role::Owner);
    let joined = bobs
        .sees("joined", |event| match event {
            Event::Joined(joined) if joined.id == room.id => Some(joined.clone()),
            _ => None,
        })
        .await;
    assert_eq!((joined.me.role, joined.me.unread), (Role::Member, 0));
    let members = bob.api.members(room.id, None).await.unwrap().items;
    let mut ids: Vec<_> = members.iter().map(|member| member.user.id).collect();
    let mut expected = vec![alice.id(), bob.id(), carol.id()];
    ids.sort();
    expected.sort();
    assert_eq!(ids, expected);
}

async fn a_repeated_creation_makes_one_room(stack: &Stack) {
    let alice = stack.user("alice").await;
    let key = Uuid::new_v4().to_string();
    let make = async |gateway| {
        let api = alice.api_at(gateway).with_idempotency_key(&key);
        api.call(Method::POST, "/v1/rooms", Some(json!({ "kind": "group", "name": "once" }))).await.unwrap()
    };
    let (first, second) = (make(0).await, make(1).await);
    assert_eq!(first, second);
    assert_eq!(alice.api.rooms(None, 50).await.unwrap().items.len(), 1);
}

async fn the_list_pages_newest_activity_first(stack: &Stack) {
    let alice = stack.user("alice").await;
    let desk = alice.on(0).await;
    let mut rooms: Vec<RoomId> = Vec::new();
    for n in 0..5 {
        rooms.push(alice.makes_a_group(&format!("room {n}"), &[]).await.id);
    }
    desk.sends(rooms[0], "the newest activity").await;
    rooms.reverse();
    rooms.rotate_right(1);

    let mut listed = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let page = alice.api_at(1).rooms(cursor.as_deref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        listed.extend(page.items.iter().map(|room| room.id));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(listed, rooms);
    let newest = alice.api.room(rooms[0]).await.unwrap();
    assert_eq!(newest.last_message.as_ref().map(|m| m.text.as_str()), Some("the newest activity"));
    is_refused(alice.api.rooms(Some("no cursor"), 2).await, Code::BadRequest);
    is_refused(alice.api.rooms(None, 201).await, Code::BadRequest);
}

async fn a_room_can_be_renamed(stack: &Stack) {
    let (alice, bob, eve) = (stack.user("alice").await, stack.user("bob").await, stack.user("eve").await);
    let room = alice.makes_a_group("old name", &[&bob]).await;
    let bobs = bob.on(1).await;

    let patched = alice.api.patch_room(room.id, json!({ "name": "new name", "topic": "tea" })).await.unwrap();

    assert_eq!((patched.name.as_deref(), patched.topic.as_deref()), (Some("new name"), Some("tea")));
    let seen = bobs
        .sees("room", |event| match event {
            Event::Room(e) if e.info.id == room.id && e.info.name.as_deref() == Some("new name") => {
                Some(e.info.clone())
            }
            _ => None,
        })
        .await;
    assert!(seen.rev > room.rev);
    is_refused(bob.api.patch_room(room.id, json!({ "name": "mine" })).await, Code::Forbidden);
    is_refused(eve.api.patch_room(room.id, json!({ "name": "mine" })).await, Code::NotFound);
    is_refused(eve.api.room(room.id).await, Code::NotFound);
    is_refused(alice.api.patch_room(room.id, json!({ "name": 5 })).await, Code::BadRequest);
}

async fn a_channel_is_joined_and_left(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let room = alice.makes_a_channel("news").await.id;
    desk.sends(room, "before bob").await;

    let joined = bob.api.join(room).await.unwrap();
    assert_eq!((joined.kind, joined.me.unread, joined.me.read_seq), (RoomKind::Channel, 0, joined.seq));
    // The room that she has made may reach her device after he has joined: then it says so itself.
    desk.sees("bob's joining", |event| match event {
        Event::Member(e) => (e.member.user.id == bob.id()).then_some(()),
        Event::Joined(e) => (e.id == room && e.member_count == 2).then_some(()),
        _ => None,
    })
    .await;
    bobs.sees("joined", |event| matches!(event, Event::Joined(e) if e.id == room).then_some(())).await;
    desk.sends(room, "hello bob").await;
    bobs.receives("hello bob").await;

    bob.api.leave(room).await.unwrap();
    desk.sees("removed", |event| matches!(event, Event::Removed(e) if e.user == bob.id()).then_some(())).await;
    bobs.sees("left", |event| matches!(event, Event::Left(e) if e.room == room).then_some(())).await;
    let group = alice.makes_a_group("closed", &[]).await.id;
    is_refused(bob.api.join(group).await, Code::NotFound);
}

async fn the_owner_does_not_leave(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("mine", &[&bob]).await.id;
    is_refused(alice.api.leave(room).await, Code::Unprocessable);
    bob.api.leave(room).await.unwrap();
}

async fn direct_rooms_do_not_change(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = alice.direct_with(&bob).await;
    is_refused(alice.api.leave(room).await, Code::Unprocessable);
    is_refused(carol.api.leave(room).await, Code::NotFound);
    for refused in
        [alice.api.put_member(room, carol.id(), None).await.map(drop), alice.api.remove_member(room, bob.id()).await]
    {
        let code = refused.unwrap_err().code();
        // Permission is checked before the state, and members of a direct room are nobody's to manage.
        assert!(matches!(code, Some(Code::Unprocessable | Code::Forbidden)), "{code:?}");
    }
    assert_eq!(alice.api.room(room).await.unwrap().member_count, 2);
}
