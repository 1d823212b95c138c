//! REST: every route of docs/protocol.md under `/v1`. A handler checks who asks, then the form, then calls the service
//! that decides, and writes what it answered.

mod around;
mod auth;
mod blocks;
mod changes;
mod devices;
mod files;
mod me;
mod members;
mod messages;
mod notifications;
mod origin;
mod presence;
mod reply;
mod request;
mod rooms;
mod unbuilt;
mod uploads;
mod users;
mod why;

use std::{net::IpAddr, sync::Arc};

use axum::Router;

pub use origin::origin_allowed;

use crate::{error::Problem, files::Files, frame::Code, limit::Limits, services::Services, token::Tokens};

/// What handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Edge {
    /// The other services.
    pub services: Services,
    /// Who a token belongs to.
    pub tokens: Tokens,
    /// How often is too often.
    pub limits: Limits,
    /// The files that are kept.
    pub files: Files,
    /// Browser origins that are allowed beside the server's own, exactly as browsers write them.
    pub allowed_origins: Arc<[String]>,
    /// Addresses of proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Arc<[IpAddr]>,
}

/// All REST routes, ready to be served: with request ids, traces, metrics, CORS, limits of size and time.
pub fn router(edge: Edge) -> Router {
    let routes = Router::new()
        .merge(auth::routes())
        .merge(me::routes())
        .merge(blocks::routes())
        .merge(users::routes())
        .merge(rooms::routes())
        .merge(members::routes())
        .merge(messages::routes())
        .merge(changes::routes())
        .merge(files::routes())
        .merge(uploads::routes())
        .merge(presence::routes())
        .merge(devices::routes())
        .merge(why::routes())
        .merge(notifications::routes())
        .merge(unbuilt::routes())
        .fallback(|| async { Problem::new(Code::NotFound, "there is no such path") })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed() })
        .with_state(edge.clone());
    wrap(edge, routes)
}

/// Puts around `routes` what every public route has: see [`router`]. A route that leads to a WebSocket may be wrapped
/// too, for its handshake.
pub fn wrap(edge: Edge, routes: Router) -> Router {
    around::around(edge, routes)
}
