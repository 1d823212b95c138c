//! Messages and cursors of a room.

use axum::{
    Router,
    extract::State,
    routing::{get, post, put},
};
use parlance_proto::chat::{self, mark_request::Kind};
use service_kit::id::FileId;

use super::{
    Edge,
    reply::{Answer, created_or_ok, nothing, ok},
    request::{Body, Params, Path},
    unbuilt,
};
use crate::{frame, json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/rooms/{room}/messages", post(send).get(history))
        .route("/v1/rooms/{room}/messages/{seq}", get(read).patch(edit).delete(delete))
        .route("/v1/rooms/{room}/read", put(mark_read))
        .route("/v1/rooms/{room}/delivered", put(mark_delivered))
        .route("/v1/rooms/{room}/unread", put(mark_unread))
}

async fn send(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let send = frame::read_send(path.room()?, &body.fields())?;
    let item = chat::SendItem {
        id: 0,
        room: send.room.to_wire(),
        sender: caller.actor.user.clone(),
        client_id: send.client_id.to_wire(),
        text: send.text,
        reply_to: send.reply_to,
        meta: send.meta,
        unbuilt: send.unbuilt,
        attachments: send.attachments.into_iter().map(FileId::to_wire).collect(),
        mentions: send.mentions.to_wire(),
        mentions_all: send.mentions.all,
        traceparent: service_kit::telemetry::current_traceparent().unwrap_or_default(),
    };
    let request = chat::PostRequest { actor: Some(caller.actor), item: Some(item) };
    let reply = edge.services.messages.clone().post(request).await?.into_inner();
    created_or_ok(!reply.duplicate, &reply.message.as_ref().map(json::Message::from))
}

async fn history(State(edge): State<Edge>, caller: Caller, path: Path, params: Params) -> Answer {
    let wanted = frame::read_history(path.room()?, &params.fields())?;
    if let Some(thread) = wanted.thread {
        return unbuilt::of_message(&edge, caller, wanted.room, thread, "threads are not built yet").await;
    }
    let request = chat::HistoryRequest {
        actor: Some(caller.actor),
        room: wanted.room.to_wire(),
        before: wanted.before,
        after: wanted.after,
        around: wanted.around,
        limit: wanted.limit,
    };
    let reply = edge.services.messages.clone().history(request).await?.into_inner();
    ok(&json::History::from(&reply))
}

fn message(caller: Caller, path: &Path) -> Result<chat::MessageRequest, crate::error::Problem> {
    Ok(chat::MessageRequest {
        actor: Some(caller.actor),
        room: path.room()?.to_wire(),
        seq: path.seq()?,
        pushes_of: None,
    })
}

async fn read(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let found = edge.services.messages.clone().get(message(caller, &path)?).await?.into_inner();
    ok(&json::Message::from(&found))
}

async fn edit(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let request = chat::EditRequest {
        actor: Some(caller.actor),
        room: path.room()?.to_wire(),
        seq: path.seq()?,
        text: frame::read_text(&body.fields())?,
    };
    let edited = edge.services.messages.clone().edit(request).await?.into_inner();
    ok(&json::Message::from(&edited))
}

async fn delete(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    edge.services.messages.clone().delete(message(caller, &path)?).await?;
    nothing()
}

async fn mark(edge: &Edge, caller: Caller, path: &Path, body: &Body, kind: Kind) -> Answer {
    let request = chat::MarkRequest {
        actor: Some(caller.actor),
        room: path.room()?.to_wire(),
        kind: kind.into(),
        seq: frame::read_seq(&body.fields())?,
    };
    edge.services.messages.clone().mark(request).await?;
    nothing()
}

async fn mark_read(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    mark(&edge, caller, &path, &body, Kind::Read).await
}

async fn mark_delivered(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    mark(&edge, caller, &path, &body, Kind::Delivered).await
}

async fn mark_unread(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    mark(&edge, caller, &path, &body, Kind::Unread).await
}
