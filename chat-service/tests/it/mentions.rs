//! Mentions: kept as written, and counted exactly wherever one's own badge is shown.

use parlance_proto::{
    chat::{self, SendItem, mark_request::Kind},
    event::{event, user_event},
    v1,
};
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{Room, eventually, stream},
    refused, stories,
};

stories! {
    a_mention_counts_until_it_is_read
    all_counts_for_everybody_but_the_sender
    a_message_counts_once_whatever_it_mentions
    what_nobody_is_told_of_does_not_count
    a_deleted_message_counts_no_more
    what_newcomers_do_not_see_does_not_count
    a_repeat_answers_the_first_mentions
    mentions_are_in_the_message_everywhere
    more_than_fifty_are_refused
    hello_counts_each_of_many_rooms
}

fn mentioning<'a>(item: SendItem, people: impl IntoIterator<Item = &'a Person>, all: bool) -> SendItem {
    SendItem { mentions: people.into_iter().map(Person::wire).collect(), mentions_all: all, ..item }
}

/// Somebody mentions others; gives the message.
async fn says_to(service: &Service, by: &Person, room: &Room, whom: &[&Person], all: bool) -> v1::Message {
    let item = mentioning(by.send(room, "you there"), whom.iter().copied(), all);
    service.messages().post(by.post(item)).await.unwrap().into_inner().message.unwrap()
}

/// What the badge says: in the room, in the list and in a hello, which have to agree.
async fn badge(service: &Service, person: &Person, room: &Room) -> i64 {
    let seen = service.view(person, room).await.me.unwrap().mentions;
    let list = chat::ListRoomsRequest { actor: person.actor.clone(), ..Default::default() };
    let hello = chat::HelloRequest { actor: person.actor.clone(), ..Default::default() };
    for rooms in [
        service.rooms().list(list).await.unwrap().into_inner().items,
        service.sync().hello(hello).await.unwrap().into_inner().rooms,
    ] {
        let listed = rooms.into_iter().find(|listed| listed.id == *room).unwrap();
        assert_eq!(listed.me.unwrap().mentions, seen, "the badges differ");
    }
    seen
}

async fn marks(service: &Service, person: &Person, room: &Room, kind: Kind, seq: i64) {
    let request = chat::MarkRequest { actor: person.actor.clone(), room: room.clone(), kind: kind.into(), seq };
    service.messages().mark(request).await.unwrap();
}

/// The own state that this person's devices are told of next.
async fn told(service: &Service, person: &Person) -> v1::Me {
    service
        .event(|kind| match kind {
            event::Kind::User(event) if event.user == person.wire() => match event.kind {
                Some(user_event::Kind::Me(changed)) => changed.me,
                _ => None,
            },
            _ => None,
        })
        .await
}

async fn a_mention_counts_until_it_is_read(service: &Service) {
    let [maja, noor, sam] = service.people().await;
    let room = service.group(&maja, [&noor, &sam]).await;
    for _ in 0..3 {
        says_to(service, &maja, &room, &[&noor], false).await;
        service.says(&maja, &room, "to nobody").await;
    }
    assert_eq!((badge(service, &noor, &room).await, badge(service, &sam, &room).await), (3, 0));

    marks(service, &noor, &room, Kind::Delivered, 6).await;
    assert_eq!(badge(service, &noor, &room).await, 3, "delivered is not read");
    marks(service, &noor, &room, Kind::Read, 3).await;
    let me = told(service, &noor).await;
    assert_eq!((me.read_seq, me.unread, me.mentions), (3, 3, 1));
    assert_eq!(badge(service, &noor, &room).await, 1);
    marks(service, &noor, &room, Kind::Unread, 1).await;
    let me = told(service, &noor).await;
    assert_eq!((me.read_seq, me.unread, me.mentions), (0, 6, 3));

    // One's own settings come with the same count.
    let patch = chat::PatchMineRequest {
        actor: noor.actor.clone(),
        room: room.clone(),
        favourite: Some(true),
        ..Default::default()
    };
    assert_eq!(service.rooms().patch_mine(patch).await.unwrap().into_inner().mentions, 3);
    // What one writes oneself reads all before it.
    service.says(&noor, &room, "here").await;
    assert_eq!(badge(service, &noor, &room).await, 0);
}

