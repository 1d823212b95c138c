//! The frames of the WebSocket, both ways and in both formats, and the public error and close codes: nothing else in the
//! gateway knows them. The contract is docs/protocol.md, "WebSocket".

pub mod answer;
mod close;
mod code;
mod event;
pub mod fields;
mod parse;
mod parse_proto;
mod write;

pub use answer::{
    Welcome, changes, error, error_code, messages, ok, ok_expires, ok_presence, ok_rev, pong, sent, token_expired,
    welcome,
};
pub use close::Close;
pub use code::Code;
pub use event::{Event, Written};
pub use parse::parse;
pub use parse_proto::parse as parse_proto;
// REST bodies and queries have the same parts.
pub(crate) use parse::{
    MAX_PAGE, MAX_WATCHED, changes_after as read_changes, emoji_fits, held_rooms as read_held_rooms,
    history as read_history, message_text as read_text, send as read_send, seq as read_seq,
};

use bytes::Bytes;
use service_kit::{
    fault::Fault,
    id::{ClientId, FileId, RoomId, UserId},
};

/// Largest frame of a client in bytes, and largest JSON body of a REST call; above it close 1009 or `too_large`.
pub const MAX_FRAME: usize = 64 * 1024;
/// How often the server pings; a peer silent for two of these is closed.
pub const HEARTBEAT_MS: u64 = 25_000;

/// What the frames of a connection are written in, by its sub-protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `parlance.v1.json`: JSON in text frames.
    Json,
    /// `parlance.v1.proto`: protobuf in binary frames, by proto/client.proto.
    Proto,
}

impl Format {
    /// The format of a sub-protocol.
    #[must_use]
    pub fn of(protocol: &str) -> Option<Self> {
        match protocol {
            "parlance.v1.json" => Some(Self::Json),
            "parlance.v1.proto" => Some(Self::Proto),
            _ => None,
        }
    }
}

/// What an answer answers: the number of a client's frame, and how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Re {
    /// From 1, the client's own choice.
    pub id: u32,
    /// Of the connection.
    pub format: Format,
}

/// What a frame of a client was.
#[derive(Clone, Debug)]
pub enum Parsed {
    /// Not of the format, or without a valid `id`: close 4000.
    NotAFrame,
    /// A frame that cannot be done as it stands; the connection stays.
    Refused {
        /// To answer it.
        re: Re,
        /// `bad_request`, naming the field.
        fault: Fault,
        /// Whether it was a `hello`.
        hello: bool,
    },
    /// A frame in good form.
    Frame {
        /// To answer it.
        re: Re,
        /// What is asked.
        verb: Verb,
    },
}

/// What a client asks, in good form: every length, count and range of the contract holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Verb {
    /// The first frame.
    Hello(Hello),
    /// A new message.
    Send(Send),
    /// Another text for an own message.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Edit { room: RoomId, seq: i64, text: String },
    /// Away with a message.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Delete { room: RoomId, seq: i64 },
    /// A reaction, set or taken back.
    #[allow(missing_docs, reason = "the fields of the contract")]
    React { room: RoomId, seq: i64, emoji: String, on: bool },
    /// A pin, set or taken off.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Pin { room: RoomId, seq: i64, on: bool },
    /// Read up to here.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Read { room: RoomId, seq: i64 },
    /// Delivered up to here.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Delivered { room: RoomId, seq: i64 },
    /// Typing begins or ends.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Typing { room: RoomId, on: bool },
    /// Whose presence to follow; both lists together hold at most 500 ids.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Watch { add: Vec<UserId>, remove: Vec<UserId> },
    /// The user's own presence.
    Status(State),
    /// A page of messages.
    History(History),
    /// What changed after a rev. `limit` 0 is the default.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Changes { room: RoomId, after_rev: i64, limit: i64 },
    /// A fresh token for this connection.
    #[allow(missing_docs, reason = "the fields of the contract")]
    Renew { token: String },
    /// Is anybody there.
    Ping,
}

/// The body of `hello`.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// Absent when the handshake carried it.
    pub token: Option<String>,
    /// A name for this device.
    pub device: Option<String>,
    /// Of what the client has cached.
    pub generation: Option<String>,
    /// What the client holds: room, rev, and `me.rev` where given. At most 10,000, each room once.
    pub rooms: Vec<(RoomId, i64, Option<i64>)>,
    /// Whether this connection makes its user online; true unless said otherwise.
    pub presence: bool,
}

/// The body of `send`, and of POST messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Send {
    /// Where to.
    pub room: RoomId,
    /// Makes a repeat the same message.
    pub client_id: ClientId,
    /// 1 to 8,000 characters; empty only when attachments were given.
    pub text: String,
    /// The seq of the message that this one answers.
    pub reply_to: Option<i64>,
    /// A JSON object as text, at most 4 KiB.
    pub meta: Option<String>,
    /// Who is mentioned.
    pub mentions: Mentions,
    /// Files that go with it, at most 10.
    pub attachments: Vec<FileId>,
    /// A thread was given: it is in good form, but not built yet.
    pub unbuilt: bool,
}

/// Whom a message mentions: at most 50 in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mentions {
    /// Each once, in the order given.
    pub users: Vec<UserId>,
    /// Every member.
    pub all: bool,
}

impl Mentions {
    /// The users as the services take them.
    #[must_use]
    pub fn to_wire(&self) -> Vec<Bytes> {
        self.users.iter().map(|user| user.to_wire()).collect()
    }
}

/// What `status` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Of the connection.
    Online,
    /// Of the connection.
    Away,
    /// Of the user, until changed.
    Dnd,
    /// Of the user, until changed.
    Invisible,
}

/// The body of `history`. At most one of `before`, `after` and `around` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Of which room.
    pub room: RoomId,
    /// Only older ones than this seq.
    pub before: Option<i64>,
    /// Only newer ones than this seq.
    pub after: Option<i64>,
    /// This seq and its neighbours.
    pub around: Option<i64>,
    /// 1 to 200; 0 is the default.
    pub limit: i64,
    /// Only this thread: in good form, but not built yet.
    pub thread: Option<i64>,
}
