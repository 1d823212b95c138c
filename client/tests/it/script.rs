//! A server of which every frame is written by the test.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use parlance_client::RoomId;
use parlance_client::api::Tokens;
use parlance_client::session::Options;
use parlance_client::{Api, Format, Session, Updates};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::Message;
use uuid::Uuid;

/// Nothing here takes longer, unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listens for the client.
pub(crate) struct Server {
    listener: TcpListener,
    pub(crate) url: String,
}

/// One accepted socket.
pub(crate) struct Peer {
    socket: WebSocketStream<TcpStream>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self { listener, url }
    }

    /// A session that connects here.
    pub(crate) fn session(&self) -> (Session, Updates) {
        let tokens = Tokens { access_token: "token".into(), expires_in_s: 600, refresh_token: "refresh".into() };
        let api = Api::new(&self.url).unwrap();
        Session::start(Options {
            urls: vec![self.url.clone()],
            spread: false,
            api,
            tokens,
            device: None,
            presence: true,
            format: Format::Json,
        })
    }

    /// Waits for the next socket and its handshake.
    pub(crate) async fn accepts(&self) -> Peer {
        in_time(async {
            let (stream, _) = self.listener.accept().await.unwrap();
            #[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
            let choose = |request: &Request, mut answer: Response| {
                let protocol = request.headers()["sec-websocket-protocol"].clone();
                answer.headers_mut().insert("sec-websocket-protocol", protocol);
                Ok(answer)
            };
            Peer { socket: tokio_tungstenite::accept_hdr_async(stream, choose).await.unwrap() }
        })
        .await
    }
}

impl Peer {
    /// The next frame of the client.
    pub(crate) async fn hears(&mut self) -> Value {
        in_time(async {
            loop {
                if let Message::Text(text) = self.socket.next().await.unwrap().unwrap() {
                    return serde_json::from_str(&text).unwrap();
                }
            }
        })
        .await
    }

    pub(crate) async fn says(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Answers `hello` and returns what it said.
    pub(crate) async fn welcomes(&mut self, rooms: Value, changes: Value) -> Value {
        let hello = self.hears().await;
        let welcome = json!({
            "connection": "c", "user": { "id": Uuid::from_u128(2), "username": "alice" }, "session": Uuid::from_u128(3),
            "server_time": 1, "heartbeat_ms": 25_000, "max_frame": 65_536, "generation": "g", "rooms": rooms, "next_cursor": null,
            "changes": changes, "left": [],
        });
        self.says(json!({ "re": hello["id"], "welcome": welcome })).await;
        hello["hello"].clone()
    }

    pub(crate) async fn closes(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.socket.close(Some(frame)).await.unwrap();
        // The client answers the close frame; what is unread here would reset the connection under it.
        in_time(async { while let Some(Ok(_)) = self.socket.next().await {} }).await;
    }
}

pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) fn room_id() -> RoomId {
    RoomId(Uuid::from_u128(1))
}

pub(crate) fn room(rev: u64) -> Value {
    json!({
        "id": room_id(), "kind": "group", "created_at": 1, "seq": rev, "rev": rev, "settings": { "history": "all" },
        "me": { "rev": 1, "role": "member", "read_seq": 0, "unread": 0 },
    })
}

pub(crate) fn message(rev: u64) -> Value {
    json!({
        "room": room_id(), "seq": rev, "rev": rev, "id": Uuid::from_u128(u128::from(rev)), "sender": Uuid::from_u128(2),
        "kind": "text", "text": rev.to_string(), "at": 1,
    })
}

pub(crate) fn changes(from_rev: u64, rev: u64) -> Value {
    let messages: Vec<_> = (from_rev + 1..=rev).map(message).collect();
    json!({ "room": room_id(), "from_rev": from_rev, "rev": rev, "messages": messages, "more": false, "truncated": false })
}
