//! What the worker makes of what the bus delivers, and the service as its callers see it.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod apns;
mod costs;
mod dead_letters;
mod devices;
mod email;
mod fcm;
mod load;
mod mentions;
mod notifications;
mod outage;
mod pem;
mod push;
mod receiver;
mod world;

use std::{process::Command, sync::Arc, time::Duration};

use notify_service::{
    Config, GROUP,
    notifications::tell::Teller,
    plan::Planner,
    worker::{Counts, Outcome, Worker},
};
use parlance_proto::{
    event::{Addressed, Batch, Batches, Event, MemberRemoved, RoomEvent, event, room_event},
    notify::{CountsReply, CountsRequest, notify_client::NotifyClient},
    v1::{Message, MessageKind},
};
use prost::Message as _;
use service_kit::{
    admin::Readiness,
    bus::{Bus, Consumer, Parcel},
    db::Db,
    id::{RoomId, Topic},
    rpc::{self, Client},
    tasks::Tasks,
};
use uuid::Uuid;

use crate::world::{Database, absent_presence};

/// How long a story waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

fn text() -> Message {
    Message { kind: MessageKind::Text.into(), text: "hi".to_owned(), ..Message::default() }
}

fn of_room(kind: room_event::Kind) -> Event {
    Event { kind: Some(event::Kind::Room(RoomEvent { kind: Some(kind), ..RoomEvent::default() })) }
}

fn of_message(message: Message) -> Event {
    of_room(room_event::Kind::Message(message))
}

/// An encoded batch of these events.
fn batch(id: Uuid, events: Vec<Event>) -> Parcel {
    let topic = Topic::Room(RoomId::generate()).to_wire();
    let events =
        events.iter().map(|event| Addressed { topic: topic.clone(), event: event.encode_to_vec().into() }).collect();
    together(vec![Batch { id: id.as_bytes().to_vec().into(), events, traceparent: String::new() }])
}

/// One delivery of several batches.
fn together(batches: Vec<Batch>) -> Parcel {
    Parcel { body: Batches { batches }.encode_to_vec().into(), traceparent: None }
}

/// A worker that is stepped by hand, and its bus.
struct Bench {
    bus: Bus,
    consumer: Consumer,
    worker: Worker,
    counts: Arc<Counts>,
    db: Db,
    database: Database,
    _tasks: Tasks,
}

impl Bench {
    async fn new() -> Self {
        let tasks = Tasks::new();
        let bus = Bus::connect("memory:", "test", &tasks).await.unwrap();
        let counts = Arc::new(Counts::default());
        let consumer = bus.consume(GROUP).await.unwrap();
        let database = Database::sqlite();
        let db = Db::connect(&database.url()).await.unwrap();
        notify_service::migrate(&db).await.unwrap();
        let worker = Worker::new(
            Arc::clone(&counts),
            Planner::new(db.clone(), Duration::ZERO, Teller::silent(), absent_presence()),
        );
        Self { consumer, worker, counts, bus, db, database, _tasks: tasks }
    }

    /// Emits, and has the worker take one step. Resolves when both are done.
    async fn delivers(&mut self, id: Uuid, parcel: Parcel) -> Outcome {
        let emitted = self.bus.emit(id, parcel);
        let work = tokio::time::timeout(PATIENCE, self.consumer.next()).await.unwrap().unwrap();
        assert_eq!(work.id, id);
        let outcome = self.worker.step(work).await;
        tokio::time::timeout(PATIENCE, emitted).await.unwrap().unwrap();
        outcome
    }

    async fn ends(self) {
        self.db.close().await;
        self.database.drop().await;
    }

    fn counted(&self) -> (u64, u64) {
        (self.counts.batches(), self.counts.messages())
    }
}

#[tokio::test]
async fn only_new_messages_of_people_are_counted() {
    let mut bench = Bench::new().await;
    let id = Uuid::now_v7();
    let events = vec![
        of_message(text()),
        of_message(Message { edited_at: Some(1), ..text() }),
        of_message(Message { deleted_at: Some(1), ..text() }),
        of_message(Message { kind: MessageKind::System.into(), ..text() }),
        of_room(room_event::Kind::Removed(MemberRemoved::default())),
        Event { kind: Some(event::Kind::Typing(parlance_proto::event::Typing::default())) },
        of_message(text()),
    ];
    assert_eq!(bench.delivers(id, batch(id, events)).await, Outcome::Counted(2));
    assert_eq!(bench.counted(), (1, 2));
    bench.ends().await;
}

#[tokio::test]
async fn a_repeated_id_counts_once() {
    let mut bench = Bench::new().await;
    let id = Uuid::now_v7();
    assert_eq!(bench.delivers(id, batch(id, vec![of_message(text())])).await, Outcome::Counted(1));
    assert_eq!(bench.delivers(id, batch(id, vec![of_message(text())])).await, Outcome::Repeated);
    assert_eq!(bench.counted(), (1, 1));
    bench.ends().await;
}

