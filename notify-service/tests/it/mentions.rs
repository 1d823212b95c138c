//! Mentions and replies: what they are called, what the level `mentions` lets through, and from whom none comes.

use parlance_proto::{
    chat::{self, SendItem},
    v1,
};
use service_kit::id::ClientId;
use uuid::Uuid;

use crate::{
    receiver::Receiver,
    world::{Person, World, stories},
};

stories! {
    the_level_mentions_lets_mentions_and_replies_through
    nothing_of_somebody_who_is_blocked_is_pushed
}

/// A message that has not been sent yet.
fn draft(sender: &Person, room: &bytes::Bytes, text: &str) -> SendItem {
    SendItem {
        room: room.clone(),
        sender: sender.id.to_wire(),
        client_id: ClientId(Uuid::new_v4()).to_wire(),
        text: text.to_owned(),
        ..SendItem::default()
    }
}

async fn posts(world: &World, sender: &Person, item: SendItem) -> v1::Message {
    let request = chat::PostRequest { actor: sender.actor(), item: Some(item) };
    world.messages().post(request).await.unwrap().into_inner().message.unwrap()
}

async fn sets_level(world: &World, person: &Person, room: &bytes::Bytes, level: v1::Notify) {
    let request = chat::PatchMineRequest {
        actor: person.actor(),
        room: room.clone(),
        notify: Some(level.into()),
        ..chat::PatchMineRequest::default()
    };
    world.rooms().patch_mine(request).await.unwrap();
}

async fn the_level_mentions_lets_mentions_and_replies_through(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    let room = world.group(&maja, "team", &[&bob, &carol]).await;
    for (person, path, level) in [(&bob, "bob", v1::Notify::Mentions), (&carol, "carol", v1::Notify::None)] {
        world.subscribes(person, &receiver, path).await;
        sets_level(world, person, &room, level).await;
    }
    let asked = world.says(&bob, &room, "a question").await;

    let plain = world.says(&maja, &room, "to nobody").await;
    let of_carol = SendItem { mentions: vec![carol.id.to_wire()], ..draft(&maja, &room, "to carol") };
    let of_carol = posts(world, &maja, of_carol).await;
    let of_bob = SendItem { mentions: vec![bob.id.to_wire()], ..draft(&maja, &room, "to bob") };
    let of_bob = posts(world, &maja, of_bob).await;
    let of_all = SendItem { mentions_all: true, ..draft(&maja, &room, "to all") };
    let of_all = posts(world, &maja, of_all).await;
    let reply = SendItem { reply_to: Some(asked.seq), mentions_all: true, ..draft(&maja, &room, "an answer") };
    let reply = posts(world, &maja, reply).await;

    for (message, outcome, reason) in [
        (&plain, "skipped", "level"),
        (&of_carol, "skipped", "level"),
        (&of_bob, "sent", "delivered"),
        (&of_all, "sent", "delivered"),
        (&reply, "sent", "delivered"),
    ] {
        world.decides(message, &bob, outcome, reason).await;
    }
    world.decides(&of_carol, &carol, "skipped", "level").await;
    let pushes = receiver.has("bob", 3).await;
    let kind =
        |body: &str| pushes.iter().find(|push| push.payload["body"] == body).expect(body).payload["kind"].clone();
    assert_eq!((kind("Maja: to bob"), kind("Maja: to all")), ("mention".into(), "mention".into()));
    assert_eq!(kind("Maja: an answer"), "reply");
    assert_eq!((pushes.len(), receiver.pushes("carol").len()), (3, 0));
}

async fn nothing_of_somebody_who_is_blocked_is_pushed(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    let room = world.group(&maja, "team", &[&bob, &carol]).await;
    for (person, path) in [(&maja, "maja"), (&bob, "bob")] {
        world.subscribes(person, &receiver, path).await;
    }
    let block = chat::BlockRequest { actor: bob.actor(), user: maja.id.to_wire() };
    world.accounts().block(block).await.unwrap();

    let of_bob = SendItem { mentions: vec![bob.id.to_wire()], ..draft(&maja, &room, "to bob") };
    world.decides(&posts(world, &maja, of_bob).await, &bob, "skipped", "blocked").await;
    // Others still reach the blocker, and the blocker the blocked one.
    world.decides(&world.says(&carol, &room, "to all of you").await, &bob, "sent", "delivered").await;
    world.decides(&world.says(&bob, &room, "from me").await, &maja, "sent", "delivered").await;
    assert!(receiver.pushes("bob").iter().all(|push| push.payload["body"] == "Carol: to all of you"));
}
