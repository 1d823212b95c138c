#![allow(clippy::unwrap_used, reason = "tests")]

use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;

async fn pair() -> (Socket, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (client, accepted) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
    (Socket::new(accepted.unwrap().0, &[], 1_000), client.unwrap())
}

fn text(text: &str) -> Frame {
    Frame::text([&[0; HEADROOM], text.as_bytes()].concat())
}

#[test]
fn frames_have_the_shortest_header_that_holds_their_length() {
    for (length, header) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let frame = text(&"x".repeat(length));
        assert_eq!((frame.len(), frame.payload().len()), (header + length, length));
        assert_eq!(frame.as_bytes()[0], 0x81);
    }
    assert_eq!(Frame::close(1012, "500").as_bytes(), b"\x88\x05\x03\xf4500");
    assert_eq!(Frame::close_answer(Some(4_007)).as_bytes(), b"\x88\x02\x0f\xa7");
    assert_eq!(Frame::close_answer(Some(1_005)).as_bytes(), b"\x88\0");
    assert_eq!(Frame::ping().as_bytes(), b"\x89\0");
    // A reason is cut between two characters.
    assert_eq!(Frame::close(1000, &"ö".repeat(100)).payload().len(), 2 + 122);
    assert_eq!(Frame::pong(&[7; 500]).payload().len(), 125);
}

#[tokio::test]
async fn more_than_the_kernel_takes_is_written_in_pieces_and_in_order() {
    let (socket, mut client) = pair().await;
    let frames: Vec<Frame> = (0..2_000).map(|number| text(&format!("{number} {}", "x".repeat(4_000)))).collect();
    let expected: Vec<u8> = frames.iter().flat_map(|frame| frame.as_bytes().to_vec()).collect();
    let mut unwritten = Unwritten::new(frames);
    assert!(!socket.try_write(&mut unwritten).unwrap(), "the peer does not read yet");
    let mut read = Vec::new();
    let writing = async move {
        socket.write(&mut unwritten).await.unwrap();
        drop(socket);
    };
    let (count, ()) = tokio::join!(client.read_to_end(&mut read), writing);
    assert_eq!(count.unwrap(), expected.len());
    assert!(read == expected, "every byte once and in order");
}

#[tokio::test]
async fn what_came_with_the_handshake_is_read_first() {
    let (socket, client) = pair().await;
    // A masked ping whose mask is zero.
    let mut socket = Socket::new(socket.stream, b"\x89\x81\0\0\0\0x", 1_000);
    assert_eq!(socket.next().await, Some(Ok(Incoming::Ping(b"x".to_vec()))));
    drop(client);
    assert_eq!(socket.next().await, None);
}
