//! Apple Push Notification service: a provider token signed by the team's key, and one request over HTTP/2 for each push
//! (Apple, "Sending notification requests to APNs").

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use service_kit::{
    clock,
    env::{self, Get, Invalid},
    fault::Fault,
};
use url::Url;
use uuid::Uuid;

use crate::{
    ApnsConfig,
    attempt::{self, Tried},
    decide::Due,
    payload::cut,
    vapid,
};

/// Where pushes go: for released apps, and for those in development.
const BASES: [&str; 2] = ["https://api.push.apple.com/", "https://api.sandbox.push.apple.com/"];
/// Characters of the ids of keys and teams.
const ID_LEN: usize = 10;
/// Most bytes of a device token, of which each is two digits.
const MAX_TOKEN: usize = 100;
/// Most characters of a bundle id.
const MAX_TOPIC: usize = 155;
/// Most bytes of a push.
const MAX: usize = 4096;
/// How long APNs keeps a push for a device that is away, in seconds.
const KEPT_S: i64 = 24 * 3600;
/// A provider token is used for so long, in milliseconds: Apple takes one for an hour.
const TOKEN_MS: i64 = 45 * 60_000;
/// A new one is not made earlier, whatever is answered: Apple refuses who changes it more often.
const TOKEN_LEAST_MS: i64 = 20 * 60_000;
/// What a target of the sandbox begins with, in the database.
const SANDBOX: &str = "sandbox/";

/// A team of developers that pushes are sent for.
pub(crate) struct Apns {
    key: EncodingKey,
    key_id: String,
    team_id: String,
    bases: [Url; 2],
    client: reqwest::Client,
    // Never held across an await.
    token: Mutex<Option<Token>>,
}

/// A provider token.
#[derive(Clone)]
struct Token {
    bearer: String,
    /// When it was made, in milliseconds since the epoch.
    made: i64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
}

/// What APNs says with any other status than 200.
#[derive(Default, Deserialize)]
struct Answer {
    #[serde(default)]
    reason: String,
    /// Of 410: when the token was last known to be dead, in milliseconds since the epoch.
    timestamp: Option<i64>,
}

impl Apns {
    /// Of this team. Pushes go through `client`, which speaks HTTP/2.
    ///
    /// # Errors
    /// When the key is none, or a base is no URL.
    pub(crate) fn new(config: ApnsConfig, client: reqwest::Client) -> anyhow::Result<Self> {
        let (key, _) = vapid::read_p256(&config.key)?;
        let [released, sandbox] = config.bases.unwrap_or_else(|| BASES.map(str::to_owned));
        let bases = [Url::parse(&released)?, Url::parse(&sandbox)?];
        let (key_id, team_id) = (config.key_id, config.team_id);
        Ok(Self { key, key_id, team_id, bases, client, token: Mutex::new(None) })
    }

    /// Where the push of a device goes.
    ///
    /// # Errors
    /// When its target is none.
    pub(crate) fn url(&self, due: &Due) -> Result<Url, Tried> {
        let Some((sandbox, _, token)) = due.target.as_deref().and_then(parts) else {
            return Err(Tried::Refused("the target is no device token".to_owned()));
        };
        let url = self.bases[usize::from(sandbox)].join(&format!("3/device/{token}"));
        url.map_err(|_| Tried::Refused("the target is no device token".to_owned()))
    }

    /// Sends one push, twice when the first provider token is too old. `payload` is the JSON of the contract.
    pub(crate) async fn send(&self, due: &Due, url: &Url, payload: &[u8]) -> Tried {
        let body = body(due, payload);
        let mut bearer = match self.bearer(clock::now_ms()) {
            Ok(bearer) => bearer,
            Err(_) => return Tried::Refused("the provider token could not be signed".to_owned()),
        };
        loop {
            let (status, said, wait) = match attempt::answer(self.request(due, url, &bearer, &body).send().await).await
            {
                Ok(answer) => answer,
                Err(tried) => return tried,
            };
            let answer: Answer = serde_json::from_str(&said).unwrap_or_default();
            let distrusted = matches!(answer.reason.as_str(), "ExpiredProviderToken" | "InvalidProviderToken");
            if status != StatusCode::FORBIDDEN || !distrusted {
                return judge(status, &answer, wait, due.registered_at);
            }
            match self.renew(&bearer, clock::now_ms()) {
                Some(renewed) => bearer = renewed,
                None => return Tried::Later(words(status, &answer.reason), None),
            }
        }
    }

