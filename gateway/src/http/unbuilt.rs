//! What the contract names and is not built yet: it answers `unprocessable`, never `not_found` and never a success that
//! is none. Who asks, the form, and the right to know of the room or message are checked first, as they will be later.

use axum::{
    Router,
    extract::{FromRequest, FromRequestParts, Request, State},
    routing::{any, delete, get, post, put},
};
use futures_util::future::BoxFuture;
use parlance_proto::chat;
use service_kit::{fault::Fault, id::RoomId};

use super::{
    Edge,
    reply::Answer,
    request::{Body, Params, Path},
};
use crate::{
    error::Problem,
    frame::{
        Code,
        fields::{ANY_LENGTH, Fields},
    },
    token::Caller,
};

const BANS: &str = "bans are not built yet";
const INVITES: &str = "invites are not built yet";
const REACTIONS: &str = "reactions are not built yet";
const PINS: &str = "pins are not built yet";

/// Checks the form of a query and a body.
type Form = fn(&Params, &Fields<'_>) -> Result<(), Fault>;

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .merge(of_users())
        .merge(of_rooms())
        .merge(of_messages())
        .route("/", get(|| async { page_later("the web client") }))
        .route("/docs", get(|| async { page_later("the page of the contracts") }))
        .route("/openapi.json", get(|| async { page_later("the OpenAPI document") }))
        .route("/asyncapi.json", get(|| async { page_later("the AsyncAPI document") }))
        .route("/v1/admin", any(admin))
        .route("/v1/admin/{*rest}", any(admin))
}

/// What anybody may see once it is there.
fn page_later(what: &str) -> Problem {
    Problem::new(Code::Unprocessable, format!("{what} is not built yet; docs/protocol.md has the contract"))
}

fn of_users() -> Router<Edge> {
    let password: Form = |_, body| body.text("password", ANY_LENGTH).map(drop);
    Router::new()
        .route("/v1/me", delete(later("erasure is not built yet", password)))
        .route("/v1/me/export", get(later("the export is not built yet", no_form)))
}

fn of_rooms() -> Router<Edge> {
    let invite: Form = |_, body| {
        body.opt_int("expires_in_s", 1..=i64::MAX)?;
        body.opt_int("max_uses", 1..=i64::MAX).map(drop)
    };
    Router::new()
        .route("/v1/rooms/{room}/bans", get(later(BANS, page)))
        .route("/v1/rooms/{room}/bans/{user}", delete(later(BANS, no_form)))
        .route("/v1/rooms/{room}/invites", post(later(INVITES, invite)).get(later(INVITES, page)))
        .route("/v1/rooms/{room}/invites/{code}", delete(later(INVITES, no_form)))
        .route("/v1/invites/{code}", post(later(INVITES, no_form)))
        .route("/v1/rooms/{room}/pins", get(later(PINS, page)))
        .route("/v1/search", get(later("search is not built yet", search)))
}

fn of_messages() -> Router<Edge> {
    let forward: Form = |_, body| {
        body.uuid("room")?;
        body.uuid("client_id").map(drop)
    };
    let report: Form = |_, body| body.text("reason", 1..=usize::MAX).map(drop);
    Router::new()
        .route(
            "/v1/rooms/{room}/messages/{seq}/reactions/{emoji}",
            put(later(REACTIONS, no_form)).delete(later(REACTIONS, no_form)),
        )
        .route("/v1/rooms/{room}/messages/{seq}/pin", put(later(PINS, no_form)).delete(later(PINS, no_form)))
        .route("/v1/rooms/{room}/messages/{seq}/receipts", get(later("receipts are not built yet", page)))
        .route("/v1/rooms/{room}/messages/{seq}/forward", post(later("forwarding is not built yet", forward)))
        .route("/v1/rooms/{room}/messages/{seq}/report", post(later("reports are not built yet", report)))
}

/// What a handler here reads: everything, to check it.
struct Asked {
    path: Path,
    params: Params,
    body: Body,
}

impl FromRequest<Edge> for Asked {
    type Rejection = Problem;

    async fn from_request(request: Request, edge: &Edge) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let path = Path::from_request_parts(&mut parts, edge).await?;
        let params = Params::from_request_parts(&mut parts, edge).await?;
        Ok(Self { path, params, body: Body::from_request(Request::from_parts(parts, body), edge).await? })
    }
}

/// The handler of a route that comes later: ids of the path, then `form`, then permission, then `what`.
fn later(
    what: &'static str,
    form: Form,
) -> impl Fn(State<Edge>, Caller, Asked) -> BoxFuture<'static, Answer> + Clone + Send + Sync + 'static {
    move |State(edge), caller, asked| {
        Box::pin(async move {
            let Asked { path, params, body } = asked;
            for id in ["user", "file", "device"].into_iter().filter(|id| path.has(id)) {
                path.uuid(id)?;
            }
            let room = path.has("room").then(|| path.room()).transpose()?;
            let seq = path.has("seq").then(|| path.seq()).transpose()?;
            if path.has("emoji") {
                path.emoji()?;
            }
            form(&params, &body.fields())?;
            match (room, seq) {
                (Some(room), Some(seq)) => of_message(&edge, caller, room, seq, what).await,
                (Some(room), None) => in_room(&edge, caller, room, what).await,
                (None, _) => of_account(&edge, caller, what).await,
            }
        })
    }
}

/// Refuses when the session still stands; when not, says that.
async fn of_account(edge: &Edge, caller: Caller, what: &str) -> Answer {
    edge.services.accounts.clone().check(caller.actor).await?;
    Err(Problem::new(Code::Unprocessable, what))
}

/// Refuses when the caller may know of the message; when not, says that.
pub(super) async fn of_message(edge: &Edge, caller: Caller, room: RoomId, seq: i64, what: &str) -> Answer {
    let request = chat::MessageRequest { actor: Some(caller.actor), room: room.to_wire(), seq, pushes_of: None };
    edge.services.messages.clone().unbuilt(request).await?;
    Err(Problem::new(Code::Unprocessable, what))
}

/// Refuses when the caller may know of the room. To chat-service, seq 0 is none of its messages, but the room itself.
pub(super) async fn in_room(edge: &Edge, caller: Caller, room: RoomId, what: &str) -> Answer {
    of_message(edge, caller, room, 0, what).await
}

fn no_form(_: &Params, _: &Fields<'_>) -> Result<(), Fault> {
    Ok(())
}

fn page(params: &Params, _: &Fields<'_>) -> Result<(), Fault> {
    params.page().map(drop)
}

fn search(params: &Params, _: &Fields<'_>) -> Result<(), Fault> {
    let fields = params.fields();
    fields.text("q", 1..=usize::MAX)?;
    fields.opt_uuid("room")?;
    fields.opt_uuid("sender")?;
    fields.opt_int("from", 0..=i64::MAX)?;
    fields.opt_int("to", 0..=i64::MAX)?;
    fields.opt_word("has", &[("file", ()), ("link", ())])?;
    params.page().map(drop)
}

/// There are no operators yet, so this is nobody's to do.
async fn admin(State(edge): State<Edge>, caller: Caller) -> Answer {
    edge.services.accounts.clone().check(caller.actor).await?;
    Err(Problem::new(Code::Forbidden, "this is for operators only"))
}
