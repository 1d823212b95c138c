//! Rooms: making them, joining and leaving, what a newcomer sees, settings and their end.

use std::collections::HashSet;

use parlance_proto::{
    chat,
    event::{room_event, user_event},
    v1,
};
use service_kit::clock;
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{Room, failed, retry_after, stream},
    refused, stories,
};

stories! {
    a_direct_room_is_the_same_from_both_sides
    an_idempotency_key_makes_one_room
    a_new_room_has_its_members_and_nothing_to_read
    a_join_counts_as_read
    newcomers_see_only_what_came_after_them
    who_joins_again_starts_anew
    a_mute_survives_leaving_and_joining_again
    an_archived_room_is_only_read
    an_announcement_room_is_written_by_admins
    slow_mode_names_the_time_to_wait
    a_mute_ends_by_itself
    what_is_already_so_takes_no_rev
    an_edit_and_a_deletion_belong_to_their_sender
    channels_are_found_and_joined_groups_are_not
}

fn direct(actor: &Person, other: &Person) -> chat::OpenDirectRequest {
    chat::OpenDirectRequest { actor: actor.actor.clone(), user: other.wire() }
}

async fn a_direct_room_is_the_same_from_both_sides(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let (mut one, mut other) = (service.rooms(), service.rooms());
    let (here, there) = tokio::join!(one.open_direct(direct(&maja, &noor)), other.open_direct(direct(&noor, &maja)));
    let (here, there) = (here.unwrap().into_inner(), there.unwrap().into_inner());
    assert!(here.created ^ there.created);
    let (of_maja, of_noor) = (here.room.unwrap(), there.room.unwrap());
    assert_eq!((&of_maja.id, of_maja.seq, of_maja.name), (&of_noor.id, 0, None));
    assert_eq!((of_maja.peer.unwrap().id, of_noor.peer.unwrap().id), (noor.wire(), maja.wire()));
    let again = one.open_direct(direct(&maja, &noor)).await.unwrap().into_inner();
    assert_eq!((again.created, again.room.unwrap().id), (false, of_maja.id.clone()));
    assert_eq!(service.says(&noor, &of_maja.id, "hi").await.seq, 1);

    let room = &of_maja.id;
    refused(one.leave(maja.on(room)).await, Code::FailedPrecondition);
    refused(one.put_member(maja.puts(room, &ben)).await, Code::FailedPrecondition);
    refused(one.remove_member(maja.about(room, &noor)).await, Code::FailedPrecondition);
    refused(one.archive(maja.on(room)).await, Code::FailedPrecondition);
    refused(one.open_direct(direct(&maja, &maja)).await, Code::FailedPrecondition);
    let nobody = Person { id: service_kit::id::UserId::generate(), ..ben.clone() };
    refused(one.open_direct(direct(&maja, &nobody)).await, Code::NotFound);
    refused(one.get(ben.on(room)).await, Code::NotFound);
}

async fn an_idempotency_key_makes_one_room(service: &Service) {
    let [maja, noor] = service.people().await;
    let create = async |person: &Person, key: &str| {
        let request = chat::CreateRoomRequest {
            actor: person.actor.clone(),
            kind: v1::RoomKind::Group.into(),
            name: "once".to_owned(),
            idempotency_key: Some(key.to_owned()),
            ..Default::default()
        };
        service.rooms().create(request).await.unwrap().into_inner().id
    };
    let (one, same) = tokio::join!(create(&maja, "key"), create(&maja, "key"));
    assert_eq!(one, same);
    let others = [create(&maja, "another key").await, create(&noor, "key").await, one.clone()];
    assert_eq!(others.iter().collect::<HashSet<_>>().len(), 3);
    service.changes("update idempotency_keys set at = at - 86400001").await;
    assert_ne!(create(&maja, "key").await, one, "a day later the key is free again");
}

async fn a_new_room_has_its_members_and_nothing_to_read(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor, &noor, &maja]).await;
    for person in [&maja, &noor] {
        let joined = service.user_event(person.id).await;
        assert_eq!(joined.kind, Some(user_event::Kind::Joined(room.clone())));
    }
    let view = service.view(&noor, &room).await;
    let me = view.me.unwrap();
    assert_eq!((view.seq, view.member_count, me.unread, me.role), (0, 2, 0, v1::Role::Member.into()));
    assert_eq!(service.view(&maja, &room).await.me.unwrap().role, i32::from(v1::Role::Owner));
    assert_eq!(service.says(&noor, &room, "first").await.seq, 1);
}

