//! REST before any service is asked: credentials, forms, problems, headers, limits.

use axum::{
    Router,
    body::{Body, to_bytes},
    routing::get,
};
use http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use service_kit::auth::Signer;
use tower::ServiceExt;

use crate::{
    fake_chat::{edge, signer, token},
    fake_rooms::Noted,
};

const ID: &str = "0190b6a4-6b1f-7c3a-9d52-3b1f0c8e7a01";

pub(crate) struct Api {
    routes: Router,
    signer: Signer,
    token: String,
    noted: Noted,
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Api {
    pub(crate) async fn start() -> Self {
        Self::with_limits(false).await
    }

    async fn with_limits(limits: bool) -> Self {
        let signer = signer();
        let (edge, _, noted) = edge(&signer, limits).await;
        let token = token(&signer, 0);
        Self { routes: gateway::http::router(edge), signer, token, noted }
    }

    /// The service call that the last request became.
    pub(crate) fn last_call(&self) -> String {
        self.noted.last()
    }

    async fn send(&self, request: Request<Body>) -> Reply {
        let response = self.routes.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.expect("a body");
        let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).expect("JSON") };
        Reply { status: parts.status, headers: parts.headers, body }
    }

    /// `method path`, with a good token and maybe a JSON body.
    pub(crate) async fn call(&self, line: &str, body: Option<Value>) -> Reply {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        self.send(
            match body {
                None => request.body(Body::empty()),
                Some(body) => {
                    request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_string()))
                }
            }
            .expect("a request"),
        )
        .await
    }
}

