//! Blocks: in a direct room the blocked one writes nothing any more, elsewhere nothing changes, and a block holds from its
//! commit on, whatever happens at the same moment.

use futures_util::future;
use parlance_proto::{chat, event::event, v1};
use service_kit::id::UserId;
use tonic::{Code, Status};

use crate::{
    Person, Service,
    chat_world::{Room, failed, stream},
    refused, stories,
};

stories! {
    the_blocked_one_writes_nothing_in_the_direct_room
    groups_stay_as_they_are
    nobody_opens_a_direct_room_with_who_blocks_them
    a_block_and_a_new_direct_room_at_once_never_let_a_message_through
    only_others_who_exist_are_blocked_and_twice_is_once
    whom_one_blocks_comes_in_pages
    the_blocked_one_does_not_see_the_presence
}

fn request(person: &Person, other: UserId) -> chat::BlockRequest {
    chat::BlockRequest { actor: person.actor.clone(), user: other.to_wire() }
}

pub(crate) async fn block(service: &Service, person: &Person, other: &Person) {
    service.accounts().block(request(person, other.id)).await.unwrap();
}

pub(crate) async fn unblock(service: &Service, person: &Person, other: &Person) {
    service.accounts().unblock(request(person, other.id)).await.unwrap();
}

pub(crate) async fn open(service: &Service, person: &Person, other: &Person) -> Result<Room, Status> {
    let request = chat::OpenDirectRequest { actor: person.actor.clone(), user: other.wire() };
    Ok(service.rooms().open_direct(request).await?.into_inner().room.unwrap().id)
}

async fn says(service: &Service, person: &Person, room: &Room) -> Result<chat::Sent, chat::Failure> {
    stream(&service.client, vec![person.send(room, "hi")]).await.remove(0)
}

async fn list(service: &Service, person: &Person, limit: i64, cursor: &str) -> (Vec<v1::User>, Option<String>) {
    let page = Some(chat::Page { limit, cursor: cursor.to_owned() });
    let request = chat::ListBlocksRequest { actor: person.actor.clone(), page };
    let list = service.accounts().list_blocks(request).await.unwrap().into_inner();
    (list.items, list.next_cursor)
}

async fn the_blocked_one_writes_nothing_in_the_direct_room(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = open(service, &maja, &noor).await.unwrap();
    let item = noor.send(&room, "before");
    let before = stream(&service.client, vec![item.clone()]).await.remove(0).unwrap();
    block(service, &maja, &noor).await;

    let rev = service.view(&noor, &room).await.rev;
    failed(&says(service, &noor, &room).await, Code::PermissionDenied);
    refused(service.messages().edit(noor.edit(&room, before.seq, "after")).await, Code::PermissionDenied);
    assert_eq!(service.view(&noor, &room).await.rev, rev, "what is refused takes no number");
    // What was stored is still hers: a repeat answers it, and she may take it back.
    let again = stream(&service.client, vec![item]).await.remove(0).unwrap();
    assert_eq!((again.seq, again.duplicate), (before.seq, true));
    service.messages().delete(noor.message(&room, before.seq)).await.unwrap();
    says(service, &maja, &room).await.unwrap();

    unblock(service, &maja, &noor).await;
    says(service, &noor, &room).await.unwrap();
}

async fn groups_stay_as_they_are(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    block(service, &maja, &noor).await;
    let said = says(service, &noor, &room).await.unwrap();
    service.messages().edit(noor.edit(&room, said.seq, "hello")).await.unwrap();
    assert_eq!(service.view(&maja, &room).await.last_message.unwrap().text, "hello");
}

