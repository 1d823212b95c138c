//! Rooms, members and one's own settings in a room.

use std::collections::HashMap;

use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, Api, escape};
use crate::error::Error;
use crate::id::{RoomId, UserId};
use crate::wire::{AtMs, Changes, Heads, Me, Member, Presence, Rev, Role, Room, RoomInfo, RoomKind};

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct List<T> {
    /// The rows.
    pub items: Vec<T>,
    /// For the next page; null at the end.
    #[serde(default = "Option::default")]
    pub next_cursor: Option<String>,
}

/// A group or a channel before it is made.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct NewRoom {
    pub kind: RoomKind,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<UserId>,
}

/// Own settings in a room; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the fields are those of docs/protocol.md")]
pub struct OwnSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notify: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub favourite: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
}

impl Api {
    /// The direct room with this user, the same one for both sides; `created` says whether it is new.
    pub async fn direct(&self, user: UserId) -> Result<Answer<Room>, Error> {
        self.send(Method::POST, "/v1/direct", json!({ "user": user })).await
    }

    /// Makes a group or a channel.
    pub async fn create_room(&self, room: &NewRoom) -> Result<Room, Error> {
        self.post("/v1/rooms", json!(room)).await
    }

    /// One's own rooms, newest activity first.
    pub async fn rooms(&self, cursor: Option<&str>, limit: u32) -> Result<List<Room>, Error> {
        let cursor = cursor.map(|c| format!("&cursor={}", escape(c))).unwrap_or_default();
        self.get(&format!("/v1/rooms?limit={limit}{cursor}")).await
    }

    /// A room that one is in.
    pub async fn room(&self, room: RoomId) -> Result<Room, Error> {
        self.get(&format!("/v1/rooms/{room}")).await
    }

    /// Changes a room: an object of the fields to change.
    pub async fn patch_room(&self, room: RoomId, fields: Value) -> Result<Room, Error> {
        self.send(Method::PATCH, &format!("/v1/rooms/{room}"), fields).await.map(|answer| answer.body)
    }

    /// Archives a room: it can still be read.
    pub async fn archive(&self, room: RoomId) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/rooms/{room}"), None).await
    }

    /// Hands a room over to another member.
    pub async fn transfer(&self, room: RoomId, user: UserId) -> Result<Room, Error> {
        self.post(&format!("/v1/rooms/{room}/transfer"), json!({ "user": user })).await
    }

    /// Channels that one may join, whose name has this in it. Without `me`: one need not be in them.
    pub async fn channels(&self, query: &str, cursor: Option<&str>) -> Result<List<RoomInfo>, Error> {
        let cursor = cursor.map(|c| format!("&cursor={}", escape(c))).unwrap_or_default();
        self.get(&format!("/v1/rooms?public=true&query={}{cursor}", escape(query))).await
    }

    /// Joins a channel.
    pub async fn join(&self, room: RoomId) -> Result<Room, Error> {
        self.post(&format!("/v1/rooms/{room}/join"), json!({})).await
    }

    /// Leaves a group or a channel.
    pub async fn leave(&self, room: RoomId) -> Result<(), Error> {
        self.done(Method::POST, &format!("/v1/rooms/{room}/leave"), None).await
    }

    /// A page of the members of a room.
    pub async fn members(&self, room: RoomId, cursor: Option<&str>) -> Result<List<Member>, Error> {
        let cursor = cursor.map(|c| format!("&cursor={}", escape(c))).unwrap_or_default();
        self.get(&format!("/v1/rooms/{room}/members?limit=200{cursor}")).await
    }

    /// Adds a member (`created`) or changes one.
    pub async fn put_member(&self, room: RoomId, user: UserId, role: Option<Role>) -> Result<Answer<Member>, Error> {
        let body = role.map_or_else(|| json!({}), |role| json!({ "role": role }));
        self.send(Method::PUT, &format!("/v1/rooms/{room}/members/{user}"), body).await
    }

    /// Mutes a member until this instant; 0 lifts it.
    pub async fn mute_member(&self, room: RoomId, user: UserId, until: AtMs) -> Result<Member, Error> {
        let path = format!("/v1/rooms/{room}/members/{user}");
        self.send(Method::PUT, &path, json!({ "muted_until": until })).await.map(|answer| answer.body)
    }

    /// Removes a member.
    pub async fn remove_member(&self, room: RoomId, user: UserId) -> Result<(), Error> {
        self.done(Method::DELETE, &format!("/v1/rooms/{room}/members/{user}"), None).await
    }

    /// Changes one's own settings in a room.
    pub async fn patch_own(&self, room: RoomId, settings: &OwnSettings) -> Result<Me, Error> {
        self.send(Method::PATCH, &format!("/v1/rooms/{room}/me"), json!(settings)).await.map(|answer| answer.body)
    }

    /// What changed in a room after a rev.
    pub async fn changes(&self, room: RoomId, after_rev: Rev, limit: Option<u32>) -> Result<Changes, Error> {
        let limit = limit.map(|n| format!("&limit={n}")).unwrap_or_default();
        self.get(&format!("/v1/rooms/{room}/changes?after_rev={after_rev}{limit}")).await
    }

    /// What `hello` would say of these rooms.
    pub async fn sync(&self, rooms: &HashMap<RoomId, Rev>, generation: Option<&str>) -> Result<Heads, Error> {
        let mut body = json!({ "rooms": rooms });
        if let Some(generation) = generation {
            body["generation"] = json!(generation);
        }
        self.post("/v1/sync", body).await
    }

    /// The state of users with whom one shares a room.
    pub async fn presence(&self, users: &[UserId]) -> Result<Vec<Presence>, Error> {
        let users: Vec<_> = users.iter().map(UserId::to_string).collect();
        self.get(&format!("/v1/presence?users={}", users.join(","))).await
    }
}
