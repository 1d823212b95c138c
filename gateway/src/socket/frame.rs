//! A frame of the server as it goes onto the wire. It is not masked, so it is the same for every connection.

use std::ops::Range;

use bytes::Bytes;

/// Room that a buffer begins with, for the header: see [`Frame::text`].
pub const HEADROOM: usize = 10;
/// Longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: usize = 125;

const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// A whole frame, header included. Cheap to clone: clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// A text message. `buffer` holds [`HEADROOM`] bytes of any content and then the text, UTF-8.
    #[must_use]
    pub fn text(buffer: Vec<u8>) -> Self {
        Self::seal(TEXT, buffer)
    }

    /// A binary message. `buffer` holds [`HEADROOM`] bytes of any content and then the payload.
    #[must_use]
    pub fn binary(buffer: Vec<u8>) -> Self {
        Self::seal(BINARY, buffer)
    }

    /// A ping without a payload.
    #[must_use]
    pub fn ping() -> Self {
        Self(Bytes::from_static(&[FIN | PING, 0]))
    }

    /// The answer to a ping with this payload.
    #[must_use]
    pub fn pong(payload: &[u8]) -> Self {
        Self::control(PONG, &[payload])
    }

    /// A close with a code, and a reason that is cut off when it is longer than a frame of this kind can hold.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(MAX_CONTROL - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        Self::control(CLOSE, &[&code.to_be_bytes(), &reason.as_bytes()[..end]])
    }

    /// The answer to a close: the same code, when it is one that may be sent (RFC 6455 §7.4), else none.
    #[must_use]
    pub fn close_answer(code: Option<u16>) -> Self {
        match code {
            Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => Self::close(code, ""),
            _ => Self::control(CLOSE, &[]),
        }
    }

    /// The frame as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length of the whole frame.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "no frame is empty: each has a header")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// What the frame carries.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0[self.header()]
    }

    fn header(&self) -> Range<usize> {
        let header = match self.0[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        header..self.0.len()
    }

    /// Writes the header right before the payload.
    fn seal(opcode: u8, mut buffer: Vec<u8>) -> Self {
        let length = buffer.len() - HEADROOM;
        let mut header = [0; HEADROOM];
        header[0] = FIN | opcode;
        let size = match (u8::try_from(length), u16::try_from(length)) {
            (Ok(length @ ..=125), _) => {
                header[1] = length;
                2
            }
            (_, Ok(length)) => {
                header[1] = 126;
                header[2..4].copy_from_slice(&length.to_be_bytes());
                4
            }
            _ => {
                header[1] = 127;
                header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
                10
            }
        };
        let start = HEADROOM - size;
        buffer[start..HEADROOM].copy_from_slice(&header[..size]);
        Self(Bytes::from(buffer).slice(start..))
    }

    fn control(opcode: u8, parts: &[&[u8]]) -> Self {
        let mut buffer = vec![0; HEADROOM];
        parts.iter().for_each(|part| buffer.extend_from_slice(part));
        buffer.truncate(HEADROOM + MAX_CONTROL);
        Self::seal(opcode, buffer)
    }
}
