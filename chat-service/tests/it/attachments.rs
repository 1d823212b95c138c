//! Files that go with messages: whose may be attached, who may read them then, and when they are gone.

use bytes::Bytes;
use parlance_proto::{
    chat,
    chat::SendItem,
    files::{FinishRequest, Thumbnails},
    v1,
};
use tonic::Code;

use crate::{
    Person, Service,
    chat_world::{Room, stream},
    files::{begin, dead, files, finish, get, time_passes},
    stories,
};

stories! {
    a_file_goes_with_its_message_everywhere
    nobody_attaches_what_one_may_not_read
    a_file_is_read_by_the_members_who_see_its_message
    a_file_goes_with_the_last_message_that_holds_it
    a_held_file_is_never_swept_and_a_swept_one_never_held
    a_text_may_be_empty_beside_files_only
    what_is_attached_while_it_is_swept_is_kept_or_refused
    of_a_batch_each_item_is_judged_by_itself
    avatars_are_swapped_without_waiting_in_a_circle
}

pub(crate) async fn ready(service: &Service, who: &Person) -> Bytes {
    let file = begin(service, who, 10).await.unwrap();
    finish(service, who, &file, 10).await.unwrap();
    file
}

fn with(who: &Person, room: &Room, files: &[&Bytes]) -> SendItem {
    SendItem { attachments: files.iter().copied().cloned().collect(), ..who.send(room, "look") }
}

async fn attaches(service: &Service, who: &Person, room: &Room, files: &[&Bytes]) -> Result<v1::Message, Code> {
    let posted = service.messages().post(who.post(with(who, room, files))).await;
    posted.map(|reply| reply.into_inner().message.expect("a message")).map_err(|status| status.code())
}

async fn deletes(service: &Service, who: &Person, room: &Room, seq: i64) {
    service.messages().delete(who.message(room, seq)).await.unwrap();
}

async fn is_read(service: &Service, who: &Person, file: &Bytes) -> bool {
    match get(service, who, file).await {
        Ok(_) => true,
        Err(Code::NotFound) => false,
        Err(other) => panic!("{other:?}"),
    }
}

/// A picture.
async fn face(service: &Service, who: &Person) -> Bytes {
    let file = begin(service, who, 10).await.unwrap();
    let found = FinishRequest { size: 10, thumbnails: Thumbnails::Png.into(), ..FinishRequest::default() };
    let found =
        FinishRequest { actor: Some(who.actor()), file: file.clone(), media_type: "image/png".to_owned(), ..found };
    files(service).finish(found).await.unwrap();
    file
}

async fn avatars_are_swapped_without_waiting_in_a_circle(service: &Service) {
    let [alice, bob] = service.people().await;
    let room = service.group(&alice, [&bob]).await;
    let mut faces = [face(service, &alice).await, face(service, &bob).await];
    // A message holds them too, so that they stay while nobody wears them.
    attaches(service, &alice, &room, &[&faces[0]]).await.unwrap();
    attaches(service, &bob, &room, &[&faces[1]]).await.unwrap();
    let wears = async |who: &Person, face: &Bytes| {
        let avatar = Some(face.clone());
        let patch = chat::PatchMeRequest { actor: who.actor.clone(), avatar, ..Default::default() };
        service.accounts().patch_me(patch).await
    };
    for _ in 0..30 {
        let (one, other) = tokio::join!(wears(&alice, &faces[0]), wears(&bob, &faces[1]));
        assert_eq!(one.unwrap().into_inner().user.unwrap().avatar.as_ref(), Some(&faces[0]));
        assert_eq!(other.unwrap().into_inner().user.unwrap().avatar.as_ref(), Some(&faces[1]));
        faces.reverse();
    }
}

