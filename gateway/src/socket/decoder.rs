//! From the bytes of a client to its messages, as RFC 6455 §5 and §6.2 have it. No input and no output of its own.

/// Longest payload of a control frame (RFC 6455 §5.5).
const MAX_CONTROL: u64 = 125;
/// Frames that a message may be cut into.
const MAX_FRAGMENTS: u32 = 128;
const MASK: usize = 4;

/// What a client sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping: to be answered with a pong of the same payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The peer says goodbye, perhaps with a code: to be answered with a close of the same.
    Close(Option<u16>),
}

/// What a client may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A message is too large. What follows it can still be read.
    TooLarge,
    /// A text is not UTF-8. What follows it can still be read.
    NotUtf8,
    /// Not WebSocket: nothing that follows has a meaning.
    Protocol,
}

/// Takes bytes, gives messages.
#[derive(Debug)]
pub(super) struct Decoder {
    max_message: usize,
    /// What was read and has not been understood yet.
    buffer: Vec<u8>,
    /// Where in it the next frame begins.
    at: usize,
    /// Bytes of a refused frame that are still to come.
    skip: u64,
    /// A message of which only some frames have come.
    begun: Option<Box<Begun>>,
    /// What comes has no meaning any more.
    broken: bool,
}

#[derive(Debug)]
struct Begun {
    opcode: Opcode,
    payload: Vec<u8>,
    fragments: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    last: bool,
    opcode: Opcode,
    /// Bytes of the header, the mask included.
    size: usize,
    length: u64,
}

impl Decoder {
    pub(super) fn new(max_message: usize) -> Self {
        Self { max_message, buffer: Vec::new(), at: 0, skip: 0, begun: None, broken: false }
    }

    /// Takes what was read.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        if self.broken {
            return;
        }
        if self.skip > 0 {
            let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
            self.skip -= skipped as u64;
            bytes = &bytes[skipped..];
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message or control frame that is complete, if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Incoming>, Violation> {
        let next = self.understand();
        if next == Err(Violation::Protocol) {
            *self = Self { broken: true, ..Self::new(self.max_message) };
        }
        next
    }

    fn understand(&mut self) -> Result<Option<Incoming>, Violation> {
        loop {
            let Some((header, payload)) = self.frame()? else { return Ok(None) };
            match header.opcode {
                Opcode::Ping => return Ok(Some(Incoming::Ping(payload))),
                Opcode::Pong => return Ok(Some(Incoming::Pong)),
                Opcode::Close if payload.len() == 1 => return Err(Violation::Protocol),
                Opcode::Close => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Incoming::Close(code)));
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    if let Some((opcode, whole)) = self.assemble(header, payload)? {
                        return message(opcode, whole).map(Some);
                    }
                }
            }
        }
    }

    /// The next frame, unmasked. One that is too large is left out and refused as soon as its header has come.
    fn frame(&mut self) -> Result<Option<(Header, Vec<u8>)>, Violation> {
        let bytes = &self.buffer[self.at..];
        let Some(header) = read_header(bytes)? else {
            self.compact();
            return Ok(None);
        };
        let begun = self.begun.as_ref().map_or(0, |begun| begun.payload.len());
        let all = header.size as u64 + header.length;
        if header.length > self.max_message.saturating_sub(begun) as u64 {
            self.begun = None;
            let here = (bytes.len() as u64).min(all);
            self.at += usize::try_from(here).unwrap_or(bytes.len());
            self.skip = all - here;
            self.compact();
            return Err(Violation::TooLarge);
        }
        // Not above `max_message`, which is a usize.
        let length = usize::try_from(header.length).map_err(|_| Violation::TooLarge)?;
        let Some(masked) = bytes.get(header.size..header.size + length) else {
            self.compact();
            return Ok(None);
        };
        let mask = &bytes[header.size - MASK..header.size];
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.at += header.size + length;
        Ok(Some((header, payload)))
    }

    /// Puts the frames of a message together; gives it with the last one.
    fn assemble(&mut self, header: Header, payload: Vec<u8>) -> Result<Option<(Opcode, Vec<u8>)>, Violation> {
        let mut begun = match (header.opcode, self.begun.take()) {
            (Opcode::Continuation, Some(begun)) => begun,
            (Opcode::Continuation, None) | (_, Some(_)) => return Err(Violation::Protocol),
            (opcode, None) if header.last => return Ok(Some((opcode, payload))),
            (opcode, None) => {
                self.begun = Some(Box::new(Begun { opcode, payload, fragments: 1 }));
                return Ok(None);
            }
        };
        begun.payload.extend_from_slice(&payload);
        begun.fragments += 1;
        if begun.fragments > MAX_FRAGMENTS {
            return Err(Violation::Protocol);
        }
        if header.last {
            return Ok(Some((begun.opcode, begun.payload)));
        }
        self.begun = Some(begun);
        Ok(None)
    }

    /// Lets go what was understood, and the memory with it when that was all.
    fn compact(&mut self) {
        if self.at == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..self.at);
        }
        self.at = 0;
    }
}

fn message(opcode: Opcode, payload: Vec<u8>) -> Result<Incoming, Violation> {
    match opcode {
        Opcode::Text => String::from_utf8(payload).map(Incoming::Text).map_err(|_| Violation::NotUtf8),
        _ => Ok(Incoming::Binary(payload)),
    }
}

/// The header at the beginning of `bytes`, once all of it is there.
fn read_header(bytes: &[u8]) -> Result<Option<Header>, Violation> {
    let [first, second, ..] = *bytes else { return Ok(None) };
    // Nothing was agreed that would give the reserved bits a meaning, and clients mask everything (§5.1, §5.2).
    if first & 0x70 != 0 || second & 0x80 == 0 {
        return Err(Violation::Protocol);
    }
    let last = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xa => Opcode::Pong,
        _ => return Err(Violation::Protocol),
    };
    let (length, size) = match second & 0x7f {
        126 => match bytes.get(2..4) {
            Some(&[a, b]) => (u64::from(u16::from_be_bytes([a, b])), 4),
            _ => return Ok(None),
        },
        127 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (u64::from_be_bytes(length), 10),
            None => return Ok(None),
        },
        length => (u64::from(length), 2),
    };
    let control = matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong);
    if control && (!last || length > MAX_CONTROL) || length > u64::MAX / 2 {
        return Err(Violation::Protocol);
    }
    let size = size + MASK;
    Ok((bytes.len() >= size).then_some(Header { last, opcode, size, length }))
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