async fn a_join_counts_as_read(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, []).await;
    service.says(&maja, &room, "before").await;
    let joined = service.rooms().join(noor.on(&room)).await.unwrap().into_inner();
    let me = joined.me.unwrap();
    assert_eq!((joined.seq, me.read_seq, me.unread, joined.member_count), (2, 2, 0, 2));
    let notice = joined.last_message.unwrap();
    assert_eq!(notice.kind, i32::from(v1::MessageKind::System));
    assert_eq!(service.view(&maja, &room).await.me.unwrap().unread, 1, "notices count for the others");
    let again = service.rooms().join(noor.on(&room)).await.unwrap().into_inner();
    assert_eq!((again.seq, again.rev), (joined.seq, joined.rev), "who is in the room stays so");
    assert_eq!(service.history(&noor, &room).await.len(), 2, "all of the history is for newcomers too");
}

async fn newcomers_see_only_what_came_after_them(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, []).await;
    let patch = chat::PatchRoomRequest { history_joined: Some(true), ..maja.patch(&room) };
    service.rooms().patch(patch).await.unwrap();
    service.says(&maja, &room, "secret").await;
    let joined = service.rooms().join(noor.on(&room)).await.unwrap().into_inner();
    let member = service.room_event(&room, |event| match &event.kind {
        Some(room_event::Kind::Member(member)) => Some(member.visible_from_seq),
        _ => None,
    });
    assert_eq!(member.await, 1);
    let seqs = async |person: &Person| -> Vec<i64> {
        service.history(person, &room).await.iter().map(|message| message.seq).collect()
    };
    assert_eq!((seqs(&noor).await, seqs(&maja).await), (vec![2], vec![1, 2]));
    let mut messages = service.messages();
    refused(messages.get(noor.message(&room, 1)).await, Code::NotFound);
    let around = chat::HistoryRequest {
        actor: noor.actor.clone(),
        room: room.clone(),
        around: Some(1),
        limit: 10,
        ..Default::default()
    };
    let page = messages.history(around).await.unwrap().into_inner();
    assert_eq!((page.items.len(), page.has_more), (1, false));
    let reply = parlance_proto::chat::SendItem { reply_to: Some(1), ..noor.send(&room, "to what I may not see") };
    failed(&stream(&service.client, vec![reply]).await[0], Code::FailedPrecondition);

    messages.edit(maja.edit(&room, 1, "still secret")).await.unwrap();
    let request =
        chat::ChangesRequest { actor: noor.actor.clone(), room: room.clone(), after_rev: joined.rev, limit: 0 };
    let changes = messages.changes(request).await.unwrap().into_inner();
    assert_eq!((changes.messages.len(), changes.rev), (0, joined.rev + 1));
    let request = chat::RoomRequest { actor: noor.actor.clone(), room: room.clone() };
    let read = service.sync().read_room(request).await.unwrap().into_inner();
    assert_eq!(read.membership.unwrap().visible_from_seq, 1);

    // A group has no notice after which the last message could hide.
    service.changes("update members set visible_from_seq = 2 where role = 1").await;
    assert_eq!(service.view(&noor, &room).await.last_message, None);
    assert!(service.view(&maja, &room).await.last_message.is_some());
}

async fn who_joins_again_starts_anew(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, [&noor]).await;
    let mine = chat::PatchMineRequest {
        actor: noor.actor.clone(),
        room: room.clone(),
        muted_until: Some(i64::MAX / 2),
        notify: Some(v1::Notify::None.into()),
        favourite: Some(true),
        draft: Some("half".to_owned()),
    };
    let before = service.rooms().patch_mine(mine).await.unwrap().into_inner();
    assert!(before.favourite && before.draft.is_some() && before.muted_until.is_some());
    service.rooms().leave(noor.on(&room)).await.unwrap();
    refused(service.rooms().get(noor.on(&room)).await, Code::NotFound);
    service.says(&maja, &room, "meanwhile").await;
    let me = service.rooms().join(noor.on(&room)).await.unwrap().into_inner().me.unwrap();
    assert!(me.rev > before.rev, "{} after {}", me.rev, before.rev);
    let fresh = v1::Me {
        rev: me.rev,
        role: v1::Role::Member.into(),
        read_seq: 3,
        notify: v1::Notify::All.into(),
        ..Default::default()
    };
    assert_eq!(me, fresh);
}

