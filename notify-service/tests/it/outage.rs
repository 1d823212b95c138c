//! A provider that is away and comes back: what came meanwhile is kept, it is asked little, and gets each push once, at its pace.
//! That the tries of a push outlast an hour is held by a test of the constants in `deliver.rs`.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use notify_service::Config;
use parlance_proto::notify::{Platform, RegisterDeviceRequest};
use service_kit::{on_db, tasks::Tasks};
use tokio::net::TcpListener;
use web_push_native::p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint};

use crate::world::{Database, World, config};

const PEOPLE: usize = 150;
const MESSAGES: usize = 2;
const ALL: usize = PEOPLE * MESSAGES;
const RATE: u32 = 50;
/// Tries of all pushes together while the provider is away: failures until it is left alone, and what was on its way then.
const FEW: usize = 8 + 32;
/// The provider is left alone for 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Provider {
    is_back: AtomicBool,
    refused: AtomicUsize,
    /// What was taken: device, collapse key, when.
    taken: Mutex<Vec<(String, String, Instant)>>,
}

async fn take(State(provider): State<Arc<Provider>>, Path(path): Path<String>, headers: HeaderMap) -> StatusCode {
    if !provider.is_back.load(Ordering::Relaxed) {
        provider.refused.fetch_add(1, Ordering::Relaxed);
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let topic = headers.get("topic").unwrap().to_str().unwrap().to_owned();
    provider.taken.lock().unwrap().push((path, topic, Instant::now()));
    StatusCode::CREATED
}

/// Pushes that wait after a failure, tried or not.
async fn waiting(world: &World) -> usize {
    let (count,): (i64,) = on_db!(&world.db, pool => sqlx::query_as(
        "select count(*) from pushes where due_at is not null and outcome = 5",
    )
    .fetch_one(pool)
    .await)
    .unwrap();
    usize::try_from(count).unwrap()
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_provider_that_comes_back_gets_everything_once_at_its_pace(database: Database) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, provider) = (format!("http://{}/", listener.local_addr().unwrap()), Arc::new(Provider::default()));
    let routes = Router::new().route("/{path}", post(take)).with_state(Arc::clone(&provider));
    let tasks = Tasks::new();
    tasks.spawn_until_stop(async move { axum::serve(listener, routes).await.unwrap() });
    let world = World::begin_with(database, Config { rate: RATE, ..config() }).await;
    let maja = world.person("Maja").await;
    let key = SecretKey::from_slice(&[7; 32]).unwrap().public_key().to_encoded_point(false).as_bytes().to_vec();
    let mut people = Vec::new();
    for _ in 0..PEOPLE {
        people.push(world.person("member").await);
    }
    // Before there are devices: an invitation would be a push as well.
    let room = world.group(&maja, "team", &people.iter().collect::<Vec<_>>()).await;
    for (number, person) in people.iter().enumerate() {
        let request = RegisterDeviceRequest {
            user: person.id.to_wire(),
            session: person.session.to_wire(),
            platform: Platform::Webpush.into(),
            target: format!("{url}{number}"),
            p256dh: key.clone().into(),
            auth: vec![9; 16].into(),
            ..RegisterDeviceRequest::default()
        };
        world.registers(request).await;
    }

    for text in ["it is away", "and still"] {
        world.says(&maja, &room, text).await;
    }
    until("all wait", async || waiting(&world).await == ALL).await;
    let refused = provider.refused.load(Ordering::Relaxed);
    assert!((1..=FEW).contains(&refused), "asked {refused} times for {ALL} pushes");

    provider.is_back.store(true, Ordering::Relaxed);
    until("all are taken", async || provider.taken.lock().unwrap().len() >= ALL).await;
    until("none waits", async || waiting(&world).await == 0).await;
    let taken = provider.taken.lock().unwrap().clone();
    let mut by_device: HashMap<_, usize> = HashMap::new();
    for (device, ..) in &taken {
        *by_device.entry(device).or_default() += 1;
    }
    assert_eq!(by_device.len(), PEOPLE);
    assert!(by_device.values().all(|count| *count == MESSAGES), "each message once: {by_device:?}");
    assert!(taken.iter().all(|(_, topic, _)| *topic == taken[0].1), "one collapse key: only the newest is shown");
    // Twice the rate, for a machine that is busy; without a bound all of them come at once.
    let storm =
        taken.windows(2 * RATE as usize).find(|some| some[some.len() - 1].2 - some[0].2 < Duration::from_secs(1));
    assert!(storm.is_none(), "more than {} in a second", 2 * RATE);
    world.end().await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_comes_back_on_sqlite() {
    Box::pin(a_provider_that_comes_back_gets_everything_once_at_its_pace(Database::sqlite())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_comes_back_on_postgres() {
    let Some(database) = Database::postgres().await else { return };
    Box::pin(a_provider_that_comes_back_gets_everything_once_at_its_pace(database)).await;
}