async fn all_counts_for_everybody_but_the_sender(service: &Service) {
    let [maja, noor, sam] = service.people().await;
    let room = service.group(&maja, [&noor, &sam]).await;
    let first = says_to(service, &maja, &room, &[], true).await;
    says_to(service, &noor, &room, &[], true).await;
    marks(service, &maja, &room, Kind::Unread, first.seq).await;
    assert_eq!(badge(service, &maja, &room).await, 1, "one's own does not count");
    assert_eq!(badge(service, &noor, &room).await, 0, "one's own is read with all before it");
    assert_eq!(badge(service, &sam, &room).await, 2);
}

async fn a_message_counts_once_whatever_it_mentions(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    says_to(service, &maja, &room, &[&noor], true).await;
    assert_eq!(badge(service, &noor, &room).await, 1);
    // Twice the same user.
    says_to(service, &maja, &room, &[&noor, &noor, &maja], false).await;
    assert_eq!(badge(service, &noor, &room).await, 2);
    marks(service, &maja, &room, Kind::Unread, 1).await;
    assert_eq!(badge(service, &maja, &room).await, 0, "who mentions oneself is not told");
}

async fn what_nobody_is_told_of_does_not_count(service: &Service) {
    let [maja, noor, stranger] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let nobody = SendItem { mentions: vec![stranger.wire(), room.clone()], ..maja.send(&room, "hm") };
    let sent = service.messages().post(maja.post(nobody)).await.unwrap().into_inner().message.unwrap();
    assert_eq!(sent.mentions, [stranger.wire(), room.clone()], "kept as written");
    assert_eq!(badge(service, &noor, &room).await, 0);
    // Whoever leaves and comes again has what came before behind them.
    says_to(service, &maja, &room, &[&noor], false).await;
    service.rooms().leave(noor.on(&room)).await.unwrap();
    says_to(service, &maja, &room, &[&noor], false).await;
    service.rooms().put_member(maja.puts(&room, &noor)).await.unwrap();
    assert_eq!(badge(service, &noor, &room).await, 0);
}

async fn a_deleted_message_counts_no_more(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let (one, all) =
        (says_to(service, &maja, &room, &[&noor], false).await, says_to(service, &maja, &room, &[], true).await);
    assert_eq!(badge(service, &noor, &room).await, 2);
    service.messages().edit(maja.edit(&room, one.seq, "another text")).await.unwrap();
    assert_eq!(badge(service, &noor, &room).await, 2, "an edit mentions as before");
    service.messages().delete(maja.message(&room, one.seq)).await.unwrap();
    assert_eq!(badge(service, &noor, &room).await, 1);
    service.messages().delete(maja.message(&room, all.seq)).await.unwrap();
    assert_eq!(badge(service, &noor, &room).await, 0);
    assert_eq!(service.count("select count(*) from mentions").await, 0);
}

async fn what_newcomers_do_not_see_does_not_count(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, []).await;
    let patch = chat::PatchRoomRequest { history_joined: Some(true), ..maja.patch(&room) };
    service.rooms().patch(patch).await.unwrap();
    says_to(service, &maja, &room, &[&noor], true).await;
    service.rooms().put_member(maja.puts(&room, &noor)).await.unwrap();
    says_to(service, &maja, &room, &[&noor], false).await;
    assert_eq!(badge(service, &noor, &room).await, 1);
    marks(service, &noor, &room, Kind::Unread, 1).await;
    assert_eq!(told(service, &noor).await.mentions, 1);
}

