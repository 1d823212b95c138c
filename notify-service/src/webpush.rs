//! Web Push: encrypts for the receiver alone (RFC 8291), signs for its push service (RFC 8292), and sends (RFC 8030).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{StatusCode, header};
use reqwest::Response;
use service_kit::clock;
use url::Url;
use web_push_native::{Auth, p256::PublicKey};

use crate::{decide::Due, target::NotPublic, vapid::Vapid};

/// How long a push service keeps a push for a receiver who is away.
const TTL: Duration = Duration::from_secs(24 * 3600);
/// Longest wait that a push service may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// Most of an answer that is read, so that its connection can be used again.
const ANSWER: usize = 16 * 1024;

/// What a try came to. Texts say what was answered, never what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tried {
    /// The push service has it.
    Accepted(String),
    /// There is nobody behind this endpoint any more.
    Gone(String),
    /// Perhaps later, after so long when the push service says so.
    Later(String, Option<Duration>),
    /// Never.
    Refused(String),
}

/// Sends one push. The client bounds how long that takes.
pub(crate) async fn send(client: &reqwest::Client, vapid: &Vapid, due: &Due, url: &Url, payload: Vec<u8>) -> Tried {
    let body = match encrypt(due, payload) {
        Ok(body) => body,
        Err(problem) => return Tried::Refused(problem.to_owned()),
    };
    let Ok(authorization) = vapid.authorization(&url.origin().ascii_serialization()) else {
        return Tried::Refused("the push could not be signed".to_owned());
    };
    let request = client
        .post(url.clone())
        .header(header::AUTHORIZATION, authorization)
        .header(header::CONTENT_ENCODING, "aes128gcm")
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("ttl", TTL.as_secs())
        .header("urgency", "high")
        .header("topic", topic(due))
        .body(body);
    match request.send().await {
        Ok(answer) => judge(answer).await,
        Err(error) => judge_error(&error),
    }
}

/// One per room: a push that was not delivered yet is replaced by the next one of its room. At most 32 characters of
/// base64url (RFC 8030, section 5.4).
fn topic(due: &Due) -> String {
    URL_SAFE_NO_PAD.encode(due.room_id.as_bytes())
}

fn encrypt(due: &Due, payload: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    let public = due.p256dh.as_deref().and_then(|point| PublicKey::from_sec1_bytes(point).ok());
    let auth = due.auth.as_deref().and_then(|auth| <[u8; 16]>::try_from(auth).ok());
    let (Some(public), Some(auth)) = (public, auth) else { return Err("the keys of the subscription are none") };
    web_push_native::encrypt(payload, &public, &Auth::from(auth)).map_err(|_| "the push could not be encrypted")
}

async fn judge(mut answer: Response) -> Tried {
    let status = answer.status();
    let wait = retry_after(&answer);
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER {
            break;
        }
    }
    let said = format!("answered {}", status.as_u16());
    match status {
        _ if status.is_success() => Tried::Accepted(said),
        StatusCode::NOT_FOUND | StatusCode::GONE => Tried::Gone(said),
        StatusCode::TOO_MANY_REQUESTS => Tried::Later(said, wait.or(Some(Duration::ZERO))),
        StatusCode::REQUEST_TIMEOUT => Tried::Later(said, wait),
        _ if status.is_server_error() => Tried::Later(said, wait),
        _ => Tried::Refused(said),
    }
}

fn judge_error(error: &reqwest::Error) -> Tried {
    if leads_inside(error) {
        return Tried::Refused("the host has no public address".to_owned());
    }
    let said = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "could not connect"
    } else {
        "the connection broke"
    };
    Tried::Later(said.to_owned(), None)
}

fn leads_inside(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error.is::<NotPublic>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// `Retry-After`: seconds. A date, which push services do not send, is not read.
fn retry_after(answer: &Response) -> Option<Duration> {
    let seconds = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
}

/// Milliseconds since the epoch in so long.
pub(crate) fn in_future(wait: Duration) -> i64 {
    clock::now_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2))
}
