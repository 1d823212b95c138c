//! Files that go with messages: everybody who sees the message gets the file, from any gateway, and nobody else.

use super::is_refused;
use e2e::Stack;
use parlance_client::{Code, Draft, Event, FileId, RoomId, wire::Message};

stories! {
    a_picture_reaches_whoever_sees_its_message,
    a_deleted_message_takes_its_file_along,
    a_file_is_sent_on,
}

fn with(files: &[FileId], text: &str) -> Draft {
    Draft { attachments: files.to_vec(), ..Draft::text(text) }
}

fn message_at(event: &Event, room: RoomId, seq: u64) -> Option<Message> {
    match event {
        Event::Message(event) if event.message.room == room && event.message.seq == seq => Some(event.message.clone()),
        _ => None,
    }
}

async fn a_picture_reaches_whoever_sees_its_message(stack: &Stack) {
    let (alice, bob, eve) = (stack.user("alice").await, stack.user("bob").await, stack.user("eve").await);
    let room = alice.direct_with(&bob).await;
    let (phone, other) = (alice.on(0).await, bob.on(1).await);
    let id = alice.uploads("cat.txt", b"a cat").await;
    assert_eq!(bob.reads(1, id, "", &[]).await.status(), 404, "nobody has sent it yet");

    let sent = phone.sends_draft(room, &with(&[id], "")).await;
    let message = other.sees("the message", |event| message_at(event, room, sent.seq)).await;
    assert_eq!(message.text, "");
    let [file] = message.attachments.as_slice() else { panic!("{:?}", message.attachments) };
    assert_eq!((file.id, file.name.as_str(), file.size, file.state.as_str()), (id, "cat.txt", 5, "ready"));
    let stored = bob.api_at(0).message(room, sent.seq).await.expect("a message");
    assert_eq!(stored.attachments, message.attachments);

    for gateway in [0, 1] {
        let answer = bob.reads(gateway, id, "", &[("range", "bytes=2-")]).await;
        assert_eq!((answer.status().as_u16(), answer.text().await.expect("a body").as_str()), (206, "cat"));
    }
    assert_eq!(eve.reads(1, id, "/info", &[]).await.status(), 404);
    let own = eve.makes_a_group("eve's", &[]).await.id;
    is_refused(eve.api_at(0).post_message(own, &with(&[id], "mine")).await, Code::NotFound);
}

async fn a_deleted_message_takes_its_file_along(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (phone, other) = (alice.on(0).await, bob.on(1).await);
    let id = alice.uploads("secret.txt", b"secret").await;
    let sent = phone.sends_draft(room, &with(&[id], "oops")).await;
    assert_eq!(bob.reads(1, id, "", &[]).await.status(), 200);
    alice.api_at(1).delete(room, sent.seq).await.expect("deleted");
    for (who, gateway) in [(&bob, 1), (&alice, 0)] {
        assert_eq!(who.reads(gateway, id, "", &[]).await.status(), 404, "at once");
    }
    let gone = other
        .sees("the deletion", |event| message_at(event, room, sent.seq).filter(|it| it.deleted_at.is_some()))
        .await;
    assert_eq!((gone.text.as_str(), gone.attachments.len()), ("", 0));
}

async fn a_file_is_sent_on(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let (first, second) = (alice.direct_with(&bob).await, bob.direct_with(&carol).await);
    let id = alice.uploads("news.txt", b"news").await;
    let sent = alice.on(0).await.sends_draft(first, &with(&[id], "look")).await;
    bob.on(1).await.sends_draft(second, &with(&[id], "look at this")).await;
    assert_eq!(carol.reads(0, id, "", &[]).await.text().await.expect("a body"), "news");
    alice.api_at(0).delete(first, sent.seq).await.expect("deleted");
    assert_eq!(carol.reads(1, id, "", &[]).await.status(), 200, "another message holds it");
}
