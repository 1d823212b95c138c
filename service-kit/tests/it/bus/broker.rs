//! What only a broker can go through: cuts, frost, returns and the dead.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lapin::options::{BasicGetOptions, QueueDeleteOptions};
use service_kit::{
    bus::{Arrival, Bus, To, Unpublished},
    id::BootId,
    tasks::Tasks,
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{proxy::Proxy, stage::*};

/// Waits until the event is in the queue of the dead.
pub(super) async fn is_dead(stage: &Stage, id: Uuid) {
    let channel = stage.channel().await;
    let queue = format!("{}.dead.workers", stage.prefix());
    let found = async {
        loop {
            if let Some(dead) = channel.basic_get(queue.as_str().into(), BasicGetOptions::default()).await.unwrap() {
                return dead.delivery.properties.message_id().as_ref().unwrap().to_string();
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, found).await.expect("nothing is dead"), id.to_string());
}

#[tokio::test]
async fn a_cut_connection_renews_the_inbox_and_all_goes_on() {
    let Some(stage) = Stage::amqp() else { return };
    let proxy = Proxy::to(&stage.url, &stage.tasks).await;
    let (bus, boot) = (stage.bus_at(&stage.url_through(proxy.port), &stage.tasks).await, BootId::generate());
    let steady = stage.bus().await;
    let mut inbox = bus.inbox(boot).await.unwrap();
    let mut consumer = bus.consume("workers").await.unwrap();
    publishes(&bus, To::Gateway(boot), "one").await;
    receives(&mut inbox, "one").await;
    for round in 0..3 {
        proxy.cut();
        assert_eq!(next(&mut inbox).await, Arrival::Renewed);
        is_ready(&bus, true).await;
        for sender in [&bus, &steady] {
            let text = format!("round {round}");
            publishes(sender, To::Gateway(boot), &text).await;
            receives(&mut inbox, &text).await;
        }
        let (emitted, work) = tokio::join!(bus.emit(Uuid::now_v7(), parcel("event")), works(&mut consumer));
        emitted.unwrap();
        work.ack().await;
    }
    stage.end().await;
}

#[tokio::test]
async fn nothing_waits_longer_than_its_deadline_for_a_frozen_broker() {
    let Some(stage) = Stage::amqp() else { return };
    let proxy = Proxy::to(&stage.url, &stage.tasks).await;
    let (bus, boot) = (stage.bus_at(&stage.url_through(proxy.port), &stage.tasks).await, BootId::generate());
    let mut inbox = bus.inbox(boot).await.unwrap();
    publishes(&bus, To::Gateway(boot), "one").await;
    receives(&mut inbox, "one").await;
    proxy.freeze();
    let since = Instant::now();
    let mut sent = Vec::new();
    for _ in 0..9_000 {
        sent.push(bus.publish(To::Gateway(boot), parcel("into the ice")));
    }
    sent.push(bus.publish(To::All, parcel("into the ice")));
    let outcomes = join_all(sent).await;
    assert!(since.elapsed() < Duration::from_secs(4), "{:?}", since.elapsed());
    // Those that were under way when the connection was given up are told so; none is said to have arrived.
    let lost =
        |outcome: &Result<(), Unpublished>| matches!(outcome, Err(Unpublished::TimedOut | Unpublished::Disconnected));
    assert!(outcomes[..8_000].iter().all(lost));
    assert_eq!(outcomes.last(), Some(&Err(Unpublished::Overloaded)));
    is_ready(&bus, false).await;
    let since = Instant::now();
    // The publisher's own stream falls silent: a loss, then, once the ice is broken, a new inbox.
    assert_eq!(next(&mut inbox).await, Arrival::Lost);
    assert!(timeout(PATIENCE, bus.publish(To::All, parcel("still"))).await.unwrap().is_err());
    sleep(Duration::from_secs(8).saturating_sub(since.elapsed())).await;
    proxy.open();
    proxy.cut();
    assert_eq!(next(&mut inbox).await, Arrival::Renewed);
    is_ready(&bus, true).await;
    publishes(&bus, To::Gateway(boot), "two").await;
    receives(&mut inbox, "two").await;
    stage.end().await;
}

#[tokio::test]
async fn the_silence_of_a_known_sender_is_a_loss_and_its_goodbye_is_none() {
    let Some(stage) = Stage::amqp() else { return };
    let proxy = Proxy::to(&stage.url, &stage.tasks).await;
    let (bus, boot) = (stage.bus().await, BootId::generate());
    let mut inbox = bus.inbox(boot).await.unwrap();
    let polite = Tasks::new();
    let leaving = stage.bus_at(&stage.url, &polite).await;
    publishes(&leaving, To::Gateway(boot), "goodbye").await;
    receives(&mut inbox, "goodbye").await;
    assert!(polite.shutdown(PATIENCE).await);
    // Comes after the other's silence would have been told.
    let falling = stage.bus_at(&stage.url_through(proxy.port), &stage.tasks).await;
    publishes(&falling, To::Gateway(boot), "hi").await;
    receives(&mut inbox, "hi").await;
    assert!(timeout(Duration::from_secs(7), inbox.next()).await.is_err(), "both are alive, or have said goodbye");
    proxy.close();
    assert_eq!(next(&mut inbox).await, Arrival::Lost);
    assert!(timeout(Duration::from_secs(3), inbox.next()).await.is_err(), "told once");
    stage.end().await;
}

#[tokio::test]
async fn a_bus_may_start_before_its_broker() {
    let Some(stage) = Stage::amqp() else { return };
    let proxy = Proxy::to(&stage.url, &stage.tasks).await;
    proxy.close();
    let bus = Bus::connect(&stage.url_through(proxy.port), "story", &stage.tasks).await.unwrap();
    assert!(!bus.is_ready());
    let boot = BootId::generate();
    let mut inbox = bus.inbox(boot).await.unwrap();
    assert_eq!(bus.publish(To::Gateway(boot), parcel("early")).await, Err(Unpublished::TimedOut));
    proxy.open();
    assert_eq!(next(&mut inbox).await, Arrival::Renewed);
    is_ready(&bus, true).await;
    publishes(&bus, To::Gateway(boot), "hi").await;
    receives(&mut inbox, "hi").await;
    // Nothing consumes: the queue of this group has to be there for the end.
    drop(bus.consume("workers").await.unwrap());
    stage.end().await;
}

#[tokio::test]
async fn an_event_that_no_queue_takes_is_refused() {
    let Some(stage) = Stage::amqp() else { return };
    let bus = stage.bus().await;
    let queue = format!("{}.work.notify", stage.prefix());
    bus.emit(Uuid::now_v7(), parcel("taken")).await.unwrap();
    let channel = stage.channel().await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    // Many at once, mixed with parcels: each outcome belongs to its own message.
    let boot = BootId::generate();
    let sent = (0..200).map(|_| bus.publish(To::Gateway(boot), parcel("hi")));
    let emitted = (0..200).map(|_| bus.emit(Uuid::now_v7(), parcel("homeless")));
    let (sent, emitted) = tokio::join!(join_all(sent), join_all(emitted));
    assert!(sent.iter().all(Result::is_ok));
    assert!(emitted.iter().all(|outcome| *outcome == Err(Unpublished::Refused)));
    stage.end().await;
}

#[tokio::test]
async fn the_dead_are_counted_and_given_back_to_the_workers() {
    let Some(stage) = Stage::amqp() else { return };
    let bus = stage.bus().await;
    assert!(bus.depth("workers").await.is_err(), "there are no such workers yet");
    let mut consumer = bus.consume("workers").await.unwrap();
    is_ready(&bus, true).await;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for id in ids {
        let (emitted, work) = tokio::join!(bus.emit(id, parcel("odd")), works(&mut consumer));
        emitted.unwrap();
        work.reject().await;
    }
    let dead = async |number| {
        let reached = async {
            while bus.depth("workers").await.unwrap().dead != number {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, reached).await.expect("so many dead");
    };
    dead(2).await;
    assert_eq!(bus.replay("workers").await.unwrap(), 2);
    for id in ids {
        let work = works(&mut consumer).await;
        assert_eq!((work.id, &work.body, &work.traceparent), (id, &parcel("odd").body, &parcel("odd").traceparent));
        if id == ids[0] { work.ack().await } else { work.reject().await }
    }
    dead(1).await;
    assert_eq!(bus.replay("workers").await.unwrap(), 1, "what is dead again may be given back again");
    works(&mut consumer).await.ack().await;
    dead(0).await;
    assert_eq!(bus.replay("workers").await.unwrap(), 0);
    stage.end().await;
}

#[tokio::test]
async fn a_wrong_url_is_refused_and_not_repeated() {
    for url in ["http://user:secret@host", "secret", "amqp:secret", "amqp://u:secret@host/%2f?prefix=a.b"] {
        let Err(error) = Bus::connect(url, "story", &Tasks::new()).await else { panic!("{url} was taken") };
        assert!(!format!("{error:#}").contains("secret"), "{error:#}");
    }
}