async fn a_file_goes_with_its_message_everywhere(service: &Service) {
    let [alice, bob] = service.people().await;
    let room = service.group(&alice, [&bob]).await;
    let (one, two) = (ready(service, &alice).await, ready(service, &alice).await);
    let message = attaches(service, &alice, &room, &[&two, &one]).await.unwrap();
    let ids: Vec<_> = message.attachments.iter().map(|file| file.id.clone()).collect();
    assert_eq!(ids, [two.clone(), one], "in the order given");
    assert_eq!(message.attachments[0], get(service, &alice, &two).await.unwrap());

    assert_eq!(service.history(&bob, &room).await.last(), Some(&message));
    assert_eq!(service.view(&bob, &room).await.last_message, Some(message.clone()));
    let after = chat::ChangesRequest {
        actor: Some(bob.actor()),
        room: room.clone(),
        after_rev: message.rev - 1,
        ..chat::ChangesRequest::default()
    };
    let changes = service.messages().changes(after).await.unwrap().into_inner();
    assert_eq!(changes.messages, std::slice::from_ref(&message));
    let edited = service.messages().edit(alice.edit(&room, message.seq, "see")).await.unwrap().into_inner();
    assert_eq!(edited.attachments, message.attachments);

    deletes(service, &alice, &room, message.seq).await;
    assert!(service.history(&bob, &room).await.last().unwrap().attachments.is_empty());
}

async fn nobody_attaches_what_one_may_not_read(service: &Service) {
    let [alice, eve] = service.people().await;
    let room = service.group(&alice, [&eve]).await;
    let own = service.group(&eve, []).await;
    let file = ready(service, &alice).await;
    assert_eq!(attaches(service, &eve, &own, &[&file]).await.unwrap_err(), Code::NotFound);
    let pending = begin(service, &eve, 10).await.unwrap();
    assert_eq!(attaches(service, &eve, &own, &[&pending]).await.unwrap_err(), Code::FailedPrecondition);
    let seq = service.view(&eve, &own).await.seq;

    attaches(service, &alice, &room, &[&file]).await.unwrap();
    let item = with(&eve, &own, &[&file]);
    let first = service.messages().post(eve.post(item.clone())).await.unwrap().into_inner();
    assert!(!first.duplicate, "what one may see, one may send on");
    assert_eq!(first.message.as_ref().unwrap().seq, seq + 1, "what was refused took no number");
    let again = SendItem { attachments: Vec::new(), text: "other".to_owned(), ..item };
    let again = service.messages().post(eve.post(again)).await.unwrap().into_inner();
    assert_eq!((again.duplicate, again.message), (true, first.message), "a repeat answers what is stored");
    let many: Vec<Bytes> = vec![file; 11];
    assert_eq!(attaches(service, &eve, &own, &many.iter().collect::<Vec<_>>()).await, Err(Code::InvalidArgument));
}

async fn a_file_is_read_by_the_members_who_see_its_message(service: &Service) {
    let [alice, bob, late, eve] = service.people().await;
    let room = service.group(&alice, [&bob]).await;
    let mut patch = alice.patch(&room);
    patch.history_joined = Some(true);
    service.rooms().patch(patch).await.unwrap();
    let file = ready(service, &alice).await;
    assert!(!is_read(service, &bob, &file).await, "it was shown to nobody yet");
    attaches(service, &alice, &room, &[&file]).await.unwrap();
    service.rooms().put_member(alice.puts(&room, &late)).await.unwrap();
    assert!(is_read(service, &alice, &file).await && is_read(service, &bob, &file).await);
    assert!(!is_read(service, &late, &file).await, "its message is above nobody's line who joins later");
    assert!(!is_read(service, &eve, &file).await);

    service.rooms().remove_member(alice.about(&room, &bob)).await.unwrap();
    assert!(!is_read(service, &bob, &file).await, "not a member any more");
}

