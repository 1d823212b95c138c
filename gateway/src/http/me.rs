//! One's own profile and privacy.

use axum::{Router, extract::State, routing::get};
use parlance_proto::chat;
use serde::Serialize;

use super::{
    Edge,
    reply::{Answer, ok},
    request::Body,
};
use crate::{
    error::Problem,
    frame::{
        Code,
        fields::{ANY_LENGTH, refuse},
    },
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
    // Null takes an avatar away, and nobody has one yet.
    if fields.opt_uuid("avatar")?.is_some() {
        edge.services.accounts.clone().check(caller.actor).await?;
        return Err(Problem::new(Code::Unprocessable, "avatar: avatars are not built yet"));
    }
    let request = chat::PatchMeRequest { actor: Some(caller.actor), display_name, receipts, presence };
    let profile = edge.services.accounts.clone().patch_me(request).await?.into_inner();
    ok(&Profile::from(&profile))
}
