//! How far somebody has read: coalesced, never back but by asking for it, and told to those who may know.

use futures_util::future;
use parlance_proto::{
    chat::{self, mark_request::Kind},
    event::{Receipt, event, user_event},
    v1,
};
use tonic::{Code, Response, Status};

use crate::{
    Person, Service,
    chat_world::{Room, stream},
    refused, stories,
};

stories! {
    reading_moves_forward_and_is_told
    marks_at_once_become_one
    marking_unread_is_the_one_way_back
    what_is_beyond_the_room_is_refused
    ones_own_message_counts_as_read
    who_hides_receipts_tells_only_oneself
    in_large_rooms_only_oneself_is_told
}

async fn mark(
    service: &Service,
    person: &Person,
    room: &Room,
    kind: Kind,
    seq: i64,
) -> Result<Response<chat::Empty>, Status> {
    let request = chat::MarkRequest { actor: person.actor.clone(), room: room.clone(), kind: kind.into(), seq };
    service.messages().mark(request).await
}

async fn says_many(service: &Service, person: &Person, room: &Room, count: usize) {
    let items = (0..count).map(|n| person.send(room, &n.to_string())).collect();
    assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
}

async fn me(service: &Service, person: &Person, room: &Room) -> v1::Me {
    service.view(person, room).await.me.unwrap()
}

/// This member's cursors as another one sees them: (read, delivered).
async fn seen_by(service: &Service, viewer: &Person, person: &Person, room: &Room) -> Option<(i64, i64)> {
    let page = Some(chat::Page { limit: 200, cursor: String::new() });
    let request = chat::ListMembersRequest { actor: viewer.actor.clone(), room: room.clone(), page };
    let list = service.rooms().list_members(request).await.unwrap().into_inner().items;
    let member = list.into_iter().find(|member| member.user.as_ref().unwrap().id == person.wire()).unwrap();
    Some((member.read_seq?, member.delivered_seq?))
}

/// The next receipt of the room, and the `me` events of this person that came before it.
async fn receipt(service: &Service, person: &Person, room: &Room) -> (Vec<v1::Me>, Receipt) {
    let own = std::sync::Mutex::new(Vec::new());
    let receipt = service.event(|kind| match kind {
        event::Kind::Receipt(receipt) if receipt.room == *room => Some(receipt),
        event::Kind::User(event) if event.user == person.wire() => {
            if let Some(user_event::Kind::Me(changed)) = event.kind {
                own.lock().unwrap().push(changed.me.unwrap());
            }
            None
        }
        _ => None,
    });
    let receipt = receipt.await;
    (own.into_inner().unwrap(), receipt)
}

/// What comes next: a `me` event of this person, or somebody's receipt.
async fn next_of(service: &Service, person: &Person) -> Result<v1::Me, Receipt> {
    service
        .event(|kind| match kind {
            event::Kind::Receipt(receipt) => Some(Err(receipt)),
            event::Kind::User(event) if event.user == person.wire() => match event.kind {
                Some(user_event::Kind::Me(changed)) => Some(Ok(changed.me.unwrap())),
                _ => None,
            },
            _ => None,
        })
        .await
}

async fn reading_moves_forward_and_is_told(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 5).await;
    let before = me(service, &noor, &room).await;
    let rev = service.view(&noor, &room).await.rev;
    assert_eq!((before.read_seq, before.unread), (0, 5));

    mark(service, &noor, &room, Kind::Delivered, 4).await.unwrap();
    let (own, told) = receipt(service, &noor, &room).await;
    assert_eq!((own.len(), told.read_seq, told.delivered_seq), (0, None, Some(4)));
    assert_eq!(me(service, &noor, &room).await, before);

    // Read implies delivered, as far as it goes further.
    mark(service, &noor, &room, Kind::Read, 5).await.unwrap();
    let (own, told) = receipt(service, &noor, &room).await;
    assert_eq!((told.user, told.read_seq, told.delivered_seq), (noor.wire(), Some(5), Some(5)));
    let after = me(service, &noor, &room).await;
    assert_eq!((own, after.rev, after.unread), (vec![after.clone()], before.rev + 1, 0));
    assert_eq!(seen_by(service, &maja, &noor, &room).await, Some((5, 5)));

    // Never back, and nothing is told of what has not moved.
    mark(service, &noor, &room, Kind::Read, 2).await.unwrap();
    mark(service, &noor, &room, Kind::Delivered, 1).await.unwrap();
    assert_eq!(me(service, &noor, &room).await, after);
    assert_eq!(service.view(&noor, &room).await.rev, rev, "cursors are no part of the room's rev");
    // Marking as unread is nobody else's business: the next receipt is of reading again.
    mark(service, &maja, &room, Kind::Unread, 5).await.unwrap();
    mark(service, &maja, &room, Kind::Read, 5).await.unwrap();
    let (own, told) = receipt(service, &noor, &room).await;
    assert_eq!((own.len(), told.user, told.read_seq), (0, maja.wire(), Some(5)));
}

