//! The outbox: rows that are claimed, published, confirmed, deleted, and swept when their maker is gone.

use std::time::{Duration, Instant};

use parlance_proto::event::{Addressed, Batch, Event, RoomEvent, event, room_event};
use prost::Message;
use service_kit::{
    bus::Bus,
    id::{BootId, RoomId, Topic},
    on_tx,
};
use uuid::Uuid;

use crate::{
    Database, PATIENCE, Replica, Service, Setup,
    chat_world::{Room, eventually, stream, texts},
    stories,
};

stories! {
    a_row_is_claimed_until_it_is_confirmed_and_then_goes
    an_expired_row_is_published_once
    a_backlog_goes_at_once
    a_row_that_cannot_be_read_stops_nobody
    what_a_killed_replica_has_committed_is_published_by_the_next
    without_a_broker_sending_goes_on
}

const ROWS: &str = "select count(*) from outbox";

fn hold_file() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("parlance-hold-{}", Uuid::new_v4().simple()))
}

async fn claim_left(service: &Service) -> i64 {
    let now = if service.is_postgres() {
        "select max(claimed_until) - (extract(epoch from clock_timestamp()) * 1000)::bigint from outbox"
    } else {
        "select max(claimed_until) - cast(unixepoch('subsec') * 1000 as integer) from outbox"
    };
    service.count(now).await
}

async fn emptied(service: &Service) {
    eventually("an empty outbox", async || (service.count(ROWS).await == 0).then_some(())).await;
}

/// An announcement that somebody has left behind, with a claim that ran out.
async fn leaves_behind(service: &Service, room: &Room, text: &str) {
    insert(service, vec![left_behind(room, text)]).await;
}

fn left_behind(room: &Room, text: &str) -> (Uuid, Vec<u8>) {
    let message = parlance_proto::v1::Message {
        room: room.clone(),
        kind: parlance_proto::v1::MessageKind::Text.into(),
        text: text.to_owned(),
        ..Default::default()
    };
    let kind = Some(room_event::Kind::Message(message));
    let event = RoomEvent { room: room.clone(), rev: 1, kind, ..RoomEvent::default() };
    let event = Event { kind: Some(event::Kind::Room(event)) }.encode_to_vec().into();
    let topic = Topic::Room(RoomId::from_wire(room, "room").unwrap()).to_wire();
    let id = Uuid::now_v7();
    let batch =
        Batch { id: id.as_bytes().to_vec().into(), events: vec![Addressed { topic, event }], ..Batch::default() };
    (id, batch.encode_to_vec())
}

async fn insert(service: &Service, rows: Vec<(Uuid, Vec<u8>)>) {
    let mut tx = service.db.begin().await.unwrap();
    for (id, batch) in rows {
        on_tx!(&mut tx, c => sqlx::query("insert into outbox (id, claimed_until, batch) values ($1, 1, $2)")
            .bind(id)
            .bind(batch)
            .execute(c)
            .await
            .map(|_| ()))
        .unwrap();
    }
    tx.commit().await.unwrap();
}

async fn a_row_is_claimed_until_it_is_confirmed_and_then_goes(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    emptied(service).await;
    let hold = hold_file();
    let setup = Setup { hold: Some(hold.clone()), ..Setup::default() };
    let slow = Replica::start(service.database.url(), service.bus.clone(), setup).await;
    std::fs::write(&hold, "").unwrap();
    let before = Instant::now();
    assert!(stream(&slow.client, vec![maja.send(&room, "held")]).await[0].is_ok());
    let left = claim_left(service).await;
    let age = i64::try_from(before.elapsed().as_millis()).unwrap();
    assert!(left <= 2_000 && left >= 2_000 - age - 1, "{left} ms are left after {age} ms");
    std::fs::remove_file(&hold).unwrap();

    service.announced(&room, "held").await;
    let confirmed = Instant::now();
    emptied(service).await;
    assert!(confirmed.elapsed() < Duration::from_millis(2_500), "{:?}", confirmed.elapsed());
    slow.stop().await;
}

