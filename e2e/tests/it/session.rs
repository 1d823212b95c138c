//! The client's session: what an application sees of all this.

use e2e::{Stack, within};
use parlance_client::session::Update;
use parlance_client::{Draft, Event, RoomId, Updates};

stories!(a_session_gives_events_in_order_and_ends_when_told, a_session_learns_of_new_rooms);

async fn text_in(updates: &mut Updates, room: RoomId) -> String {
    within("a message", async {
        loop {
            match updates.next().await.expect("it goes on") {
                Update::Event(Event::Message(e)) if e.message.room == room && e.message.kind == "text" => {
                    return e.message.text;
                }
                Update::Ended(error) => panic!("{error}"),
                _ => {}
            }
        }
    })
    .await
}

async fn a_session_gives_events_in_order_and_ends_when_told(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (session, mut updates) = bob.stays_on(&[1, 0]);
    let (alices, _alices_updates) = alice.stays_on(&[0, 1]);
    session.connection().await.unwrap();

    let sends = (0..50).map(|n| alices.send(room, Draft::text(n.to_string())));
    let sent = futures_util::future::join_all(sends).await;
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    for n in 0..50 {
        assert_eq!(text_in(&mut updates, room).await, n.to_string());
    }

    session.stop();
    within("the end", async { while updates.next().await.is_some() {} }).await;
    assert!(session.send(room, Draft::text("too late")).await.is_err());
}

async fn a_session_learns_of_new_rooms(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (session, mut updates) = bob.stays_on(&[1]);
    session.connection().await.unwrap();

    let room = alice.makes_a_group("new", &[&bob]).await.id;
    alice.on(0).await.sends(room, "welcome").await;

    assert_eq!(text_in(&mut updates, room).await, "welcome");
}
