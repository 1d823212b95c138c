//! The answer to `hello` and `sync`: rooms, what changed in those that are held, and what was left.

use std::collections::HashMap;

use futures_util::future;
use parlance_proto::{chat, v1};
use service_kit::id::RoomId;
use tonic::{Code, Response, Status};

use crate::{
    Person, Service,
    chat_world::{Room, stream},
    refused, stories,
};

stories! {
    a_first_hello_lists_everything
    only_rooms_that_moved_are_listed_again
    an_own_change_lists_the_room_without_changes
    another_generation_starts_everything_anew
    a_room_held_from_before_a_membership_is_truncated
    rooms_that_were_left_are_named
    a_thousand_rows_are_enough
    two_hundred_rooms_are_listed_newest_first
    many_hellos_at_once_are_answered_each_their_own
}

async fn hello(
    service: &Service,
    person: &Person,
    generation: Option<&str>,
    held: &[(&Room, i64, Option<i64>)],
) -> Result<Response<chat::HelloReply>, Status> {
    let rooms =
        held.iter().map(|(room, rev, me_rev)| chat::HeldRoom { room: (*room).clone(), rev: *rev, me_rev: *me_rev });
    let request = chat::HelloRequest {
        actor: person.actor.clone(),
        generation: generation.map(str::to_owned),
        rooms: rooms.collect(),
    };
    service.sync().hello(request).await
}

async fn greets(service: &Service, person: &Person, held: &[(&Room, i64, Option<i64>)]) -> chat::HelloReply {
    hello(service, person, None, held).await.unwrap().into_inner()
}

fn listed(reply: &chat::HelloReply) -> Vec<Room> {
    reply.rooms.iter().map(|room| room.id.clone()).collect()
}

async fn a_first_hello_lists_everything(service: &Service) {
    let [maja, noor] = service.people().await;
    let quiet = service.group(&maja, [&noor]).await;
    let lively = service.group(&noor, [&maja]).await;
    service.says(&noor, &quiet, "hello").await;
    let last = service.says(&noor, &lively, "hello again").await;
    let reply = greets(service, &maja, &[]).await;
    assert_eq!(listed(&reply), [lively.clone(), quiet.clone()]);
    assert_eq!(reply.rooms[0], service.view(&maja, &lively).await);
    assert_eq!(reply.rooms[0].last_message.as_ref(), Some(&last));
    assert_eq!(reply.rooms[0].me.as_ref().unwrap().unread, 1);
    assert_eq!((reply.changes.len(), reply.left.len(), reply.next_cursor), (0, 0, None));
    assert_eq!(reply.user.unwrap().id, maja.wire());
    let list = service.sync().memberships(maja.actor()).await.unwrap().into_inner();
    assert_eq!((list.items, list.user_rev), (reply.memberships, reply.user_rev));
}

async fn only_rooms_that_moved_are_listed_again(service: &Service) {
    let [maja, noor] = service.people().await;
    let (still, moved) = (service.group(&maja, []).await, service.group(&maja, [&noor]).await);
    let new = service.group(&maja, []).await;
    let revs = [service.view(&maja, &still).await.rev, service.view(&maja, &moved).await.rev];
    let said = service.says(&noor, &moved, "news").await;
    let reply = greets(service, &maja, &[(&still, revs[0], None), (&moved, revs[1], None)]).await;
    assert_eq!(listed(&reply), [moved.clone(), new]);
    let [changes] = reply.changes.try_into().unwrap();
    assert_eq!((changes.room, changes.from_rev, changes.rev), (moved.clone(), revs[1], said.rev));
    assert_eq!(changes.messages, std::slice::from_ref(&said));
    assert_eq!(reply.memberships.len(), 3);

    let ahead = greets(service, &maja, &[(&moved, said.rev + 5, None)]).await;
    assert!(ahead.changes[0].truncated);
    assert_eq!(ahead.changes[0].rev, said.rev);
}

async fn an_own_change_lists_the_room_without_changes(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let before = service.view(&maja, &room).await;
    let me_rev = before.me.unwrap().rev;
    let request = chat::PatchMineRequest {
        actor: maja.actor.clone(),
        room: room.clone(),
        draft: Some("unfinished".to_owned()),
        ..Default::default()
    };
    let me = service.rooms().patch_mine(request).await.unwrap().into_inner();
    assert_eq!(me.rev, me_rev + 1);
    let reply = greets(service, &maja, &[(&room, before.rev, Some(me_rev))]).await;
    assert_eq!((reply.rooms[0].me.as_ref(), reply.changes.len()), (Some(&me), 0));
    assert!(listed(&greets(service, &maja, &[(&room, before.rev, Some(me.rev))]).await).is_empty());
    // Who does not know the own rev is not told of it.
    assert!(listed(&greets(service, &maja, &[(&room, before.rev, None)]).await).is_empty());
}

async fn another_generation_starts_everything_anew(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let rev = service.view(&maja, &room).await.rev;
    let generation = greets(service, &maja, &[]).await.generation;
    let same = hello(service, &maja, Some(&generation), &[(&room, rev, None)]).await.unwrap().into_inner();
    assert!(same.rooms.is_empty() && same.changes.is_empty());
    let other = hello(service, &maja, Some("of another life"), &[(&room, rev, None)]).await.unwrap().into_inner();
    assert_eq!(listed(&other), std::slice::from_ref(&room));
    let nothing = v1::Changes { room, from_rev: rev, rev, truncated: true, ..Default::default() };
    assert_eq!(other.changes, [nothing]);
}

