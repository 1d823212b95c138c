//! Who may do what to whom in a room: owners, admins, members, and those outside.

use parlance_proto::{
    chat,
    event::{room_event, user_event},
    v1::Role,
};
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{Room, failed, stream},
    refused, stories,
};

stories! {
    roles_are_given_only_below_ones_own
    only_admins_and_the_owner_remove
    the_owner_leaves_only_after_a_transfer
    whoever_is_outside_does_not_know_of_the_room
    a_removal_cuts_the_member_off_at_its_rev
    members_come_in_pages
    messages_by_their_places_are_those_that_one_may_see
    only_ones_own_pushes_are_explained
}

/// A room with its owner, an admin and two members.
struct Cast {
    room: Room,
    owner: Person,
    admin: Person,
    member: Person,
    other: Person,
}

async fn cast(service: &Service) -> Cast {
    let [owner, admin, member, other] = service.people().await;
    let room = service.group(&owner, [&admin, &member, &other]).await;
    service.rooms().put_member(with_role(&owner, &room, &admin, Role::Admin)).await.unwrap();
    Cast { room, owner, admin, member, other }
}

fn with_role(actor: &Person, room: &Room, person: &Person, role: Role) -> chat::PutMemberRequest {
    chat::PutMemberRequest { role: Some(role.into()), ..actor.puts(room, person) }
}

async fn roles_are_given_only_below_ones_own(service: &Service) {
    let Cast { room, owner, admin, member, other } = cast(service).await;
    let mut rooms = service.rooms();
    let denied = Code::PermissionDenied;
    refused(rooms.put_member(with_role(&member, &room, &other, Role::Member)).await, denied);
    refused(rooms.put_member(with_role(&member, &room, &member, Role::Admin)).await, denied);
    refused(rooms.put_member(with_role(&admin, &room, &member, Role::Admin)).await, denied);
    refused(rooms.put_member(with_role(&admin, &room, &owner, Role::Member)).await, denied);
    refused(rooms.put_member(with_role(&admin, &room, &admin, Role::Member)).await, denied);
    refused(rooms.put_member(with_role(&owner, &room, &owner, Role::Admin)).await, denied);
    refused(rooms.put_member(with_role(&owner, &room, &member, Role::Owner)).await, Code::FailedPrecondition);

    let second = rooms.put_member(with_role(&owner, &room, &member, Role::Admin)).await.unwrap().into_inner();
    assert_eq!((second.added, second.member.unwrap().role), (false, Role::Admin.into()));
    refused(rooms.put_member(with_role(&admin, &room, &member, Role::Member)).await, denied);
    rooms.put_member(with_role(&owner, &room, &member, Role::Member)).await.unwrap();
    let silence = chat::PutMemberRequest { muted_until: Some(i64::MAX / 2), ..admin.puts(&room, &member) };
    rooms.put_member(silence).await.unwrap();
    let silence = chat::PutMemberRequest { muted_until: Some(i64::MAX / 2), ..admin.puts(&room, &owner) };
    refused(rooms.put_member(silence).await, denied);

    let patch = |person: &Person| chat::PatchRoomRequest { topic: Some("news".to_owned()), ..person.patch(&room) };
    refused(rooms.patch(patch(&other)).await, denied);
    assert_eq!(rooms.patch(patch(&admin)).await.unwrap().into_inner().topic.as_deref(), Some("news"));
}

async fn only_admins_and_the_owner_remove(service: &Service) {
    let Cast { room, owner, admin, member, other } = cast(service).await;
    let mut rooms = service.rooms();
    refused(rooms.remove_member(member.about(&room, &other)).await, Code::PermissionDenied);
    refused(rooms.remove_member(admin.about(&room, &owner)).await, Code::PermissionDenied);
    rooms.remove_member(admin.about(&room, &member)).await.unwrap();
    refused(rooms.remove_member(admin.about(&room, &member)).await, Code::NotFound);
    rooms.remove_member(other.about(&room, &other)).await.unwrap();
    refused(rooms.remove_member(owner.about(&room, &owner)).await, Code::FailedPrecondition);
    rooms.remove_member(owner.about(&room, &admin)).await.unwrap();
    assert_eq!(service.view(&owner, &room).await.member_count, 1);
}

