//! The envelopes around what the server writes, in both formats.

use parlance_proto::client::{self, ServerFrame, server_frame::Body};
use prost::Message;
use serde::{Serialize, Serializer, ser::SerializeMap};

use crate::socket::{Frame, HEADROOM};

/// What most frames are not longer than.
const USUAL: usize = 640;

/// `{"<key>": value}`, for keys that are chosen at run time.
pub(super) struct One<'a, T: ?Sized>(pub(super) &'static str, pub(super) &'a T);

impl<T: Serialize + ?Sized> Serialize for One<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

struct Answer<'a, T: ?Sized> {
    re: u32,
    kind: &'static str,
    body: &'a T,
}

impl<T: Serialize + ?Sized> Serialize for Answer<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("re", &self.re)?;
        map.serialize_entry(self.kind, self.body)?;
        map.end()
    }
}

/// `{"re": re, "<kind>": body}`.
pub(super) fn answer<T: Serialize + ?Sized>(re: u32, kind: &'static str, body: &T) -> Frame {
    text(&Answer { re, kind, body })
}

/// A `ServerFrame` that answers.
pub(super) fn proto_answer(re: u32, body: Body) -> Frame {
    binary(&ServerFrame { re, body: Some(body) })
}

/// A `ServerFrame` with an event.
pub(super) fn proto_event(kind: client::event::Kind) -> Frame {
    binary(&ServerFrame { re: 0, body: Some(Body::Event(client::Event { kind: Some(kind) })) })
}

fn binary(frame: &ServerFrame) -> Frame {
    let mut buffer = Vec::with_capacity(HEADROOM + frame.encoded_len());
    buffer.resize(HEADROOM, 0);
    frame.encode_raw(&mut buffer);
    Frame::binary(buffer)
}

/// `{"event": {"<kind>": body}}`.
pub(super) fn event<T: Serialize + ?Sized>(kind: &'static str, body: &T) -> Frame {
    text(&One("event", &One(kind, body)))
}

fn text<T: Serialize>(value: &T) -> Frame {
    let mut buffer = Vec::with_capacity(USUAL);
    buffer.resize(HEADROOM, 0);
    // Only a map with keys that are no texts, or a view that refuses to be written, could fail; there are none.
    if let Err(error) = serde_json::to_writer(&mut buffer, value) {
        tracing::error!(error = %error, "a frame could not be written");
        buffer.truncate(HEADROOM);
        buffer.extend_from_slice(b"{}");
    }
    Frame::text(buffer)
}
