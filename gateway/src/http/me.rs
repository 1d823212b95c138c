//! One's own profile and privacy.

use axum::{Router, extract::State, routing::get};
use bytes::Bytes;
use parlance_proto::chat;
use serde::Serialize;
use service_kit::{fault::Fault, id::FileId};

use super::{
    Edge,
    reply::{Answer, ok},
    request::Body,
};
use crate::{
    frame::fields::{ANY_LENGTH, Fields, refuse},
    json,
    token::Caller,
};

pub(super) fn routes() -> Router<Edge> {
    // DELETE of the same path is in `unbuilt`.
    Router::new().route("/v1/me", get(read).patch(patch))
}

#[derive(Serialize)]
struct Profile<'a> {
    #[serde(flatten)]
    user: Option<json::User<'a>>,
    privacy: Privacy,
}

#[derive(Serialize)]
struct Privacy {
    receipts: bool,
    presence: bool,
}

impl<'a> From<&'a chat::Profile> for Profile<'a> {
    fn from(profile: &'a chat::Profile) -> Self {
        let privacy = profile.privacy.unwrap_or_default();
        Self {
            user: profile.user.as_ref().map(json::User::from),
            privacy: Privacy { receipts: privacy.receipts, presence: privacy.presence },
        }
    }
}

async fn read(State(edge): State<Edge>, caller: Caller) -> Answer {
    let profile = edge.services.accounts.clone().get_me(caller.actor).await?.into_inner();
    ok(&Profile::from(&profile))
}

async fn patch(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let fields = body.fields();
    if fields.is_null("display_name") {
        return Err(refuse("display_name", "must be a text").into());
    }
    let display_name = fields.opt_text("display_name", ANY_LENGTH)?;
    let privacy = fields.opt_object("privacy", "privacy.")?;
    let (receipts, presence) = match &privacy {
        Some(privacy) => (privacy.opt_flag("receipts")?, privacy.opt_flag("presence")?),
        None => (None, None),
    };
    let avatar = avatar(&fields)?;
    let request = chat::PatchMeRequest { actor: Some(caller.actor), display_name, receipts, presence, avatar };
    let profile = edge.services.accounts.clone().patch_me(request).await?.into_inner();
    ok(&Profile::from(&profile))
}

/// `avatar` of a patch: the id of a file, empty for null, which takes it away.
pub(super) fn avatar(fields: &Fields<'_>) -> Result<Option<Bytes>, Fault> {
    let file = fields.opt_uuid("avatar")?.map(|id| FileId(id).to_wire());
    Ok(file.or(fields.is_null("avatar").then(Bytes::new)))
}
