//! Rooms whose newcomers see only what came after them.

use e2e::{Device, Person, Stack};
use parlance_client::frame::Range;
use parlance_client::{Code, Draft, Event, RoomId};
use serde_json::json;

use super::is_refused;

stories!(
    a_newcomer_sees_nothing_from_before,
    a_change_from_before_is_skipped_for_a_newcomer,
    who_comes_back_begins_anew,
    who_was_there_keeps_everything,
);

/// Alice's channel with `history: joined`, and the seq of the one message that is in it.
async fn channel(alice: &Person) -> (RoomId, Device, u64) {
    let room = alice.makes_a_channel("since joining").await.id;
    let changed = alice.api.patch_room(room, json!({ "settings": { "history": "joined" } })).await.unwrap();
    assert_eq!(changed.settings.history, "joined");
    let desk = alice.on(0).await;
    let old = desk.sends(room, "before").await.seq;
    (room, desk, old)
}

async fn texts(person: &Person, room: RoomId) -> Vec<String> {
    let page = person.api_at(1).history(room, Range::default()).await.unwrap();
    page.items.into_iter().filter(|message| message.kind == "text").map(|message| message.text).collect()
}

/// Waits until a device has been told so many times that it is in the room. What is sent before that it finds in
/// `joined` itself, and not as an event.
async fn has_joined(device: &Device, room: RoomId, times: usize) {
    let joined = |event: &&Event| matches!(event, Event::Joined(joined) if joined.id == room);
    device.knows("joined", |events| (events.iter().filter(joined).count() >= times).then_some(())).await;
}

async fn a_newcomer_sees_nothing_from_before(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (room, desk, old) = channel(&alice).await;

    let joined = bob.api_at(1).join(room).await.unwrap();
    assert_eq!((joined.me.unread, joined.me.read_seq), (0, joined.seq));
    assert!(joined.last_message.is_none_or(|last| last.seq > old));

    assert!(texts(&bob, room).await.is_empty());
    is_refused(bob.api.message(room, old).await, Code::NotFound);
    let around = Range { around: Some(old), ..Range::default() };
    assert!(bob.api.history(room, around).await.unwrap().items.iter().all(|message| message.seq > old));
    let changes = bob.api.changes(room, 0, None).await.unwrap();
    assert!(changes.messages.iter().all(|message| message.seq > old), "{changes:?}");
    let bobs = bob.on(1).await;
    let reply = Draft { reply_to: Some(old), ..Draft::text("what was that?") };
    is_refused(bobs.connection.send(room, &reply).await, Code::Unprocessable);

    desk.sends(room, "after").await;
    bobs.receives("after").await;
    assert_eq!(texts(&bob, room).await, ["after"]);
}

async fn a_change_from_before_is_skipped_for_a_newcomer(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (room, desk, old) = channel(&alice).await;
    bob.api.join(room).await.unwrap();
    let bobs = bob.on(1).await;

    let edited = desk.connection.edit(room, old, "not for bob").await.unwrap();
    let skip = bobs
        .sees("skip", |event| match event {
            Event::Skip(skip) if skip.room == room => Some(skip.clone()),
            _ => None,
        })
        .await;
    assert_eq!(skip.rev, edited.rev, "the rev goes on, and says nothing else");
    desk.receives("not for bob").await;

    let next = desk.sends(room, "for everybody").await;
    assert_eq!(bobs.receives("for everybody").await.rev, next.rev);
    assert_eq!(bobs.texts(room), [(next.seq, "for everybody".to_owned())]);
    // Through another gateway the same: the rev is held, and nothing of it is shown.
    let held = bobs.drops_off();
    desk.connection.edit(room, old, "nor this").await.unwrap();
    let back = bob.resumes(0, &held).await;
    assert!(back.welcome.changes.iter().all(|changes| changes.messages.is_empty()), "{:?}", back.welcome.changes);
    assert_eq!(texts(&bob, room).await, ["for everybody"]);
}

async fn who_comes_back_begins_anew(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (room, desk, _) = channel(&alice).await;
    let bobs = bob.on(1).await;
    bob.api.join(room).await.unwrap();
    has_joined(&bobs, room, 1).await;
    let first = desk.sends(room, "the first time").await;
    bobs.receives("the first time").await;
    let held = bobs.holds();

    bob.api.leave(room).await.unwrap();
    bobs.sees("left", |event| matches!(event, Event::Left(left) if left.room == room).then_some(())).await;
    desk.sends(room, "while he was away").await;
    bob.api.join(room).await.unwrap();
    has_joined(&bobs, room, 2).await;
    desk.sends(room, "the second time").await;
    bobs.receives("the second time").await;

    assert_eq!(texts(&bob, room).await, ["the second time"]);
    is_refused(bob.api.message(room, first.seq).await, Code::NotFound);
    let heard: Vec<_> = bobs.texts(room).into_iter().map(|(_, text)| text).collect();
    assert_eq!(heard, ["the first time", "the second time"]);
    // What he held is from another membership: it can not be continued.
    let back = bob.resumes(0, &held).await;
    let [changes] = &back.welcome.changes[..] else { panic!("{:?}", back.welcome.changes) };
    assert!(changes.truncated && changes.messages.is_empty());
}

async fn who_was_there_keeps_everything(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("from all to joined", &[&bob]).await.id;
    alice.on(0).await.sends(room, "before").await;
    alice.api.patch_room(room, json!({ "settings": { "history": "joined" } })).await.unwrap();
    assert_eq!(texts(&bob, room).await, ["before"]);
    alice.api.patch_room(room, json!({ "settings": { "history": "all" } })).await.unwrap();
    assert_eq!(texts(&bob, room).await, ["before"]);
    let wrong = alice.api.patch_room(room, json!({ "settings": { "history": "some" } })).await;
    is_refused(wrong, Code::BadRequest);
}