/// Whether this is a whole problem with this status and code.
pub(crate) fn is_problem(reply: &Reply, status: u16, code: &str) {
    let body = &reply.body;
    assert_eq!(
        (reply.status.as_u16(), &body["status"], &body["code"]),
        (status, &json!(status), &json!(code)),
        "{body}"
    );
    assert_eq!(reply.headers[header::CONTENT_TYPE], "application/problem+json");
    assert_eq!(reply.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(reply.headers["x-request-id"], body["request_id"].as_str().expect("a request id"));
    assert!(body["title"].is_string() && body["detail"].is_string());
    assert_eq!(body["type"], format!("urn:parlance:error:{code}"));
    assert_eq!(reply.headers.contains_key(header::WWW_AUTHENTICATE), status == 401);
}

#[tokio::test]
async fn who_asks_is_checked_first() {
    let api = Api::start().await;
    let path = format!("/v1/rooms/{ID}/messages");
    let call = |value: Option<String>| {
        let mut request = Request::post(&path);
        if let Some(value) = value {
            request = request.header(header::AUTHORIZATION, value);
        }
        api.send(request.body(Body::from("x")).expect("a request"))
    };
    is_problem(&call(None).await, 401, "unauthenticated");
    is_problem(&call(Some("Basic YTpi".to_owned())).await, 401, "unauthenticated");
    is_problem(&call(Some("Bearer nonsense".to_owned())).await, 401, "unauthenticated");
    is_problem(&call(Some(format!("Bearer {}", token(&signer(), 0)))).await, 401, "unauthenticated");
    is_problem(&call(Some(format!("Bearer {}", token(&api.signer, 120_000)))).await, 401, "token_expired");
    is_problem(&call(Some(format!("Bearer {}", api.token))).await, 415, "unsupported_media");
}

#[tokio::test]
async fn a_wrong_form_is_named() {
    let api = Api::start().await;
    let room = format!("/v1/rooms/{ID}");
    for (line, body, field) in [
        ("POST /v1/auth/register".to_owned(), json!({"username": "x"}), "password"),
        ("POST /v1/auth/login".to_owned(), json!({"username": 5}), "username"),
        ("POST /v1/auth/login".to_owned(), json!({"username": "a\u{0}", "password": "x"}), "username"),
        ("POST /v1/auth/refresh".to_owned(), json!({"refresh_token": "x", "attempt": "1"}), "attempt"),
        ("POST /v1/auth/password".to_owned(), json!({"old": "x"}), "new"),
        ("PATCH /v1/me".to_owned(), json!({"display_name": null}), "display_name"),
        ("PATCH /v1/me".to_owned(), json!({"privacy": {"receipts": 1}}), "privacy.receipts"),
        ("POST /v1/rooms".to_owned(), json!({"kind": "direct", "name": "x"}), "kind"),
        ("POST /v1/rooms".to_owned(), json!({"kind": "group"}), "name"),
        ("POST /v1/rooms".to_owned(), json!({"kind": "group", "name": "x", "members": ["y"]}), "members"),
        ("POST /v1/direct".to_owned(), json!({}), "user"),
        (format!("PATCH {room}"), json!({"settings": {"history": "none"}}), "settings.history"),
        (format!("PATCH {room}"), json!({"name": null}), "name"),
        (format!("PUT {room}/members/{ID}"), json!({"role": "king"}), "role"),
        (format!("PUT {room}/members/{ID}"), json!({"muted_until": -1}), "muted_until"),
        (format!("PATCH {room}/me"), json!({"notify": "some"}), "notify"),
        (format!("POST {room}/messages"), json!({"client_id": ID, "text": ""}), "text"),
        (format!("PATCH {room}/messages/1"), json!({}), "text"),
        (format!("PATCH {room}/messages/one"), json!({"text": "x"}), "seq"),
        (format!("DELETE {room}/messages/0"), json!({}), "seq"),
        (format!("PUT {room}/read"), json!({"seq": 0}), "seq"),
        (format!("GET {room}/messages?limit=201"), json!({}), "limit"),
        (format!("GET {room}/messages?before=1&around=2"), json!({}), "around"),
        (format!("GET {room}/messages?thread=x"), json!({}), "thread"),
        (format!("GET {room}/changes"), json!({}), "after_rev"),
        (format!("GET {room}/members?limit=x"), json!({}), "limit"),
        ("GET /v1/rooms?public=maybe".to_owned(), json!({}), "public"),
        ("GET /v1/users".to_owned(), json!({}), "query"),
        ("GET /v1/presence?users=x".to_owned(), json!({}), "users"),
        ("POST /v1/sync".to_owned(), json!({"rooms": {"x": 1}}), "rooms.x"),
        (format!("PUT {room}/messages/1/reactions/{}", "x".repeat(33)), json!({}), "emoji"),
        (format!("POST {room}/messages/1/forward"), json!({"room": ID}), "client_id"),
        ("POST /v1/devices".to_owned(), json!({"platform": "pager"}), "platform"),
        ("POST /v1/devices".to_owned(), json!({"platform": "webpush", "keys": {}}), "endpoint"),
        ("POST /v1/devices".to_owned(), json!({"platform": "webpush", "endpoint": "x"}), "keys"),
        (
            "POST /v1/devices".to_owned(),
            json!({"platform": "webpush", "endpoint": "x", "keys": {"p256dh": "?"}}),
            "keys.p256dh",
        ),
        ("GET /v1/search".to_owned(), json!({}), "q"),
    ] {
        let reply = api.call(&line, Some(body)).await;
        is_problem(&reply, 400, "bad_request");
        let detail = reply.body["detail"].as_str().expect("a detail");
        assert!(detail.starts_with(&format!("{field}: ")), "{line}: {detail}");
    }
}

#[tokio::test]
async fn bodies_must_be_json_objects_of_at_most_64_kib() {
    let api = Api::start().await;
    let post = |media: &str, body: String| {
        let request = Request::post("/v1/auth/login").header(header::CONTENT_TYPE, media);
        api.send(request.body(Body::from(body)).expect("a request"))
    };
    is_problem(&post("application/json", "{".to_owned()).await, 400, "bad_request");
    is_problem(&post("application/json", "[]".to_owned()).await, 400, "bad_request");
    is_problem(&post("text/plain", "{}".to_owned()).await, 415, "unsupported_media");
    is_problem(&post("application/json", format!("\"{}\"", "x".repeat(64 * 1024))).await, 413, "too_large");
    is_problem(&post("application/json; charset=utf-8", "{}".to_owned()).await, 400, "bad_request");
}

#[tokio::test]
async fn paths_and_methods_that_are_not_there_answer_with_problems() {
    let api = Api::start().await;
    is_problem(&api.call("GET /v1/nothing", None).await, 404, "not_found");
    is_problem(&api.call("GET /v1/rooms/general", None).await, 404, "not_found");
    is_problem(&api.call("GET /v1/users/alice", None).await, 404, "not_found");
    is_problem(&api.call("PUT /v1/me/blocks/alice", None).await, 404, "not_found");
    let reply = api.call("DELETE /v1/rooms", None).await;
    is_problem(&reply, 405, "bad_request");
    let allow = reply.headers[header::ALLOW].to_str().expect("text");
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn what_is_not_built_yet_says_so() {
    let api = Api::start().await;
    for (line, body) in [
        ("GET /v1/me/export", None),
        ("DELETE /v1/me", Some(json!({"password": "x"}))),
        ("POST /v1/auth/guest", Some(json!({"display_name": "G"}))),
        ("GET /v1/search?q=x", None),
        ("POST /v1/invites/abc", None),
    ] {
        is_problem(&api.call(line, body).await, 422, "unprocessable");
    }
    is_problem(&api.call("GET /v1/admin/users", None).await, 403, "forbidden");
}

#[tokio::test]
async fn a_request_id_is_taken_over_or_made() {
    let api = Api::start().await;
    let call = |id: String| {
        let request = Request::get("/v1/me").header("x-request-id", id);
        api.send(request.body(Body::empty()).expect("a request"))
    };
    assert_eq!(call("abc-1".to_owned()).await.headers["x-request-id"], "abc-1");
    for bad in ["x".repeat(129), "a b".to_owned(), String::new()] {
        let made = call(bad).await.headers["x-request-id"].clone();
        assert_eq!(made.len(), 36, "{made:?}");
    }
}

#[tokio::test]
async fn only_allowed_origins_may_read_answers() {
    let api = Api::start().await;
    let call = |method: &str, origin: &str| {
        let request = Request::builder().method(method).uri("/v1/me").header(header::ORIGIN, origin);
        api.send(request.header("access-control-request-method", "PATCH").body(Body::empty()).expect("a request"))
    };
    let reply = call("OPTIONS", "https://chat.example").await;
    assert_eq!(reply.status, StatusCode::NO_CONTENT);
    assert_eq!(reply.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://chat.example");
    let reply = call("GET", "https://chat.example").await;
    assert_eq!(reply.headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "https://chat.example");
    assert_eq!(reply.headers[header::VARY], "origin");
    is_problem(&call("OPTIONS", "https://evil.example").await, 403, "forbidden");
    assert!(!call("GET", "https://evil.example").await.headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn logins_are_slowed_down_with_the_time_to_wait() {
    let api = Api::with_limits(true).await;
    let login = || api.call("POST /v1/auth/login", Some(json!({"username": "alice", "password": "wrong one"})));
    for _ in 0..10 {
        is_problem(&login().await, 401, "unauthenticated");
    }
    let reply = login().await;
    is_problem(&reply, 429, "rate_limited");
    let wait_ms = reply.body["retry_after_ms"].as_u64().expect("a time to wait");
    let wait_s: u64 = reply.headers[header::RETRY_AFTER].to_str().expect("text").parse().expect("a number");
    assert_eq!(wait_s, wait_ms.div_ceil(1000));
}

#[tokio::test]
async fn an_idempotency_key_has_a_form() {
    let api = Api::start().await;
    for (key, status, code) in [("a b", 400, "bad_request"), ("", 400, "bad_request"), ("é", 400, "bad_request")] {
        let request = Request::post("/v1/rooms").header(header::AUTHORIZATION, format!("Bearer {}", api.token));
        let request = request.header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key);
        let reply = api.send(request.body(Body::from(r#"{"kind":"group","name":"x"}"#)).expect("a request")).await;
        is_problem(&reply, status, code);
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_problem_and_a_lost_service_an_unavailable_one() {
    let signer = signer();
    let (edge, _, noted) = edge(&signer, false).await;
    let state = edge.clone();
    let lost = move || {
        let mut presence = state.services.presence.clone();
        async move {
            let states = presence.states(parlance_proto::presence::StatesRequest::default()).await;
            states.map(|_| ()).map_err(gateway::error::Problem::from)
        }
    };
    let broken = || async {
        let texts: Vec<&str> = Vec::new();
        assert_eq!(texts.len(), 1, "a secret that nobody shall read");
    };
    let routes = Router::new().route("/panics", get(broken)).route("/lost", get(lost));
    let token = token(&signer, 0);
    let api = Api { routes: gateway::http::wrap(edge, routes), signer, token, noted };
    let reply = api.call("GET /panics", None).await;
    is_problem(&reply, 500, "internal");
    assert_eq!(reply.body["detail"], "internal error");
    is_problem(&api.call("GET /lost", None).await, 503, "unavailable");
}
