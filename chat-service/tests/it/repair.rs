//! Catching up: changes of a room for a member, repair and heads for a gateway, and what of a user still stands.

use std::collections::HashSet;

use parlance_proto::{chat, event::room_event, v1};
use service_kit::id::RoomId;
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{Room, stream},
    refused, stories,
};

stories! {
    changes_are_the_newest_state_of_everything_that_moved
    changes_come_in_pages_that_ascend
    what_cannot_be_proven_is_truncated
    hidden_messages_do_not_hide_that_there_is_too_much
    a_repair_is_chained_and_leads_to_the_present
    a_long_repair_comes_in_steps
    heads_are_in_the_order_asked
    what_of_a_user_stands
    who_may_be_watched
}

async fn changes(service: &Service, person: &Person, room: &Room, after_rev: i64, limit: i64) -> v1::Changes {
    let request = chat::ChangesRequest { actor: person.actor.clone(), room: room.clone(), after_rev, limit };
    service.messages().changes(request).await.unwrap().into_inner()
}

/// Fills a room on one stream.
async fn fills(service: &Service, person: &Person, room: &Room, count: usize) {
    let items = (0..count).map(|n| person.send(room, &n.to_string())).collect();
    assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
}

async fn changes_are_the_newest_state_of_everything_that_moved(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let old = service.says(&maja, &room, "old").await;
    let gone = service.says(&noor, &room, "to be deleted").await;
    let held = service.view(&maja, &room).await.rev;

    service.messages().edit(maja.edit(&room, old.seq, "edited once")).await.unwrap();
    service.says(&maja, &room, "new").await;
    service.messages().edit(maja.edit(&room, old.seq, "edited twice")).await.unwrap();
    service.messages().delete(noor.message(&room, gone.seq)).await.unwrap();
    service.rooms().put_member(maja.puts(&room, &ben)).await.unwrap();
    let promotion = chat::PutMemberRequest { role: Some(v1::Role::Admin.into()), ..maja.puts(&room, &ben) };
    service.rooms().put_member(promotion).await.unwrap();
    service.rooms().remove_member(maja.about(&room, &noor)).await.unwrap();
    let name = chat::PatchRoomRequest { name: Some("another name".to_owned()), ..maja.patch(&room) };
    service.rooms().patch(name).await.unwrap();

    let changes = changes(service, &maja, &room, held, 0).await;
    let view = service.view(&maja, &room).await;
    assert_eq!((changes.from_rev, changes.rev, changes.more, changes.truncated), (held, view.rev, false, false));
    let texts: Vec<(i64, &str, bool)> = changes
        .messages
        .iter()
        .filter(|message| message.kind == i32::from(v1::MessageKind::Text))
        .map(|message| (message.seq, message.text.as_str(), message.deleted_at.is_some()))
        .collect();
    assert_eq!(texts, [(3, "new", false), (1, "edited twice", false), (2, "", true)]);
    assert!(changes.messages.is_sorted_by_key(|message| message.rev));
    let members: Vec<_> = changes.members.iter().map(|member| (member.user.clone().unwrap().id, member.role)).collect();
    assert_eq!(members, [(ben.wire(), i32::from(v1::Role::Admin))]);
    assert_eq!(changes.removed, [noor.wire()]);
    let info = changes.info.unwrap();
    assert_eq!((info.name.as_deref(), info.me, info.last_message), (Some("another name"), None, None));
}

async fn changes_come_in_pages_that_ascend(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, []).await;
    let start = service.view(&maja, &room).await.rev;
    fills(service, &maja, &room, 7).await;
    service.rooms().put_member(maja.puts(&room, &noor)).await.unwrap();
    let name = chat::PatchRoomRequest { name: Some("another name".to_owned()), ..maja.patch(&room) };
    service.rooms().patch(name).await.unwrap();

    let (mut held, mut rows, mut infos) = (start, Vec::new(), 0);
    loop {
        let page = changes(service, &maja, &room, held, 3).await;
        assert!(!page.truncated);
        let mut revs: Vec<i64> = page.messages.iter().map(|message| message.rev).collect();
        revs.extend(page.members.iter().map(|member| member.rev));
        infos += page.info.iter().len();
        assert!(revs.len() + page.info.iter().len() <= 3);
        assert!(revs.iter().all(|rev| *rev > held && *rev <= page.rev), "{revs:?} after {held} up to {}", page.rev);
        rows.extend(revs);
        held = page.rev;
        if !page.more {
            break;
        }
    }
    rows.sort_unstable();
    let expected: Vec<i64> = (start + 1..held).collect();
    assert_eq!((rows, infos), (expected, 1));
    assert_eq!(held, service.view(&maja, &room).await.rev);
    let mut messages = service.messages();
    for limit in [-1, 501] {
        let request = chat::ChangesRequest { actor: maja.actor.clone(), room: room.clone(), after_rev: 0, limit };
        assert!(refused(messages.changes(request).await, Code::InvalidArgument).starts_with("limit:"));
    }
    let request = chat::ChangesRequest { actor: noor.actor.clone(), room: room.clone(), after_rev: 0, limit: 0 };
    assert!(messages.changes(request).await.unwrap().into_inner().truncated, "from before the membership");
}

