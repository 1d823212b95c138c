//! What Redis does to us: it comes back empty, it cannot be reached, its answers get lost. Only where there is one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use presence_service::{
    announce::Announcer,
    directory::Directory,
    presence::State,
    store::{Standing, Store},
    sweeper::Step,
};
use redis::AsyncCommands as _;
use service_kit::{id::UserId, tasks::Tasks};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::world::{TIMING, World, redis_url, room, states};

/// A way to Redis that can be held up: what is sent into a held one is not passed on, as in a partition.
struct Way {
    url: String,
    /// Nothing passes towards Redis.
    held: Arc<AtomicBool>,
    /// How many answers still pass back; the next one is lost, and the connection with it.
    answers: Arc<AtomicUsize>,
    tasks: Tasks,
}

impl Way {
    async fn to(url: &str) -> Self {
        let target = url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let target = target.split('/').next().unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let (held, answers, tasks) =
            (Arc::<AtomicBool>::default(), Arc::new(AtomicUsize::new(usize::MAX)), Tasks::new());
        let (there, back, inner) = (Arc::clone(&held), Arc::clone(&answers), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&target).await.unwrap();
                let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
                inner.spawn_until_stop(ask(near_read, far_write, Arc::clone(&there)));
                inner.spawn_until_stop(answer(far_read, near_write, Arc::clone(&back)));
            }
        });
        Self { url, held, answers, tasks }
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn ask(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, held: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        while held.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, left: Arc<AtomicUsize>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let passes = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        if passes.is_err() || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Does to the keys of one test what FLUSHALL does to all.
async fn wipe(url: &str, prefix: &str) {
    let mut direct = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = direct.keys(format!("{prefix}*")).await.unwrap();
    if !keys.is_empty() {
        let _: () = direct.del(keys).await.unwrap();
    }
}

#[tokio::test]
async fn for_a_while_after_a_loss_the_directory_cannot_tell() {
    let Some(url) = redis_url() else { return };
    let world = World::redis(&url);
    let mut gateway = world.gateway();
    let topic = room();
    let begin = Instant::now();
    gateway.renews().await;
    gateway.attaches(topic).await;
    let located = world.store.lookup(&[topic]).await.unwrap();
    assert!(located.unknown || begin.elapsed() > TIMING.unknown);
    assert_eq!(located.served[0], [gateway.boot]);
    while world.store.lookup(&[topic]).await.unwrap().unknown {
        assert!(begin.elapsed() < Duration::from_secs(10));
        gateway.renews().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(begin.elapsed() >= TIMING.unknown);
    wipe(&url, &world.prefix).await;
    assert!(world.store.lookup(&[topic]).await.unwrap().unknown);
}

#[tokio::test]
async fn after_a_loss_gateways_register_again_and_nobody_goes_offline() {
    let Some(url) = redis_url() else { return };
    let world = World::redis(&url);
    let mut gateway = world.gateway();
    let (topic, user) = (room(), UserId::generate());
    let epoch = gateway.renews().await.epoch;
    gateway.attaches(topic).await;
    let before = gateway.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.until(&mut [&mut gateway], &mut sweeper, "trust", crate::world::Watched::trusts_itself).await;

    wipe(&url, &world.prefix).await;
    let renewal = gateway.renews().await;
    assert_eq!((renewal.standing, renewal.entries), (Standing::Expired, 0));
    assert_ne!(renewal.epoch, epoch);
    gateway.attaches(topic).await;
    let after = gateway.connects(user, 1).await;
    assert_eq!(states(&after), [State::Online]);
    assert!(after[0].status.version > before[0].status.version, "it grows across the loss");
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.grace * 2).await;
    assert!(sweeper.heard.is_empty(), "{:?}", sweeper.heard);
    assert_eq!(gateway.renews().await.entries, 2);
}

#[tokio::test]
async fn a_redis_that_cannot_be_reached_is_unknown_and_never_offline() {
    let Some(url) = redis_url() else { return };
    let way = Way::to(&url).await;
    let world = World::redis(&way.url);
    let mut gateway = world.gateway();
    gateway.renews().await;
    let (announcer, _told) = Announcer::to_channel();
    let directory = Directory::new(world.store.clone(), announcer);
    way.held.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    assert!(directory.lookup(&[room()]).await.unwrap().unknown);
    assert!(directory.states(&[UserId::generate()]).await.is_err());
    assert!(begin.elapsed() < Duration::from_secs(2), "each within its deadline");
    way.held.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    while world.store.probe().await.is_err() {
        assert!(begin.elapsed() < Duration::from_secs(10), "it comes back");
    }
}

#[tokio::test]
async fn a_sweeper_that_lost_sight_of_redis_clears_nobody() {
    let Some(url) = redis_url() else { return };
    let way = Way::to(&url).await;
    // The gateway's own way and the sweeper's both end; only Redis' clock goes on.
    let world = World::redis(&way.url);
    let mut gateway = world.gateway();
    let user = UserId::generate();
    gateway.renews().await;
    gateway.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.until(&mut [&mut gateway], &mut sweeper, "trust", crate::world::Watched::trusts_itself).await;
    sweeper.heard.clear();

    way.held.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    while begin.elapsed() < TIMING.lease * 2 + TIMING.grace {
        assert_eq!(sweeper.steps(Instant::now()).await, Step::Unreached);
    }
    way.held.store(false, Ordering::Relaxed);
    let begin = Instant::now();
    loop {
        let step = sweeper.steps(Instant::now()).await;
        assert!(!matches!(step, Step::Swept { .. }), "it may not trust itself yet: {step:?}");
        if step == Step::Waiting {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "it comes back");
    }
    assert_eq!(gateway.renews().await.standing, Standing::Expired, "not cleared");
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.lease + TIMING.grace).await;
    assert!(sweeper.trusts_itself());
    let offline = sweeper.heard_of(user).into_iter().any(|told| told.status.state == State::Offline);
    assert!(!offline, "{:?}", sweeper.heard);
    assert_eq!(gateway.renews().await.entries, 1);
}