async fn a_file_goes_with_the_last_message_that_holds_it(service: &Service) {
    let [alice, bob] = service.people().await;
    let (room, other) = (service.group(&alice, [&bob]).await, service.group(&bob, []).await);
    let file = ready(service, &alice).await;
    let message = attaches(service, &alice, &room, &[&file]).await.unwrap();
    let forwarded = attaches(service, &bob, &other, &[&file]).await.unwrap();

    deletes(service, &alice, &room, message.seq).await;
    assert!(is_read(service, &bob, &file).await, "another message holds it");
    assert!(dead(service).await.is_empty());
    deletes(service, &bob, &other, forwarded.seq).await;
    assert!(!is_read(service, &alice, &file).await && !is_read(service, &bob, &file).await, "at once");
    assert_eq!(dead(service).await, [file]);
}

async fn a_held_file_is_never_swept_and_a_swept_one_never_held(service: &Service) {
    let [alice] = service.people().await;
    let room = service.group(&alice, []).await;
    let (held, swept) = (ready(service, &alice).await, ready(service, &alice).await);
    attaches(service, &alice, &room, &[&held]).await.unwrap();
    time_passes(service).await;
    assert_eq!(dead(service).await, std::slice::from_ref(&swept));
    assert_eq!(attaches(service, &alice, &room, &[&swept]).await.unwrap_err(), Code::NotFound);
    assert!(is_read(service, &alice, &held).await);
}

async fn a_text_may_be_empty_beside_files_only(service: &Service) {
    let [alice] = service.people().await;
    let room = service.group(&alice, []).await;
    let file = ready(service, &alice).await;
    let empty = SendItem { text: String::new(), ..with(&alice, &room, &[&file]) };
    let seq = service.messages().post(alice.post(empty)).await.unwrap().into_inner().message.unwrap().seq;
    service.messages().edit(alice.edit(&room, seq, "a cat")).await.unwrap();
    service.messages().edit(alice.edit(&room, seq, "")).await.unwrap();
    let bare = service.says(&alice, &room, "words").await;
    let edited = service.messages().edit(alice.edit(&room, bare.seq, "")).await;
    assert_eq!(edited.unwrap_err().code(), Code::InvalidArgument);
    let empty = SendItem { text: String::new(), ..with(&alice, &room, &[]) };
    assert_eq!(service.messages().post(alice.post(empty)).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn what_is_attached_while_it_is_swept_is_kept_or_refused(service: &Service) {
    let [alice] = service.people().await;
    let room = service.group(&alice, []).await;
    for round in 0..20 {
        let file = ready(service, &alice).await;
        time_passes(service).await;
        let files = [&file];
        let attaching = attaches(service, &alice, &room, &files);
        let (sent, taken) = if round % 2 == 0 {
            tokio::join!(attaching, dead(service))
        } else {
            let (taken, sent) = tokio::join!(dead(service), attaching);
            (sent, taken)
        };
        // Of what was handed out nobody has said yet that it is removed.
        let taken = taken.contains(&file) || dead(service).await.contains(&file);
        match sent {
            Ok(_) => assert!(!taken && is_read(service, &alice, &file).await),
            Err(code) => assert_eq!((code, taken), (Code::NotFound, true)),
        }
    }
}

async fn of_a_batch_each_item_is_judged_by_itself(service: &Service) {
    let [alice, bob] = service.people().await;
    let room = service.group(&alice, [&bob]).await;
    let (one, two) = (ready(service, &alice).await, ready(service, &alice).await);
    let items = vec![
        with(&alice, &room, &[&one, &two]),
        with(&bob, &room, &[&two]),
        alice.send(&room, "plain"),
        with(&alice, &room, &[&one]),
    ];
    let answers = stream(&service.client, items).await;
    let first = answers[0].as_ref().unwrap().seq;
    let seqs: Vec<_> = answers.iter().map(|answer| answer.as_ref().ok().map(|sent| sent.seq - first)).collect();
    assert_eq!(seqs, [Some(0), None, Some(1), Some(2)], "what is not bob's takes no number");
    let held: Vec<_> = service.history(&bob, &room).await.iter().map(|message| message.attachments.len()).collect();
    assert_eq!(held[held.len() - 3..], [2, 0, 1]);
}
