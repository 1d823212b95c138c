//! Sending: many at once, repeated, poisoned, and with nobody left who waits for the answer.

use std::collections::{HashMap, HashSet};

use futures_util::future;
use parlance_proto::{chat::SendItem, event::room_event};
use service_kit::id::UserId;
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{self, Answer, Room, failed, stream},
    stories,
};

stories! {
    many_senders_at_once_are_stored_densely_and_in_order
    a_message_sent_twice_at_once_is_one_message
    a_repeat_is_answered_whatever_has_changed_since
    a_poisoned_message_fails_alone
    a_message_whose_sender_went_away_is_stored_and_announced
    an_edit_whose_caller_went_away_is_announced
    a_removal_whose_caller_went_away_is_announced
}

async fn many_senders_at_once_are_stored_densely_and_in_order(service: &Service) {
    const SENDERS: usize = 10;
    let crowd = service.crowd(SENDERS).await;
    let mut rooms = Vec::new();
    for _ in 0..20 {
        rooms.push(service.group(&crowd[0], &crowd[1..]).await);
    }
    let mut worker = service.worker().await;

    let sends = |person: &Person| -> Vec<SendItem> {
        (0..50).map(|n| person.send(&rooms[n * 7 % rooms.len()], &format!("{n:02}"))).collect()
    };
    let answers = future::join_all(crowd.iter().map(|person| stream(&service.client, sends(person)))).await;
    assert!(answers.iter().flatten().all(|answer| answer.as_ref().is_ok_and(|sent| !sent.duplicate)));
    let ids: HashSet<_> = answers.iter().flatten().map(|answer| answer.as_ref().unwrap().id.clone()).collect();
    assert_eq!(ids.len(), SENDERS * 50);

    let mut stored = 0;
    for room in &rooms {
        let messages = service.stored(room).await;
        assert!(messages.iter().zip(1..).all(|((seq, ..), expected)| *seq == expected), "not dense");
        assert_eq!(service.view(&crowd[0], room).await.seq, i64::try_from(messages.len()).unwrap());
        let mut by_sender: HashMap<UserId, Vec<&str>> = HashMap::new();
        for (_, sender, text) in &messages {
            by_sender.entry(*sender).or_default().push(text);
        }
        assert!(by_sender.values().all(|texts| texts.is_sorted()), "a sender's order was not kept: {by_sender:?}");
        stored += messages.len();
    }
    assert_eq!(stored, SENDERS * 50);

    let announcements = worker.until(stored).await;
    assert!(announcements.len() < stored / 2, "{} announcements for {stored} messages", announcements.len());
    let told: Vec<_> = announcements.iter().flat_map(chat_world::texts).collect();
    assert_eq!(told.len(), stored);
    assert_eq!(told.iter().map(|message| &message.id).collect::<HashSet<_>>().len(), stored);
}

async fn a_message_sent_twice_at_once_is_one_message(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let before = service.view(&maja, &room).await;
    let (first, second) = (maja.send(&room, "once"), maja.send(&room, "and once"));

    // While the room is held, all of it gathers.
    let hold = service.holds(&[&room]).await;
    let items = vec![maja.send(&room, "before"), first.clone(), first.clone(), second.clone(), first.clone()];
    let (answers, ()) = tokio::join!(stream(&service.client, items), async {
        hold.is_waited_for_by(1, service).await;
        hold.release().await;
    });
    let sent: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(sent.iter().map(|sent| sent.duplicate).collect::<Vec<_>>(), [false, false, true, false, true]);
    let places = |answer: &parlance_proto::chat::Sent| (answer.id.clone(), answer.seq, answer.rev, answer.at);
    assert_eq!(places(&sent[1]), places(&sent[2]));
    assert_eq!(places(&sent[1]), places(&sent[4]));

    // And again in a batch of its own, over the stream and by a call.
    let again = stream(&service.client, vec![first.clone()]).await.remove(0).unwrap();
    assert_eq!((places(&again), again.duplicate), (places(&sent[1]), true));
    let posted = service.messages().post(maja.post(first)).await.unwrap().into_inner();
    assert!(posted.duplicate);
    let message = posted.message.unwrap();
    assert_eq!((message.id, message.seq, message.text.as_str()), (again.id, again.seq, "once"));

    let after = service.view(&maja, &room).await;
    assert_eq!((after.seq, after.rev), (before.seq + 3, before.rev + 3));
}