async fn what_cannot_be_proven_is_truncated(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, []).await;
    let held = service.view(&maja, &room).await.rev;
    fills(service, &maja, &room, 500).await;
    let exactly = changes(service, &maja, &room, held, 500).await;
    assert_eq!((exactly.messages.len(), exactly.more, exactly.truncated), (500, false, false));
    service.says(&maja, &room, "one too many").await;
    let rev = service.view(&maja, &room).await.rev;
    let nothing = |from_rev| v1::Changes { room: room.clone(), from_rev, rev, truncated: true, ..Default::default() };
    assert_eq!(changes(service, &maja, &room, held, 500).await, nothing(held));
    assert_eq!(changes(service, &maja, &room, rev + 1, 0).await, nothing(rev + 1));
    let present = changes(service, &maja, &room, rev, 0).await;
    assert_eq!(present, v1::Changes { room: room.clone(), from_rev: rev, rev, ..Default::default() });

    service.rooms().join(noor.on(&room)).await.unwrap();
    let before = changes(service, &noor, &room, rev, 0).await;
    assert!(before.truncated && before.messages.is_empty());
    let since = changes(service, &noor, &room, rev + 1, 0).await;
    assert_eq!((since.truncated, since.messages.len()), (false, 1), "the notice came after the membership");
    let stranger = service.crowd(1).await.remove(0);
    let request = chat::ChangesRequest { actor: stranger.actor.clone(), room: room.clone(), after_rev: 0, limit: 0 };
    refused(service.messages().changes(request).await, Code::NotFound);
}

async fn hidden_messages_do_not_hide_that_there_is_too_much(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, []).await;
    let patch = chat::PatchRoomRequest { history_joined: Some(true), ..maja.patch(&room) };
    service.rooms().patch(patch).await.unwrap();
    fills(service, &maja, &room, 3).await;
    let held = service.rooms().join(noor.on(&room)).await.unwrap().into_inner().rev;
    for seq in 1..=3 {
        service.messages().edit(maja.edit(&room, seq, "from before noor came")).await.unwrap();
    }
    fills(service, &maja, &room, 500).await;

    // Five hundred rows are for noor; with those that are hidden it is more than is read.
    let missed = changes(service, &noor, &room, held, 500).await;
    let rev = service.view(&noor, &room).await.rev;
    assert_eq!(missed.rev, rev);
    assert!(missed.truncated || missed.messages.len() == 500, "{} messages are said to be all", missed.messages.len());
}

async fn repair(service: &Service, room: &Room, after_rev: i64) -> chat::RepairReply {
    let request = chat::RepairRequest { room: room.clone(), after_rev };
    service.sync().repair(request).await.unwrap().into_inner()
}

async fn a_repair_is_chained_and_leads_to_the_present(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let first = service.says(&maja, &room, "first").await;
    let held = service.view(&maja, &room).await.rev;
    service.rooms().put_member(maja.puts(&room, &ben)).await.unwrap();
    service.messages().edit(maja.edit(&room, first.seq, "a")).await.unwrap();
    service.messages().edit(maja.edit(&room, first.seq, "b")).await.unwrap();
    service.rooms().remove_member(maja.about(&room, &noor)).await.unwrap();
    service.rooms().archive(maja.on(&room)).await.unwrap();

    let reply = repair(service, &room, held).await;
    assert!(!reply.more);
    let (mut at, mut kinds) = (held, Vec::new());
    for event in &reply.events {
        let follows = if event.prev == 0 { event.rev - 1 } else { event.prev };
        assert_eq!(follows, at, "rev {} does not follow", event.rev);
        assert_eq!(event.prev != 0, event.rev != at + 1, "prev is only given when it says something");
        at = event.rev;
        kinds.push(match event.kind.as_ref().unwrap() {
            room_event::Kind::Message(message) if message.seq == first.seq => "edit",
            room_event::Kind::Message(_) => "notice",
            room_event::Kind::Member(_) => "member",
            room_event::Kind::Removed(_) => "removed",
            room_event::Kind::Info(_) => "info",
            room_event::Kind::Resync(_) => "resync",
        });
    }
    assert_eq!((at, reply.rev), (service.view(&maja, &room).await.rev, at));
    assert_eq!(kinds, ["member", "notice", "edit", "removed", "notice", "info"]);
    let nothing = repair(service, &room, at).await;
    assert_eq!((nothing.events.len(), nothing.rev, nothing.more), (0, at, false));
}

