//! What holds on every backend.

use std::time::Duration;

use service_kit::{
    bus::{Arrival, To},
    id::BootId,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::stage::*;

/// Tells each story on both backends.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::$story(super::Stage::memory()).await;
            })*
        }
        mod amqp {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                if let Some(stage) = super::Stage::amqp() {
                    super::$story(stage).await;
                }
            })*
        }
    };
}

stories! {
    a_parcel_reaches_the_gateway_it_is_for_and_no_other,
    all_reaches_every_inbox,
    parcels_arrive_in_the_order_of_the_calls,
    nobody_there_is_no_failure,
    a_lost_parcel_is_noticed_though_nothing_follows,
    a_gateway_that_is_gone_is_counted_anew,
    a_closed_inbox_ends_alone,
    an_event_reaches_one_consumer_of_its_group,
    an_event_is_delivered_again_until_it_is_done,
    an_event_that_fails_too_often_is_put_aside,
    stopping_ends_what_is_read,
}

async fn a_parcel_reaches_the_gateway_it_is_for_and_no_other(stage: Stage) {
    let (bus, one, other) = (stage.bus().await, BootId::generate(), BootId::generate());
    let (mut ones, mut others) = (bus.inbox(one).await.unwrap(), bus.inbox(other).await.unwrap());
    publishes(&bus, To::Gateway(one), "hi").await;
    receives(&mut ones, "hi").await;
    has_nothing(&bus, &mut others, To::Gateway(other)).await;
    stage.end().await;
}

async fn all_reaches_every_inbox(stage: Stage) {
    let bus = stage.bus().await;
    let mut first = bus.inbox(BootId::generate()).await.unwrap();
    publishes(&bus, To::All, "before the second").await;
    let mut second = bus.inbox(BootId::generate()).await.unwrap();
    publishes(&bus, To::All, "hi").await;
    receives(&mut first, "before the second").await;
    receives(&mut first, "hi").await;
    receives(&mut second, "hi").await;
    stage.end().await;
}

async fn parcels_arrive_in_the_order_of_the_calls(stage: Stage) {
    let (bus, boot) = (stage.bus().await, BootId::generate());
    let mut inbox = bus.inbox(boot).await.unwrap();
    publishes_and_receives(&bus, boot, &mut inbox, 10_000).await;
    stage.end().await;
}

async fn nobody_there_is_no_failure(stage: Stage) {
    let bus = stage.bus().await;
    publishes(&bus, To::Gateway(BootId::generate()), "hi").await;
    publishes(&bus, To::All, "hi").await;
    stage.end().await;
}

async fn a_lost_parcel_is_noticed_though_nothing_follows(stage: Stage) {
    let (bus, boot) = (stage.bus().await, BootId::generate());
    let mut inbox = bus.inbox(boot).await.unwrap();
    publishes(&bus, To::Gateway(boot), "one").await;
    bus.lose(To::Gateway(boot));
    receives(&mut inbox, "one").await;
    let noticed = timeout(Duration::from_secs(4), inbox.next()).await.expect("the loss is noticed in time");
    assert_eq!(noticed, Some(Arrival::Lost));
    publishes(&bus, To::Gateway(boot), "three").await;
    receives(&mut inbox, "three").await;
    bus.lose(To::Gateway(boot));
    publishes(&bus, To::Gateway(boot), "five").await;
    assert_eq!(next(&mut inbox).await, Arrival::Lost);
    receives(&mut inbox, "five").await;
    stage.end().await;
}