async fn a_room_held_from_before_a_membership_is_truncated(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, [&noor]).await;
    let held = service.view(&noor, &room).await.rev;
    service.rooms().leave(noor.on(&room)).await.unwrap();
    service.says(&maja, &room, "not for noor's cache").await;
    service.rooms().join(noor.on(&room)).await.unwrap();
    let reply = greets(service, &noor, &[(&room, held, None)]).await;
    assert!(reply.changes[0].truncated && reply.changes[0].messages.is_empty());
    assert_eq!(reply.changes[0].rev, reply.rooms[0].rev);
}

async fn rooms_that_were_left_are_named(service: &Service) {
    let [maja, noor] = service.people().await;
    let (left, never) = (service.group(&maja, [&noor]).await, service.group(&maja, []).await);
    let rev = service.view(&noor, &left).await.rev;
    service.rooms().leave(noor.on(&left)).await.unwrap();
    let nowhere = RoomId::generate().to_wire();
    let reply = greets(service, &noor, &[(&left, rev, None), (&never, 1, None), (&nowhere, 1, None)]).await;
    let mut named = reply.left.clone();
    named.sort();
    let mut expected = vec![left, never, nowhere];
    expected.sort();
    assert_eq!(named, expected);
    assert!(reply.rooms.is_empty() && reply.changes.is_empty());
}

async fn a_thousand_rows_are_enough(service: &Service) {
    let [maja] = service.people().await;
    let mut held = Vec::new();
    for _ in 0..11 {
        let room = service.group(&maja, []).await;
        held.push((room.clone(), service.view(&maja, &room).await.rev));
    }
    // In each room ninety messages and a name: ninety-one rows, and in the eleven of them one too many.
    let items = (0..990).map(|n| maja.send(&held[n % 11].0, "one of many")).collect();
    assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
    for (room, _) in &held {
        let name = chat::PatchRoomRequest { name: Some("another name".to_owned()), ..maja.patch(room) };
        service.rooms().patch(name).await.unwrap();
    }
    let given: Vec<(&Room, i64, Option<i64>)> = held.iter().map(|(room, rev)| (room, *rev, None)).collect();
    let reply = greets(service, &maja, &given).await;
    assert_eq!(reply.changes.len(), 11);
    let rows = |changes: &v1::Changes| {
        changes.messages.len() + changes.members.len() + changes.removed.len() + changes.info.iter().len()
    };
    let all: usize = reply.changes.iter().map(rows).sum();
    let truncated = reply.changes.iter().filter(|changes| changes.truncated).count();
    assert!(all <= 1_000, "{all} rows");
    assert_eq!((all, truncated), (910, 1));
    let revs: HashMap<Room, i64> = reply.rooms.iter().map(|room| (room.id.clone(), room.rev)).collect();
    assert!(reply.changes.iter().all(|changes| revs[&changes.room] == changes.rev && !changes.more));
}

async fn two_hundred_rooms_are_listed_newest_first(service: &Service) {
    let [maja] = service.people().await;
    let mut rooms = Vec::new();
    for _ in 0..203 {
        rooms.push(service.group(&maja, []).await);
    }
    service.says(&maja, &rooms[0], "the oldest room is the liveliest").await;
    let reply = greets(service, &maja, &[]).await;
    assert_eq!((reply.rooms.len(), reply.memberships.len()), (200, 203));
    assert_eq!(reply.rooms[0].id, rooms[0]);
    let page = chat::Page { limit: 10, cursor: reply.next_cursor.clone().unwrap() };
    let request = chat::ListRoomsRequest { actor: maja.actor.clone(), page: Some(page), ..Default::default() };
    let rest = service.rooms().list(request).await.unwrap().into_inner();
    assert_eq!((rest.items.len(), rest.next_cursor), (3, None));
    let mut all = listed(&reply);
    all.extend(rest.items.iter().map(|room| room.id.clone()));
    all.sort();
    rooms.sort();
    assert_eq!(all, rooms);
    let active = |room: &v1::Room| room.last_message.as_ref().map_or(room.created_at, |message| message.at);
    assert!(reply.rooms.iter().map(active).is_sorted_by(|newer, older| newer >= older));
}

async fn many_hellos_at_once_are_answered_each_their_own(service: &Service) {
    let crowd = service.crowd(40).await;
    let shared = service.group(&crowd[0], &crowd[1..]).await;
    let rev = service.view(&crowd[0], &shared).await.rev;
    let mut own = Vec::new();
    for person in &crowd {
        own.push(service.group(person, []).await);
    }
    service.says(&crowd[0], &shared, "to everybody").await;
    let revoked = &crowd[7];
    service.accounts().logout(revoked.actor()).await.unwrap();
    let impostor = Person {
        actor: Some(chat::Actor { user: crowd[1].wire(), session: crowd[2].actor().session }),
        ..crowd[1].clone()
    };

    let held = [(&shared, rev, None)];
    let everybody = crowd.iter().chain([&impostor]).map(|person| hello(service, person, None, &held));
    let answers = future::join_all(everybody).await;
    for (place, answer) in answers.into_iter().enumerate() {
        if place == 7 || place == crowd.len() {
            refused(answer, Code::Unauthenticated);
            continue;
        }
        let reply = answer.unwrap().into_inner();
        assert_eq!(reply.user.as_ref().unwrap().id, crowd[place].wire());
        assert_eq!(listed(&reply), [shared.clone(), own[place].clone()]);
        assert_eq!(reply.changes[0].messages[0].text, "to everybody");
        assert_eq!(reply.rooms[0].me.as_ref().unwrap().unread, i64::from(place != 0));
    }
}