async fn a_mute_survives_leaving_and_joining_again(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.channel(&maja, [&noor]).await;
    let until = clock::now_ms() + 600_000;
    let mute = chat::PutMemberRequest { muted_until: Some(until), ..maja.puts(&room, &noor) };
    service.rooms().put_member(mute).await.unwrap();
    service.rooms().leave(noor.on(&room)).await.unwrap();
    service.rooms().join(noor.on(&room)).await.unwrap();
    failed(&stream(&service.client, vec![noor.send(&room, "free?")]).await[0], Code::PermissionDenied);
}

async fn an_archived_room_is_only_read(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.channel(&maja, [&noor]).await;
    let said = service.says(&noor, &room, "last words").await;
    let mut rooms = service.rooms();
    refused(rooms.archive(noor.on(&room)).await, Code::PermissionDenied);
    refused(rooms.archive(ben.on(&room)).await, Code::NotFound);
    rooms.archive(maja.on(&room)).await.unwrap();
    let view = service.view(&noor, &room).await;
    assert!(view.archived);
    rooms.archive(maja.on(&room)).await.unwrap();
    failed(&stream(&service.client, vec![noor.send(&room, "more")]).await[0], Code::FailedPrecondition);
    refused(service.messages().edit(noor.edit(&room, said.seq, "other")).await, Code::FailedPrecondition);
    refused(service.messages().delete(noor.message(&room, said.seq)).await, Code::FailedPrecondition);
    let patch = chat::PatchRoomRequest { name: Some("other".to_owned()), ..maja.patch(&room) };
    refused(rooms.patch(patch).await, Code::FailedPrecondition);
    refused(rooms.put_member(maja.puts(&room, &ben)).await, Code::FailedPrecondition);
    refused(rooms.join(ben.on(&room)).await, Code::FailedPrecondition);
    assert_eq!(service.history(&noor, &room).await, [said]);
    assert_eq!(service.view(&noor, &room).await.rev, view.rev);
    rooms.leave(noor.on(&room)).await.unwrap();
}

async fn an_announcement_room_is_written_by_admins(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.group(&maja, [&noor, &ben]).await;
    let admin = chat::PutMemberRequest { role: Some(v1::Role::Admin.into()), ..maja.puts(&room, &noor) };
    service.rooms().put_member(admin).await.unwrap();
    let patch = chat::PatchRoomRequest { announcement: Some(true), ..maja.patch(&room) };
    service.rooms().patch(patch).await.unwrap();
    let items = vec![maja.send(&room, "hear"), noor.send(&room, "me"), ben.send(&room, "too")];
    let answers = stream(&service.client, items).await;
    assert!(answers[0].is_ok() && answers[1].is_ok());
    failed(&answers[2], Code::PermissionDenied);
}

async fn slow_mode_names_the_time_to_wait(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let patch = chat::PatchRoomRequest { slow_mode_s: Some(60), ..maja.patch(&room) };
    service.rooms().patch(patch).await.unwrap();
    let two = |person: &Person| vec![person.send(&room, "one"), person.send(&room, "two")];
    let answers = stream(&service.client, two(&noor)).await;
    assert!(answers[0].is_ok());
    let wait = failed(&answers[1], Code::ResourceExhausted).retry_after_ms.unwrap();
    assert!((50_000..=60_000).contains(&wait), "{wait}");
    let status = service.messages().post(noor.post(noor.send(&room, "three"))).await.unwrap_err();
    assert!((50_000..=60_000).contains(&retry_after(&status).unwrap()));
    assert!(stream(&service.client, two(&maja)).await.iter().all(Result::is_ok), "admins and the owner do not wait");
    service.changes("update members set sent_at = sent_at - 60000").await;
    assert!(stream(&service.client, two(&noor)).await[0].is_ok());
}

