//! Frames: what a client writes, and how a server's frame is taken apart.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio_tungstenite::tungstenite;
use uuid::Uuid;

use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::id::{FileId, MessageId, RoomId};
use crate::proto;
use crate::wire::{AtMs, Mention, Message, Presence, Rev, Seq};

/// A message before it is sent. Sending the same draft again is safe: its `client_id` stays.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draft {
    /// Made once; a repeat with the same one is stored once.
    pub client_id: Uuid,
    /// 1 to 8,000 characters; may be empty with attachments.
    pub text: String,
    /// At most 50.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mentions: Vec<Mention>,
    /// The message that this one answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<Seq>,
    /// The thread that this one belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<Seq>,
    /// At most 10.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<FileId>,
    /// A JSON object of the application, up to 4 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meta: Option<Value>,
}

impl Draft {
    /// A plain text with a fresh `client_id`.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            client_id: Uuid::now_v7(),
            text: text.into(),
            mentions: Vec::new(),
            reply_to: None,
            thread: None,
            attachments: Vec::new(),
            meta: None,
        }
    }
}

/// The answer to `send`: the message is committed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `sent` in docs/protocol.md")]
pub struct Sent {
    pub room: RoomId,
    pub client_id: Uuid,
    pub id: MessageId,
    pub seq: Seq,
    pub rev: Rev,
    pub at: AtMs,
    pub duplicate: bool,
}

/// The answer to `edit`, `delete`, `react` and `pin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Revised {
    /// The message's present rev. It does not advance the rev that a client holds.
    pub rev: Rev,
}

/// A page of messages, ascending by seq.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of `messages` in docs/protocol.md")]
pub struct Page {
    pub items: Vec<Message>,
    pub has_more: bool,
    pub rev: Rev,
}

/// Which messages of a room to load; the default is the newest page.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[allow(missing_docs, reason = "the fields are those of `history` in docs/protocol.md")]
pub struct Range {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub around: Option<Seq>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// The answer to `watch`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Watched {
    /// The present state of the users added.
    #[serde(default)]
    pub presence: Vec<Presence>,
}

/// A server's frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The answer to request `re`: the body of its verb, or why not.
    Answer {
        /// The id of the request.
        re: u32,
        /// The body, whatever its verb is called.
        outcome: Result<Value, Refusal>,
    },
    /// Something happened.
    Event(Event),
}

/// What frames are written in: the sub-protocol that a connection asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `parlance.v1.json`: JSON in text frames.
    #[default]
    Json,
    /// `parlance.v1.proto`: protobuf in binary frames, smaller on the wire.
    Proto,
}

impl Format {
    /// The name of the sub-protocol.
    pub const fn protocol(self) -> &'static str {
        match self {
            Self::Json => "parlance.v1.json",
            Self::Proto => "parlance.v1.proto",
        }
    }
}

/// Writes `{"id":…,"<verb>":{…}}`, or the same in protobuf.
pub(crate) fn encode(format: Format, id: u32, verb: &str, body: Value) -> Result<tungstenite::Message, Error> {
    Ok(match format {
        Format::Json => {
            let mut frame = Map::new();
            frame.insert("id".into(), id.into());
            frame.insert(verb.into(), body);
            tungstenite::Message::text(Value::Object(frame).to_string())
        }
        Format::Proto => {
            let bytes = proto::encode(id, verb, &body).map_err(|why| Error::Malformed(format!("{verb}: {why}")))?;
            tungstenite::Message::binary(bytes)
        }
    })
}

/// Takes a server's text frame apart.
pub fn decode(text: &str) -> Result<Frame, Error> {
    take_apart(serde_json::from_str(text).map_err(|e| Error::Malformed(e.to_string()))?)
}

/// Takes a server's binary frame apart.
pub fn decode_binary(bytes: &[u8]) -> Result<Frame, Error> {
    take_apart(proto::decode(bytes).map_err(Error::Malformed)?)
}

fn take_apart(mut frame: Map<String, Value>) -> Result<Frame, Error> {
    let malformed = |why: &str| Error::Malformed(why.to_owned());
    if let Some(event) = frame.remove("event") {
        let Value::Object(event) = event else { return Err(malformed("`event` is no object")) };
        let (kind, body) = event.into_iter().next().ok_or_else(|| malformed("`event` is empty"))?;
        return Event::parse(&kind, body).map(Frame::Event).map_err(|e| malformed(&format!("{kind}: {e}")));
    }
    let re = frame.remove("re").and_then(|re| re.as_u64()).and_then(|re| u32::try_from(re).ok());
    let re = re.ok_or_else(|| malformed("neither `event` nor `re`"))?;
    let (verb, body) = frame.into_iter().next().ok_or_else(|| malformed("an answer without a body"))?;
    let outcome = match verb.as_str() {
        "error" => Err(serde_json::from_value(body).map_err(|e| malformed(&e.to_string()))?),
        _ => Ok(body),
    };
    Ok(Frame::Answer { re, outcome })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn an_answer_and_an_error_are_told_apart() -> Result<(), Error> {
        let ok = decode(r#"{"re":7,"ok":{"rev":3}}"#)?;
        assert_eq!(ok, Frame::Answer { re: 7, outcome: Ok(serde_json::json!({"rev": 3})) });
        let Frame::Answer { outcome: Err(refusal), .. } = decode(r#"{"re":7,"error":{"code":"gone","message":"x"}}"#)?
        else {
            panic!("an error answer was read as something else")
        };
        assert_eq!(refusal.code, Code::Gone);
        Ok(())
    }

    #[test]
    fn an_unknown_event_is_kept_as_it_came() -> Result<(), Error> {
        let event = decode(r#"{"event":{"poll":{"room":"r"}}}"#)?;
        assert!(matches!(event, Frame::Event(Event::Unknown { kind, .. }) if kind == "poll"));
        Ok(())
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        for text in
            ["", "[]", "{}", r#"{"re":0.5,"ok":{}}"#, r#"{"event":{}}"#, r#"{"re":1}"#, r#"{"event":{"left":{}}}"#]
        {
            assert!(decode(text).is_err(), "{text}");
        }
    }
}
