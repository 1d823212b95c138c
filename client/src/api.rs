//! REST: one typed call per route, and the plumbing they share.

mod auth;
mod messages;
mod notifications;
mod rooms;

pub use auth::{Login, SessionInfo, Tokens};
pub use notifications::Notifications;
pub use rooms::{List, NewRoom, OwnSettings};

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Problem};

/// How long any call may take, from connecting to the last byte.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// A base URL and, once logged in, an access token. Cloning is cheap and shares the connections.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: Arc<str>,
    token: Option<Arc<str>>,
    idempotency_key: Option<Arc<str>>,
}

/// An answer with its status, for the routes whose status says something.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<T> {
    /// 201 when it was created, 200 when it was there.
    pub created: bool,
    /// The object.
    pub body: T,
}

impl Api {
    /// A client of the server at `base`, for instance `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Result<Self, Error> {
        let http =
            reqwest::Client::builder().timeout(CALL_DEADLINE).build().map_err(|e| Error::Transport(e.to_string()))?;
        Ok(Self { http, base: base.trim_end_matches('/').into(), token: None, idempotency_key: None })
    }

    /// The same with this access token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.into()), ..self.clone() }
    }

    /// The same at another gateway.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.trim_end_matches('/').into(), ..self.clone() }
    }

    /// The same with an `Idempotency-Key` on every call: for one creating POST that may have to be repeated.
    pub fn with_idempotency_key(&self, key: &str) -> Self {
        Self { idempotency_key: Some(key.into()), ..self.clone() }
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The access token.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Any call, untyped: the status and the body (null when there is none). For routes that have no typed call here.
    pub async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value), Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(key) = &self.idempotency_key {
            request = request.header("idempotency-key", &**key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(transport)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(transport)?;
        if status.is_success() {
            let body = if bytes.is_empty() { Value::Null } else { parse(&bytes)? };
            return Ok((status, body));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(Error::Problem(problem)),
            // A proxy in between answers in its own words.
            Err(_) if status.is_server_error() => Err(Error::Handshake(status.as_u16())),
            Err(e) => Err(Error::Malformed(format!("{status} without a problem: {e}"))),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        read(self.call(Method::GET, path, None).await?.1)
    }

    async fn send<T: DeserializeOwned>(&self, method: Method, path: &str, body: Value) -> Result<Answer<T>, Error> {
        let (status, body) = self.call(method, path, Some(body)).await?;
        Ok(Answer { created: status == StatusCode::CREATED, body: read(body)? })
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: Value) -> Result<T, Error> {
        self.send(Method::POST, path, body).await.map(|answer| answer.body)
    }

    /// A call that answers 204 with nothing.
    async fn done(&self, method: Method, path: &str, body: Option<Value>) -> Result<(), Error> {
        match self.call(method, path, body).await?.0 {
            StatusCode::NO_CONTENT => Ok(()),
            status => Err(Error::Malformed(format!("{status} where the contract says 204"))),
        }
    }
}

fn read<T: DeserializeOwned>(body: Value) -> Result<T, Error> {
    serde_json::from_value(body).map_err(|e| Error::Malformed(e.to_string()))
}

fn parse(bytes: &[u8]) -> Result<Value, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Malformed(e.to_string()))
}

fn transport(error: reqwest::Error) -> Error {
    if error.is_timeout() { Error::Deadline("a REST call") } else { Error::Transport(format!("{error:?}")) }
}

/// Writes one query value so that it survives in a URL.
fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_query_value_is_escaped() {
        assert_eq!(super::escape("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
