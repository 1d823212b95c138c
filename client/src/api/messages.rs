//! Messages and cursors over REST.

use reqwest::Method;
use serde_json::json;

use super::{Answer, Api};
use crate::error::Error;
use crate::frame::{Draft, Page, Range};
use crate::id::RoomId;
use crate::wire::{Message, Seq};

impl Api {
    /// Sends a message; `created` is false when this `client_id` was already stored.
    pub async fn post_message(&self, room: RoomId, draft: &Draft) -> Result<Answer<Message>, Error> {
        self.send(Method::POST, &format!("/v1/rooms/{room}/messages"), json!(draft)).await
    }

    /// A page of messages, ascending by seq.
    pub async fn history(&self, room: RoomId, range: Range) -> Result<Page, Error> {
        let query: Vec<_> = [("before", range.before), ("after", range.after), ("around", range.around)]
            .into_iter()
            .chain([("limit", range.limit.map(u64::from))])
            .filter_map(|(name, value)| value.map(|value| format!("{name}={value}")))
            .collect();
        self.get(&format!("/v1/rooms/{room}/messages?{}", query.join("&"))).await
    }

    /// One message.
    pub async fn message(&self, room: RoomId, seq: Seq) -> Result<Message, Error> {
        self.get(&format!("/v1/rooms/{room}/messages/{seq}")).await
    }

    /// Edits one's own message.
    pub async fn edit(&self, room: RoomId, seq: Seq, text: &str) -> Result<Message, Error> {
        let path = format!("/v1/rooms/{room}/messages/{seq}");
        self.send(Method::PATCH, &path, json!({ "text": text })).await.map(|answer| answer.body)
    }

    /// Deletes a message for all.
    pub async fn delete(&self, room: RoomId, seq: Seq) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/rooms/{room}/messages/{seq}"), None).await
    }

    /// Moves one's own read cursor forward.
    pub async fn read(&self, room: RoomId, seq: Seq) -> Result<(), Error> {
        self.done(Method::PUT, &format!("/v1/rooms/{room}/read"), Some(json!({ "seq": seq }))).await
    }

    /// Moves one's own delivered cursor forward.
    pub async fn delivered(&self, room: RoomId, seq: Seq) -> Result<(), Error> {
        self.done(Method::PUT, &format!("/v1/rooms/{room}/delivered"), Some(json!({ "seq": seq }))).await
    }
}
