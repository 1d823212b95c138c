//! Mentions: in the message wherever it is read, and in the badge of those who are mentioned.

use e2e::{Person, Stack};
use parlance_client::wire::{Me, Mention};
use parlance_client::{Draft, Event, RoomId};

stories!(a_mention_is_in_the_message_and_in_the_badge, a_mention_of_all_reaches_everybody_else);

async fn me(person: &Person, room: RoomId) -> Me {
    person.api_at(1).room(room).await.unwrap().me
}

async fn a_mention_is_in_the_message_and_in_the_badge(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, phone) = (alice.on(0).await, bob.on(1).await);
    let mentions = vec![Mention::User(bob.id())];
    let sent = desk.sends_draft(room, &Draft { mentions: mentions.clone(), ..Draft::text("@bob") }).await;
    assert_eq!(phone.receives("@bob").await.mentions, mentions);
    let posted = Draft { mentions: mentions.clone(), ..Draft::text("@bob again") };
    assert_eq!(alice.api.post_message(room, &posted).await.unwrap().body.mentions, mentions);
    let (message, own) = (bob.api.message(room, sent.seq).await.unwrap(), me(&bob, room).await);
    assert_eq!((message.mentions, own.mentions, own.unread), (mentions, 2, 2));

    desk.connection.delete(room, sent.seq).await.unwrap();
    assert_eq!(me(&bob, room).await.mentions, 1, "a deleted one counts no more");
    phone.connection.read(room, 2).await.unwrap();
    let told = phone.sees("own state", |event| match event {
        Event::Me(e) if e.room == room => Some(e.me.clone()),
        _ => None,
    });
    let told = told.await;
    assert_eq!((told.mentions, told.unread, me(&alice, room).await.mentions), (0, 0, 0));
}

async fn a_mention_of_all_reaches_everybody_else(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = alice.makes_a_group("everybody", &[&bob, &carol]).await.id;
    let desk = alice.on(0).await;
    let draft = Draft { mentions: vec![Mention::User(bob.id()), Mention::All], ..Draft::text("@all") };
    let sent = desk.sends_draft(room, &draft).await;
    assert_eq!(bob.api.message(room, sent.seq).await.unwrap().mentions, draft.mentions);
    for (person, count) in [(&alice, 0), (&bob, 1), (&carol, 1)] {
        assert_eq!(me(person, room).await.mentions, count);
    }
    // The hello of a new connection has the same.
    assert_eq!(carol.on(1).await.welcome.rooms.iter().find(|it| it.id == room).unwrap().me.mentions, 1);
}
