//! A client without manners or memory: it writes frames and retells what it hears.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use service_kit::id::{ClientId, RoomId};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::frame::coding::CloseCode},
};

use super::{chat::Person, gates::PATIENCE};

/// The socket.
pub(crate) struct Socket {
    stream: WebSocketStream<TcpStream>,
    next: u32,
    pub(crate) person: Option<Person>,
}

/// What came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Frame(Value),
    /// The end, with its code, or 1006 without one.
    Closed(u16, String),
}

impl Socket {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.expect("a connection");
        let url = format!("ws://{address}/v1/ws");
        let (stream, _) = tokio_tungstenite::client_async(url, tcp).await.expect("a handshake");
        Self { stream, next: 1, person: None }
    }

    /// Writes a frame with this verb; gives its id.
    pub(crate) async fn ask(&mut self, verb: &str, body: Value) -> u32 {
        let id = self.next;
        self.next += 1;
        self.write(Message::text(json!({"id": id, verb: body}).to_string())).await;
        id
    }

    pub(crate) async fn write(&mut self, message: Message) {
        self.stream.send(message).await.expect("written");
    }

    /// Sends a message to a room; gives the id of the frame.
    pub(crate) async fn say(&mut self, room: RoomId, text: &str) -> u32 {
        self.ask("send", json!({"room": room, "client_id": ClientId::generate(), "text": text})).await
    }

    pub(crate) async fn hear(&mut self) -> Heard {
        loop {
            return match timeout(PATIENCE, self.stream.next()).await.expect("something within the time") {
                Some(Ok(Message::Text(text))) => Heard::Frame(serde_json::from_str(&text).expect("JSON")),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Heard::Closed(CloseCode::into(frame.code), frame.reason.to_string())
                }
                Some(Ok(Message::Close(None))) | None | Some(Err(_)) => Heard::Closed(1006, String::new()),
                Some(Ok(_)) => continue,
            };
        }
    }

    pub(crate) async fn frame(&mut self) -> Value {
        match self.hear().await {
            Heard::Frame(frame) => frame,
            Heard::Closed(code, reason) => panic!("closed with {code} {reason}"),
        }
    }

    /// The next frames, retold.
    pub(crate) async fn told(&mut self, count: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < count {
            told.push(retell(&self.frame().await));
        }
        told
    }

    /// Retells everything up to the frame that is asked for, without it.
    pub(crate) async fn told_until(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let frame = self.frame().await;
            if wanted(&frame) {
                return told;
            }
            told.push(retell(&frame));
        }
    }

    /// Retells everything that was queued for it until now.
    pub(crate) async fn told_so_far(&mut self) -> Vec<String> {
        let id = self.ask("ping", json!({})).await;
        self.told_until(|frame| frame["re"] == id).await
    }

    /// How it was closed, and what came before that.
    pub(crate) async fn closed(&mut self) -> (u16, String, Vec<String>) {
        let mut told = Vec::new();
        loop {
            match self.hear().await {
                Heard::Frame(frame) => told.push(retell(&frame)),
                Heard::Closed(code, reason) => return (code, reason, told),
            }
        }
    }

    /// Says goodbye.
    pub(crate) async fn leave(mut self) {
        drop(self.stream.close(None).await);
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}

/// A frame in a few words: `message 12 after 10`, `sent`, `error timeout`.
pub(crate) fn retell(frame: &Value) -> String {
    let only = |value: &Value| value.as_object().and_then(|map| map.iter().next().map(|(k, v)| (k.clone(), v.clone())));
    if let Some((kind, body)) = only(&frame["event"]) {
        let rev = body["rev"].as_i64().map(|rev| format!(" {rev}")).unwrap_or_default();
        let prev = body["prev"].as_i64().map(|prev| format!(" after {prev}")).unwrap_or_default();
        return format!("{kind}{rev}{prev}");
    }
    if let Some(code) = frame["error"]["code"].as_str() {
        return format!("error {code}");
    }
    let answer = frame.as_object().and_then(|map| map.keys().find(|key| *key != "re"));
    answer.cloned().unwrap_or_default()
}
