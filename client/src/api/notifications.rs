//! What one was told of: mentions, answers, invitations, missed direct messages.

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Api, escape};
use crate::error::Error;
use crate::id::NotificationId;
use crate::wire::Notification;

/// A page of notifications, the newest first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct Notifications {
    pub items: Vec<Notification>,
    #[serde(default = "Option::default")]
    pub next_cursor: Option<String>,
    /// Of all, not of this page.
    pub unread: u64,
}

impl Api {
    /// A page of one's notifications.
    pub async fn notifications(&self, cursor: Option<&str>, limit: u32) -> Result<Notifications, Error> {
        let cursor = cursor.map(|cursor| format!("&cursor={}", escape(cursor))).unwrap_or_default();
        self.get(&format!("/v1/notifications?limit={limit}{cursor}")).await
    }

    /// Marks one's notifications as read, up to this one and with it.
    pub async fn read_notifications(&self, up_to: NotificationId) -> Result<(), Error> {
        self.done(Method::POST, "/v1/notifications/read", Some(json!({ "up_to": up_to }))).await
    }
}
