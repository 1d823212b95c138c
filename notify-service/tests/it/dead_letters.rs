//! What was given up, as an operator lists it and has it tried again.

use std::process::{Command, Output};

use notify_service::dead_letters::{self, Which};
use serde_json::{Value, json};
use service_kit::id::RoomId;
use uuid::Uuid;

use crate::{
    receiver::{Mood, Receiver},
    world::{Database, World, stories},
};

stories! {
    what_was_given_up_is_listed_replayed_and_delivered
    one_message_of_one_room_can_be_replayed
}

async fn listed(world: &World) -> Vec<Value> {
    let (dead, in_all) = dead_letters::list(&world.db, 10).await.unwrap();
    assert_eq!(i64::try_from(dead.len()).unwrap(), in_all);
    dead.iter().map(|dead| serde_json::to_value(dead.shown()).unwrap()).collect()
}

async fn what_was_given_up_is_listed_replayed_and_delivered(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.group(&maja, "team", &[&bob]).await;
    let receiver = Receiver::start().await;
    let device = world.subscribes(&bob, &receiver, "bob").await;
    receiver.answers("bob", &[Mood::Status(400), Mood::Status(400), Mood::Status(201)]);
    let message = world.says(&maja, &room, "a secret").await;
    world.decides(&message, &bob, "dead_lettered", "provider_error").await;

    let dead = listed(world).await;
    let [one] = &dead[..] else { panic!("one is dead: {dead:?}") };
    let uuid = |bytes: &[u8]| json!(Uuid::from_slice(bytes).unwrap());
    assert_eq!((&one["room"], &one["seq"], &one["user"]), (&uuid(&room), &json!(message.seq), &json!(bob.id)));
    assert_eq!((&one["device"], &one["platform"], &one["attempts"]), (&uuid(&device), &"webpush".into(), &json!(1)));
    assert_eq!((&one["reason"], &one["detail"]), (&"provider_error".into(), &"answered 400".into()));
    assert!(one["at"].as_i64().unwrap() >= message.at);
    let said = one.to_string();
    assert!(!said.contains(&receiver.url) && !said.contains("secret"), "neither endpoints nor texts: {said}");

    assert_eq!(dead_letters::replay(&world.db, &Which::All).await.unwrap(), 1);
    receiver.has("bob", 2).await;
    world.decides(&message, &bob, "dead_lettered", "provider_error").await;
    assert_eq!(dead_letters::replay(&world.db, &Which::All).await.unwrap(), 1, "it may be given up again");
    world.decides(&message, &bob, "sent", "delivered").await;
    assert_eq!((listed(world).await.len(), receiver.pushes("bob").len()), (0, 3));
    assert_eq!(dead_letters::replay(&world.db, &Which::All).await.unwrap(), 0);
}

async fn one_message_of_one_room_can_be_replayed(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let receiver = Receiver::start().await;
    let (room, other) = (world.group(&maja, "one", &[&bob]).await, world.group(&maja, "other", &[&bob]).await);
    world.subscribes(&bob, &receiver, "bob").await;
    receiver.answers("bob", &[Mood::Status(400), Mood::Status(400), Mood::Status(400), Mood::Status(201)]);
    let mut messages = Vec::new();
    for (room, text) in [(&room, "1"), (&room, "2"), (&other, "3")] {
        let message = world.says(&maja, room, text).await;
        world.decides(&message, &bob, "dead_lettered", "provider_error").await;
        messages.push(message);
    }
    let room = RoomId(Uuid::from_slice(&room).unwrap());
    let second = Which::Of(room, vec![messages[1].seq, messages[1].seq + 100]);
    assert_eq!(dead_letters::replay(&world.db, &second).await.unwrap(), 1);
    world.decides(&messages[1], &bob, "sent", "delivered").await;
    assert_eq!(listed(world).await.len(), 2);
    assert_eq!(dead_letters::replay(&world.db, &Which::Of(room, vec![])).await.unwrap(), 1);
    world.decides(&messages[0], &bob, "sent", "delivered").await;
    world.decides(&messages[2], &bob, "dead_lettered", "provider_error").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_lists_and_replays_where_the_database_is() {
    let Some(database) = Database::postgres().await else { return };
    let url = database.url();
    let world = World::begin(database).await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let receiver = Receiver::start().await;
    world.subscribes(&bob, &receiver, "bob").await;
    receiver.answers("bob", &[Mood::Status(400), Mood::Status(201)]);
    let room = world.direct(&maja, &bob).await;
    let message = world.says(&maja, &room, "hello").await;
    world.decides(&message, &bob, "dead_lettered", "provider_error").await;
    // Nobody listens there: that hides no pushes, and is said.
    let asks = async |args: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_notify-service"));
        program.args(["admin", "dead-letters"]).args(args);
        program.env("PARLANCE_DATABASE_URL", &url).env("PARLANCE_AMQP_URL", "amqp://127.0.0.1:9");
        let Output { status, stdout, .. } =
            tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
        (status.code(), String::from_utf8(stdout).unwrap())
    };
    let (code, said) = asks(&["list", "--json"]).await;
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &said["pushes"][0]["user"], &said["batches"]), (Some(0), &json!(bob.id), &Value::Null));
    let (_, said) = asks(&["list"]).await;
    assert!(said.contains(" webpush room ") && said.contains("answered 400"), "{said}");
    let (code, said) = asks(&["replay", "--all"]).await;
    assert_eq!((code, said.as_str()), (Some(1), "pushes that are tried again: 1\n"), "the broker is away");
    world.decides(&message, &bob, "sent", "delivered").await;
    world.end().await;
}
