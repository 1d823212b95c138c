//! How many pushes a second this machine sustains, with the chat that causes them on it. Measurements, run by hand:
//! `cargo test --release -p notify-service -- --ignored --nocapture sustains`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, extract::State, routing::post};
use http::StatusCode;
use notify_service::{Config, Timing};
use parlance_proto::notify::{Platform, RegisterDeviceRequest};
use service_kit::{on_db, tasks::Tasks};
use tokio::net::TcpListener;
use web_push_native::p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint};

use crate::world::{Database, World, config};

const ROOMS: usize = 10;
const MEMBERS: usize = 100;
const PUSHES_A_SECOND: usize = 2_000;
/// Longer than the first look whether a push was read elsewhere: looks are part of the load.
const TIME: Duration = Duration::from_secs(45);
/// How long the last push may take after its delay.
const LATE: Duration = Duration::from_secs(5);

async fn count(State(taken): State<Arc<AtomicUsize>>) -> StatusCode {
    taken.fetch_add(1, Ordering::Relaxed);
    StatusCode::CREATED
}

async fn receiver() -> (String, Arc<AtomicUsize>, Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, taken, tasks) = (format!("http://{}/", listener.local_addr().unwrap()), Arc::default(), Tasks::new());
    let routes = Router::new().route("/{path}", post(count)).with_state(Arc::clone(&taken));
    tasks.spawn_until_stop(async move { axum::serve(listener, routes).await.unwrap() });
    (url, taken, tasks)
}

async fn sustains(database: Database, platform: Platform) {
    let timing = Timing { email_delay: Duration::ZERO, ..Timing::default() };
    let world = World::begin_with(database, Config { timing, ..config() }).await;
    let (url, taken, tasks) = receiver().await;
    let maja = world.person("Maja").await;
    let key = SecretKey::from_slice(&[7; 32]).unwrap().public_key().to_encoded_point(false).as_bytes().to_vec();
    let mut rooms = Vec::new();
    for room in 0..ROOMS {
        let mut people = Vec::new();
        for _ in 0..MEMBERS {
            people.push(world.person("member").await);
        }
        rooms.push(world.group(&maja, "team", &people.iter().collect::<Vec<_>>()).await);
        for (number, person) in people.iter().enumerate() {
            let request = RegisterDeviceRequest {
                user: person.id.to_wire(),
                session: person.session.to_wire(),
                platform: platform.into(),
                target: format!("{url}{room}-{number}"),
                p256dh: key.clone().into(),
                auth: vec![9; 16].into(),
                ..RegisterDeviceRequest::default()
            };
            world.registers(request).await;
        }
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) * MEMBERS as u32 / PUSHES_A_SECOND as u32);
    let (began, mut said, mut last, mut before) = (Instant::now(), 0, 0, Instant::now());
    while began.elapsed() < TIME {
        ticks.tick().await;
        world.says(&maja, &rooms[said % ROOMS], "are you there?").await;
        said += 1;
        if before.elapsed() >= Duration::from_secs(5) {
            let now = taken.load(Ordering::Relaxed);
            let late: (Option<i64>,) = on_db!(&world.db, pool => sqlx::query_as(
                "select min(due_at) from pushes where due_at is not null and outcome is null",
            )
            .fetch_one(pool)
            .await)
            .unwrap();
            let late = late.0.map_or(0, |due| service_kit::clock::now_ms() - due);
            eprintln!(
                "{:.0?}: {:.0} pushes/s, late by {late} ms",
                began.elapsed(),
                (now - last) as f64 / before.elapsed().as_secs_f64()
            );
            (last, before) = (now, Instant::now());
        }
    }
    let offered = (said * MEMBERS) as f64 / began.elapsed().as_secs_f64();
    let ended = Instant::now();
    while taken.load(Ordering::Relaxed) < said * MEMBERS && ended.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (taken, after) = (taken.load(Ordering::Relaxed), ended.elapsed());
    eprintln!(
        "{platform:?}: offered {offered:.0}/s, {taken} of {} pushes, the last {after:.1?} after its message",
        said * MEMBERS
    );
    world.end().await;
    tasks.stop();
    assert_eq!(taken, said * MEMBERS, "each came, and once");
    assert!(after < timing.delay + LATE && offered > 0.95 * PUSHES_A_SECOND as f64, "not sustained");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn postgres_sustains_2_000_webhooks_a_second() {
    let Some(database) = Database::postgres().await else { return };
    Box::pin(sustains(database, Platform::Webhook)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn postgres_sustains_2_000_web_pushes_a_second() {
    let Some(database) = Database::postgres().await else { return };
    Box::pin(sustains(database, Platform::Webpush)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn sqlite_sustains_2_000_webhooks_a_second() {
    Box::pin(sustains(Database::sqlite(), Platform::Webhook)).await;
}