async fn nobody_opens_a_direct_room_with_who_blocks_them(service: &Service) {
    let [maja, noor] = service.people().await;
    block(service, &maja, &noor).await;
    assert_eq!(open(service, &noor, &maja).await.unwrap_err().code(), Code::PermissionDenied);
    assert!(service.sync().memberships(noor.actor.clone().unwrap()).await.unwrap().into_inner().items.is_empty());
    // Whoever blocks may; the other one then finds the room, and writes nothing in it.
    let room = open(service, &maja, &noor).await.unwrap();
    assert_eq!(open(service, &noor, &maja).await.unwrap(), room);
    failed(&says(service, &noor, &room).await, Code::PermissionDenied);
    says(service, &maja, &room).await.unwrap();
}

async fn a_block_and_a_new_direct_room_at_once_never_let_a_message_through(service: &Service) {
    for _ in 0..20 {
        let [maja, noor] = service.people().await;
        let blocking = block(service, &maja, &noor);
        let ((), opened) = future::join(blocking, open(service, &noor, &maja)).await;
        match opened {
            Ok(room) => {
                failed(&says(service, &noor, &room).await, Code::PermissionDenied);
            }
            Err(refusal) => assert_eq!(refusal.code(), Code::PermissionDenied),
        }
    }
}

async fn only_others_who_exist_are_blocked_and_twice_is_once(service: &Service) {
    let [maja, noor] = service.people().await;
    let mut accounts = service.accounts();
    refused(accounts.block(request(&maja, maja.id)).await, Code::FailedPrecondition);
    refused(accounts.block(request(&maja, UserId::generate())).await, Code::NotFound);
    refused(accounts.unblock(request(&maja, UserId::generate())).await, Code::NotFound);
    let nothing = chat::BlockRequest { actor: maja.actor.clone(), ..Default::default() };
    refused(accounts.block(nothing).await, Code::InvalidArgument);
    let room = open(service, &maja, &noor).await.unwrap();
    for _ in 0..2 {
        block(service, &maja, &noor).await;
        assert_eq!(list(service, &maja, 50, "").await.0.len(), 1);
        failed(&says(service, &noor, &room).await, Code::PermissionDenied);
    }
    // The other way round is another block.
    unblock(service, &noor, &maja).await;
    failed(&says(service, &noor, &room).await, Code::PermissionDenied);
    for _ in 0..2 {
        unblock(service, &maja, &noor).await;
        assert_eq!(list(service, &maja, 50, "").await, (Vec::new(), None));
        says(service, &noor, &room).await.unwrap();
    }
}

async fn whom_one_blocks_comes_in_pages(service: &Service) {
    let [maja, noor, ira] = service.people().await;
    block(service, &maja, &noor).await;
    block(service, &maja, &ira).await;
    block(service, &noor, &maja).await;
    let (first, next) = list(service, &maja, 1, "").await;
    let (second, end) = list(service, &maja, 1, &next.unwrap()).await;
    let mut expected = [noor.wire(), ira.wire()];
    expected.sort();
    assert_eq!([&first[0].id, &second[0].id], [&expected[0], &expected[1]]);
    assert_eq!((first.len(), second.len(), end), (1, 1, None));
}

async fn the_blocked_one_does_not_see_the_presence(service: &Service) {
    let [maja, noor] = service.people().await;
    service.group(&maja, [&noor]).await;
    let watches = async |viewer: &Person, other: &Person| {
        let request = chat::WatchableRequest { actor: viewer.actor.clone(), users: vec![other.wire()] };
        !service.sync().watchable(request).await.unwrap().into_inner().users.is_empty()
    };
    assert!(watches(&noor, &maja).await);
    for on in [true, false] {
        if on {
            block(service, &maja, &noor).await;
        } else {
            unblock(service, &maja, &noor).await;
        }
        assert_eq!(watches(&noor, &maja).await, !on);
        assert!(watches(&maja, &noor).await, "the other way nothing changes");
        // Gateways ask again for those who watch already.
        let told = |kind| match kind {
            event::Kind::Privacy(privacy) => Some(privacy.user),
            _ => None,
        };
        assert_eq!(service.event(told).await, maja.wire());
    }
}
