//! Accounts, logins and sessions.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Api, List};
use crate::error::Error;
use crate::id::{SessionId, UserId};
use crate::wire::{AtMs, User};

/// An access token and the refresh token that gets the next pair.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct Tokens {
    pub access_token: String,
    pub expires_in_s: u64,
    pub refresh_token: String,
}

/// The answer to register and login.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct Login {
    pub user: User,
    pub session: SessionId,
    #[serde(flatten)]
    pub tokens: Tokens,
}

/// One of the user's own sessions.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct SessionInfo {
    pub id: SessionId,
    #[serde(default)]
    pub device: Option<String>,
    #[serde(default)]
    pub created_at: AtMs,
    #[serde(default)]
    pub current: bool,
}

impl Api {
    /// Makes an account and logs in.
    pub async fn register(&self, username: &str, password: &str, device: Option<&str>) -> Result<Login, Error> {
        self.post("/v1/auth/register", credentials(username, password, device)).await
    }

    /// Logs in.
    pub async fn login(&self, username: &str, password: &str, device: Option<&str>) -> Result<Login, Error> {
        self.post("/v1/auth/login", credentials(username, password, device)).await
    }

    /// Spends a refresh token. With the same `attempt` a lost answer may be asked for again within 60 s.
    pub async fn refresh(&self, refresh_token: &str, attempt: Option<Uuid>) -> Result<Tokens, Error> {
        let mut body = json!({ "refresh_token": refresh_token });
        if let Some(attempt) = attempt {
            body["attempt"] = json!(attempt);
        }
        self.post("/v1/auth/refresh", body).await
    }

    /// Revokes the session of this token.
    pub async fn logout(&self) -> Result<(), Error> {
        self.done(Method::POST, "/v1/auth/logout", None).await
    }

    /// One's own sessions.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, Error> {
        // The contract says "list": this reads both a bare array and the `items` of a page.
        let body: Value = self.get("/v1/auth/sessions").await?;
        super::read(match body {
            Value::Object(mut page) => page.remove("items").unwrap_or_default(),
            list => list,
        })
    }

    /// Revokes one of one's own sessions.
    pub async fn revoke_session(&self, session: SessionId) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/auth/sessions/{session}"), None).await
    }

    /// Changes the password and revokes every other session.
    pub async fn change_password(&self, old: &str, new: &str) -> Result<(), Error> {
        self.done(Method::POST, "/v1/auth/password", Some(json!({ "old": old, "new": new }))).await
    }

    /// One's own profile.
    pub async fn me(&self) -> Result<User, Error> {
        self.get("/v1/me").await
    }

    /// Changes one's own profile: an object of the fields to change.
    pub async fn patch_me(&self, fields: Value) -> Result<User, Error> {
        self.send(Method::PATCH, "/v1/me", fields).await.map(|answer| answer.body)
    }

    /// Another user's profile.
    pub async fn user(&self, user: UserId) -> Result<User, Error> {
        self.get(&format!("/v1/users/{user}")).await
    }

    /// Users whose username or name begins with this.
    pub async fn find_users(&self, query: &str) -> Result<List<User>, Error> {
        self.get(&format!("/v1/users?query={}", super::escape(query))).await
    }
}

fn credentials(username: &str, password: &str, device: Option<&str>) -> Value {
    let mut body = json!({ "username": username, "password": password });
    if let Some(device) = device {
        body["device"] = json!(device);
    }
    body
}
