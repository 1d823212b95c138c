//! Who is online, of those whom the caller may watch.

use super::{
    Edge,
    reply::{Answer, ok},
    request::Params,
};
use crate::{frame::MAX_WATCHED, json, presence, token::Caller};
use axum::{Router, extract::State, routing::get};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/presence", get(states))
}

/// The others are left out of the answer: whether they exist, or are online, is not told.
async fn states(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let users = params.fields().users_in_query("users", MAX_WATCHED)?;
    let users = presence::watchable(&edge.services, Some(caller.actor), &users).await?;
    let items = presence::states(&edge.services, &users).await?;
    ok(&json::all::<_, json::Presence<'_>>(&items))
}