#[tokio::test]
async fn a_transition_whose_answer_got_lost_is_handed_out_when_the_operation_comes_again() {
    let Some(url) = redis_url() else { return };
    let way = Way::to(&url).await;
    let world = World::redis(&url);
    // Another replica, whose answers get lost on the way.
    let deaf = Store::connect(&way.url, &world.prefix, TIMING).unwrap();
    deaf.probe().await.unwrap();
    let mut gateway = world.gateway();
    gateway.renews().await;
    let user = UserId::generate();
    let change = presence_service::store::Change::Session { user, connection: 1, idle: false, chosen: None };
    let op = presence_service::store::Op { number: 1, change };
    let ops = [op];
    let begin = Instant::now();
    let mut lost = Vec::new();
    // The first answer is that of the preparation, the second one carries the transition.
    way.answers.store(1, Ordering::Relaxed);
    let outcome = deaf.update(gateway.boot, &ops, 0, &mut lost).await;
    assert!(outcome.is_err() && lost.is_empty());
    assert_eq!(world.state(user).await, State::Online, "it was done");
    // The same operation again, by whichever replica, tells it.
    let told = gateway.tries(&[op], 0).await.unwrap();
    assert_eq!(states(&told), [State::Online]);
    // And once more, as if that answer had been lost too.
    assert_eq!(gateway.tries(&[op], 0).await.unwrap(), told);
    world.store.said(&told).await.unwrap();
    assert!(gateway.tries(&[op], 0).await.unwrap().is_empty());
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_offline_that_nobody_published_is_said_again() {
    let Some(url) = redis_url() else { return };
    let world = World::redis(&url);
    let mut gateway = world.gateway();
    gateway.renews().await;
    let user = UserId::generate();
    gateway.connects(user, 1).await;
    gateway.disconnects(user, 1).await;
    let mut sweeper = world.sweeper();
    let twice = |sweeper: &crate::world::Watched| sweeper.heard_of(user).len() == 2;
    world.until(&mut [&mut gateway], &mut sweeper, "it is said again", twice).await;
    let told = sweeper.heard_of(user);
    assert_eq!(told[0], told[1], "the very same, so that receivers ignore the second one");
    world.store.said(&told).await.unwrap();
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.resay * 5).await;
    assert_eq!(sweeper.heard_of(user).len(), 2);
}

#[tokio::test]
async fn nothing_stays_in_redis_for_ever() {
    let Some(url) = redis_url() else { return };
    let world = World::redis(&url);
    let mut gateway = world.gateway();
    let (topic, user) = (room(), UserId::generate());
    gateway.renews().await;
    gateway.attaches(topic).await;
    gateway.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    let gone = |sweeper: &crate::world::Watched| sweeper.heard_of(user).len() == 1;
    world.until(&mut [], &mut sweeper, "the user is offline", gone).await;
    world.store.said(&sweeper.heard).await.unwrap();
    world.lives(&mut [], &mut sweeper, TIMING.resay * 4).await;
    let mut direct = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let keys: Vec<String> = direct.keys(format!("{}*", world.prefix)).await.unwrap();
    let mut without_end = Vec::new();
    for key in keys {
        let left: i64 = direct.ttl(&key).await.unwrap();
        if left < 0 {
            without_end.push(key.trim_start_matches(&world.prefix).to_owned());
        }
    }
    without_end.sort();
    // One set that is trimmed at every renewal, and one value.
    assert_eq!(without_end, ["{lease}:cleared", "{lease}:epoch"]);
}