async fn an_expired_row_is_published_once(service: &Service) {
    let other = service.another().await;
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let mut worker = service.worker().await;
    let mut heard = Vec::new();
    for n in 0..3 {
        let text = format!("left behind {n}");
        leaves_behind(service, &room, &text).await;
        heard.extend(worker.until(1).await);
        service.announced(&room, &text).await;
        emptied(service).await;
    }
    // Whatever had been published a second time would have come before this.
    service.says(&maja, &room, "the last").await;
    heard.extend(worker.until(1).await);
    let heard: Vec<String> = heard.iter().flat_map(texts).map(|message| message.text).collect();
    assert_eq!(heard, ["left behind 0", "left behind 1", "left behind 2", "the last"]);
    other.stop().await;
}

async fn a_backlog_goes_at_once(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let mut worker = service.worker().await;
    insert(service, (0..500).map(|n| left_behind(&room, &n.to_string())).collect()).await;
    let began = Instant::now();
    worker.until(500).await;
    assert!(began.elapsed() < Duration::from_secs(4), "a backlog of 500 took {:?}", began.elapsed());
    emptied(service).await;
}

async fn a_row_that_cannot_be_read_stops_nobody(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    emptied(service).await;
    insert(service, vec![(Uuid::now_v7(), vec![0xff; 20])]).await;
    leaves_behind(service, &room, "behind it").await;
    service.announced(&room, "behind it").await;
    eventually("only the broken row", async || (service.count(ROWS).await == 1).then_some(())).await;
}

async fn what_a_killed_replica_has_committed_is_published_by_the_next(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let hold = hold_file();
    std::fs::write(&hold, "").unwrap();
    let setup = Setup { hold: Some(hold.clone()), ..Setup::default() };
    let killed = Replica::start(service.database.url(), service.bus.clone(), setup).await;
    let item = maja.send(&room, "committed");
    assert!(stream(&killed.client, vec![item.clone()]).await[0].is_ok());
    killed.stop().await;
    std::fs::remove_file(&hold).unwrap();

    let began = Instant::now();
    let message = service.announced(&room, "committed").await;
    assert_eq!(message.client_id, item.client_id);
    // The rest of the claim, and the longest time between two sweeps.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    emptied(service).await;
}

async fn without_a_broker_sending_goes_on(service: &Service) {
    // On a database of its own: the story's own service has a bus that works, and would sweep.
    let database = if service.is_postgres() { Database::postgres().await.unwrap() } else { Database::sqlite() };
    let setup = Setup { bus_url: Some("amqp://127.0.0.1:1"), ..Setup::default() };
    let cut_off = Service::set_up(database, setup).await;
    let [noor] = cut_off.people().await;
    let apart = cut_off.group(&noor, []).await;
    let before = cut_off.count(ROWS).await;
    for n in 0..20 {
        let began = Instant::now();
        assert!(stream(&cut_off.client, vec![noor.send(&apart, &n.to_string())]).await[0].is_ok());
        assert!(began.elapsed() < Duration::from_secs(1), "a send waited {:?} for the broker", began.elapsed());
    }
    assert_eq!(cut_off.count(ROWS).await, before + 20);

    // As soon as somebody with a broker looks, all of it goes.
    let tasks = service_kit::tasks::Tasks::new();
    let bus = Bus::connect("memory:", "chat-service", &tasks).await.unwrap();
    let _inbox = bus.inbox(BootId::generate()).await.unwrap();
    let mut worker = crate::chat_world::Worker::on(&bus).await;
    let connected = Replica::start(cut_off.database.url(), bus, Setup::default()).await;
    worker.until(20).await;
    emptied(&cut_off).await;
    connected.stop().await;
    cut_off.stop().await;
    assert!(tasks.shutdown(PATIENCE).await, "the bus does not stop");
}
