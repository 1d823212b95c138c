//! Whom one blocks.

use axum::{
    Router,
    extract::State,
    routing::{get, put},
};
use parlance_proto::chat;

use super::{
    Edge,
    reply::{Answer, nothing, ok},
    request::{Params, Path},
};
use crate::{json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/me/blocks", get(list)).route("/v1/me/blocks/{user}", put(block).delete(unblock))
}

async fn list(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let request = chat::ListBlocksRequest { actor: Some(caller.actor), page: Some(params.page()?) };
    let list = edge.services.accounts.clone().list_blocks(request).await?.into_inner();
    ok(&json::Page::<json::User<'_>>::new(&list.items, list.next_cursor.as_deref()))
}

async fn block(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::BlockRequest { actor: Some(caller.actor), user: path.user()?.to_wire() };
    edge.services.accounts.clone().block(request).await?;
    nothing()
}

async fn unblock(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::BlockRequest { actor: Some(caller.actor), user: path.user()?.to_wire() };
    edge.services.accounts.clone().unblock(request).await?;
    nothing()
}
