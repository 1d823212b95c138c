//! Where one's pushes go.

use axum::{
    Router,
    extract::State,
    routing::{delete, get, post},
};
use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::URL_SAFE_NO_PAD},
};
use parlance_proto::notify;
use serde::Serialize;
use service_kit::fault::Fault;

use super::{
    Edge,
    reply::{Answer, created_or_ok, nothing, ok},
    request::{Body, Params, Path},
};
use crate::{
    frame::fields::{ANY_LENGTH, Fields, refuse},
    json,
    token::Caller,
};

/// Browsers write the keys of a subscription without padding, some libraries with it.
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The platforms, and the field in which each has its target.
const PLATFORMS: [(&str, (notify::Platform, &str)); 5] = [
    ("webpush", (notify::Platform::Webpush, "endpoint")),
    ("fcm", (notify::Platform::Fcm, "token")),
    ("apns", (notify::Platform::Apns, "token")),
    ("webhook", (notify::Platform::Webhook, "url")),
    ("email", (notify::Platform::Email, "address")),
];

pub(super) fn routes() -> Router<Edge> {
    Router::new()
        .route("/v1/devices", post(register).get(list))
        .route("/v1/devices/vapid", get(vapid))
        .route("/v1/devices/{device}", delete(remove))
        .route("/v1/devices/{device}/test", post(test))
}

#[derive(Serialize)]
struct Device<'a> {
    id: json::Id<'a>,
    platform: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    created_at: i64,
}

impl<'a> From<&'a notify::Device> for Device<'a> {
    fn from(device: &'a notify::Device) -> Self {
        Self {
            id: json::Id(&device.id),
            platform: word(device.platform()),
            name: device.name.as_deref(),
            created_at: device.created_at,
        }
    }
}

/// A device as it was registered, with what is told only then.
#[derive(Serialize)]
struct Registered<'a> {
    #[serde(flatten)]
    device: Option<Device<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
}

#[derive(Serialize)]
struct Vapid {
    public_key: String,
}

async fn register(State(edge): State<Edge>, caller: Caller, body: Body) -> Answer {
    let request = read(&caller, &body.fields())?;
    edge.services.accounts.clone().check(caller.actor).await?;
    let reply = edge.services.notify.clone().register_device(request).await?.into_inner();
    created_or_ok(
        reply.added,
        &Registered { device: reply.device.as_ref().map(Device::from), secret: reply.secret.as_deref() },
    )
}

async fn list(State(edge): State<Edge>, caller: Caller, params: Params) -> Answer {
    params.page()?;
    let user = caller.actor.user.clone();
    edge.services.accounts.clone().check(caller.actor).await?;
    let list = edge.services.notify.clone().list_devices(notify::ListDevicesRequest { user }).await?.into_inner();
    ok(&json::Page::<Device<'_>>::new(&list.items, None))
}

async fn remove(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let device = path.uuid("device")?.as_bytes().to_vec().into();
    let request = notify::RemoveDeviceRequest { user: caller.actor.user.clone(), device };
    edge.services.accounts.clone().check(caller.actor).await?;
    edge.services.notify.clone().remove_device(request).await?;
    nothing()
}

async fn test(State(edge): State<Edge>, caller: Caller, path: Path) -> Answer {
    let device = path.uuid("device")?.as_bytes().to_vec().into();
    let request = notify::TestDeviceRequest { user: caller.actor.user.clone(), device };
    edge.services.accounts.clone().check(caller.actor).await?;
    edge.services.notify.clone().test_device(request).await?;
    nothing()
}

async fn vapid(State(edge): State<Edge>, caller: Caller) -> Answer {
    edge.services.accounts.clone().check(caller.actor).await?;
    let reply = edge.services.notify.clone().vapid(notify::VapidRequest {}).await?.into_inner();
    ok(&Vapid { public_key: URL_SAFE_NO_PAD.encode(reply.public_key) })
}

/// What the contract calls a platform.
pub(super) fn word(platform: notify::Platform) -> &'static str {
    PLATFORMS.iter().find(|(_, (known, _))| *known == platform).map_or("unknown", |(word, _)| word)
}

fn read(caller: &Caller, fields: &Fields<'_>) -> Result<notify::RegisterDeviceRequest, Fault> {
    let (platform, target) = fields.word("platform", &PLATFORMS)?;
    let target = fields.text(target, 1..=2000)?;
    let name = fields.opt_text("name", ANY_LENGTH)?;
    let keys = fields.opt_object("keys", "keys.")?;
    let (p256dh, auth) = match (platform, keys) {
        (notify::Platform::Webpush, None) => return Err(refuse("keys", "is missing")),
        (notify::Platform::Webpush, Some(keys)) => (key(&keys, "p256dh")?, key(&keys, "auth")?),
        _ => Default::default(),
    };
    let (topic, sandbox) = match platform {
        notify::Platform::Apns => (fields.text("topic", 1..=155)?, fields.opt_flag("sandbox")?.unwrap_or_default()),
        _ => Default::default(),
    };
    Ok(notify::RegisterDeviceRequest {
        user: caller.actor.user.clone(),
        session: caller.actor.session.clone(),
        platform: platform.into(),
        name,
        target,
        p256dh: p256dh.into(),
        auth: auth.into(),
        topic,
        sandbox,
    })
}

fn key(keys: &Fields<'_>, name: &str) -> Result<Vec<u8>, Fault> {
    let text = keys.text(name, 1..=200)?;
    URL_SAFE.decode(text).map_err(|_| refuse(&format!("keys.{name}"), "must be base64url"))
}
