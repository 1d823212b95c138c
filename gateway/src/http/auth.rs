//! Accounts at the door: register, log in, refresh, log out, sessions, password.

use axum::{
    Router,
    extract::State,
    routing::{delete, get, post},
};
use parlance_proto::chat;
use serde::Serialize;

use super::{
    Edge,
    reply::{Answer, created, nothing, ok},
    request::{Body, Counted, Params, Path},
};
use crate::{error::Problem, frame::Code, frame::fields::ANY_LENGTH, json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/auth/register", post(register))
        .route("/v1/auth/login", post(login))
        .route("/v1/auth/guest", post(guest))
        .route("/v1/auth/refresh", post(refresh))
        .route("/v1/auth/logout", post(logout))
        .route("/v1/auth/sessions", get(sessions))
        .route("/v1/auth/sessions/{session}", delete(revoke))
        .route("/v1/auth/password", post(password))
}

#[derive(Serialize)]
struct Tokens<'a> {
    access_token: &'a str,
    expires_in_s: i64,
    refresh_token: &'a str,
}

impl<'a> From<&'a chat::Tokens> for Tokens<'a> {
    fn from(tokens: &'a chat::Tokens) -> Self {
        Self {
            access_token: &tokens.access_token,
            expires_in_s: tokens.expires_in_s,
            refresh_token: &tokens.refresh_token,
        }
    }
}

#[derive(Serialize)]
struct Grant<'a> {
    user: Option<json::User<'a>>,
    #[serde(flatten)]
    tokens: Option<Tokens<'a>>,
    session: json::Id<'a>,
}

impl<'a> From<&'a chat::Grant> for Grant<'a> {
    fn from(grant: &'a chat::Grant) -> Self {
        Self {
            user: grant.user.as_ref().map(json::User::from),
            tokens: grant.tokens.as_ref().map(Tokens::from),
            session: json::Id(&grant.session),
        }
    }
}

#[derive(Serialize)]
struct Session<'a> {
    id: json::Id<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    created_at: i64,
    last_used_at: i64,
    current: bool,
}

impl<'a> From<&'a chat::Session> for Session<'a> {
    fn from(session: &'a chat::Session) -> Self {
        Self {
            id: json::Id(&session.id),
            device: session.device.as_deref(),
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            current: session.current,
        }
    }
}

async fn register(State(edge): State<Edge>, _: Counted, body: Body) -> Answer {
    let fields = body.fields();
    let request = chat::RegisterRequest {
        username: fields.text("username", ANY_LENGTH)?,
        password: fields.text("password", ANY_LENGTH)?,
        display_name: fields.opt_text("display_name", ANY_LENGTH)?,
        device: fields.opt_text("device", ANY_LENGTH)?,
    };
    let grant = edge.services.accounts.clone().register(request).await?.into_inner();
    created(&Grant::from(&grant))
}

async fn login(State(edge): State<Edge>, _: Counted, body: Body) -> Answer {
    let fields = body.fields();
    let request = chat::LoginRequest {
        username: fields.text("username", ANY_LENGTH)?,
        password: fields.text("password", ANY_LENGTH)?,
        device: fields.opt_text("device", ANY_LENGTH)?,
    };
    edge.limits.login(&request.username)?;
    let grant = edge.services.accounts.clone().login(request).await?.into_inner();
    ok(&Grant::from(&grant))
}

async fn guest(_: Counted, body: Body) -> Answer {
    body.fields().opt_text("display_name", ANY_LENGTH)?;
    Err(Problem::new(Code::Unprocessable, "guests are not allowed here"))
}

async fn refresh(State(edge): State<Edge>, _: Counted, body: Body) -> Answer {
    let fields = body.fields();
    let request = chat::RefreshRequest {
        refresh_token: fields.text("refresh_token", ANY_LENGTH)?,
        attempt: fields.opt_uuid("attempt")?.map(|attempt| attempt.as_bytes().to_vec().into()),
    };
    let tokens = edge.services.accounts.clone().refresh(request).await?.into_inner();
    ok(&Tokens::from(&tokens))
}

async fn logout(State(edge): State<Edge>, caller: Caller) -> Answer {
    edge.services.accounts.clone().logout(caller.actor).await?;
    nothing()
}

async fn sessions(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let request = chat::ListSessionsRequest { actor: Some(caller.actor), page: Some(params.page()?) };
    let list = edge.services.accounts.clone().list_sessions(request).await?.into_inner();
    ok(&json::Page::<Session<'_>>::new(&list.items, list.next_cursor.as_deref()))
}

async fn revoke(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let session = path.uuid("session")?.as_bytes().to_vec().into();
    let request = chat::RevokeSessionRequest { actor: Some(caller.actor), session };
    edge.services.accounts.clone().revoke_session(request).await?;
    nothing()
}

async fn password(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let fields = body.fields();
    let request = chat::ChangePasswordRequest {
        actor: Some(caller.actor),
        old: fields.text("old", ANY_LENGTH)?,
        new: fields.text("new", ANY_LENGTH)?,
    };
    edge.services.accounts.clone().change_password(request).await?;
    nothing()
}