async fn a_repeat_answers_the_first_mentions(service: &Service) {
    let [maja, noor, sam] = service.people().await;
    let room = service.group(&maja, [&noor, &sam]).await;
    let item = maja.send(&room, "once");
    let (first, other) = (mentioning(item.clone(), [&noor], false), mentioning(item, [&sam], true));
    let first = service.messages().post(maja.post(first)).await.unwrap().into_inner().message.unwrap();
    let again = service.messages().post(maja.post(other.clone())).await.unwrap().into_inner();
    assert!(again.duplicate);
    assert_eq!(again.message.unwrap(), first);
    assert!(stream(&service.client, vec![other]).await[0].as_ref().unwrap().duplicate);
    assert_eq!((badge(service, &noor, &room).await, badge(service, &sam, &room).await), (1, 0));
}

async fn mentions_are_in_the_message_everywhere(service: &Service) {
    let [maja, noor, sam] = service.people().await;
    let room = service.group(&maja, [&noor, &sam]).await;
    let rev = service.view(&noor, &room).await.rev;
    let text = "of the stream";
    let item = mentioning(maja.send(&room, text), [&sam, &noor], true);
    assert!(stream(&service.client, vec![item]).await[0].is_ok());
    let event = service.announced(&room, text).await;
    assert_eq!((event.mentions.clone(), event.mentions_all), (vec![sam.wire(), noor.wire()], true));

    assert_eq!(service.history(&noor, &room).await, std::slice::from_ref(&event));
    assert_eq!(service.view(&noor, &room).await.last_message, Some(event.clone()));
    let after =
        chat::ChangesRequest { actor: noor.actor.clone(), room: room.clone(), after_rev: rev, ..Default::default() };
    assert_eq!(service.messages().changes(after).await.unwrap().into_inner().messages, std::slice::from_ref(&event));
    let repair = chat::RepairRequest { room: room.clone(), after_rev: rev };
    let repaired = service.sync().repair(repair).await.unwrap().into_inner().events;
    assert!(format!("{repaired:?}").contains("mentions_all: true"));
    // Who was mentioned stays with a deleted message: a client counts by it.
    service.messages().delete(maja.message(&room, event.seq)).await.unwrap();
    let deleted = eventually("the deletion", async || {
        service.history(&noor, &room).await.pop().filter(|message| message.deleted_at.is_some())
    })
    .await;
    assert_eq!((deleted.mentions, deleted.mentions_all), (event.mentions, true));
}

async fn more_than_fifty_are_refused(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let many =
        |count, all| SendItem { mentions: vec![noor.wire(); count], mentions_all: all, ..maja.send(&room, "you") };
    for item in [many(51, false), many(50, true)] {
        let status = refused(service.messages().post(maja.post(item)).await, Code::InvalidArgument);
        assert!(status.starts_with("mentions: "), "{status:?}");
    }
    service.messages().post(maja.post(many(49, true))).await.unwrap();
    assert_eq!(badge(service, &noor, &room).await, 1);
}

async fn hello_counts_each_of_many_rooms(service: &Service) {
    let [maja, noor] = service.people().await;
    let mut items = Vec::new();
    for number in 0..20 {
        let room = service.group(&maja, [&noor]).await;
        items.extend((0..number).map(|_| mentioning(maja.send(&room, "you"), [&noor], number % 2 == 0)));
        // Others in between, in the same batch.
        items.push(maja.send(&room, &number.to_string()));
    }
    assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
    let hello = chat::HelloRequest { actor: noor.actor.clone(), ..Default::default() };
    let rooms = service.sync().hello(hello).await.unwrap().into_inner().rooms;
    let mut counts: Vec<i64> = rooms.iter().map(|room| room.me.as_ref().unwrap().mentions).collect();
    counts.sort_unstable();
    assert_eq!(counts, (0..20).collect::<Vec<i64>>());
}