async fn a_gateway_that_is_gone_is_counted_anew(stage: Stage) {
    let (bus, boot) = (stage.bus().await, BootId::generate());
    // Numbers up to 3 are given while nobody is there. Whoever comes after they are forgotten misses nothing.
    for _ in 0..3 {
        publishes(&bus, To::Gateway(boot), "hi").await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut inbox = bus.inbox(boot).await.unwrap();
    publishes(&bus, To::Gateway(boot), "welcome").await;
    receives(&mut inbox, "welcome").await;
    stage.end().await;
}

async fn a_closed_inbox_ends_alone(stage: Stage) {
    let (bus, boot) = (stage.bus().await, BootId::generate());
    let mut stays = bus.inbox(BootId::generate()).await.unwrap();
    let closes = bus.inbox(boot).await.unwrap();
    drop(closes);
    publishes(&bus, To::Gateway(boot), "hi").await;
    publishes(&bus, To::All, "hi all").await;
    receives(&mut stays, "hi all").await;
    is_ready(&bus, true).await;
    stage.end().await;
}

async fn an_event_reaches_one_consumer_of_its_group(stage: Stage) {
    const COUNT: usize = 100;
    let bus = stage.bus().await;
    let (mut one, mut other) = (bus.consume("workers").await.unwrap(), bus.consume("workers").await.unwrap());
    let mut notify = bus.consume("notify").await.unwrap();
    is_ready(&bus, true).await;
    let mut ids: Vec<Uuid> = (0..COUNT).map(|_| Uuid::now_v7()).collect();
    let emitted: Vec<_> = ids.iter().map(|id| bus.emit(*id, parcel(&id.to_string()))).collect();
    let mut seen = Vec::new();
    for _ in 0..COUNT {
        let work = tokio::select! {
            work = works(&mut one) => work,
            work = works(&mut other) => work,
        };
        assert_eq!((work.body.clone(), work.traceparent.clone()), {
            let sent = parcel(&work.id.to_string());
            (sent.body, sent.traceparent)
        });
        seen.push(work.id);
        work.ack().await;
    }
    for _ in 0..COUNT {
        works(&mut notify).await.ack().await;
    }
    for outcome in emitted {
        outcome.await.unwrap();
    }
    ids.sort_unstable();
    seen.sort_unstable();
    assert_eq!(ids, seen);
    stage.end().await;
}

async fn an_event_is_delivered_again_until_it_is_done(stage: Stage) {
    let bus = stage.bus().await;
    let (mut one, mut other) = (bus.consume("workers").await.unwrap(), bus.consume("workers").await.unwrap());
    is_ready(&bus, true).await;
    let id = Uuid::now_v7();
    let emitted = bus.emit(id, parcel("hi"));
    let settled = async {
        let work = tokio::select! {
            work = works(&mut one) => work,
            work = works(&mut other) => work,
        };
        assert!(!work.redelivered);
        work.retry().await;
        let again = tokio::select! {
            work = works(&mut one) => work,
            work = works(&mut other) => work,
        };
        assert!(again.redelivered);
        drop(again);
        let at_last = tokio::select! {
            work = works(&mut one) => work,
            work = works(&mut other) => work,
        };
        assert_eq!(at_last.id, id);
        at_last.ack().await;
    };
    let (emitted, ()) = tokio::join!(emitted, settled);
    emitted.unwrap();
    stage.end().await;
}

async fn an_event_that_fails_too_often_is_put_aside(stage: Stage) {
    let bus = stage.bus().await;
    let mut consumer = bus.consume("workers").await.unwrap();
    is_ready(&bus, true).await;
    let (bad, good) = (Uuid::now_v7(), Uuid::now_v7());
    let emitted = bus.emit(bad, parcel("bad"));
    for _ in 0..6 {
        let work = works(&mut consumer).await;
        assert_eq!(work.id, bad);
        work.retry().await;
    }
    emitted.await.unwrap();
    let emitted = bus.emit(good, parcel("good"));
    let work = works(&mut consumer).await;
    assert_eq!(work.id, good);
    work.ack().await;
    emitted.await.unwrap();
    if stage.url.starts_with("amqp") {
        super::broker::is_dead(&stage, bad).await;
    }
    stage.end().await;
}

async fn stopping_ends_what_is_read(stage: Stage) {
    let bus = stage.bus().await;
    let mut inbox = bus.inbox(BootId::generate()).await.unwrap();
    let mut consumer = bus.consume("workers").await.unwrap();
    is_ready(&bus, true).await;
    stage.tasks.stop();
    assert_eq!(timeout(PATIENCE, inbox.next()).await, Ok(None));
    assert!(timeout(PATIENCE, consumer.next()).await.unwrap().is_none());
    stage.end().await;
}

#[tokio::test]
async fn an_inbox_that_is_full_in_memory_tells_what_it_dropped() {
    const BOUND: u64 = 8_192;
    let stage = Stage::memory();
    let (bus, boot) = (stage.bus().await, BootId::generate());
    let mut inbox = bus.inbox(boot).await.unwrap();
    publishes_all(&bus, To::Gateway(boot), 0..BOUND + 10).await;
    for number in 0..BOUND {
        receives(&mut inbox, &number.to_string()).await;
    }
    assert_eq!(next(&mut inbox).await, Arrival::Lost);
    has_nothing(&bus, &mut inbox, To::Gateway(boot)).await;
    stage.end().await;
}

#[tokio::test]
async fn an_event_in_memory_is_refused_by_nobody_when_nobody_consumes() {
    let stage = Stage::memory();
    let bus = stage.bus().await;
    bus.emit(Uuid::now_v7(), parcel("hi")).await.unwrap();
    drop(bus.consume("workers").await.unwrap());
    bus.emit(Uuid::now_v7(), parcel("hi")).await.unwrap();
    stage.end().await;
}
