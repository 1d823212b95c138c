//! What a frame of the server says, as far as the load asks, without reading all of it.
//!
//! Ten receivers for each send make this the generator's hottest code. A frame in another layout counts as something else, which
//! shows as lost messages: a mistake here can spoil a run, never embellish it.

use memchr::memmem;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    Message {
        seq: u64,
        rev: u64,
        text: &'a [u8],
    },
    Sent {
        re: u64,
        seq: u64,
    },
    Refused {
        re: u64,
    },
    /// The answer to `hello`.
    Welcome,
    /// The answer to `history`.
    Page {
        re: u64,
    },
    Resync,
    Other,
}

/// Takes a frame apart.
pub(crate) fn frame(bytes: &[u8]) -> Frame<'_> {
    let found = if let Some(body) = bytes.strip_prefix(br#"{"event":{"message":{"#) {
        message(body)
    } else if let Some(body) = bytes.strip_prefix(br#"{"re":"#) {
        answer(body)
    } else if bytes.starts_with(br#"{"event":{"resync":"#) {
        Some(Frame::Resync)
    } else {
        None
    };
    found.unwrap_or(Frame::Other)
}

fn message(body: &[u8]) -> Option<Frame<'_>> {
    let rest = after(body, br#""seq":"#)?;
    let (seq, rest) = number(rest)?;
    let (rev, rest) = number(after(rest, br#""rev":"#)?)?;
    let text = after(rest, br#""text":""#)?;
    Some(Frame::Message { seq, rev, text })
}

fn answer(body: &[u8]) -> Option<Frame<'_>> {
    let (re, rest) = number(body)?;
    if let Some(sent) = rest.strip_prefix(br#","sent":{"#) {
        let (seq, _) = number(after(sent, br#""seq":"#)?)?;
        return Some(Frame::Sent { re, seq });
    }
    match rest {
        _ if rest.starts_with(br#","error":"#) => Some(Frame::Refused { re }),
        _ if rest.starts_with(br#","welcome":"#) => Some(Frame::Welcome),
        _ if rest.starts_with(br#","messages":"#) => Some(Frame::Page { re }),
        _ => None,
    }
}

/// What follows the first of these.
pub(crate) fn after<'a>(bytes: &'a [u8], what: &[u8]) -> Option<&'a [u8]> {
    Some(&bytes[memmem::find(bytes, what)? + what.len()..])
}

/// The number at the front, and what follows it.
pub(crate) fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let digits = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=18).contains(&digits) {
        return None;
    }
    let value = bytes[..digits].iter().fold(0, |value, byte| value * 10 + u64::from(byte - b'0'));
    Some((value, &bytes[digits..]))
}

#[cfg(test)]
mod tests {
    use super::{Frame, frame};

    #[test]
    fn the_frames_that_count_are_told_apart() {
        let message =
            br#"{"event":{"message":{"room":"r","seq":12,"rev":13,"kind":"text","text":"ab c","pinned":false}}}"#;
        assert!(matches!(frame(message), Frame::Message { seq: 12, rev: 13, text } if text.starts_with(b"ab c\"")));
        let sent = br#"{"re":7,"sent":{"room":"r","client_id":"c","id":"i","seq":5,"rev":6,"at":1,"duplicate":false}}"#;
        assert_eq!(frame(sent), Frame::Sent { re: 7, seq: 5 });
        assert_eq!(frame(br#"{"re":8,"error":{"code":"unavailable"}}"#), Frame::Refused { re: 8 });
        assert_eq!(frame(br#"{"re":9,"welcome":{"rooms":[]}}"#), Frame::Welcome);
        assert_eq!(frame(br#"{"re":9,"messages":{"items":[]}}"#), Frame::Page { re: 9 });
        assert_eq!(frame(br#"{"event":{"resync":{"room":"r"}}}"#), Frame::Resync);
        assert_eq!(frame(br#"{"event":{"presence":{}}}"#), Frame::Other);
        assert_eq!(frame(b""), Frame::Other);
    }
}
