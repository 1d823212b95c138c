//! What a client has missed: of one room, or of all.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use parlance_proto::chat;

use super::{
    Edge,
    reply::{Answer, ok},
    request::{Body, Params, Path},
};
use crate::{
    frame::{self, fields::ANY_LENGTH},
    json,
    token::Caller,
};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/rooms/{room}/changes", get(changes)).route("/v1/sync", post(sync))
}

async fn changes(State(edge): State<Edge>, caller: Caller, path: Path, params: Params) -> Answer {
    let room = path.room()?;
    let (after_rev, limit) = frame::read_changes(&params.fields())?;
    let request = chat::ChangesRequest { actor: Some(caller.actor), room: room.to_wire(), after_rev, limit };
    let changes = edge.services.messages.clone().changes(request).await?.into_inner();
    ok(&json::Changes::from(&changes))
}

async fn sync(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let fields = body.fields();
    let held = frame::read_held_rooms(&fields)?;
    let request = chat::HelloRequest {
        actor: Some(caller.actor),
        generation: fields.opt_text("generation", ANY_LENGTH)?,
        rooms: held
            .into_iter()
            .map(|(room, rev, me_rev)| chat::HeldRoom { room: room.to_wire(), rev, me_rev })
            .collect(),
    };
    let reply = edge.services.sync.clone().hello(request).await?.into_inner();
    ok(&json::Synced::from(&reply))
}
