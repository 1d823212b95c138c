//! Who is online, of those whom the caller may watch.

use axum::{Router, extract::State, routing::get};
use parlance_proto::{chat, presence};

use super::{
    Edge,
    reply::{Answer, ok},
    request::Params,
};
use crate::{frame::MAX_WATCHED, json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/presence", get(states))
}

/// The others are left out of the answer: whether they exist, or are online, is not told.
async fn states(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let users = params.fields().users_in_query("users", MAX_WATCHED)?;
    let users = users.into_iter().map(service_kit::id::UserId::to_wire).collect();
    let request = chat::WatchableRequest { actor: Some(caller.actor), users };
    let users = edge.services.sync.clone().watchable(request).await?.into_inner().users;
    let mut items = Vec::new();
    if !users.is_empty() {
        items = edge.services.presence.clone().states(presence::StatesRequest { users }).await?.into_inner().items;
    }
    ok(&json::all::<_, json::Presence<'_>>(&items))
}