async fn marks_at_once_become_one(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 50).await;
    let before = me(service, &noor, &room).await;
    let marks = (1..=50).map(|seq| mark(service, &noor, &room, Kind::Read, seq));
    assert!(future::join_all(marks).await.iter().all(Result::is_ok));
    let after = me(service, &noor, &room).await;
    assert_eq!(after.read_seq, 50);
    // All of them within a window or two.
    assert!(after.rev - before.rev <= 3, "{} changes", after.rev - before.rev);
    let mut receipts = 1;
    while receipt(service, &noor, &room).await.1.read_seq != Some(50) {
        receipts += 1;
    }
    assert_eq!(receipts, after.rev - before.rev);
}

async fn marking_unread_is_the_one_way_back(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 5).await;
    mark(service, &noor, &room, Kind::Read, 5).await.unwrap();
    let read = me(service, &noor, &room).await;
    mark(service, &noor, &room, Kind::Unread, 3).await.unwrap();
    let back = me(service, &noor, &room).await;
    assert_eq!((back.read_seq, back.unread, back.rev), (2, 3, read.rev + 1));
    mark(service, &noor, &room, Kind::Unread, 5).await.unwrap();
    assert_eq!(me(service, &noor, &room).await, back, "unread from further on says nothing new");
    mark(service, &noor, &room, Kind::Read, 4).await.unwrap();
    assert_eq!(me(service, &noor, &room).await.unread, 1);
}

async fn what_is_beyond_the_room_is_refused(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 2).await;
    for kind in [Kind::Read, Kind::Delivered, Kind::Unread] {
        refused(mark(service, &noor, &room, kind, 3).await, Code::FailedPrecondition);
        refused(mark(service, &noor, &room, kind, 0).await, Code::InvalidArgument);
    }
    // One that is refused does not spoil those beside it.
    let (good, bad) =
        tokio::join!(mark(service, &noor, &room, Kind::Read, 2), mark(service, &noor, &room, Kind::Read, 9));
    good.unwrap();
    refused(bad, Code::FailedPrecondition);
    assert_eq!(me(service, &noor, &room).await.read_seq, 2);
}

async fn ones_own_message_counts_as_read(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 3).await;
    let before = me(service, &noor, &room).await;
    let said = service.says(&noor, &room, "I am here").await;
    let after = me(service, &noor, &room).await;
    assert_eq!((after.read_seq, after.unread, after.rev), (said.seq, 0, before.rev));
    assert_eq!(seen_by(service, &maja, &noor, &room).await, Some((said.seq, said.seq)));
    // Nothing was told of it: the next to come is what is asked for now.
    mark(service, &noor, &room, Kind::Unread, 1).await.unwrap();
    assert_eq!(next_of(service, &noor).await.unwrap().read_seq, 0);
}

async fn who_hides_receipts_tells_only_oneself(service: &Service) {
    let [maja, noor] = service.people().await;
    let patch = chat::PatchMeRequest { actor: noor.actor.clone(), receipts: Some(false), ..Default::default() };
    service.accounts().patch_me(patch).await.unwrap();
    let room = service.group(&maja, [&noor]).await;
    says_many(service, &maja, &room, 3).await;
    mark(service, &noor, &room, Kind::Read, 2).await.unwrap();
    assert_eq!(next_of(service, &noor).await.unwrap().read_seq, 2);
    mark(service, &noor, &room, Kind::Read, 3).await.unwrap();
    assert_eq!(next_of(service, &noor).await.unwrap().read_seq, 3, "no receipt came in between");
    assert_eq!(seen_by(service, &maja, &noor, &room).await, None);
    assert_eq!(seen_by(service, &noor, &noor, &room).await, Some((3, 3)));
}

async fn in_large_rooms_only_oneself_is_told(service: &Service) {
    let crowd = service.crowd(101).await;
    let (maja, noor) = (&crowd[0], &crowd[1]);
    let room = service.group(maja, &crowd[1..]).await;
    says_many(service, maja, &room, 3).await;
    mark(service, noor, &room, Kind::Read, 1).await.unwrap();
    assert_eq!(next_of(service, noor).await.unwrap().read_seq, 1);
    mark(service, noor, &room, Kind::Read, 2).await.unwrap();
    assert_eq!(next_of(service, noor).await.unwrap().read_seq, 2, "no receipt came in between");
    assert_eq!(seen_by(service, maja, noor, &room).await, None);
    service.rooms().leave(crowd[100].on(&room)).await.unwrap();
    assert_eq!(seen_by(service, maja, noor, &room).await, Some((2, 2)), "a hundred are few enough");
    mark(service, noor, &room, Kind::Read, 3).await.unwrap();
    assert_eq!(receipt(service, noor, &room).await.1.read_seq, Some(3));
}
