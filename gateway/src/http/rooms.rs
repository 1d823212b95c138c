//! Rooms: make, find, read, change, archive, come and go.

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use http::HeaderMap;
use parlance_proto::{chat, v1};

use super::{
    Edge,
    me::avatar,
    reply::{Answer, created, created_or_ok, nothing, ok},
    request::{Body, Params, Path, idempotency_key},
};
use crate::{
    frame::fields::{ANY_LENGTH, refuse},
    json,
    token::Caller,
};

/// First members that one call may name; its body bounds them more.
const MAX_MEMBERS: usize = 10_000;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/rooms", post(create).get(list))
        .route("/v1/direct", post(direct))
        .route("/v1/rooms/{room}", get(read).patch(patch).delete(archive))
        .route("/v1/rooms/{room}/join", post(join))
        .route("/v1/rooms/{room}/leave", post(leave))
        .route("/v1/rooms/{room}/transfer", post(transfer))
}

async fn create(State(edge): State<Edge>, caller: Caller, headers: HeaderMap, body: Body) -> Answer {
    let fields = body.fields();
    let kind = fields.word("kind", &[("group", v1::RoomKind::Group), ("channel", v1::RoomKind::Channel)])?;
    let members = fields.uuids("members", MAX_MEMBERS)?;
    let request = chat::CreateRoomRequest {
        actor: Some(caller.actor),
        kind: kind.into(),
        name: fields.text("name", ANY_LENGTH)?,
        topic: fields.opt_text("topic", ANY_LENGTH)?,
        members: members.into_iter().map(|user| user.as_bytes().to_vec().into()).collect(),
        idempotency_key: idempotency_key(&headers)?,
    };
    let room = edge.services.rooms.clone().create(request).await?.into_inner();
    created(&json::Room::from(&room))
}

async fn direct(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let user = body.fields().uuid("user")?.as_bytes().to_vec().into();
    let request = chat::OpenDirectRequest { actor: Some(caller.actor), user };
    let opened = edge.services.rooms.clone().open_direct(request).await?.into_inner();
    created_or_ok(opened.created, &opened.room.as_ref().map(json::Room::from))
}

async fn list(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let fields = params.fields();
    let request = chat::ListRoomsRequest {
        actor: Some(caller.actor),
        page: Some(params.page()?),
        public: fields.opt_flag("public")?.unwrap_or(false),
        query: fields.opt_text("query", ANY_LENGTH)?,
    };
    let list = edge.services.rooms.clone().list(request).await?.into_inner();
    ok(&json::Page::<json::Room<'_>>::new(&list.items, list.next_cursor.as_deref()))
}

async fn read(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::RoomRequest { actor: Some(caller.actor), room: path.room()?.to_wire() };
    let room = edge.services.rooms.clone().get(request).await?.into_inner();
    ok(&json::Room::from(&room))
}

/// Absent fields stay; null takes the topic, the avatar and the retention away.
async fn patch(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let (room, fields) = (path.room()?, body.fields());
    if fields.is_null("name") {
        return Err(refuse("name", "must be a text").into());
    }
    let mut request = chat::PatchRoomRequest {
        actor: Some(caller.actor),
        room: room.to_wire(),
        name: fields.opt_text("name", ANY_LENGTH)?,
        topic: fields.opt_text("topic", ANY_LENGTH)?.or(fields.is_null("topic").then(String::new)),
        avatar: avatar(&fields)?,
        ..chat::PatchRoomRequest::default()
    };
    if let Some(settings) = fields.opt_object("settings", "settings.")? {
        request.history_joined = settings.opt_word("history", &[("all", false), ("joined", true)])?;
        request.announcement = settings.opt_flag("announcement")?;
        request.slow_mode_s = settings.opt_int("slow_mode_s", 0..=i64::MAX)?;
        let retention_days = settings.opt_int("retention_days", 0..=i64::MAX)?;
        request.retention_days = retention_days.or(settings.is_null("retention_days").then_some(0));
    }
    let room = edge.services.rooms.clone().patch(request).await?.into_inner();
    ok(&json::Room::from(&room))
}

async fn archive(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::RoomRequest { actor: Some(caller.actor), room: path.room()?.to_wire() };
    edge.services.rooms.clone().archive(request).await?;
    nothing()
}

async fn join(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::RoomRequest { actor: Some(caller.actor), room: path.room()?.to_wire() };
    let room = edge.services.rooms.clone().join(request).await?.into_inner();
    ok(&json::Room::from(&room))
}

async fn leave(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let request = chat::RoomRequest { actor: Some(caller.actor), room: path.room()?.to_wire() };
    edge.services.rooms.clone().leave(request).await?;
    nothing()
}

async fn transfer(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let user = body.fields().uuid("user")?.as_bytes().to_vec().into();
    let request = chat::MemberRequest { actor: Some(caller.actor), room: path.room()?.to_wire(), user };
    let room = edge.services.rooms.clone().transfer(request).await?.into_inner();
    ok(&json::Room::from(&room))
}
