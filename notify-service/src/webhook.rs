//! Webhooks: the payload as it is, signed as Standard Webhooks 1.0 says.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::header;
use rand::RngCore as _;
use service_kit::clock;
use url::Url;

use crate::{
    attempt::{self, Tried},
    decide::Due,
};

/// Bytes of a signing secret: the standard asks for 24 to 64.
const SECRET: usize = 32;

/// A new secret.
pub(crate) fn secret() -> Vec<u8> {
    let mut secret = vec![0; SECRET];
    rand::rng().fill_bytes(&mut secret);
    secret
}

/// A secret as receivers configure it.
pub(crate) fn shown(secret: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// Sends one push. The client bounds how long that takes.
pub(crate) async fn send(client: &reqwest::Client, due: &Due, url: &Url, payload: Vec<u8>) -> Tried {
    let Some(secret) = due.auth.as_deref() else { return Tried::Refused("the webhook has no secret".to_owned()) };
    // The same in every try, and no other push to this receiver has it.
    let what = if due.is_sent() { "read" } else { "msg" };
    let id = format!("{what}_{}_{}", due.message_id.unwrap_or_default().simple(), due.device_id.simple());
    let timestamp = clock::now_ms() / 1000;
    let request = client
        .post(url.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header("webhook-id", &id)
        .header("webhook-timestamp", timestamp)
        .header("webhook-signature", sign(secret, &id, timestamp, &payload))
        .body(payload);
    attempt::judge(request.send().await).await
}

fn sign(secret: &[u8], id: &str, timestamp: i64, payload: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(payload);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn the_example_of_the_standard() {
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_new_each_time_and_shown_with_its_prefix() {
        assert_ne!(secret(), secret());
        assert!(shown(&secret()).starts_with("whsec_") && shown(&secret()).len() == 6 + 44);
    }
}
