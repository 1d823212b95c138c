//! FCM, against a double that grants access tokens for signed assertions and checks what it is sent.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use axum::{Json, Router, body::Bytes, extract::State, response::IntoResponse, routing::post};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use notify_service::Config;
use parlance_proto::notify::{ListDevicesRequest, Platform, RegisterDeviceRequest};
use serde_json::{Value, json};
use service_kit::tasks::Tasks;
use tokio::net::TcpListener;

use crate::world::{Database, World, config};

struct Google {
    origin: String,
    public: DecodingKey,
    granted: Mutex<usize>,
    messages: Mutex<Vec<Value>>,
}

/// Grants a token for an assertion that this account has signed for this endpoint.
async fn grant(State(google): State<Arc<Google>>, body: Bytes) -> impl IntoResponse {
    let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
    let mut validation = Validation::new(Algorithm::RS256);
    validation.set_audience(&[format!("{}/token", google.origin)]);
    validation.set_issuer(&["push@project"]);
    let claims = jsonwebtoken::decode::<Value>(&form["assertion"], &google.public, &validation).unwrap().claims;
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/firebase.messaging");
    let mut granted = google.granted.lock().unwrap();
    *granted += 1;
    Json(json!({ "access_token": format!("token-{granted}"), "expires_in": 3599, "token_type": "Bearer" }))
}

/// The first token is refused, as if it had been revoked. A device called `dead` is not there any more.
async fn send(State(google): State<Arc<Google>>, headers: HeaderMap, body: Bytes) -> impl IntoResponse {
    match headers["authorization"].to_str().unwrap() {
        "Bearer token-1" => return (StatusCode::UNAUTHORIZED, Json(json!({}))),
        bearer => assert_eq!(bearer, "Bearer token-2"),
    }
    let body: Value = serde_json::from_slice(&body).unwrap();
    if body["message"]["token"] == "dead" {
        let details = json!([{ "errorCode": "UNREGISTERED" }]);
        return (StatusCode::NOT_FOUND, Json(json!({ "error": { "code": 404, "details": details } })));
    }
    google.messages.lock().unwrap().push(body["message"].clone());
    (StatusCode::OK, Json(json!({ "name": "projects/project/messages/1" })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_goes_through_fcm_with_a_token_for_its_account() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let google = Arc::new(Google {
        origin: origin.clone(),
        public: DecodingKey::from_rsa_pem(pem("PUBLIC KEY", public.as_ref()).as_bytes()).unwrap(),
        granted: Mutex::default(),
        messages: Mutex::default(),
    });
    let routes = Router::new()
        .route("/token", post(grant))
        .route("/v1/projects/project/messages:send", post(send))
        .with_state(Arc::clone(&google));
    let tasks = Tasks::new();
    tasks.spawn_until_stop(async move { axum::serve(listener, routes).await.unwrap() });
    let credentials = json!({
        "type": "service_account",
        "project_id": "project",
        "client_email": "push@project",
        "private_key": pem("PRIVATE KEY", private.as_ref()),
        "token_uri": format!("{origin}/token"),
    });
    let config = Config { fcm_credentials: credentials.to_string(), fcm_base: Some(format!("{origin}/")), ..config() };
    let world = World::begin_with(Database::sqlite(), config).await;
    Box::pin(story(&world, &google)).await;
    world.end().await;
    tasks.stop();
}

async fn story(world: &World, google: &Google) {
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    let room = world.group(&maja, "team", &[&bob, &carol]).await;
    for (person, token) in [(&bob, "phone"), (&carol, "dead")] {
        let request = RegisterDeviceRequest {
            user: person.id.to_wire(),
            session: person.session.to_wire(),
            platform: Platform::Fcm.into(),
            target: token.to_owned(),
            ..RegisterDeviceRequest::default()
        };
        assert!(world.registers(request).await.added);
    }
    let message = world.says(&maja, &room, "hello").await;
    world.decides(&message, &bob, "sent", "delivered").await;
    assert_eq!(world.decides(&message, &carol, "failed", "token_dead").await, "answered 404 UNREGISTERED");
    let request = ListDevicesRequest { user: carol.id.to_wire() };
    assert!(world.notify.clone().list_devices(request).await.unwrap().into_inner().items.is_empty());

    let sent = google.messages.lock().unwrap()[0].clone();
    assert_eq!((&sent["token"], &sent["android"]["priority"]), (&"phone".into(), &"high".into()));
    assert_eq!(sent["notification"], json!({ "title": "team", "body": "Maja: hello" }));
    assert_eq!(sent["android"]["collapse_key"], sent["data"]["room"], "one per room");
    assert_eq!(sent["data"]["seq"], json!(message.seq.to_string()), "data are texts");

    world.reads(&bob, &room, message.seq).await;
    world.decides(&message, &bob, "withdrawn", "read_elsewhere").await;
    let withdrawal = google.messages.lock().unwrap().last().unwrap().clone();
    assert_eq!(withdrawal["data"]["kind"], "withdraw");
    assert!(withdrawal.get("notification").is_none(), "it shows nothing");
    assert_eq!(*google.granted.lock().unwrap(), 2, "one token serves all, until it is refused");
}