async fn a_long_repair_comes_in_steps(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    fills(service, &maja, &room, 700).await;
    let head = service.view(&maja, &room).await.rev;
    let (mut held, mut steps, mut events) = (0, 0, 0);
    loop {
        let reply = repair(service, &room, held).await;
        assert_eq!(reply.rev, head);
        events += reply.events.len();
        held = reply.events.last().unwrap().rev;
        steps += 1;
        if !reply.more {
            break;
        }
    }
    // The room itself, its owner, and the messages.
    assert_eq!((held, steps, events), (head, 2, 702));
}

async fn heads_are_in_the_order_asked(service: &Service) {
    let [maja, noor] = service.people().await;
    let mut rooms = vec![service.group(&maja, [&noor]).await, service.group(&maja, []).await];
    fills(service, &maja, &rooms[1], 3).await;
    let nowhere = RoomId::generate().to_wire();
    let heads = async |rooms: &[Room], users: &[&Person]| {
        let users = users.iter().map(|person| person.wire()).collect();
        service.sync().heads(chat::HeadsRequest { rooms: rooms.to_vec(), users }).await.unwrap().into_inner()
    };
    let revs = [service.view(&maja, &rooms[0]).await.rev, service.view(&maja, &rooms[1]).await.rev];
    rooms.insert(1, nowhere);
    let before = heads(&rooms, &[&noor, &maja]).await;
    assert_eq!(before.rooms, [revs[0], 0, revs[1]]);
    service.rooms().remove_member(maja.about(&rooms[0], &noor)).await.unwrap();
    let after = heads(&rooms, &[&noor, &maja]).await;
    assert_eq!(after.users, [before.users[0] + 1, before.users[1]]);
    assert_eq!(after.rooms[0], revs[0] + 2, "the removal and its notice");
}

async fn what_of_a_user_stands(service: &Service) {
    let maja = service.registers("maja").await;
    let room = service.group(&maja, []).await;
    let again = crate::accounts::logs_in(service, "maja").await;
    service.accounts().logout(maja.actor()).await.unwrap();
    let sessions = vec![maja.actor().session, again.actor().session];
    let request = chat::StandingRequest { user: maja.wire(), sessions };
    let standing = service.sync().standing(request).await.unwrap().into_inner();
    assert_eq!(standing.revoked, [maja.actor().session]);
    let view = service.view(&again, &room).await;
    let rooms: Vec<_> = standing.memberships.iter().map(|membership| (&membership.room, membership.rev)).collect();
    assert_eq!(rooms, [(&room, view.rev)]);
    let heads = chat::HeadsRequest { rooms: Vec::new(), users: vec![maja.wire()] };
    assert_eq!(service.sync().heads(heads).await.unwrap().into_inner().users, [standing.user_rev]);
    let list = service.sync().memberships(again.actor()).await.unwrap().into_inner();
    assert_eq!((list.items, list.user_rev), (standing.memberships, standing.user_rev));
}

async fn who_may_be_watched(service: &Service) {
    let [maja, friend, shy, stranger, former] = service.people().await;
    let room = service.group(&maja, [&friend, &shy, &former]).await;
    service.rooms().leave(former.on(&room)).await.unwrap();
    let patch = chat::PatchMeRequest { actor: shy.actor.clone(), presence: Some(false), ..Default::default() };
    service.accounts().patch_me(patch).await.unwrap();
    let everybody = [&maja, &friend, &shy, &stranger, &former];
    let request = chat::WatchableRequest {
        actor: maja.actor.clone(),
        users: everybody.iter().map(|person| person.wire()).collect(),
    };
    let users = service.sync().watchable(request).await.unwrap().into_inner().users;
    assert_eq!(users.into_iter().collect::<HashSet<_>>(), HashSet::from([maja.wire(), friend.wire()]));
    let request = chat::WatchableRequest { actor: maja.actor.clone(), users: vec![friend.wire(); 501] };
    refused(service.sync().watchable(request).await, Code::InvalidArgument);
}
