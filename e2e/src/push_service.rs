//! A push service with one browser behind it: checks who signed, decrypts with the keys of its subscription, answers 201.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;
use web_push_native::Auth;
use web_push_native::p256::SecretKey;
use web_push_native::p256::elliptic_curve::sec1::ToEncodedPoint;

/// It runs until this is dropped.
#[derive(Debug)]
pub struct PushService {
    inner: Arc<Inner>,
    _serving: JoinSet<()>,
}

#[derive(Debug)]
struct Inner {
    origin: String,
    secret: SecretKey,
    auth: [u8; 16],
    /// The key that the browser subscribed with: only its owner may push.
    vapid: String,
    pushes: Mutex<Vec<Value>>,
}

impl PushService {
    /// Starts one whose browser has subscribed with this `public_key` of `/v1/devices/vapid`.
    pub async fn start(vapid: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("bound"));
        let secret = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let inner = Arc::new(Inner {
            origin,
            secret: SecretKey::from_slice(&secret).expect("practically every 32 bytes are a key"),
            auth: Uuid::new_v4().into_bytes(),
            vapid: vapid.to_owned(),
            pushes: Mutex::default(),
        });
        let routes = Router::new().route("/push", post(take)).with_state(Arc::clone(&inner));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, routes).await.expect("it serves") });
        Self { inner, _serving: serving }
    }

    /// The body of `POST /v1/devices`.
    pub fn subscription(&self) -> Value {
        let p256dh = self.inner.secret.public_key().to_encoded_point(false);
        json!({
            "platform": "webpush",
            "endpoint": format!("{}/push", self.inner.origin),
            "keys": {
                "p256dh": URL_SAFE_NO_PAD.encode(p256dh.as_bytes()),
                "auth": URL_SAFE_NO_PAD.encode(self.inner.auth),
            },
        })
    }

    /// What came, decrypted.
    pub fn pushes(&self) -> Vec<Value> {
        self.inner.pushes.lock().expect("no panic while it is held").clone()
    }
}

async fn take(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !inner.is_signed(authorization) {
        return StatusCode::FORBIDDEN;
    }
    let plain = web_push_native::decrypt(body.to_vec(), &inner.secret, &Auth::from(inner.auth));
    let Some(push) = plain.ok().and_then(|plain| serde_json::from_slice(&plain).ok()) else {
        return StatusCode::BAD_REQUEST;
    };
    inner.pushes.lock().expect("no panic while it is held").push(push);
    StatusCode::CREATED
}

impl Inner {
    /// Whether it is a token of RFC 8292 for this origin, signed with the key of the subscription.
    fn is_signed(&self, authorization: &str) -> bool {
        let parts = authorization.strip_prefix("vapid t=").and_then(|rest| rest.split_once(", k="));
        let Some((token, key)) = parts.filter(|(_, key)| *key == self.vapid) else { return false };
        let Some(point) = URL_SAFE_NO_PAD.decode(key).ok().filter(|point| point.len() == 65) else { return false };
        let half = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let Ok(key) = DecodingKey::from_ec_components(&half(&point[1..33]), &half(&point[33..])) else { return false };
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[&self.origin]);
        jsonwebtoken::decode::<Value>(token, &key, &validation).is_ok()
    }
}
