//! The verbs of the contract as typed calls.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Connection;
use crate::error::Error;
use crate::frame::{Draft, Format, Page, Range, Revised, Sent, Watched};
use crate::id::{RoomId, UserId};
use crate::wire::{Changes, Rev, Seq};

/// The revs that a client holds of a room: the room's, and its own state's where it knows one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HeldRevs {
    /// Only the room's rev.
    Room(Rev),
    /// The room's rev and `me.rev`.
    Both(Rev, Rev),
}

/// The first frame of a socket.
#[derive(Clone, Debug, Default)]
pub struct Hello {
    /// The access token.
    pub token: String,
    /// What this device is called.
    pub device: Option<String>,
    /// The generation which the revs belong to.
    pub generation: Option<String>,
    /// The revs held; empty on a first connection.
    pub rooms: HashMap<RoomId, HeldRevs>,
    /// False keeps this connection from making its user online.
    pub presence: Option<bool>,
    /// The `Origin` header of the handshake, as a browser would send it.
    pub origin: Option<String>,
    /// What the frames of this connection are written in.
    pub format: Format,
}

impl Hello {
    /// A first connection with this token.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: token.into(), ..Self::default() }
    }

    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("token".into(), json!(self.token));
        if let Some(device) = &self.device {
            body.insert("device".into(), json!(device));
        }
        if let Some(generation) = &self.generation {
            body.insert("generation".into(), json!(generation));
        }
        if !self.rooms.is_empty() {
            body.insert("rooms".into(), json!(self.rooms));
        }
        if let Some(presence) = self.presence {
            body.insert("presence".into(), json!(presence));
        }
        Value::Object(body)
    }
}

/// The body of `send`.
pub(crate) fn send_body(room: RoomId, draft: &Draft) -> Value {
    let mut body = json!(draft);
    body["room"] = json!(room);
    body
}

impl Connection {
    /// Sends a message; the answer means that it is committed.
    pub async fn send(&self, room: RoomId, draft: &Draft) -> Result<Sent, Error> {
        self.call("send", send_body(room, draft)).await
    }

    /// Edits one's own message.
    pub async fn edit(&self, room: RoomId, seq: Seq, text: &str) -> Result<Revised, Error> {
        self.call("edit", json!({ "room": room, "seq": seq, "text": text })).await
    }

    /// Deletes a message for all.
    pub async fn delete(&self, room: RoomId, seq: Seq) -> Result<Revised, Error> {
        self.call("delete", json!({ "room": room, "seq": seq })).await
    }

    /// Adds or takes back a reaction.
    pub async fn react(&self, room: RoomId, seq: Seq, emoji: &str, on: bool) -> Result<Revised, Error> {
        self.call("react", json!({ "room": room, "seq": seq, "emoji": emoji, "on": on })).await
    }

    /// Moves one's own read cursor forward; the answer means that it is committed.
    pub async fn read(&self, room: RoomId, seq: Seq) -> Result<(), Error> {
        self.ok("read", json!({ "room": room, "seq": seq })).await
    }

    /// Moves one's own delivered cursor forward; the answer means that it is committed.
    pub async fn delivered(&self, room: RoomId, seq: Seq) -> Result<(), Error> {
        self.ok("delivered", json!({ "room": room, "seq": seq })).await
    }

    /// Shows the others that one is typing, for at most 6 s.
    pub async fn typing(&self, room: RoomId, on: bool) -> Result<(), Error> {
        self.ok("typing", json!({ "room": room, "on": on })).await
    }

    /// Watches the presence of users with whom one shares a room, for as long as this connection lives.
    pub async fn watch(&self, add: &[UserId], remove: &[UserId]) -> Result<Watched, Error> {
        self.call("watch", json!({ "add": add, "remove": remove })).await
    }

    /// Says `online`, `away`, `dnd` or `invisible`.
    pub async fn status(&self, state: &str) -> Result<(), Error> {
        self.ok("status", json!({ "state": state })).await
    }

    /// A page of messages.
    pub async fn history(&self, room: RoomId, range: Range) -> Result<Page, Error> {
        let mut body = json!(range);
        body["room"] = json!(room);
        self.call("history", body).await
    }

    /// What changed in a room after a rev.
    pub async fn changes(&self, room: RoomId, after_rev: Rev, limit: Option<u32>) -> Result<Changes, Error> {
        self.call("changes", changes_body(room, after_rev, limit)).await
    }

    /// Gives the socket a new access token of the same session; answers its lifetime in seconds.
    pub async fn renew(&self, token: &str) -> Result<u64, Error> {
        let answer: Value = self.call("renew", json!({ "token": token })).await?;
        answer["expires_in_s"].as_u64().ok_or_else(|| Error::Malformed("renew: no expires_in_s".into()))
    }

    /// Asks for the server's time.
    pub async fn ping(&self) -> Result<Value, Error> {
        self.call("ping", json!({})).await
    }

    async fn ok(&self, verb: &str, body: Value) -> Result<(), Error> {
        self.call::<Value>(verb, body).await.map(drop)
    }
}

/// The body of `changes`.
pub(crate) fn changes_body(room: RoomId, after_rev: Rev, limit: Option<u32>) -> Value {
    let mut body = json!({ "room": room, "after_rev": after_rev });
    if let Some(limit) = limit {
        body["limit"] = json!(limit);
    }
    body
}