#[tokio::test]
async fn batches_that_come_together_count_each_once_also_in_other_company() {
    let mut bench = Bench::new().await;
    let of = |id: Uuid| {
        let event = of_message(text()).encode_to_vec().into();
        let events = vec![Addressed { event, ..Addressed::default() }];
        Batch { id: id.as_bytes().to_vec().into(), events, traceparent: String::new() }
    };
    let [first, second, third] = [(); 3].map(|()| Uuid::now_v7());
    let delivery = together(vec![of(first), of(second)]);
    assert_eq!(bench.delivers(Uuid::now_v7(), delivery).await, Outcome::Counted(2));
    let delivery = together(vec![of(second), of(third)]);
    assert_eq!(bench.delivers(Uuid::now_v7(), delivery).await, Outcome::Counted(1));
    let delivery = together(vec![of(third), of(first)]);
    assert_eq!(bench.delivers(Uuid::now_v7(), delivery).await, Outcome::Repeated);
    assert_eq!(bench.counted(), (3, 3));
    bench.ends().await;
}

#[tokio::test]
async fn poison_is_put_aside_and_the_next_batch_is_counted() {
    let mut bench = Bench::new().await;
    let (id, other) = (Uuid::now_v7(), Uuid::now_v7());
    let garbage = Parcel { body: vec![0xff; 9].into(), traceparent: None };
    assert_eq!(bench.delivers(id, garbage).await, Outcome::Rejected);
    assert_eq!(bench.delivers(id, Parcel::default()).await, Outcome::Rejected);
    assert_eq!(bench.delivers(id, together(vec![Batch::default()])).await, Outcome::Rejected, "it has no id");
    let bad_event = Batch {
        id: id.as_bytes().to_vec().into(),
        events: vec![Addressed { event: vec![0xff; 9].into(), ..Addressed::default() }],
        ..Batch::default()
    };
    assert_eq!(bench.delivers(id, together(vec![bad_event])).await, Outcome::Rejected);
    assert_eq!(bench.counted(), (0, 0));
    assert_eq!(bench.delivers(other, batch(other, vec![of_message(text())])).await, Outcome::Counted(1));
    bench.ends().await;
}

#[tokio::test]
async fn what_a_consumer_dropped_is_delivered_again_and_counted_once() {
    let mut bench = Bench::new().await;
    let id = Uuid::now_v7();
    let emitted = bench.bus.emit(id, batch(id, vec![of_message(text())]));
    let dropped = tokio::time::timeout(PATIENCE, bench.consumer.next()).await.unwrap().unwrap();
    assert!(!dropped.redelivered);
    drop(dropped);
    let again = tokio::time::timeout(PATIENCE, bench.consumer.next()).await.unwrap().unwrap();
    assert_eq!((again.id, again.redelivered), (id, true));
    assert_eq!(bench.worker.step(again).await, Outcome::Counted(1));
    tokio::time::timeout(PATIENCE, emitted).await.unwrap().unwrap();
    assert_eq!(bench.counted(), (1, 1));
    bench.ends().await;
}

async fn counts(client: Client) -> CountsReply {
    NotifyClient::new(client).counts(CountsRequest {}).await.unwrap().into_inner()
}

#[tokio::test]
async fn the_service_counts_what_is_emitted_says_so_and_stops() {
    let (tasks, readiness) = (Tasks::new(), Readiness::new());
    let bus_tasks = Tasks::new();
    let bus = Bus::connect("memory:", "test", &bus_tasks).await.unwrap();
    let database = Database::sqlite();
    let db = Db::connect(&database.url()).await.unwrap();
    let presence = rpc::connect("http://127.0.0.1:9").unwrap();
    let (config, on, near) = (Config::default(), db.clone(), bus.clone());
    let routes = notify_service::start(config, on, near, presence, readiness.clone(), &tasks).await.unwrap();
    let client = rpc::in_process(routes, &tasks);
    assert_eq!(counts(client.clone()).await, CountsReply { batches: 0, messages: 0 });
    let id = Uuid::now_v7();
    for _ in 0..2 {
        let emitted = bus.emit(id, batch(id, vec![of_message(text()), of_message(text())]));
        tokio::time::timeout(PATIENCE, emitted).await.unwrap().unwrap();
    }
    assert_eq!(counts(client).await, CountsReply { batches: 1, messages: 2 });
    assert!(readiness.is_ready());
    assert!(tasks.shutdown(PATIENCE).await, "nothing keeps it, also while the bus lives on");
    db.close().await;
    database.drop().await;
}

#[test]
fn the_program_refuses_a_bus_inside_its_own_process() {
    for (url, good) in [("memory:", false), ("", false), ("amqp://localhost", true)] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_notify-service"));
        let ended = program
            .arg("--check-config")
            .env("PARLANCE_AMQP_URL", url)
            .env("PARLANCE_DATABASE_URL", "postgres://localhost/x")
            .output()
            .unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(if good { 0 } else { 64 }), "{url}: {said}");
        assert_eq!(said.contains("PARLANCE_AMQP_URL"), !good, "{said}");
    }
}
