//! The admin port: alive, ready, metrics, version. Apart from the public port, never for clients.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{tasks::Tasks, telemetry};

/// Whether a process may be given work: all its parts are ready, and it is not on its way out.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    // Written on changes only, read by probes: a plain lock, never held across an await.
    parts: Mutex<BTreeMap<&'static str, bool>>,
    notes: Mutex<BTreeMap<&'static str, bool>>,
    draining: AtomicBool,
}

impl Readiness {
    /// Nothing to wait for yet: ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether a part (a dependency, a worker) is ready.
    pub fn set(&self, part: &'static str, ready: bool) {
        self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).insert(part, ready);
    }

    /// Says whether a part is there that the process can do without for a while: shown, but no reason to be unready.
    pub fn note(&self, part: &'static str, there: bool) {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(part, there);
    }

    /// From now on the process takes no new work.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// Whether every part is ready and the process is not draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.0.draining.load(Ordering::Relaxed)
            && self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).values().all(|ready| *ready)
    }

    fn report(&self) -> serde_json::Value {
        let parts = self.0.parts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({"ready": self.is_ready(), "notes": notes, "draining": self.0.draining.load(Ordering::Relaxed), "parts": parts})
    }
}

/// Serves the admin port until the tasks are stopped.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: TcpListener,
    service: &'static str,
    readiness: Readiness,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let version = json!({"service": service, "version": env!("CARGO_PKG_VERSION")});
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(|| async { telemetry::metrics_handle().render() }))
        .route("/version", get(move || async move { Json(version) }));
    axum::serve(listener, router).with_graceful_shutdown(tasks.stopping()).await?;
    Ok(())
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness.report()))
}