async fn a_mute_ends_by_itself(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let until = clock::now_ms() + 600_000;
    let mute = |person: &Person, until| chat::PutMemberRequest { muted_until: Some(until), ..maja.puts(&room, person) };
    service.rooms().put_member(mute(&noor, until)).await.unwrap();
    let answers = stream(&service.client, vec![noor.send(&room, "mmm")]).await;
    let wait = failed(&answers[0], Code::PermissionDenied).retry_after_ms.unwrap();
    assert!((590_000..=600_000).contains(&wait), "{wait}");
    service.changes("update members set muted_until = 1 where muted_until is not null").await;
    service.says(&noor, &room, "free").await;
    service.rooms().put_member(mute(&noor, until)).await.unwrap();
    service.rooms().put_member(mute(&noor, 0)).await.unwrap();
    service.says(&noor, &room, "free again").await;

    // Added with a mute: everybody hears of it at once, not after the next read.
    let added = service.rooms().put_member(mute(&ben, until)).await.unwrap().into_inner();
    assert_eq!((added.added, added.member.unwrap().muted_until), (true, Some(until)));
    let told = service.room_event(&room, |event| match &event.kind {
        Some(room_event::Kind::Member(changed)) => {
            changed.member.clone().filter(|member| member.user.as_ref().unwrap().id == ben.wire())
        }
        _ => None,
    });
    assert_eq!(told.await.muted_until, Some(until));
}

async fn what_is_already_so_takes_no_rev(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let said = service.says(&maja, &room, "as it is").await;
    let gone = service.says(&maja, &room, "gone").await;
    let rev = service.messages().delete(maja.message(&room, gone.seq)).await.unwrap().into_inner().rev;
    let mute = chat::PutMemberRequest { muted_until: Some(0), ..maja.puts(&room, &noor) };
    let name = chat::PatchRoomRequest { name: Some("a room".to_owned()), ..maja.patch(&room) };
    let edited = service.messages().edit(maja.edit(&room, said.seq, "as it is")).await.unwrap().into_inner();
    assert_eq!((edited.rev, edited.edited_at), (said.rev, None));
    assert_eq!(service.messages().delete(maja.message(&room, gone.seq)).await.unwrap().into_inner().rev, rev);
    assert!(!service.rooms().put_member(mute).await.unwrap().into_inner().added);
    assert_eq!(service.rooms().patch(name).await.unwrap().into_inner().rev, rev);
}

async fn an_edit_and_a_deletion_belong_to_their_sender(service: &Service) {
    let [maja, noor, ben, stranger] = service.people().await;
    let room = service.group(&maja, [&noor, &ben]).await;
    let said = service.says(&noor, &room, "mine").await;
    let mut messages = service.messages();
    for person in [&maja, &ben] {
        refused(messages.edit(person.edit(&room, said.seq, "not yours")).await, Code::PermissionDenied);
    }
    refused(messages.edit(stranger.edit(&room, said.seq, "not yours")).await, Code::NotFound);
    refused(messages.edit(noor.edit(&room, 99, "nothing")).await, Code::NotFound);
    refused(messages.edit(noor.edit(&room, said.seq, "a\0")).await, Code::InvalidArgument);
    refused(messages.delete(ben.message(&room, said.seq)).await, Code::PermissionDenied);
    refused(messages.delete(stranger.message(&room, said.seq)).await, Code::NotFound);
    messages.delete(maja.message(&room, said.seq)).await.unwrap();
    refused(messages.edit(noor.edit(&room, said.seq, "back")).await, Code::OutOfRange);
    let left = messages.get(noor.message(&room, said.seq)).await.unwrap().into_inner();
    assert_eq!((left.text.as_str(), left.client_id, left.deleted_at.is_some()), ("", said.client_id, true));
}

async fn channels_are_found_and_joined_groups_are_not(service: &Service) {
    let [maja, noor] = service.people().await;
    let (channel, group): (Room, Room) = (service.channel(&maja, []).await, service.group(&maja, []).await);
    let find = async |query: &str| {
        let request = chat::ListRoomsRequest {
            actor: noor.actor.clone(),
            public: true,
            query: Some(query.to_owned()),
            ..Default::default()
        };
        service.rooms().list(request).await.unwrap().into_inner().items
    };
    let found = find("A RO").await;
    assert_eq!(found.iter().map(|room| &room.id).collect::<Vec<_>>(), [&channel]);
    assert_eq!((&found[0].me, &found[0].last_message), (&None, &None));
    assert!(find("%").await.is_empty());
    refused(service.rooms().join(noor.on(&group)).await, Code::NotFound);
    service.rooms().join(noor.on(&channel)).await.unwrap();
}