async fn the_owner_leaves_only_after_a_transfer(service: &Service) {
    let Cast { room, owner, admin, member, .. } = cast(service).await;
    let [stranger] = service.people().await;
    let mut rooms = service.rooms();
    refused(rooms.leave(owner.on(&room)).await, Code::FailedPrecondition);
    refused(rooms.transfer(admin.about(&room, &admin)).await, Code::PermissionDenied);
    refused(rooms.transfer(owner.about(&room, &stranger)).await, Code::FailedPrecondition);
    let before = service.view(&owner, &room).await.rev;
    let view = rooms.transfer(owner.about(&room, &member)).await.unwrap().into_inner();
    assert_eq!((view.me.unwrap().role, view.rev), (Role::Admin.into(), before + 2));
    assert_eq!(service.view(&member, &room).await.me.unwrap().role, i32::from(Role::Owner));
    refused(rooms.transfer(owner.about(&room, &owner)).await, Code::PermissionDenied);
    rooms.leave(owner.on(&room)).await.unwrap();
    refused(rooms.leave(owner.on(&room)).await, Code::NotFound);
    refused(rooms.leave(member.on(&room)).await, Code::FailedPrecondition);
}

async fn whoever_is_outside_does_not_know_of_the_room(service: &Service) {
    let Cast { room, owner, member, other, .. } = cast(service).await;
    let said = service.says(&member, &room, "inside").await;
    let [stranger] = service.people().await;
    service.rooms().remove_member(owner.about(&room, &other)).await.unwrap();
    let (mut rooms, mut messages) = (service.rooms(), service.messages());
    let hidden = Code::NotFound;
    for person in [&stranger, &other] {
        refused(rooms.get(person.on(&room)).await, hidden);
        refused(rooms.join(person.on(&room)).await, hidden);
        refused(rooms.leave(person.on(&room)).await, hidden);
        refused(rooms.archive(person.on(&room)).await, hidden);
        refused(rooms.transfer(person.about(&room, &member)).await, hidden);
        refused(rooms.patch(person.patch(&room)).await, hidden);
        refused(rooms.put_member(person.puts(&room, &stranger)).await, hidden);
        refused(rooms.remove_member(person.about(&room, &member)).await, hidden);
        let list = chat::ListMembersRequest { actor: person.actor.clone(), room: room.clone(), page: None };
        refused(rooms.list_members(list).await, hidden);
        let mine = chat::PatchMineRequest { actor: person.actor.clone(), room: room.clone(), ..Default::default() };
        refused(rooms.patch_mine(mine).await, hidden);
        let history = chat::HistoryRequest { actor: person.actor.clone(), room: room.clone(), ..Default::default() };
        refused(messages.history(history).await, hidden);
        refused(messages.get(person.message(&room, said.seq)).await, hidden);
        let mark = chat::MarkRequest {
            actor: person.actor.clone(),
            room: room.clone(),
            kind: chat::mark_request::Kind::Read.into(),
            seq: 1,
        };
        refused(messages.mark(mark).await, hidden);
        failed(&stream(&service.client, vec![person.send(&room, "let me in")]).await[0], hidden);
        let read = service.sync().read_room(person.on(&room)).await.unwrap().into_inner();
        assert_eq!(read, chat::ReadRoomReply::default());
    }
}

