//! What handlers read of a request: ids of the path, the query, the body. Each refuses with a problem that names the
//! field.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    body::Bytes,
    extract::{ConnectInfo, FromRequest, FromRequestParts, Query, RawPathParams, Request},
};
use http::{HeaderMap, StatusCode, header, request::Parts};
use parlance_proto::chat;
use serde_json::{Map, Value};
use service_kit::{
    fault::Fault,
    id::{RoomId, UserId},
};
use uuid::Uuid;

use super::Edge;
use crate::{
    error::Problem,
    frame::{
        Code, MAX_PAGE, emoji_fits,
        fields::{ANY_LENGTH, Fields, read_uuid, refuse},
    },
};

/// Characters of an `Idempotency-Key`.
const MAX_KEY: usize = 255;

/// The variable parts of the path.
pub(super) struct Path(Vec<(String, String)>);

impl Path {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// Whether the route has a part of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(key, _)| key == name)
    }

    /// An id. What is not a UUID names nothing that exists.
    pub(super) fn uuid(&self, name: &str) -> Result<Uuid, Problem> {
        read_uuid(self.get(name)).ok_or_else(|| Problem::new(Code::NotFound, format!("there is no such {name}")))
    }

    pub(super) fn room(&self) -> Result<RoomId, Problem> {
        self.uuid("room").map(RoomId)
    }

    pub(super) fn user(&self) -> Result<UserId, Problem> {
        self.uuid("user").map(UserId)
    }

    pub(super) fn seq(&self) -> Result<i64, Problem> {
        let seq = self.get("seq").parse().ok().filter(|seq| *seq >= 1);
        seq.ok_or_else(|| refuse("seq", "must be an integer of at least 1").into())
    }

    pub(super) fn emoji(&self) -> Result<(), Problem> {
        Ok(emoji_fits(self.get("emoji"))?)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Path {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| Problem::new(Code::NotFound, "there is no such path"))?;
        Ok(Self(params.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
    }
}

/// The parameters behind the `?`.
pub(super) struct Params(Map<String, Value>);

impl Params {
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields::of_query(&self.0)
    }

    /// `limit` and `cursor` of a list. 0 is the default limit.
    pub(super) fn page(&self) -> Result<chat::Page, Fault> {
        let fields = self.fields();
        Ok(chat::Page {
            limit: fields.opt_int("limit", 1..=MAX_PAGE)?.unwrap_or(0),
            cursor: fields.opt_text("cursor", ANY_LENGTH)?.unwrap_or_default(),
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|_| Problem::new(Code::BadRequest, "query: cannot be read"))?.0;
        Ok(Self(pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect()))
    }
}

/// A JSON object as the body. No body at all reads as an object without fields.
pub(super) struct Body(Map<String, Value>);

impl Body {
    pub(super) fn fields(&self) -> Fields<'_> {
        Fields::of(&self.0)
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media = || Problem::new(Code::UnsupportedMedia, "the body must be application/json");
        let json = request.headers().get(header::CONTENT_TYPE).map(|value| is_json(value.as_bytes()));
        if json == Some(false) {
            return Err(media());
        }
        let body = Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "the body is larger than 64 KiB"),
            _ => Problem::new(Code::BadRequest, "body: cannot be read"),
        })?;
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        if json.is_none() {
            return Err(media());
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(_) => Err(Problem::new(Code::BadRequest, "body: must be a JSON object")),
            Err(_) => Err(Problem::new(Code::BadRequest, "body: is not JSON")),
        }
    }
}

/// Whether a media type is JSON: `application/json` or `application/<something>+json`, with any parameters.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}

/// The address of the client that made the call.
pub(super) struct Peer(pub(super) IpAddr);

impl FromRequestParts<Edge> for Peer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Self::Rejection> {
        // Served without addresses (a test), all callers count as one.
        let address = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        Ok(Self(client_address(address, &parts.headers, &edge.trusted_proxies)))
    }
}

/// Who is behind the peer: the last of `X-Forwarded-For` that is not a trusted proxy itself, when the peer is one. What
/// anybody else writes there is not believed.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let values = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let named: Vec<&str> = values.flat_map(|value| value.split(',')).collect();
    let mut address = peer;
    for name in named.iter().rev() {
        if !trusted.contains(&address) {
            break;
        }
        match name.trim().parse() {
            Ok(next) => address = next,
            Err(_) => break,
        }
    }
    address
}

/// A call that costs a password hash or makes something for strangers: counted by address before anything else.
pub(super) struct Counted;

impl FromRequestParts<Edge> for Counted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, edge: &Edge) -> Result<Self, Problem> {
        let Ok(Peer(address)) = Peer::from_request_parts(parts, edge).await;
        edge.limits.address(address)?;
        Ok(Self)
    }
}

/// The `Idempotency-Key` header.
///
/// # Errors
/// `bad_request` when it is not 1 to 255 visible ASCII characters, or there are several.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| {
        (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) && values.next().is_none()
    });
    let key =
        key.ok_or_else(|| refuse("Idempotency-Key", format_args!("must be 1 to {MAX_KEY} visible ASCII characters")))?;
    Ok(Some(key.to_owned()))
}