    fn request(&self, due: &Due, url: &Url, bearer: &str, body: &str) -> reqwest::RequestBuilder {
        let (_, topic, _) = due.target.as_deref().and_then(parts).unwrap_or_default();
        let (kind, priority) = if due.is_sent() { ("background", "5") } else { ("alert", "10") };
        self.client
            .post(url.clone())
            .bearer_auth(bearer)
            .header("apns-topic", topic)
            .header("apns-push-type", kind)
            .header("apns-priority", priority)
            .header("apns-expiration", clock::now_ms() / 1000 + KEPT_S)
            .header("apns-collapse-id", due.room_id.to_string())
            .header("apns-id", id(due).to_string())
            .body(body.to_owned())
    }

    /// The provider token, made anew when it is too old.
    fn bearer(&self, now: i64) -> anyhow::Result<String> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref().filter(|token| now - token.made < TOKEN_MS) {
            return Ok(token.bearer.clone());
        }
        Ok(token.insert(self.sign(now)?).bearer.clone())
    }

    /// Another provider token than this one, which Apple does not take; none when it is too early for a new one.
    fn renew(&self, refused: &str, now: i64) -> Option<String> {
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        match token.as_ref() {
            Some(token) if token.bearer != refused => return Some(token.bearer.clone()),
            Some(token) if now - token.made < TOKEN_LEAST_MS => return None,
            _ => {}
        }
        Some(token.insert(self.sign(now).ok()?).bearer.clone())
    }

    fn sign(&self, now: i64) -> anyhow::Result<Token> {
        let header = Header { kid: Some(self.key_id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = Claims { iss: &self.team_id, iat: now / 1000 };
        Ok(Token { bearer: jsonwebtoken::encode(&header, &claims, &self.key)?, made: now })
    }
}

/// Reads the settings; none without a key.
///
/// # Errors
/// When one cannot be used.
pub(crate) fn config(get: &impl Get) -> Result<Option<ApnsConfig>, Invalid> {
    let Some(key) = env::optional::<String>(get, "PARLANCE_APNS_KEY")? else { return Ok(None) };
    vapid::read_p256(&key).map_err(|error| Invalid::new("PARLANCE_APNS_KEY", error))?;
    let id = |name| match env::value::<String>(get, name)? {
        id if id.len() == ID_LEN && id.bytes().all(|b| b.is_ascii_alphanumeric()) => Ok(id),
        _ => Err(Invalid::new(name, format!("must be {ID_LEN} letters and digits"))),
    };
    let (key_id, team_id) = (id("PARLANCE_APNS_KEY_ID")?, id("PARLANCE_APNS_TEAM_ID")?);
    Ok(Some(ApnsConfig { key, key_id, team_id, bases: None }))
}

/// A target, in the one way in which it is stored.
///
/// # Errors
/// `bad_request`, naming the field.
pub(crate) fn target(token: &str, topic: &str, sandbox: bool) -> Result<String, Fault> {
    let hex = token.len().is_multiple_of(2) && token.bytes().all(|b| b.is_ascii_hexdigit());
    if !(hex && (2..=2 * MAX_TOKEN).contains(&token.len())) {
        return Err(Fault::bad_request(format!("token: must be 1 to {MAX_TOKEN} bytes in hexadecimal digits")));
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if !((1..=MAX_TOPIC).contains(&topic.len()) && topic.bytes().all(plain)) {
        return Err(Fault::bad_request("topic: must be the bundle id of an app"));
    }
    let prefix = if sandbox { SANDBOX } else { "" };
    Ok(format!("{prefix}{topic}/{}", token.to_ascii_lowercase()))
}

/// Of a stored target: whether it is of the sandbox, its topic, and its token.
fn parts(target: &str) -> Option<(bool, &str, &str)> {
    let rest = target.strip_prefix(SANDBOX);
    let (topic, token) = rest.unwrap_or(target).split_once('/')?;
    Some((rest.is_some(), topic, token))
}

/// The same in every try of a push, and of no other: version 8 of RFC 9562, from a hash.
fn id(due: &Due) -> Uuid {
    let what = format!("{} {} {} {} {}", due.room_id, due.seq, due.user_id, due.device_id, due.is_sent());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, what.as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// What a push says: Apple's own fields, and the contract's beside them. What takes a notification away shows nothing. A
/// long text, which stands in both, is cut until it fits.
fn body(due: &Due, payload: &[u8]) -> String {
    let mut fields: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    let mut aps = match due.is_sent() {
        true => json!({ "content-available": 1 }),
        false => json!({ "sound": "default", "badge": fields.get("badge"), "thread-id": due.room_id }),
    };
    loop {
        if !due.is_sent() {
            aps["alert"] = json!({ "title": fields.get("title"), "body": fields.get("body") });
        }
        fields.insert("aps".to_owned(), aps.clone());
        let json = Value::Object(fields.clone()).to_string();
        let text = fields.get("body").and_then(Value::as_str).unwrap_or_default();
        if json.len() <= MAX || text.is_empty() {
            return json;
        }
        let shorter = cut(text, text.len() / 2);
        fields.insert("body".to_owned(), shorter.into());
    }
}

/// What an answer means for the push to a device that was registered then.
fn judge(status: StatusCode, answer: &Answer, wait: Option<Duration>, registered_at: Option<i64>) -> Tried {
    let said = words(status, &answer.reason);
    let dead = matches!(answer.reason.as_str(), "BadDeviceToken" | "Unregistered");
    match status {
        StatusCode::OK => Tried::Accepted(said),
        // The device has registered again since Apple last saw the token dead.
        StatusCode::GONE if answer.timestamp.zip(registered_at).is_some_and(|(dead, registered)| dead < registered) => {
            Tried::NotNow(format!("{said} for an earlier registration"), wait)
        }
        StatusCode::GONE => Tried::Gone(said),
        StatusCode::BAD_REQUEST if dead => Tried::Gone(said),
        StatusCode::TOO_MANY_REQUESTS if answer.reason == "TooManyRequests" => Tried::NotNow(said, wait),
        StatusCode::NOT_FOUND => Tried::Refused(said),
        _ => match attempt::meaning(status, wait) {
            Tried::Later(_, wait) => Tried::Later(said, wait),
            _ => Tried::Refused(said),
        },
    }
}

/// The status, and Apple's word for the reason when it looks like one.
fn words(status: StatusCode, reason: &str) -> String {
    let plain = (1..=64).contains(&reason.len()) && reason.bytes().all(|b| b.is_ascii_alphanumeric());
    let said = format!("answered {}", status.as_u16());
    if plain { format!("{said} {reason}") } else { said }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::Vapid;

    fn apns() -> Apns {
        let key = Vapid::generate_pem().unwrap();
        let config = ApnsConfig { key, key_id: "KEY4567890".to_owned(), team_id: "TEAM567890".to_owned(), bases: None };
        Apns::new(config, reqwest::Client::new()).unwrap()
    }

    #[test]
    fn a_provider_token_lives_between_20_and_60_minutes() {
        let (apns, minute) = (apns(), 60_000);
        let first = apns.bearer(0).unwrap();
        assert_eq!(apns.bearer(44 * minute).unwrap(), first);
        assert_eq!(apns.renew(&first, 19 * minute), None, "too early, whatever Apple says");
        let second = apns.renew(&first, 20 * minute).unwrap();
        assert_ne!(second, first);
        assert_eq!(apns.renew(&first, 21 * minute).as_ref(), Some(&second), "another push has renewed it");
        assert_eq!(apns.bearer(64 * minute).unwrap(), second);
        assert_ne!(apns.bearer(65 * minute).unwrap(), second);
    }

    #[test]
    fn a_target_names_the_app_the_token_and_the_sandbox() {
        let token = "AB".repeat(32);
        let released = target(&token, "org.example.app", false).unwrap();
        assert_eq!(parts(&released), Some((false, "org.example.app", token.to_lowercase().as_str())));
        let sandbox = target(&token, "org.example.app", true).unwrap();
        let url = |target| apns().url(&Due { target: Some(target), ..Due::default() }).unwrap().to_string();
        assert_eq!(url(released), format!("https://api.push.apple.com/3/device/{}", token.to_lowercase()));
        assert!(url(sandbox).starts_with("https://api.sandbox.push.apple.com/3/device/"));
        let long = "ab".repeat(MAX_TOKEN + 1);
        for (token, topic, field) in [
            ("", "a.b", "token"),
            ("abc", "a.b", "token"),
            ("xy", "a.b", "token"),
            ("ab/../cd", "a.b", "token"),
            (&long, "a.b", "token"),
            ("ab", "", "topic"),
            ("ab", "a/b", "topic"),
            ("ab", "a b", "topic"),
            ("ab", "a\r\nb", "topic"),
        ] {
            assert!(target(token, topic, false).unwrap_err().message.starts_with(field), "{token} {topic}");
        }
    }

    #[test]
    fn the_longest_text_fits_and_its_id_is_that_of_the_push() {
        for letter in ["x", "👍", "\"", "\u{1}"] {
            let due = Due { text: Some(letter.repeat(8000)), ..Due::default() };
            let body = body(&due, &crate::payload::of_message(&due, 3));
            assert!(body.len() <= MAX, "{}", body.len());
            let body: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(body["aps"]["alert"]["body"], body["body"]);
            assert!(body["body"].as_str().unwrap().ends_with('…'));
        }
        let due = |seq| Due { seq, ..Due::default() };
        assert_eq!(id(&due(1)), id(&due(1)));
        assert_ne!(id(&due(1)), id(&due(2)));
    }

    #[test]
    fn what_apple_answers_says_whose_fault_it_is() {
        let judge = |status: u16, reason: &str, timestamp| {
            let answer = Answer { reason: reason.to_owned(), timestamp };
            judge(StatusCode::from_u16(status).unwrap(), &answer, None, Some(1_000))
        };
        let said = |text: &str| text.to_owned();
        assert_eq!(judge(410, "Unregistered", Some(1_000)), Tried::Gone(said("answered 410 Unregistered")));
        assert!(matches!(judge(410, "Unregistered", Some(999)), Tried::NotNow(..)), "registered again since");
        assert_eq!(judge(400, "BadDeviceToken", None), Tried::Gone(said("answered 400 BadDeviceToken")));
        assert_eq!(judge(400, "TopicDisallowed", None), Tried::Refused(said("answered 400 TopicDisallowed")));
        assert!(matches!(judge(404, "BadPath", None), Tried::Refused(_)), "not the device's fault");
        assert!(matches!(judge(429, "TooManyRequests", None), Tried::NotNow(..)), "this device alone");
        assert!(matches!(judge(429, "TooManyProviderTokenUpdates", None), Tried::Later(..)), "all of them");
        assert_eq!(judge(500, "Internal<b>", None), Tried::Later(said("answered 500"), None));
    }

    #[test]
    fn the_settings_go_together() {
        let key = Vapid::generate_pem().unwrap();
        let read = |given: &[(&str, &str)]| {
            let name = |name| format!("PARLANCE_APNS_{name}");
            config(&given.iter().map(|(it, value)| (name(it), (*value).to_owned())).collect::<HashMap<_, _>>())
        };
        assert!(read(&[("KEY_ID", "KEY4567890")]).unwrap().is_none(), "off without a key");
        assert!(read(&[("KEY", &key), ("KEY_ID", "KEY4567890"), ("TEAM_ID", "TEAM567890")]).unwrap().is_some());
        for given in [
            &[("KEY", "x"), ("KEY_ID", "KEY4567890"), ("TEAM_ID", "TEAM567890")][..],
            &[("KEY", &key), ("TEAM_ID", "TEAM567890")],
            &[("KEY", &key), ("KEY_ID", "KEY4567890")],
            &[("KEY", &key), ("KEY_ID", "KEY4567890"), ("TEAM_ID", "short")],
        ] {
            assert!(read(given).is_err(), "{:?}", given.iter().map(|(name, _)| name).collect::<Vec<_>>());
        }
    }
}
