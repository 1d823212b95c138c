//! Editing and deleting: who may, what remains, what everybody sees.

use e2e::{Device, Stack};
use parlance_client::wire::{Message, Role, Seq};
use parlance_client::{Code, Event};

use super::is_refused;

stories!(
    an_edit_reaches_everybody,
    only_the_sender_edits,
    who_deletes,
    what_is_deleted_is_gone,
    what_is_already_so_takes_no_rev
);

/// Waits for a change of a message that is not its first appearance.
async fn sees_change(device: &Device, seq: Seq, change: impl Fn(&Message) -> bool) -> Message {
    device
        .sees("change", |event| match event {
            Event::Message(e) if e.message.seq == seq && change(&e.message) => Some(e.message.clone()),
            _ => None,
        })
        .await
}

async fn an_edit_reaches_everybody(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let sent = desk.sends(room, "helo").await;

    let revised = desk.connection.edit(room, sent.seq, "hello").await.unwrap();

    let seen = sees_change(&bobs, sent.seq, |m| m.text == "hello").await;
    assert_eq!((seen.rev, seen.id, seen.at), (revised.rev, sent.id, sent.at));
    assert!(seen.edited_at.is_some() && revised.rev > sent.rev);
    let by_rest = alice.api_at(1).edit(room, sent.seq, "hello!").await.unwrap();
    assert!(by_rest.rev > revised.rev);
    assert_eq!(sees_change(&bobs, sent.seq, |m| m.text == "hello!").await.rev, by_rest.rev);
}

async fn only_the_sender_edits(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("edits", &[&bob]).await.id;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    let seq = bobs.sends(room, "mine").await.seq;
    is_refused(desk.connection.edit(room, seq, "hers").await, Code::Forbidden);
    is_refused(alice.api.edit(room, seq, "hers").await, Code::Forbidden);
    is_refused(bobs.connection.edit(room, seq, "").await, Code::BadRequest);
    is_refused(bobs.connection.edit(room, seq + 100, "nothing").await, Code::NotFound);
    assert_eq!(bob.api.message(room, seq).await.unwrap().text, "mine");
}

async fn who_deletes(stack: &Stack) {
    let (alice, adam, mia, max) =
        (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await, stack.user("max").await);
    let room = alice.makes_a_group("deletions", &[&adam, &mia, &max]).await.id;
    alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();
    let mias = mia.on(0).await;
    let sent = mias.sends_all(room, ["own", "by an admin", "by the owner"].map(str::to_owned)).await;

    is_refused(max.api.delete(room, sent[0].seq).await, Code::Forbidden);
    mia.api.delete(room, sent[0].seq).await.unwrap();
    adam.api_at(1).delete(room, sent[1].seq).await.unwrap();
    alice.api.delete(room, sent[2].seq).await.unwrap();

    for sent in sent {
        let deleted = sees_change(&mias, sent.seq, |m| m.deleted_at.is_some()).await;
        assert_eq!((deleted.text.as_str(), deleted.attachments.len()), ("", 0));
    }
}

async fn what_is_deleted_is_gone(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let sent = desk.sends(room, "oops").await;
    desk.connection.delete(room, sent.seq).await.unwrap();

    is_refused(desk.connection.edit(room, sent.seq, "again").await, Code::Gone);
    is_refused(alice.api.edit(room, sent.seq, "again").await, Code::Gone);
    let kept = bob.api.message(room, sent.seq).await.unwrap();
    assert_eq!((kept.seq, kept.sender, kept.text.as_str()), (sent.seq, Some(alice.id()), ""));
    assert!(kept.deleted_at.is_some());
    assert_eq!(desk.sends(room, "next").await.seq, sent.seq + 1, "its seq stays taken");
}

async fn what_is_already_so_takes_no_rev(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let sent = desk.sends(room, "same").await;

    assert_eq!(desk.connection.edit(room, sent.seq, "same").await.unwrap().rev, sent.rev);
    let deleted = desk.connection.delete(room, sent.seq).await.unwrap();
    assert_eq!(desk.connection.delete(room, sent.seq).await.unwrap(), deleted);
    assert_eq!(alice.api.room(room).await.unwrap().rev, deleted.rev);
}
