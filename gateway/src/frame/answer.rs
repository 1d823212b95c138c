//! Answers to a client's frames, each written once in the format of its connection.

use parlance_proto::{
    chat,
    client::{self, server_frame::Body as Proto},
    v1,
};
use serde::Serialize;
use service_kit::{
    fault::Fault,
    id::{ClientId, RoomId, SessionId},
};
use uuid::Uuid;

use super::{
    Code, Format, HEARTBEAT_MS, MAX_FRAME, Re,
    write::{answer, proto_answer},
};
use crate::{json, public, socket::Frame};

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
pub fn welcome(re: Re, welcome: &Welcome<'_>) -> Frame {
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
    if re.format == Format::Proto {
        return proto_answer(re.id, Proto::Welcome(proto_welcome(welcome)));
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
    answer(re.id, "welcome", &body)
}

fn proto_welcome(welcome: &Welcome<'_>) -> client::Welcome {
    let reply = welcome.reply;
    client::Welcome {
        connection: welcome.connection.as_bytes().to_vec().into(),
        user: reply.user.as_ref().map(public::user),
        session: welcome.session.to_wire(),
        server_time: welcome.server_time,
        heartbeat_ms: i64::try_from(HEARTBEAT_MS).unwrap_or(i64::MAX),
        max_frame: i64::try_from(MAX_FRAME).unwrap_or(i64::MAX),
        generation: reply.generation.clone(),
        rooms: reply.rooms.iter().map(public::room).collect(),
        next_cursor: reply.next_cursor.clone(),
        changes: reply.changes.iter().map(public::changes).collect(),
        left: reply.left.clone(),
    }
}

/// `sent`: the message is committed.
#[must_use]
pub fn sent(re: Re, room: &RoomId, client_id: &ClientId, sent: &chat::Sent) -> Frame {
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
    if re.format == Format::Proto {
        let body = client::Sent {
            room: room.to_wire(),
            client_id: client_id.to_wire(),
            id: sent.id.clone(),
            seq: sent.seq,
            rev: sent.rev,
            at: sent.at,
            duplicate: sent.duplicate,
        };
        return proto_answer(re.id, Proto::Sent(body));
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
    answer(re.id, "sent", &body)
}

/// The body of `ok`: what its verb adds, if anything.
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
pub fn ok(re: Re) -> Frame {
    match re.format {
        Format::Json => answer(re.id, "ok", &Ok::default()),
        Format::Proto => proto_answer(re.id, Proto::Ok(client::Ok::default())),
    }
}

/// `ok` with the message's present rev.
#[must_use]
pub fn ok_rev(re: Re, rev: i64) -> Frame {
    let rev = Some(rev);
    match re.format {
        Format::Json => answer(re.id, "ok", &Ok { rev, ..Ok::default() }),
        Format::Proto => proto_answer(re.id, Proto::Ok(client::Ok { rev, ..client::Ok::default() })),
    }
}

/// `ok` of `watch`.
#[must_use]
pub fn ok_presence(re: Re, items: &[v1::Presence]) -> Frame {
    match re.format {
        Format::Json => answer(re.id, "ok", &Ok { presence: Some(json::all(items)), ..Ok::default() }),
        Format::Proto => {
            let presence = items.iter().map(public::presence).collect();
            proto_answer(re.id, Proto::Ok(client::Ok { presence, ..client::Ok::default() }))
        }
    }
}

/// `ok` of `renew`.
#[must_use]
pub fn ok_expires(re: Re, expires_in_s: i64) -> Frame {
    let expires_in_s = Some(expires_in_s);
    match re.format {
        Format::Json => answer(re.id, "ok", &Ok { expires_in_s, ..Ok::default() }),
        Format::Proto => proto_answer(re.id, Proto::Ok(client::Ok { expires_in_s, ..client::Ok::default() })),
    }
}

/// The answer to `history`.
#[must_use]
pub fn messages(re: Re, reply: &chat::HistoryReply) -> Frame {
    match re.format {
        Format::Json => answer(re.id, "messages", &json::History::from(reply)),
        Format::Proto => {
            let items = reply.items.iter().map(public::message).collect();
            let body = client::Messages { items, has_more: reply.has_more, rev: reply.rev };
            proto_answer(re.id, Proto::Messages(body))
        }
    }
}

/// The answer to `changes`.
#[must_use]
pub fn changes(re: Re, changes: &v1::Changes) -> Frame {
    match re.format {
        Format::Json => answer(re.id, "changes", &json::Changes::from(changes)),
        Format::Proto => proto_answer(re.id, Proto::Changes(public::changes(changes))),
    }
}

/// The answer to `ping`.
#[must_use]
pub fn pong(re: Re, server_time: i64) -> Frame {
    #[derive(Serialize)]
    struct Body {
        server_time: i64,
    }
    match re.format {
        Format::Json => answer(re.id, "pong", &Body { server_time }),
        Format::Proto => proto_answer(re.id, Proto::Pong(client::Pong { server_time })),
    }
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
pub fn error(re: Re, fault: &Fault) -> Frame {
    refusal(re, Code::from(fault.kind).name(), &fault.message, fault.retry_after_ms())
}

/// A refusal with a code that no [`Fault`] has.
#[must_use]
pub fn error_code(re: Re, code: &str, message: &str) -> Frame {
    refusal(re, code, message, None)
}

/// The refusal of an expired access token.
#[must_use]
pub fn token_expired(re: Re) -> Frame {
    error_code(re, Code::TokenExpired.name(), "the access token has expired; refresh it")
}

fn refusal(re: Re, code: &str, message: &str, retry_after_ms: Option<i64>) -> Frame {
    match re.format {
        Format::Json => answer(re.id, "error", &Error { code, message, retry_after_ms }),
        Format::Proto => {
            let body = client::Error { code: code.to_owned(), message: message.to_owned(), retry_after_ms };
            proto_answer(re.id, Proto::Error(body))
        }
    }
}
