//! Firebase Cloud Messaging, HTTP v1: an access token by OAuth 2.0 for a service account (RFC 7523), then one call for each
//! push.

use std::time::Duration;

use anyhow::Context as _;
use http::{StatusCode, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use service_kit::clock;
use tokio::sync::Mutex;
use url::{Url, form_urlencoded};

use crate::{
    attempt::{self, Tried},
    decide::Due,
};

/// Where pushes go.
pub(crate) const BASE: &str = "https://fcm.googleapis.com/";
const SCOPE: &str = "https://www.googleapis.com/auth/firebase.messaging";
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Life of an assertion in seconds.
const ASSERTION_S: i64 = 3600;
/// An access token is renewed so long before it ends, in milliseconds.
const EARLY_MS: i64 = 60_000;

/// A project that pushes go through.
pub(crate) struct Fcm {
    account: Account,
    key: EncodingKey,
    url: Url,
    // Held while a token is fetched, so that one fetch serves all who wait.
    token: Mutex<Option<Token>>,
}

/// What the file of a service account holds, as far as it is needed.
#[derive(Deserialize)]
struct Account {
    project_id: String,
    client_email: String,
    private_key: String,
    token_uri: String,
}

#[derive(Clone)]
struct Token {
    bearer: String,
    /// In milliseconds since the epoch.
    until: i64,
}

#[derive(Serialize)]
struct Assertion<'a> {
    iss: &'a str,
    scope: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: i64,
}

impl Fcm {
    /// Reads the JSON file of a service account. `base` is where pushes go.
    ///
    /// # Errors
    /// When it is not one.
    pub(crate) fn new(credentials: &str, base: &str) -> anyhow::Result<Self> {
        let account: Account = serde_json::from_str(credentials)
            .map_err(|_| anyhow::anyhow!("is not the JSON file of a service account"))?;
        let key = EncodingKey::from_rsa_pem(account.private_key.as_bytes())
            .map_err(|_| anyhow::anyhow!("its private_key is not an RSA key in PEM"))?;
        let url = Url::parse(base)?.join(&format!("v1/projects/{}/messages:send", account.project_id))?;
        Ok(Self { account, key, url, token: Mutex::new(None) })
    }

    /// Where all pushes of this project go.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Sends one push. `payload` is the JSON of the contract, and becomes the data.
    pub(crate) async fn send(&self, client: &reqwest::Client, due: &Due, payload: &[u8]) -> Tried {
        let bearer = match self.bearer(client).await {
            Ok(bearer) => bearer,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "no access token for FCM");
                return Tried::Later("no access token".to_owned(), None);
            }
        };
        let request = client
            .post(self.url.clone())
            .bearer_auth(&bearer)
            .header(header::CONTENT_TYPE, "application/json")
            .body(message(due, payload).to_string());
        let (status, said, wait) = match attempt::answer(request.send().await).await {
            Ok(answer) => answer,
            Err(tried) => return tried,
        };
        if status == StatusCode::UNAUTHORIZED {
            self.forget(&bearer).await;
            return Tried::Later(format!("answered {}", status.as_u16()), None);
        }
        // Only this word says that the token is dead; 404 alone may mean the project.
        match status == StatusCode::NOT_FOUND {
            true if said.contains("UNREGISTERED") => Tried::Gone("answered 404 UNREGISTERED".to_owned()),
            true => Tried::Refused("answered 404".to_owned()),
            false => attempt::meaning(status, wait),
        }
    }

    async fn forget(&self, bearer: &str) {
        let mut token = self.token.lock().await;
        if token.as_ref().is_some_and(|token| token.bearer == bearer) {
            *token = None;
        }
    }

    async fn bearer(&self, client: &reqwest::Client) -> anyhow::Result<String> {
        let mut token = self.token.lock().await;
        let now = clock::now_ms();
        if let Some(token) = token.as_ref().filter(|token| token.until > now + EARLY_MS) {
            return Ok(token.bearer.clone());
        }
        let granted = self.fetch(client, now / 1000).await?;
        let until = now + granted.expires_in.saturating_mul(1000);
        Ok(token.insert(Token { bearer: granted.access_token, until }).bearer.clone())
    }

    async fn fetch(&self, client: &reqwest::Client, iat: i64) -> anyhow::Result<Granted> {
        let Account { client_email, token_uri, .. } = &self.account;
        let claims = Assertion { iss: client_email, scope: SCOPE, aud: token_uri, iat, exp: iat + ASSERTION_S };
        let assertion = jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", GRANT)
            .append_pair("assertion", &assertion)
            .finish();
        let request = client
            .post(token_uri)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            // Whoever waits for a push must not wait for this as long again.
            .timeout(Duration::from_secs(5))
            .body(form);
        let (status, said, _) = attempt::answer(request.send().await)
            .await
            .map_err(|_| anyhow::anyhow!("the token endpoint does not answer"))?;
        anyhow::ensure!(status.is_success(), "the token endpoint answered {}", status.as_u16());
        serde_json::from_str(&said).context("the token endpoint's answer cannot be read")
    }
}

/// The body of a push. FCM takes texts only as data. What takes a notification away is data alone, and shows nothing.
fn message(due: &Due, payload: &[u8]) -> Value {
    let fields: Map<String, Value> = serde_json::from_slice(payload).unwrap_or_default();
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let data: Map<String, Value> = fields.iter().map(|(name, value)| (name.clone(), text(value).into())).collect();
    let room = due.room_id.to_string();
    let mut message = json!({
        "token": due.target,
        "data": data,
        "android": { "collapse_key": room, "priority": if due.is_sent() { "normal" } else { "high" } },
    });
    if !due.is_sent() {
        message["notification"] = json!({ "title": fields.get("title"), "body": fields.get("body") });
        message["android"]["notification"] = json!({ "tag": room });
    }
    json!({ "message": message })
}
