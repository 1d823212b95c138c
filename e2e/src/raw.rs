//! A WebSocket without manners, for frames that the client library would never write.

use futures_util::{SinkExt, StreamExt};
use parlance_client::{Format, proto};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::patience::within;

/// A raw socket.
#[derive(Debug)]
pub struct Raw {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    protocol: Option<String>,
}

/// What came from the server.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A frame, as the JSON that it is or would have been.
    Frame(Value),
    /// The end: the code and reason, or 1006 without a close frame.
    Closed(u16, String),
}

impl Raw {
    /// Makes a handshake with these headers; an error is the HTTP status.
    pub async fn opens(base: &str, headers: &[(&'static str, &str)]) -> Result<Self, u16> {
        let url = format!("{}/v1/ws", base.replacen("http", "ws", 1));
        let mut request = url.into_client_request().expect("a URL");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match within("handshake", Box::pin(tokio_tungstenite::connect_async(request))).await {
            Ok((socket, answer)) => {
                let protocol = answer.headers().get("sec-websocket-protocol");
                let protocol = protocol.and_then(|name| name.to_str().ok()).map(str::to_owned);
                Ok(Self { socket, protocol })
            }
            Err(Error::Http(answer)) => Err(answer.status().as_u16()),
            Err(other) => panic!("the handshake failed: {other}"),
        }
    }

    /// Says a good `hello`.
    pub async fn is_welcomed(&mut self, token: &str) {
        self.writes(json!({ "id": 1, "hello": { "token": token } })).await;
        let welcome = self.answer(1).await;
        assert!(welcome.get("welcome").is_some(), "{welcome}");
    }

    /// The sub-protocol that the server chose.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Writes a frame in the format of the sub-protocol.
    pub async fn writes(&mut self, frame: Value) {
        match self.format() {
            Format::Json => self.writes_text(&frame.to_string()).await,
            Format::Proto => self.writes_binary(&binary(&frame).expect("a binary form")).await,
        }
    }

    /// Whether a frame can be written at all: what has another type than the contract says has no binary form.
    pub fn can_write(&self, frame: &Value) -> bool {
        self.format() == Format::Json || binary(frame).is_some()
    }

    fn format(&self) -> Format {
        if self.protocol() == Some(Format::Proto.protocol()) { Format::Proto } else { Format::Json }
    }

    /// Writes a text frame as it stands.
    pub async fn writes_text(&mut self, text: &str) {
        self.writes_message(Message::text(text)).await;
    }

    /// Writes a binary frame.
    pub async fn writes_binary(&mut self, bytes: &[u8]) {
        self.writes_message(Message::binary(bytes.to_vec())).await;
    }

    async fn writes_message(&mut self, message: Message) {
        // A server may close while a large frame is still on its way; what it closed with is read afterwards.
        let _ = within("room in the socket", self.socket.send(message)).await;
    }

    /// The next thing from the server.
    pub async fn hears(&mut self) -> Heard {
        loop {
            match within("frame", self.socket.next()).await {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Frame(
                        serde_json::from_str(&text).unwrap_or_else(|e| panic!("`{text}` is no JSON: {e}")),
                    );
                }
                Some(Ok(Message::Binary(bytes))) => {
                    return Heard::Frame(Value::Object(proto::decode(&bytes).expect("a binary frame")));
                }
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Heard::Closed(frame.code.into(), frame.reason.to_string());
                }
                Some(Ok(Message::Close(None)) | Err(_)) | None => return Heard::Closed(1006, String::new()),
                Some(Ok(_)) => {}
            }
        }
    }

    /// Waits for the answer to a request, past any events.
    pub async fn answer(&mut self, re: u32) -> Value {
        loop {
            match self.hears().await {
                Heard::Frame(frame) if frame["re"] == json!(re) => return frame,
                Heard::Frame(frame) => assert!(frame.get("event").is_some(), "an answer to something else: {frame}"),
                Heard::Closed(code, reason) => panic!("closed with {code} `{reason}` instead of an answer to {re}"),
            }
        }
    }

    /// Waits for an error answer, and checks its code.
    pub async fn is_refused(&mut self, re: u32, code: &str) {
        let answer = self.answer(re).await;
        assert_eq!(answer["error"]["code"], json!(code), "{answer}");
        assert!(answer["error"]["message"].is_string(), "{answer}");
    }

    /// Waits for the end of the socket, past anything that comes before, and checks its code.
    pub async fn is_closed_with(&mut self, code: u16) {
        loop {
            if let Heard::Closed(seen, reason) = self.hears().await {
                assert_eq!(seen, code, "closed with reason `{reason}`");
                return;
            }
        }
    }
}

/// `{"id":…,"<verb>":{…},…}` in protobuf, in which frames one after the other are one frame. A verb that nobody knows becomes
/// a field that nobody knows.
fn binary(frame: &Value) -> Option<Vec<u8>> {
    const UNKNOWN: [u8; 3] = [0xa2, 0x06, 0x00];
    let frame = frame.as_object()?;
    let id = u32::try_from(frame.get("id")?.as_u64()?).ok()?;
    let mut bytes = vec![0x08];
    prost::encode_length_delimiter(id.try_into().ok()?, &mut bytes).ok()?;
    for (verb, body) in frame.iter().filter(|(name, _)| *name != "id") {
        match proto::encode(0, verb, body) {
            Ok(verb) => bytes.extend(verb),
            Err(why) if why.ends_with("is no verb") => bytes.extend(UNKNOWN),
            Err(_) => return None,
        }
    }
    Some(bytes)
}
