//! A push service and the browser behind it: checks who signed, decrypts with the subscription's keys, and answers as it
//! is told to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::Value;
use service_kit::{clock, tasks::Tasks};
use tokio::net::TcpListener;
use web_push_native::{
    Auth,
    p256::{SecretKey, elliptic_curve::sec1::ToEncodedPoint},
};

use crate::PATIENCE;

/// The secret of every subscription here.
pub(crate) const AUTH: [u8; 16] = [9; 16];

/// How a request is answered. Without any, 201.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mood {
    Status(u16),
    /// 429 with so many seconds.
    Wait(u64),
    Hang,
}

/// What came in for one path, decrypted.
#[derive(Clone, Debug)]
pub(crate) struct Push {
    pub(crate) path: String,
    pub(crate) topic: String,
    pub(crate) payload: Value,
    pub(crate) at: Instant,
}

/// The push service.
pub(crate) struct Receiver {
    pub(crate) url: String,
    inner: Arc<Inner>,
    tasks: Tasks,
}

struct Inner {
    secret: SecretKey,
    origin: String,
    pushes: Mutex<Vec<Push>>,
    hooks: Mutex<Vec<(HeaderMap, Bytes)>>,
    /// The next answers of a path; the last one stays.
    moods: Mutex<HashMap<String, VecDeque<Mood>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Inner {
            secret: SecretKey::from_slice(&[7; 32]).unwrap(),
            origin: origin.clone(),
            pushes: Mutex::default(),
            hooks: Mutex::default(),
            moods: Mutex::default(),
        });
        let routes = Router::new()
            .route("/{path}", axum::routing::post(take))
            .route("/hooks/{path}", axum::routing::post(take_hook))
            .with_state(Arc::clone(&inner));
        let tasks = Tasks::new();
        tasks.spawn_until_stop(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url: format!("{origin}/"), inner, tasks }
    }

    /// A server that hangs up on whoever connects; gives its URL.
    pub(crate) async fn that_cuts(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        self.tasks.spawn_until_stop(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        Self { url, inner: Arc::clone(&self.inner), tasks: self.tasks.clone() }
    }

    pub(crate) fn public(&self) -> Vec<u8> {
        self.inner.secret.public_key().to_encoded_point(false).as_bytes().to_vec()
    }

    /// From now on requests to this path are answered so, one after the other; the last one stays.
    pub(crate) fn answers(&self, path: &str, moods: &[Mood]) {
        self.inner.moods.lock().unwrap().insert(path.to_owned(), moods.iter().copied().collect());
    }

    /// What came as webhooks: the headers and the body as they were.
    pub(crate) fn hooks(&self) -> Vec<(HeaderMap, Bytes)> {
        self.inner.hooks.lock().unwrap().clone()
    }

    /// What came for a path.
    pub(crate) fn pushes(&self, path: &str) -> Vec<Push> {
        self.inner.pushes.lock().unwrap().iter().filter(|push| push.path == path).cloned().collect()
    }

    /// Waits for so many.
    pub(crate) async fn has(&self, path: &str, number: usize) -> Vec<Push> {
        let began = Instant::now();
        loop {
            let pushes = self.pushes(path);
            if pushes.len() >= number {
                return pushes;
            }
            assert!(began.elapsed() < PATIENCE, "only {} of {number} at {path}", pushes.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}

async fn take(State(inner): State<Arc<Inner>>, Path(path): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    if let Err(problem) = check(&inner.origin, header("authorization")) {
        return (StatusCode::FORBIDDEN, problem).into_response();
    }
    if header("content-encoding") != "aes128gcm" || header("ttl").parse::<u32>().is_err() {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Ok(plain) = web_push_native::decrypt(body.to_vec(), &inner.secret, &Auth::from(AUTH)) else {
        return (StatusCode::BAD_REQUEST, "cannot be decrypted").into_response();
    };
    let push = Push {
        path: path.clone(),
        topic: header("topic").to_owned(),
        payload: serde_json::from_slice(&plain).unwrap(),
        at: Instant::now(),
    };
    inner.pushes.lock().unwrap().push(push);
    let mood = {
        let mut moods = inner.moods.lock().unwrap();
        moods.get_mut(&path).and_then(|moods| if moods.len() > 1 { moods.pop_front() } else { moods.front().copied() })
    };
    match mood {
        None => StatusCode::CREATED.into_response(),
        Some(Mood::Status(status)) => StatusCode::from_u16(status).unwrap().into_response(),
        Some(Mood::Wait(seconds)) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Some(Mood::Hang) => std::future::pending().await,
    }
}

/// The first try of each is answered 503.
async fn take_hook(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let mut hooks = inner.hooks.lock().unwrap();
    let seen = hooks.iter().any(|(before, _)| before.get("webhook-id") == headers.get("webhook-id"));
    hooks.push((headers, body));
    if seen { StatusCode::NO_CONTENT } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Whether a token is one of RFC 8292 for this origin, signed with the key that stands beside it.
fn check(origin: &str, authorization: &str) -> Result<(), String> {
    let (token, key) = authorization
        .strip_prefix("vapid t=")
        .and_then(|rest| rest.split_once(", k="))
        .ok_or_else(|| format!("not vapid: {authorization}"))?;
    let point = URL_SAFE_NO_PAD.decode(key).map_err(|error| error.to_string())?;
    let half = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
    let key = DecodingKey::from_ec_components(&half(&point[1..33]), &half(&point[33..])).map_err(|e| e.to_string())?;
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&[origin]);
    let claims = jsonwebtoken::decode::<Value>(token, &key, &validation).map_err(|error| error.to_string())?.claims;
    let life = claims["exp"].as_i64().unwrap_or_default() - clock::now_ms() / 1000;
    if life > 24 * 3600 { Err(format!("it lives for {life} s")) } else { Ok(()) }
}
