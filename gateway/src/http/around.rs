//! What every public route has around it: a request id, a trace, a time limit, metrics, CORS, and an answer even when
//! the handler panics.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use service_kit::telemetry;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use uuid::Uuid;

use super::{Edge, origin};
use crate::{
    error::{Problem, REQUEST_ID},
    frame::{Code, MAX_FRAME},
};

/// How long a call may take, its body's way here included.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long sending a file may take. What does not move is given up much sooner.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);
/// The calls whose body is a file.
const UPLOADS: [(Method, &str); 2] = [(Method::POST, "/v1/files"), (Method::PATCH, "/v1/uploads/{upload}")];
/// Bytes of an `X-Request-Id` that is taken over.
const MAX_REQUEST_ID: usize = 128;
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(super) fn around(edge: Edge, routes: Router) -> Router {
    routes
        .layer(DefaultBodyLimit::max(MAX_FRAME))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn_with_state(edge, serve))
}

async fn serve(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let id = request_id(request.headers());
    let span = tracing::info_span!("http", method, route, request.id = %id);
    telemetry::adopt(&span, request.headers().get(telemetry::TRACEPARENT).and_then(|value| value.to_str().ok()));

    let work = REQUEST_ID.scope(id.clone(), answer(edge, request, next));
    let mut response = work.instrument(span.clone()).await;
    // Made of visible ASCII, so it is always a header value.
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }

    let (status, took) = (response.status(), started.elapsed());
    metrics::histogram!(
        "http_server_request_duration_seconds",
        "method" => method, "route" => route.clone(), "status" => status.as_u16().to_string()
    )
    .record(took.as_secs_f64());
    span.in_scope(|| {
        tracing::debug!(method, route, request.id = %id, status = status.as_u16(), duration_ms = took.as_millis(), "answered a call");
    });
    response
}

async fn answer(edge: Edge, request: Request, next: Next) -> Response {
    let limit = time_limit(&request);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin::origin_allowed(&edge, request.headers());
    let mut response = if origin::is_preflight(request.method(), request.headers()) {
        origin::preflight(allowed)
    } else {
        // On the heap: calls to services make these futures large.
        let handler = Box::pin(next.run(request));
        tokio::time::timeout(limit, handler)
            .await
            .unwrap_or_else(|_| Problem::new(Code::Timeout, "this took too long; send it again").into_response())
    };
    if let Some(origin) = origin.filter(|_| allowed) {
        origin::share(&mut response, &origin);
    }
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if response.status() == StatusCode::UNAUTHORIZED {
        tracing::debug!("a call was refused for its credentials");
    }
    response
}

fn time_limit(request: &Request) -> Duration {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let uploads = UPLOADS.iter().any(|(method, route)| request.method() == method && path == *route);
    if uploads { UPLOAD_TIMEOUT } else { TIMEOUT }
}

/// The client's own id for this request when it is 1 to 128 visible ASCII characters, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers
        .get(X_REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
    given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The method as a metric's label: strangers cannot make new ones.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

// By value, because that is what the layer calls.
#[allow(clippy::needless_pass_by_value, reason = "the signature that CatchPanicLayer wants")]
fn panicked(_cause: Box<dyn Any + Send + 'static>) -> Response {
    // The panic hook has printed where; its text may hold what nobody else shall see.
    tracing::error!("a handler panicked");
    Problem::new(Code::Internal, "internal error").into_response()
}
