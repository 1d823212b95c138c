//! Typing: seen by the others, never by oneself.

use e2e::Stack;
use parlance_client::{Event, RoomId, UserId};

stories!(typing_is_shown_to_the_others);

fn typing(event: &Event, room: RoomId, user: UserId) -> Option<bool> {
    match event {
        Event::Typing(e) if e.room == room && e.user == user => Some(e.on),
        _ => None,
    }
}

async fn typing_is_shown_to_the_others(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, phone, bobs) = (alice.on(0).await, alice.on(1).await, bob.on(1).await);

    desk.connection.typing(room, true).await.unwrap();
    bobs.sees("typing", |event| typing(event, room, alice.id()).filter(|on| *on)).await;
    desk.connection.typing(room, false).await.unwrap();
    bobs.sees("typing off", |event| typing(event, room, alice.id()).filter(|on| !*on)).await;

    desk.sends(room, "done").await;
    for device in [&desk, &phone] {
        device.receives("done").await;
        assert!(device.heard().iter().all(|event| typing(event, room, alice.id()).is_none()), "never to the same user");
    }
}