async fn a_repeat_is_answered_whatever_has_changed_since(service: &Service) {
    let [maja, noor, ben] = service.people().await;
    let room = service.group(&maja, [&noor, &ben]).await;
    let (noors, bens) = (noor.send(&room, "from noor"), ben.send(&room, "from ben"));
    let sent = stream(&service.client, vec![noors.clone(), bens.clone()]).await;
    let mut rooms = service.rooms();

    let mut checks = 0;
    let mut repeated_as_before = async |item: &SendItem, first: &Answer, new: Option<Code>, person: &Person| {
        let before = service.view(&maja, &room).await;
        let again = stream(&service.client, vec![item.clone()]).await.remove(0).unwrap();
        let first = first.clone().unwrap();
        assert!(again.duplicate);
        assert_eq!((again.id, again.seq, again.at), (first.id, first.seq, first.at));
        let posted = service.messages().post(person.post(item.clone())).await.unwrap().into_inner();
        assert!(posted.duplicate);
        if let Some(code) = new {
            failed(&stream(&service.client, vec![person.send(&room, "new")]).await[0], code);
        }
        let after = service.view(&maja, &room).await;
        assert_eq!((after.seq, after.rev), (before.seq, before.rev));
        checks += 1;
    };

    let slow = parlance_proto::chat::PatchRoomRequest { slow_mode_s: Some(600), ..maja.patch(&room) };
    rooms.patch(slow).await.unwrap();
    repeated_as_before(&noors, &sent[0], Some(Code::ResourceExhausted), &noor).await;
    let far = parlance_proto::chat::PutMemberRequest { muted_until: Some(i64::MAX / 2), ..maja.puts(&room, &noor) };
    rooms.put_member(far).await.unwrap();
    repeated_as_before(&noors, &sent[0], Some(Code::PermissionDenied), &noor).await;
    rooms.remove_member(maja.about(&room, &noor)).await.unwrap();
    repeated_as_before(&noors, &sent[0], Some(Code::NotFound), &noor).await;
    let announcement =
        parlance_proto::chat::PatchRoomRequest { announcement: Some(true), slow_mode_s: Some(0), ..maja.patch(&room) };
    rooms.patch(announcement).await.unwrap();
    repeated_as_before(&bens, &sent[1], Some(Code::PermissionDenied), &ben).await;
    rooms
        .patch(parlance_proto::chat::PatchRoomRequest { announcement: Some(false), ..maja.patch(&room) })
        .await
        .unwrap();
    rooms.archive(maja.on(&room)).await.unwrap();
    repeated_as_before(&bens, &sent[1], Some(Code::FailedPrecondition), &ben).await;
    assert_eq!(checks, 5);
}

async fn a_poisoned_message_fails_alone(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let other = service.group(&noor, []).await;
    service
        .changes(if service.is_postgres() {
            "alter table messages add constraint poison check (text <> 'poison')"
        } else {
            "create trigger poison before insert on messages when new.text = 'poison'
             begin select raise(abort, 'poison'); end"
        })
        .await;

    let hold = service.holds(&[&room, &other]).await;
    let mut items: Vec<SendItem> = (0..50).map(|n| maja.send(&room, &format!("{n:02}"))).collect();
    items[17].text = "poison".to_owned();
    items.push(noor.send(&other, "elsewhere"));
    let (answers, ()) = tokio::join!(stream(&service.client, items), async {
        hold.is_waited_for_by(1, service).await;
        hold.release().await;
    });
    for (place, answer) in answers.iter().enumerate() {
        if place == 17 {
            assert_eq!(failed(answer, Code::Internal).message, "internal error");
        } else {
            assert!(answer.is_ok(), "{place}: {answer:?}");
        }
    }
    let stored = service.stored(&room).await;
    let texts: Vec<&str> = stored.iter().map(|(_, _, text)| text.as_str()).collect();
    assert_eq!(texts.len(), 49);
    assert!(texts.is_sorted(), "{texts:?}");
    assert_eq!(stored.last().unwrap().0, 49);
}

async fn a_message_whose_sender_went_away_is_stored_and_announced(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let item = maja.send(&room, "and gone");
    let hold = service.holds(&[&room]).await;
    let mut messages = service.messages();
    let call = messages.post(maja.post(item.clone()));
    service.gives_up(&hold, call).await;
    hold.release().await;

    let message = service.announced(&room, "and gone").await;
    assert_eq!(message.client_id, item.client_id);
    assert_eq!(texts_of(service, &maja, &room).await, ["and gone"]);
    assert!(stream(&service.client, vec![item]).await[0].as_ref().unwrap().duplicate);
}

async fn an_edit_whose_caller_went_away_is_announced(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let said = service.says(&maja, &room, "teh").await;
    let hold = service.holds(&[&room]).await;
    let mut messages = service.messages();
    let call = messages.edit(maja.edit(&room, said.seq, "the"));
    service.gives_up(&hold, call).await;
    hold.release().await;

    let message = service.announced(&room, "the").await;
    assert_eq!((message.seq, message.rev), (said.seq, said.rev + 1));
    assert_eq!(texts_of(service, &maja, &room).await, ["the"]);
}

async fn a_removal_whose_caller_went_away_is_announced(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = service.group(&maja, [&noor]).await;
    let hold = service.holds(&[&room]).await;
    let mut rooms = service.rooms();
    let call = rooms.remove_member(maja.about(&room, &noor));
    service.gives_up(&hold, call).await;
    hold.release().await;

    let removed = service.room_event(&room, |event| match &event.kind {
        Some(room_event::Kind::Removed(removed)) => Some(removed.user.clone()),
        _ => None,
    });
    assert_eq!(removed.await, noor.wire());
    crate::refused(service.rooms().get(noor.on(&room)).await, Code::NotFound);
}

async fn texts_of(service: &Service, person: &Person, room: &Room) -> Vec<String> {
    service.history(person, room).await.into_iter().map(|message| message.text).collect()
}
