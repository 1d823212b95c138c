//! The list of what one was told of, and how it changes while one looks at it.

use e2e::{Device, Person, Stack, eventually};
use parlance_client::api::Notifications;
use parlance_client::wire::{Mention, Notification, NotificationKind};
use parlance_client::{Code, Draft, Event, RoomId};
use reqwest::Method;
use serde_json::json;

use super::is_refused;

stories!(
    who_is_mentioned_answered_or_added_is_told_at_once,
    a_direct_message_that_nobody_saw_is_told_once,
    the_list_has_pages_and_is_read_up_to_a_place,
);

async fn list(person: &Person) -> Notifications {
    person.api_at(1).notifications(None, 50).await.unwrap()
}

/// Waits until the list has so many entries.
async fn has(person: &Person, number: usize) -> Notifications {
    eventually("the list", async || Some(list(person).await).filter(|list| list.items.len() == number)).await
}

async fn is_told(device: &Device, kind: NotificationKind) -> Notification {
    let told = |event: &Event| match event {
        Event::Notification(it) if it.kind == kind => Some((**it).clone()),
        _ => None,
    };
    device.sees("a notification", told).await
}

async fn mentions(device: &Device, room: RoomId, person: &Person, text: &str) -> u64 {
    let draft = Draft { mentions: vec![Mention::User(person.id())], ..Draft::text(text) };
    device.sends_draft(room, &draft).await.seq
}

async fn who_is_mentioned_answered_or_added_is_told_at_once(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (desk, phone) = (alice.on(0).await, bob.on(1).await);
    let room = alice.makes_a_group("team", &[&bob]).await.id;
    let added = is_told(&phone, NotificationKind::Invitation).await;
    assert_eq!((added.room, added.seq, added.sender, added.read), (room, 0, alice.id(), false));

    let question = phone.sends(room, "a question").await.seq;
    let mention = mentions(&desk, room, &bob, "@bob").await;
    let told = is_told(&phone, NotificationKind::Mention).await;
    assert_eq!((told.room, told.seq, told.sender, &told.message), (room, mention, alice.id(), &None));
    let answer = desk.sends_draft(room, &Draft { reply_to: Some(question), ..Draft::text("an answer") }).await.seq;
    is_told(&phone, NotificationKind::Reply).await;

    let Notifications { items, unread, .. } = list(&bob).await;
    let kinds: Vec<_> = items.iter().map(|item| (item.kind, item.seq, item.read)).collect();
    // To write in the room is to have read it so far.
    let (invited, reply, mentioned) =
        (NotificationKind::Invitation, NotificationKind::Reply, NotificationKind::Mention);
    assert_eq!(kinds, [(reply, answer, false), (mentioned, mention, false), (invited, 0, true)]);
    assert_eq!((unread, items[1].message.as_ref().unwrap().text.as_str()), (2, "@bob"));

    bob.api.read(room, mention).await.unwrap();
    assert_eq!(list(&bob).await.unread, 1, "the mention was read in its room");
    alice.api.delete(room, answer).await.unwrap();
    let left = list(&bob).await;
    assert_eq!((left.items.len(), left.unread), (2, 0), "what was deleted is told no more");
    assert_eq!(list(&alice).await.items, [], "nobody is told what they did themselves");
}

async fn a_direct_message_that_nobody_saw_is_told_once(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let first = desk.sends(room, "are you there?").await.seq;
    desk.sends(room, "hello?").await;
    let told = has(&bob, 1).await;
    let [missed] = &told.items[..] else { unreachable!() };
    assert_eq!((missed.kind, missed.seq, told.unread), (NotificationKind::Direct, first, 1));
    bob.api.read(room, 2).await.unwrap();
    assert_eq!(list(&bob).await.unread, 0);

    let phone = bob.on(1).await;
    desk.sends(room, "there you are").await;
    phone.receives("there you are").await;
    // Looks come in the order of their messages: who is away is told later than bob would have been.
    let carol = stack.user("carol").await;
    let with_carol = alice.direct_with(&carol).await;
    desk.sends(with_carol, "and you?").await;
    has(&carol, 1).await;
    assert_eq!(list(&bob).await.items.len(), 1, "who is there misses nothing");
}

async fn the_list_has_pages_and_is_read_up_to_a_place(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("team", &[&bob]).await.id;
    let desk = alice.on(0).await;
    for number in 0..5 {
        mentions(&desk, room, &bob, &format!("@bob {number}")).await;
    }
    let whole = has(&bob, 6).await;
    let (mut paged, mut cursor) = (Vec::new(), None);
    loop {
        let page = bob.api.notifications(cursor.as_deref(), 4).await.unwrap();
        assert_eq!(page.unread, 6, "in all");
        paged.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(paged, whole.items);

    let phone = bob.on(1).await;
    bob.api.read_notifications(whole.items[2].id).await.unwrap();
    let up_to = |event: &Event| match event {
        Event::NotificationsRead(it) => Some(it.up_to),
        _ => None,
    };
    assert_eq!(phone.sees("the mark", up_to).await, whole.items[2].id);
    let read: Vec<bool> = list(&bob).await.items.iter().map(|item| item.read).collect();
    assert_eq!(read, [false, false, true, true, true, true]);
    assert_eq!(list(&alice).await.items, []);

    let path = "/v1/notifications/read";
    for bad in [json!({}), json!({ "up_to": 1 }), json!({ "up_to": "x" })] {
        is_refused(bob.api.call(Method::POST, path, Some(bad)).await, Code::BadRequest);
    }
    for bad in ["limit=0", "limit=201", "cursor=x"] {
        let path = format!("/v1/notifications?{bad}");
        is_refused(bob.api.call(Method::GET, &path, None).await, Code::BadRequest);
    }
}
