//! Web Push: encrypts for the receiver alone (RFC 8291), signs for its push service (RFC 8292), and sends (RFC 8030).

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::header;
use url::Url;
use web_push_native::{Auth, p256::PublicKey};

use crate::{
    attempt::{self, Tried},
    decide::Due,
    vapid::Vapid,
};

/// How long a push service keeps a push for a receiver who is away.
const TTL: Duration = Duration::from_secs(24 * 3600);
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
        .header("urgency", if due.is_sent() { "normal" } else { "high" })
        .header("topic", topic(due))
        .body(body);
    attempt::judge(request.send().await).await
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
