use std::io::Write;
use std::net::{TcpListener, TcpStream};

use super::{Socket, Stage, TEXT, frame, needed, parse};

fn from_server(length: usize) -> Vec<u8> {
    let mut bytes = vec![];
    frame(&mut bytes, TEXT, &vec![b'a'; length]);
    // What a server writes is the same without the mask.
    let header = bytes.len() - length - 4;
    bytes[1] &= 0x7f;
    bytes.drain(header..header + 4);
    bytes
}

#[test]
fn frames_of_every_length_are_read_back() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let bytes = from_server(length);
        let (opcode, payload, used) = parse(&bytes).unwrap().unwrap();
        assert_eq!((opcode, payload.len(), used), (TEXT, length, bytes.len()));
        assert_eq!(needed(&bytes).unwrap(), (bytes.len(), true));
    }
}

#[test]
fn a_frame_without_its_end_waits() {
    let bytes = from_server(300);
    for cut in [0, 1, 3, 4, 303] {
        assert!(parse(&bytes[..cut]).unwrap().is_none());
    }
}

#[test]
fn frames_cut_anywhere_are_put_together() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = TcpStream::connect(listener.local_addr()?)?;
    let (mut server, _) = listener.accept()?;
    let mut socket = Socket { stream, stage: Stage::Open, partial: vec![], unwritten: vec![] };
    let sizes = [0, 5, 125, 126, 300, 66_000];
    let bytes: Vec<u8> = sizes.iter().flat_map(|size| from_server(*size)).collect();
    let mut buffer = vec![0; 512];
    for cut in [1, 2, 3, 7, 127, 130, 500] {
        let mut seen = vec![];
        for part in bytes.chunks(cut) {
            server.write_all(part)?;
            socket.read(&mut buffer[..cut], |frame| seen.push(frame.len()))?;
        }
        assert_eq!(seen, sizes, "in parts of {cut} bytes");
    }
    Ok(())
}
