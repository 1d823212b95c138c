//! Who is in a room, and one's own settings there.

use axum::{
    Router,
    extract::State,
    routing::{get, patch, put},
};
use parlance_proto::{chat, v1};

use super::{
    Edge,
    reply::{Answer, created_or_ok, nothing, ok},
    request::{Body, Params, Path},
    unbuilt,
};
use crate::{
    frame::fields::{ANY_LENGTH, Fields},
    json,
    token::Caller,
};
use service_kit::fault::Fault;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/rooms/{room}/members", get(list))
        .route("/v1/rooms/{room}/members/{user}", put(set).delete(remove))
        .route("/v1/rooms/{room}/me", patch(mine))
}

async fn list(State(edge): State<Edge>, caller: Caller, path: Path, params: Params) -> Answer {
    let (room, page) = (path.room()?.to_wire(), Some(params.page()?));
    let request = chat::ListMembersRequest { actor: Some(caller.actor), room, page };
    let list = edge.services.rooms.clone().list_members(request).await?.into_inner();
    ok(&json::Page::<json::Member<'_>>::new(&list.items, list.next_cursor.as_deref()))
}

async fn set(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let fields = body.fields();
    let roles = [("member", v1::Role::Member), ("admin", v1::Role::Admin), ("owner", v1::Role::Owner)];
    let request = chat::PutMemberRequest {
        actor: Some(caller.actor),
        room: path.room()?.to_wire(),
        user: path.user()?.to_wire(),
        role: fields.opt_word("role", &roles)?.map(i32::from),
        muted_until: muted_until(&fields)?,
    };
    let reply = edge.services.rooms.clone().put_member(request).await?.into_inner();
    created_or_ok(reply.added, &reply.member.as_ref().map(json::Member::from))
}

async fn remove(State(edge): State<Edge>, caller: Caller, path: Path, params: Params) -> Answer {
    let (room, user) = (path.room()?, path.user()?);
    if params.fields().opt_flag("ban")?.unwrap_or(false) {
        return unbuilt::in_room(&edge, caller, room, "bans are not built yet").await;
    }
    let request = chat::MemberRequest { actor: Some(caller.actor), room: room.to_wire(), user: user.to_wire() };
    edge.services.rooms.clone().remove_member(request).await?;
    nothing()
}

/// Absent fields stay; null lifts the mute and removes the draft.
async fn mine(State(edge): State<Edge>, caller: Caller, path: Path, body: Body) -> Answer {
    let (room, fields) = (path.room()?, body.fields());
    let levels = [("all", v1::Notify::All), ("mentions", v1::Notify::Mentions), ("none", v1::Notify::None)];
    let request = chat::PatchMineRequest {
        actor: Some(caller.actor),
        room: room.to_wire(),
        muted_until: muted_until(&fields)?,
        notify: fields.opt_word("notify", &levels)?.map(i32::from),
        favourite: fields.opt_flag("favourite")?,
        draft: fields.opt_text("draft", ANY_LENGTH)?.or(fields.is_null("draft").then(String::new)),
    };
    let me = edge.services.rooms.clone().patch_mine(request).await?.into_inner();
    ok(&json::Me::from(&me))
}

/// Null, like 0, lifts a mute.
fn muted_until(fields: &Fields<'_>) -> Result<Option<i64>, Fault> {
    Ok(fields.opt_int("muted_until", 0..=i64::MAX)?.or(fields.is_null("muted_until").then_some(0)))
}
