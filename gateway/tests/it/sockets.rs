//! The sockets themselves: who is closed, with which code, and who notices nothing of it.

use std::time::Duration;

use serde_json::json;
use service_kit::clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};
use tokio_tungstenite::tungstenite::{Message, protocol::CloseFrame};

use crate::stage::{
    Stage,
    chat::Person,
    gates::until,
    of_room,
    socket::{Heard, Socket},
};

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn the_eleventh_connection_of_a_user_takes_the_place_of_the_oldest() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut sockets = Vec::new();
    for _ in 0..11 {
        sockets.push(stage.enters(alice).await);
    }
    assert_eq!(sockets[0].closed().await.0, 4004);
    stage.publish([of_room(stage.chat.message(room))]);
    for socket in &mut sockets[1..] {
        assert_eq!(socket.told(1).await, ["message 11"]);
    }
}

#[tokio::test]
async fn an_expired_token_closes_and_a_renewed_one_does_not() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let mut expiring = Socket::open(stage.address).await;
    expiring.ask("hello", json!({"token": stage.token(alice, 2)})).await;
    let mut renewed = Socket::open(stage.address).await;
    renewed.ask("hello", json!({"token": stage.token(bob, 2)})).await;
    assert_eq!(renewed.told(1).await, ["welcome"]);
    renewed.ask("renew", json!({"token": stage.token(alice, 600)})).await;
    assert_eq!(renewed.told(1).await, ["error forbidden"]);
    renewed.ask("renew", json!({"token": stage.token(bob, 600)})).await;
    assert_eq!(renewed.told(1).await, ["ok"]);
    let (code, _, told) = expiring.closed().await;
    assert_eq!((code, told), (4002, vec!["welcome".to_owned()]));
    assert_eq!(renewed.told_so_far().await, NOTHING);
}

#[tokio::test]
async fn the_first_frame_has_ten_seconds_whatever_the_peer_says_meanwhile() {
    let stage = Stage::set().await;
    let mut socket = Socket::open(stage.address).await;
    let began = Instant::now();
    let closed = loop {
        if began.elapsed() > Duration::from_secs(13) {
            break None;
        }
        socket.write(Message::Ping(bytes::Bytes::new())).await;
        if let Ok(heard) = tokio::time::timeout(Duration::from_secs(3), socket.hear()).await {
            break Some(heard);
        }
    };
    assert!(matches!(closed, Some(Heard::Closed(4001, _))), "{closed:?} after {:?}", began.elapsed());
}

#[tokio::test]
async fn frames_that_are_too_large_end_their_connection_alone() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let mut here = stage.enters(bob).await;
    let mut large = stage.enters(alice).await;
    large.write(Message::text("x".repeat(65 * 1024))).await;
    assert_eq!(large.closed().await.0, 1009);
    let mut huge = stage.enters(alice).await;
    huge.write(Message::text("x".repeat(300 * 1024))).await;
    let (code, _, _) = huge.closed().await;
    assert!(code == 1009 || code == 1006, "{code}");
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut here).await, ["message 11"]);
}

#[tokio::test]
async fn a_goodbye_is_answered_with_its_own_code() {
    let stage = Stage::set().await;
    let mut early = Socket::open(stage.address).await;
    let mut late = stage.enters(Person::new()).await;
    for socket in [&mut early, &mut late] {
        socket.write(Message::Close(Some(CloseFrame { code: 4_007.into(), reason: "bye".into() }))).await;
        assert_eq!(socket.closed().await.0, 4_007);
    }
}

#[tokio::test]
async fn what_is_not_websocket_is_closed_with_1002_and_nobody_else_notices() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let mut here = stage.enters(bob).await;
    let mut tcp = stalled(&stage, alice).await;
    // A client's frames are masked: this one is not.
    tcp.write_all(b"\x81\x02{}").await.expect("written");
    let mut read = Vec::new();
    tcp.read_to_end(&mut read).await.expect("the end");
    let close = [&[0x88, 28], &1_002_u16.to_be_bytes()[..], b"not the WebSocket protocol"].concat();
    assert!(read.ends_with(&close), "{:?}", String::from_utf8_lossy(&read));
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut here).await, ["message 11"]);
}

/// A client that says hello by hand, with a small window, and does not read.
async fn stalled(stage: &Stage, person: Person) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4_096).expect("a small window");
    let mut tcp = socket.connect(stage.address).await.expect("a connection");
    let handshake = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        stage.address
    );
    tcp.write_all(handshake.as_bytes()).await.expect("written");
    tcp.readable().await.expect("an answer");
    let hello = json!({"id": 1, "hello": {"token": stage.token(person, 600)}}).to_string();
    // A masked text frame whose mask is zero.
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(u16::try_from(hello.len()).expect("short").to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(hello.as_bytes());
    tcp.write_all(&frame).await.expect("written");
    tcp
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_cut_and_nobody_else_notices() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let mut reader = stage.enters(bob).await;
    let _silent = stalled(&stage, alice).await;
    let session = parlance_proto::presence::op::Kind::Session;
    until("both are here", || stage.directory.count(session) == 2).await;
    let began = Instant::now();
    let ended = parlance_proto::presence::op::Kind::SessionEnd;
    let mut told = Vec::new();
    while stage.directory.count(ended) == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "never cut");
        for _ in 0..100 {
            stage.publish((0..10).map(|_| of_room(stage.chat.message(room))));
        }
        let last = format!("message {}", 10 + told.len() + 1_000);
        told.extend(reader.told(1_000).await);
        assert_eq!(told.last(), Some(&last), "in order, and nothing missed");
    }
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut reader).await.len(), 1);
}

#[tokio::test]
async fn a_gateway_that_leaves_asks_its_clients_to_move_and_clears_its_entries() {
    let mut stage = Stage::set().await;
    let people: Vec<_> = (0..20).map(|_| Person::new()).collect();
    let room = stage.chat.room(&people);
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(stage.enters(*person).await);
    }
    let boot = stage.boot();
    let began = clock::now_ms();
    stage.stop();
    until("it is not ready", || !stage.readiness.is_ready()).await;
    stage.publish([of_room(stage.chat.message(room))]);
    for socket in &mut sockets {
        assert_eq!(socket.told(2).await, ["going_away", "message 11"], "it delivers to the end");
    }
    let mover = sockets.remove(0);
    mover.leave().await;
    for socket in &mut sockets {
        let (code, reason, told) = socket.closed().await;
        assert_eq!((code, reason.as_str(), told.len()), (1012, "500", 0));
    }
    stage.ended().await;
    assert_eq!(stage.directory.left(), [boot]);
    assert!(clock::now_ms() - began < 4_000, "within its grace");
}

#[tokio::test]
async fn what_is_not_a_frame_closes_and_what_is_no_verb_is_answered() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let mut socket = stage.enters(alice).await;
    socket.ask("dance", json!({})).await;
    assert_eq!(socket.told(1).await, ["error bad_request"]);
    socket.ask("hello", json!({"token": stage.token(alice, 60)})).await;
    assert_eq!(socket.told(1).await, ["error conflict"]);
    socket.write(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(socket.closed().await.0, 4000);
}
