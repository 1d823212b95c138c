//! What one was told of inside the program, and what one wants of pushes in general.

use std::collections::HashMap;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use parlance_proto::{
    chat,
    notify::{self, Privacy},
    v1,
};
use serde::Serialize;
use service_kit::fault::Fault;

use super::{
    Edge,
    reply::{Answer, nothing, ok},
    request::{Body, Params},
};
use crate::{
    frame::fields::{Fields, read_uuid, refuse},
    json,
    token::Caller,
};

const PRIVACY: [(&str, Privacy); 3] = [("full", Privacy::Full), ("sender", Privacy::Sender), ("none", Privacy::None)];

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/notifications", get(list))
        .route("/v1/notifications/read", post(mark))
        .route("/v1/notifications/settings", get(read).put(write))
}

/// The newest first, each with its message as it is now, when one may still see it.
async fn list(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    let chat::Page { limit, cursor } = params.page()?;
    let before = match cursor.as_str() {
        "" => None,
        cursor => Some(read_uuid(cursor).ok_or_else(|| refuse("cursor", "is none of this list"))?),
    };
    let before = before.map(|before| before.as_bytes().to_vec().into());
    let request = notify::ListNotificationsRequest { user: caller.actor.user.clone(), limit, before };
    edge.services.accounts.clone().check(caller.actor.clone()).await?;
    let mut list = edge.services.notify.clone().list_notifications(request).await?.into_inner();
    // A room that was made with one in it has no notice.
    let with_message = list.items.iter().filter(|item| item.seq > 0);
    let place = |item: &v1::Notification| chat::MessagePlace { room: item.room.clone(), seq: item.seq };
    let places: Vec<_> = with_message.map(place).collect();
    if !places.is_empty() {
        let request = chat::SomeRequest { actor: Some(caller.actor), places };
        let seen = edge.services.messages.clone().some(request).await?.into_inner().items;
        let mut seen: HashMap<_, _> =
            seen.into_iter().map(|message| ((message.room.clone(), message.seq), message)).collect();
        for item in &mut list.items {
            item.message = seen.remove(&(item.room.clone(), item.seq));
        }
    }
    ok(&json::Notifications::from(&list))
}

/// Marks as read, up to one of them and with it.
async fn mark(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let up_to = body.fields().uuid("up_to")?.as_bytes().to_vec().into();
    let request = notify::ReadNotificationsRequest { user: caller.actor.user.clone(), up_to };
    edge.services.accounts.clone().check(caller.actor).await?;
    edge.services.notify.clone().read_notifications(request).await?;
    nothing()
}

#[derive(Serialize)]
struct Settings<'a> {
    privacy: &'static str,
    quiet_hours: Option<QuietHours<'a>>,
}

#[derive(Serialize)]
struct QuietHours<'a> {
    from: String,
    to: String,
    time_zone: &'a str,
}

impl<'a> From<&'a notify::Settings> for Settings<'a> {
    fn from(settings: &'a notify::Settings) -> Self {
        let privacy = PRIVACY.iter().find(|(_, known)| *known == settings.privacy());
        let quiet_hours = settings.quiet_hours.as_ref().map(|quiet| QuietHours {
            from: time(quiet.from),
            to: time(quiet.to),
            time_zone: &quiet.time_zone,
        });
        Self { privacy: privacy.map_or("full", |(word, _)| word), quiet_hours }
    }
}

async fn read(State(edge): State<Edge>, caller: Caller) -> Answer {
    let user = caller.actor.user.clone();
    edge.services.accounts.clone().check(caller.actor).await?;
    let request = notify::GetSettingsRequest { user };
    ok(&Settings::from(&edge.services.notify.clone().get_settings(request).await?.into_inner()))
}

/// Replaces all of them: what is absent has its default again.
async fn write(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let fields = body.fields();
    let privacy = fields.opt_word("privacy", &PRIVACY)?.unwrap_or(Privacy::Full).into();
    let quiet_hours = match fields.opt_object("quiet_hours", "quiet_hours.")? {
        Some(quiet) => Some(notify::QuietHours {
            from: minute(&quiet, "from")?,
            to: minute(&quiet, "to")?,
            time_zone: quiet.text("time_zone", 1..=64)?,
        }),
        None => None,
    };
    let settings = Some(notify::Settings { privacy, quiet_hours });
    let request = notify::PutSettingsRequest { user: caller.actor.user.clone(), settings };
    edge.services.accounts.clone().check(caller.actor).await?;
    edge.services.notify.clone().put_settings(request).await?;
    nothing()
}

/// A time of the day like `07:30`, as minutes.
fn minute(fields: &Fields<'_>, name: &str) -> Result<u32, Fault> {
    let text = fields.text(name, 5..=5)?;
    let two = |text: &str, most| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|number: &u32| digits && number < most)
    };
    let parts = text.split_once(':').and_then(|(hour, minute)| Some(two(hour, &24)? * 60 + two(minute, &60)?));
    parts.ok_or_else(|| refuse(&format!("quiet_hours.{name}"), "must be a time of the day like 07:30"))
}

fn time(minutes: u32) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}
