#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const MAX: usize = 1_000;

/// A frame of a client: first byte, payload, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        length @ ..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
        length @ ..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

fn text(text: &str) -> Result<Incoming, Violation> {
    Ok(Incoming::Text(text.to_owned()))
}

/// Everything that comes out of these bytes, `step` of them at a time.
fn understood(bytes: &[u8], step: usize) -> Vec<Result<Incoming, Violation>> {
    let mut decoder = Decoder::new(MAX);
    let mut all = Vec::new();
    for part in bytes.chunks(step) {
        decoder.push(part);
        while let Some(next) = decoder.next().transpose() {
            all.push(next);
        }
    }
    assert!(decoder.buffer.capacity() == 0 || decoder.at < decoder.buffer.len(), "nothing is kept of what is done");
    all
}

#[test]
fn messages_come_out_whole_however_they_are_cut() {
    let bytes = [
        frame(0x81, b"one"),
        frame(0x01, b"tw"),
        frame(0x89, b"ping"),
        frame(0x00, b""),
        frame(0x80, b"o"),
        frame(0x82, &[0xff; 300]),
        frame(0x8a, b""),
        frame(0x81, "größer".as_bytes()),
        frame(0x88, &[]),
        frame(0x88, b"\x0f\xa7bye"),
    ]
    .concat();
    let expected = [
        text("one"),
        Ok(Incoming::Ping(b"ping".to_vec())),
        text("two"),
        Ok(Incoming::Binary(vec![0xff; 300])),
        Ok(Incoming::Pong),
        text("größer"),
        Ok(Incoming::Close(None)),
        Ok(Incoming::Close(Some(4_007))),
    ];
    for step in [1, 2, 3, 7, 100, bytes.len()] {
        assert_eq!(understood(&bytes, step), expected, "{step} bytes at a time");
    }
}

#[test]
fn what_is_too_large_is_refused_by_its_header_and_left_out() {
    let bytes = [frame(0x81, &[b'x'; MAX + 1]), frame(0x81, b"next")].concat();
    for step in [1, 9, bytes.len()] {
        assert_eq!(understood(&bytes, step), [Err(Violation::TooLarge), text("next")], "{step} bytes at a time");
    }
    // Pieces that are too large only together.
    let bytes = [frame(0x01, &[b'x'; MAX]), frame(0x80, b"y"), frame(0x81, b"next")].concat();
    assert_eq!(understood(&bytes, 64), [Err(Violation::TooLarge), text("next")]);
    // A length that nobody could send is not waited for, and nothing is allocated for it.
    let mut decoder = Decoder::new(MAX);
    decoder.push(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert_eq!(decoder.next(), Ok(None));
    decoder.push(&[0; 4]);
    assert_eq!(decoder.next(), Err(Violation::TooLarge));
    assert_eq!(decoder.buffer.capacity(), 0);
}

#[test]
fn what_is_exactly_as_large_as_allowed_comes_through() {
    let most = "x".repeat(MAX);
    assert_eq!(understood(&frame(0x81, most.as_bytes()), 50), [text(&most)]);
}

#[test]
fn a_text_that_is_not_utf8_is_refused_and_the_next_one_is_read() {
    let bytes = [frame(0x81, &[0xc3, 0x28]), frame(0x81, b"next")].concat();
    assert_eq!(understood(&bytes, 3), [Err(Violation::NotUtf8), text("next")]);
    // A character may be cut between two frames.
    let bytes = [frame(0x01, &[0xc3]), frame(0x80, &[0xb6])].concat();
    assert_eq!(understood(&bytes, 3), [text("ö")]);
}

#[test]
fn what_is_not_websocket_ends_it() {
    let mut unmasked = frame(0x81, b"text");
    unmasked[1] &= 0x7f;
    let many = [frame(0x01, b"")].into_iter().chain((0..MAX_FRAGMENTS).map(|_| frame(0x00, b""))).flatten().collect();
    let cases: [(&str, Vec<u8>); 9] = [
        ("not masked", unmasked),
        ("a reserved bit", frame(0xc1, b"text")),
        ("a reserved opcode", frame(0x83, b"text")),
        ("a continuation of nothing", frame(0x80, b"text")),
        ("a message inside another", [frame(0x01, b"a"), frame(0x81, b"b")].concat()),
        ("a ping in pieces", frame(0x09, b"a")),
        ("a long ping", frame(0x89, &[0; 126])),
        ("half a close code", frame(0x88, &[3])),
        ("very many pieces", many),
    ];
    for (what, bytes) in cases {
        let after = [bytes, frame(0x81, b"next")].concat();
        assert_eq!(understood(&after, 5), [Err(Violation::Protocol)], "{what}");
    }
}
