//! Answers to a client's frames, each written once as the text that is sent.

use parlance_proto::{chat, v1};
use serde::Serialize;
use service_kit::{
    fault::Fault,
    id::{ClientId, RoomId, SessionId},
};
use uuid::Uuid;

use super::{Code, HEARTBEAT_MS, MAX_FRAME, write::answer};
use crate::{json, socket::Frame};

/// What `welcome` says beside the answer of chat-service.
#[derive(Clone, Copy, Debug)]
pub struct Welcome<'a> {
    /// The id of this connection.
    pub connection: Uuid,
    /// The session of the token.
    pub session: SessionId,
    /// The server's clock.
    pub server_time: i64,
    /// User, generation, rooms, changes and what was left.
    pub reply: &'a chat::HelloReply,
}

/// `welcome`: from here events flow.
#[must_use]
pub fn welcome(re: u32, welcome: &Welcome<'_>) -> Frame {
    #[derive(Serialize)]
    struct Body<'a> {
        connection: Uuid,
        user: Option<json::User<'a>>,
        session: SessionId,
        server_time: i64,
        heartbeat_ms: u64,
        max_frame: usize,
        #[serde(flatten)]
        synced: json::Synced<'a>,
    }
    let body = Body {
        connection: welcome.connection,
        user: welcome.reply.user.as_ref().map(json::User::from),
        session: welcome.session,
        server_time: welcome.server_time,
        heartbeat_ms: HEARTBEAT_MS,
        max_frame: MAX_FRAME,
        synced: json::Synced::from(welcome.reply),
    };
    answer(re, "welcome", &body)
}

/// `sent`: the message is committed.
#[must_use]
pub fn sent(re: u32, room: &RoomId, client_id: &ClientId, sent: &chat::Sent) -> Frame {
    #[derive(Serialize)]
    struct Body<'a> {
        room: &'a RoomId,
        client_id: &'a ClientId,
        id: json::Id<'a>,
        seq: i64,
        rev: i64,
        at: i64,
        duplicate: bool,
    }
    let body = Body {
        room,
        client_id,
        id: json::Id(&sent.id),
        seq: sent.seq,
        rev: sent.rev,
        at: sent.at,
        duplicate: sent.duplicate,
    };
    answer(re, "sent", &body)
}

#[derive(Default, Serialize)]
struct Ok<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    rev: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Vec<json::Presence<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in_s: Option<i64>,
}

/// `ok`, with nothing to add.
#[must_use]
pub fn ok(re: u32) -> Frame {
    answer(re, "ok", &Ok::default())
}

/// `ok` with the message's present rev.
#[must_use]
pub fn ok_rev(re: u32, rev: i64) -> Frame {
    answer(re, "ok", &Ok { rev: Some(rev), ..Ok::default() })
}

/// `ok` of `watch`.
#[must_use]
pub fn ok_presence(re: u32, items: &[v1::Presence]) -> Frame {
    answer(re, "ok", &Ok { presence: Some(json::all(items)), ..Ok::default() })
}

/// `ok` of `renew`.
#[must_use]
pub fn ok_expires(re: u32, expires_in_s: i64) -> Frame {
    answer(re, "ok", &Ok { expires_in_s: Some(expires_in_s), ..Ok::default() })
}

/// The answer to `history`.
#[must_use]
pub fn messages(re: u32, reply: &chat::HistoryReply) -> Frame {
    answer(re, "messages", &json::History::from(reply))
}

/// The answer to `changes`.
#[must_use]
pub fn changes(re: u32, changes: &v1::Changes) -> Frame {
    answer(re, "changes", &json::Changes::from(changes))
}

/// The answer to `ping`.
#[must_use]
pub fn pong(re: u32, server_time: i64) -> Frame {
    #[derive(Serialize)]
    struct Body {
        server_time: i64,
    }
    answer(re, "pong", &Body { server_time })
}

#[derive(Serialize)]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<i64>,
}

/// A refusal.
#[must_use]
pub fn error(re: u32, fault: &Fault) -> Frame {
    let code = Code::from(fault.kind).name();
    answer(re, "error", &Error { code, message: &fault.message, retry_after_ms: fault.retry_after_ms() })
}

/// A refusal with a code that no [`Fault`] has.
#[must_use]
pub fn error_code(re: u32, code: &str, message: &str) -> Frame {
    answer(re, "error", &Error { code, message, retry_after_ms: None })
}

/// The refusal of an expired access token.
#[must_use]
pub fn token_expired(re: u32) -> Frame {
    error_code(re, Code::TokenExpired.name(), "the access token has expired; refresh it")
}