async fn a_removal_cuts_the_member_off_at_its_rev(service: &Service) {
    let Cast { room, owner, member, .. } = cast(service).await;
    let before = service.view(&owner, &room).await.rev;
    service.rooms().remove_member(owner.about(&room, &member)).await.unwrap();
    let removed = service.room_event(&room, |event| match &event.kind {
        Some(room_event::Kind::Removed(removed)) => Some((removed.user.clone(), event.rev)),
        _ => None,
    });
    assert_eq!(removed.await, (member.wire(), before + 1));
    let notice = service.room_event(&room, |event| match &event.kind {
        Some(room_event::Kind::Message(message)) => Some((message.seq, event.rev)),
        _ => None,
    });
    assert_eq!(notice.await, (1, before + 2));
    let left = service.user_event(member.id).await;
    assert_eq!(left.kind, Some(user_event::Kind::Left(room.clone())));
    let heads = chat::HeadsRequest { rooms: vec![room], users: vec![member.wire()] };
    let heads = service.sync().heads(heads).await.unwrap().into_inner();
    assert_eq!((heads.rooms, heads.users), (vec![before + 2], vec![left.rev]));
}

async fn members_come_in_pages(service: &Service) {
    let crowd = service.crowd(7).await;
    let room = service.group(&crowd[0], &crowd[1..]).await;
    let (mut cursor, mut seen, mut pages) = (String::new(), Vec::new(), 0);
    loop {
        let page = Some(chat::Page { limit: 3, cursor: cursor.clone() });
        let request = chat::ListMembersRequest { actor: crowd[2].actor.clone(), room: room.clone(), page };
        let list = service.rooms().list_members(request).await.unwrap().into_inner();
        seen.extend(list.items.into_iter().map(|member| member.user.unwrap().id));
        pages += 1;
        match list.next_cursor {
            Some(next) => cursor = next,
            None => break,
        }
    }
    let mut expected: Vec<_> = crowd.iter().map(Person::wire).collect();
    expected.sort();
    assert_eq!((seen, pages), (expected, 3));
}

async fn messages_by_their_places_are_those_that_one_may_see(service: &Service) {
    let [maja, noor, sam] = service.people().await;
    let (open, closed) = (service.group(&maja, []).await, service.group(&maja, [&sam]).await);
    let patch = chat::PatchRoomRequest { history_joined: Some(true), ..maja.patch(&open) };
    service.rooms().patch(patch).await.unwrap();
    let before = service.says(&maja, &open, "before noor came").await;
    service.rooms().put_member(maja.puts(&open, &noor)).await.unwrap();
    let after = service.says(&maja, &open, "since then").await;
    let secret = service.says(&maja, &closed, "in another room").await;
    let places = [&before, &after, &secret].map(|message| (message.room.clone(), message.seq));
    let place = |(room, seq): (Room, i64)| chat::MessagePlace { room, seq };
    let places: Vec<_> = places.into_iter().chain([(open, 99)]).map(place).collect();
    let some = async |person: &Person| {
        let request = chat::SomeRequest { actor: person.actor.clone(), places: places.clone() };
        let mut items = service.messages().some(request).await.unwrap().into_inner().items;
        items.sort_by(|one, other| one.at.cmp(&other.at).then(one.seq.cmp(&other.seq)));
        items
    };
    assert_eq!(some(&noor).await, std::slice::from_ref(&after));
    assert_eq!(some(&sam).await, std::slice::from_ref(&secret));
    assert_eq!(some(&maja).await.len(), 3);
    service.rooms().remove_member(maja.about(&closed, &sam)).await.unwrap();
    assert_eq!(some(&sam).await, []);
    let many = chat::SomeRequest { actor: maja.actor.clone(), places: vec![chat::MessagePlace::default(); 201] };
    refused(service.messages().some(many).await, Code::InvalidArgument);
}

async fn only_ones_own_pushes_are_explained(service: &Service) {
    let Cast { room, owner, member, .. } = cast(service).await;
    let message = service.says(&owner, &room, "hello").await;
    let of = |person: &Person, of: &Person| chat::MessageRequest {
        pushes_of: Some(of.wire()),
        ..person.message(&room, message.seq)
    };
    assert_eq!(service.messages().get(of(&member, &member)).await.unwrap().into_inner(), message);
    refused(service.messages().get(of(&owner, &member)).await, Code::PermissionDenied);
    let [stranger] = service.people().await;
    refused(service.messages().get(of(&stranger, &stranger)).await, Code::NotFound);
}
