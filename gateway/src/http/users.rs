//! Other users: one by id, some by the beginning of their name.

use axum::{Router, extract::State, routing::get};
use parlance_proto::chat;

use super::{
    Edge,
    reply::{Answer, ok},
    request::{Params, Path},
};
use crate::{frame::fields::ANY_LENGTH, json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/users", get(find)).route("/v1/users/{user}", get(read))
}

async fn read(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::GetUserRequest { actor: Some(caller.actor), user: path.user()?.to_wire() };
    let user = edge.services.accounts.clone().get_user(request).await?.into_inner();
    ok(&json::User::from(&user))
}

async fn find(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let query = params.fields().text("query", ANY_LENGTH)?;
    let request = chat::FindUsersRequest { actor: Some(caller.actor), query, page: Some(params.page()?) };
    let list = edge.services.accounts.clone().find_users(request).await?.into_inner();
    ok(&json::Page::<json::User<'_>>::new(&list.items, list.next_cursor.as_deref()))
}
