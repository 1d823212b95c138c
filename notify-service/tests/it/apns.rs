//! APNs, against a double over HTTP/2 that checks the provider token and what each push says of itself, and answers as it is
//! told to. Its sandbox hangs up on whoever asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode, Version};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use notify_service::{ApnsConfig, Config, Vapid};
use parlance_proto::notify::{ListDevicesRequest, Platform, RegisterDeviceRequest};
use serde_json::{Value, json};
use service_kit::{clock, tasks::Tasks};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tonic::Code;

use crate::{
    pem::{Pem, Tls},
    world::{Database, Person, World, config},
};

const KEY_ID: &str = "KEY4567890";
const TEAM_ID: &str = "TEAM567890";
const TOPIC: &str = "org.example.parlance";

/// How a request is answered. Without any, 200.
#[derive(Clone, Copy)]
enum Mood {
    Says(u16, &'static str),
    /// 410 for a token that died so many milliseconds ago.
    Gone(i64),
    /// 429 about everything, for so many seconds.
    Wait(u64),
    Hang,
}

struct Push {
    token: String,
    headers: HeaderMap,
    body: Value,
    at: Instant,
}

struct Apple {
    key: DecodingKey,
    pushes: Mutex<Vec<Push>>,
    /// The next answers to a device token.
    moods: Mutex<HashMap<&'static str, VecDeque<Mood>>>,
}

impl Apple {
    fn answers(&self, token: &'static str, moods: &[Mood]) {
        self.moods.lock().unwrap().insert(token, moods.iter().copied().collect());
    }

    /// What came for a device: `apns-id`, body and when.
    fn pushes(&self, token: &str) -> Vec<(String, Value, Instant)> {
        let pushes = self.pushes.lock().unwrap();
        let to = pushes.iter().filter(|push| push.token == token);
        to.map(|push| (header(&push.headers, "apns-id").to_owned(), push.body.clone(), push.at)).collect()
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
}

/// Whether a request is one that Apple would take.
fn check(apple: &Apple, headers: &HeaderMap, body: &Value) {
    let bearer = header(headers, "authorization").strip_prefix("Bearer ").unwrap();
    assert_eq!(jsonwebtoken::decode_header(bearer).unwrap().kid.as_deref(), Some(KEY_ID));
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_issuer(&[TEAM_ID]);
    validation.set_required_spec_claims(&["iss", "iat"]);
    validation.validate_exp = false;
    let claims = jsonwebtoken::decode::<Value>(bearer, &apple.key, &validation).unwrap().claims;
    assert!((clock::now_ms() / 1000 - claims["iat"].as_i64().unwrap()).abs() < 3600);
    assert_eq!(header(headers, "apns-topic"), TOPIC);
    assert_eq!(header(headers, "apns-collapse-id"), body["room"].as_str().unwrap(), "one per room");
    assert!(header(headers, "apns-id").parse::<uuid::Uuid>().is_ok());
    assert!(header(headers, "apns-expiration").parse::<i64>().unwrap() > clock::now_ms() / 1000);
    let kind = (header(headers, "apns-push-type"), header(headers, "apns-priority"));
    let shown = body["kind"] != "withdraw";
    assert_eq!(kind, if shown { ("alert", "10") } else { ("background", "5") });
    assert_eq!(body["aps"]["content-available"] == 1, !shown);
}

async fn take(
    State(apple): State<Arc<Apple>>,
    Path(token): Path<String>,
    version: Version,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    assert_eq!(version, Version::HTTP_2);
    assert!(body.len() <= 4096);
    let body: Value = serde_json::from_slice(&body).unwrap();
    check(&apple, &headers, &body);
    let mood = apple.moods.lock().unwrap().get_mut(token.as_str()).and_then(VecDeque::pop_front);
    apple.pushes.lock().unwrap().push(Push { token, headers, body, at: Instant::now() });
    let says = |status: u16, reason: &str| {
        (StatusCode::from_u16(status).unwrap(), Json(json!({ "reason": reason }))).into_response()
    };
    match mood {
        None => StatusCode::OK.into_response(),
        Some(Mood::Says(status, reason)) => says(status, reason),
        Some(Mood::Gone(ago)) => {
            let body = json!({ "reason": "Unregistered", "timestamp": clock::now_ms() - ago });
            (StatusCode::GONE, Json(body)).into_response()
        }
        Some(Mood::Wait(seconds)) => {
            let mut answer = says(429, "TooManyProviderTokenUpdates");
            answer.headers_mut().insert("retry-after", seconds.into());
            answer
        }
        Some(Mood::Hang) => std::future::pending().await,
    }
}

/// Accepts, reads the beginning, and hangs up.
async fn cut(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 64]).await;
    }
}

