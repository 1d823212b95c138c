//! Why a push of a message was sent or not.

use axum::{Router, extract::State, routing::get};
use parlance_proto::{chat, notify};
use serde::Serialize;

use super::{
    Edge, devices,
    reply::{Answer, ok},
    request::{Params, Path},
};
use crate::{json, token::Caller};

pub(super) fn routes() -> Router<Edge> {
    Router::new().route("/v1/rooms/{room}/messages/{seq}/why", get(why))
}

#[derive(Serialize)]
struct Why<'a> {
    message: json::Message<'a>,
    decisions: Vec<Decision<'a>>,
}

#[derive(Serialize)]
struct Decision<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<json::Id<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'static str>,
    outcome: &'a str,
    reason: &'a str,
    at: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
}

impl<'a> From<&'a notify::Decision> for Decision<'a> {
    fn from(decision: &'a notify::Decision) -> Self {
        Self {
            device: Some(json::Id(&decision.device)),
            platform: Some(devices::word(decision.platform())),
            outcome: &decision.outcome,
            reason: &decision.reason,
            at: decision.at,
            detail: decision.detail.as_deref(),
        }
    }
}

/// One's own; whether somebody may ask of another, chat-service says.
async fn why(State(edge): State<Edge>, caller: Caller, path: Path, params: Params) -> Answer {
    let (room, seq) = (path.room()?.to_wire(), path.seq()?);
    let asked = params.fields().opt_uuid("user")?.map(|asked| bytes::Bytes::copy_from_slice(asked.as_bytes()));
    let user = asked.clone().unwrap_or_else(|| caller.actor.user.clone());
    let request = chat::MessageRequest { actor: Some(caller.actor), room: room.clone(), seq, pushes_of: asked };
    let message = edge.services.messages.clone().get(request).await?.into_inner();
    let request = notify::WhyRequest { room, seq, user: user.clone(), at: message.at };
    let why = edge.services.notify.clone().why(request).await?.into_inner();
    let mut decisions: Vec<Decision<'_>> = why.decisions.iter().map(Decision::from).collect();
    if why.no_device && message.sender != user {
        let (outcome, reason) = ("skipped", "no_device");
        decisions.push(Decision { device: None, platform: None, outcome, reason, at: message.at, detail: None });
    }
    ok(&Why { message: json::Message::from(&message), decisions })
}