/// The double, the key of the team, and what it answers.
fn double() -> (Arc<Apple>, String, Router) {
    let pem = Vapid::generate_pem().unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = aws_lc_rs::signature::EcdsaKeyPair::from_pkcs8(
        &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        &STANDARD.decode(der).unwrap(),
    );
    let public = aws_lc_rs::signature::KeyPair::public_key(&pair.unwrap()).as_ref().to_vec();
    let apple =
        Arc::new(Apple { key: DecodingKey::from_ec_der(&public), pushes: Mutex::default(), moods: Mutex::default() });
    let routes = Router::new().route("/3/device/{token}", post(take)).with_state(Arc::clone(&apple));
    (apple, pem, routes)
}

async fn told(database: Database) {
    let (apple, pem, routes) = double();
    let (listener, sandbox) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let base = |listener: &TcpListener| format!("http://{}/", listener.local_addr().unwrap());
    let bases = Some([base(&listener), base(&sandbox)]);
    let tasks = Tasks::new();
    tasks.spawn_until_stop(async move { axum::serve(listener, routes).await.unwrap() });
    tasks.spawn_until_stop(cut(sandbox));
    let apns = ApnsConfig { key: pem, key_id: KEY_ID.to_owned(), team_id: TEAM_ID.to_owned(), bases };
    let world = World::begin_with(database, Config { apns: Some(apns), ..config() }).await;
    Box::pin(a_push_goes_through_apns(&world, &apple)).await;
    Box::pin(each_answer_means_its_own(&world, &apple)).await;
    world.end().await;
    tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apns_is_spoken_to_by_tls_when_it_is_trusted() {
    let Some((pem, stranger)) = Pem::make().await.zip(Pem::make().await) else { return };
    let distrusted = ("failed", "provider_error", "the server's certificate is not trusted");
    for (roots, (outcome, reason, detail)) in [
        (pem.certificate(), ("sent", "delivered", "answered 200")),
        (stranger.certificate(), distrusted),
        ("", distrusted),
    ] {
        let (apple, key, routes) = double();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("https://{}/", listener.local_addr().unwrap());
        let (tasks, tls) = (Tasks::new(), Tls::new(listener, &pem));
        tasks.spawn_until_stop(async move { axum::serve(tls, routes).await.unwrap() });
        let bases = Some([base.clone(), base]);
        let apns = ApnsConfig { key, key_id: KEY_ID.to_owned(), team_id: TEAM_ID.to_owned(), bases };
        let config = Config { apns: Some(apns), roots: roots.to_owned(), ..config() };
        let world = World::begin_with(Database::sqlite(), config).await;
        let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
        world.registers(device(&bob, "aa01")).await;
        let room = world.direct(&maja, &bob).await;
        let message = world.says(&maja, &room, "hello").await;
        assert_eq!(world.decides(&message, &bob, outcome, reason).await, detail);
        assert_eq!(apple.pushes("aa01").len(), usize::from(outcome == "sent"));
        world.end().await;
        tasks.stop();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apns_takes_pushes_and_each_answer_means_its_own() {
    told(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apns_takes_pushes_and_each_answer_means_its_own_on_postgres() {
    let Some(database) = Database::postgres().await else { return };
    told(database).await;
}

fn device(person: &Person, token: &str) -> RegisterDeviceRequest {
    RegisterDeviceRequest {
        user: person.id.to_wire(),
        session: person.session.to_wire(),
        platform: Platform::Apns.into(),
        target: token.to_owned(),
        topic: TOPIC.to_owned(),
        ..RegisterDeviceRequest::default()
    }
}

async fn devices(world: &World, person: &Person) -> usize {
    let request = ListDevicesRequest { user: person.id.to_wire() };
    world.notify.clone().list_devices(request).await.unwrap().into_inner().items.len()
}

async fn a_push_goes_through_apns(world: &World, apple: &Apple) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.group(&maja, "team", &[&bob]).await;
    assert!(world.registers(device(&bob, "AA01")).await.added);
    assert!(!world.registers(device(&bob, "aa01")).await.added, "the same token");
    for (bad, field) in [
        (device(&bob, "not hexadecimal"), "token"),
        (RegisterDeviceRequest { topic: "../x".to_owned(), ..device(&bob, "aa01") }, "topic"),
    ] {
        let refused = world.notify.clone().register_device(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let message = world.says(&maja, &room, "hello").await;
    world.decides(&message, &bob, "sent", "delivered").await;
    let (_, push, _) = apple.pushes("aa01").remove(0);
    assert_eq!(push["aps"]["alert"], json!({ "title": "team", "body": "Maja: hello" }));
    assert_eq!((&push["aps"]["badge"], &push["aps"]["thread-id"]), (&push["badge"], &push["room"]));
    assert_eq!((&push["kind"], &push["seq"]), (&"message".into(), &json!(message.seq)), "the contract's fields");

    world.reads(&bob, &room, message.seq).await;
    world.decides(&message, &bob, "withdrawn", "read_elsewhere").await;
    let (_, withdrawal, _) = apple.pushes("aa01").pop().unwrap();
    assert_eq!(withdrawal["kind"], "withdraw");
    assert_eq!(withdrawal["aps"], json!({ "content-available": 1 }), "it shows nothing");
}

async fn each_answer_means_its_own(world: &World, apple: &Apple) {
    let maja = world.person("Maja").await;
    let mut people = HashMap::new();
    let tokens = ["dead", "bad0", "ba5e", "f00d", "5000", "cafe", "0dd0", "c0de", "0430", "b05e"];
    for token in tokens {
        people.insert(token, world.person(token).await);
    }
    let room = world.group(&maja, "all", &people.values().collect::<Vec<_>>()).await;
    for (token, person) in &people {
        let sandbox = *token == "c0de";
        world.registers(RegisterDeviceRequest { sandbox, ..device(person, token) }).await;
    }
    apple.answers("dead", &[Mood::Gone(0)]);
    apple.answers("bad0", &[Mood::Says(400, "BadDeviceToken")]);
    apple.answers("ba5e", &[Mood::Gone(3_600_000)]);
    apple.answers("f00d", &[Mood::Says(429, "TooManyRequests")]);
    apple.answers("5000", &[Mood::Says(500, "InternalServerError")]);
    apple.answers("cafe", &[Mood::Says(400, "TopicDisallowed")]);
    apple.answers("0dd0", &[Mood::Hang]);
    apple.answers("0430", &[Mood::Says(403, "ExpiredProviderToken")]);
    let message = world.says(&maja, &room, "hello").await;
    let decides =
        async |token, outcome: &str, reason: &str| world.decides(&message, &people[token], outcome, reason).await;
    assert_eq!(decides("dead", "failed", "token_dead").await, "answered 410 Unregistered");
    assert_eq!(decides("bad0", "failed", "token_dead").await, "answered 400 BadDeviceToken");
    assert_eq!(decides("cafe", "dead_lettered", "provider_error").await, "answered 400 TopicDisallowed");
    decides("c0de", "failed", "provider_error").await;
    for token in ["ba5e", "f00d", "5000", "0dd0", "0430"] {
        decides(token, "sent", "delivered").await;
        let pushes = apple.pushes(token);
        assert_eq!((pushes.len(), &pushes[0].0), (2, &pushes[1].0), "{token}: the same push, tried again");
    }
    for token in ["dead", "bad0"] {
        assert_eq!(devices(world, &people[token]).await, 0, "{token}");
    }
    for token in ["ba5e", "cafe"] {
        assert_eq!(devices(world, &people[token]).await, 1, "{token}: it has registered since, or is not to blame");
    }
    decides("b05e", "sent", "delivered").await;

    let bob = &people["b05e"];
    let room = world.direct(&maja, bob).await;
    apple.answers("b05e", &[Mood::Wait(1)]);
    let message = world.says(&maja, &room, "later").await;
    world.decides(&message, bob, "sent", "delivered").await;
    let [.., (_, _, first), (_, _, second)] = &apple.pushes("b05e")[..] else { panic!("tried twice") };
    assert!(*second - *first >= Duration::from_secs(1), "it waits as long as it is asked to");
}
