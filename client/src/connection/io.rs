//! The task that owns the socket: writes requests, hands answers and events on, notices silence.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::close::{ABNORMAL, Close, UNREAD};
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::frame::{self, Format, Frame};

/// The server pings every 25 s and closes after two silent intervals; a little more of it means that nobody is there.
const SILENCE: Duration = Duration::from_secs(60);
/// Answers waited for. The caller's deadline frees what the server never answers.
const ANSWERS_BOUND: usize = 16_384;
/// The id of the request that asks this task to say good-bye. No frame has it.
pub(super) const BYE: u32 = 0;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Answers = HashMap<u32, oneshot::Sender<Result<Value, Refusal>>>;

/// A frame to write, and where its answer goes.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: u32,
    pub(super) frame: Message,
    pub(super) answer: oneshot::Sender<Result<Value, Refusal>>,
}

/// Makes the TCP connection and the handshake.
pub(super) async fn dial(base: &str, format: Format, origin: Option<&str>) -> Result<Socket, Error> {
    let url = match base.strip_prefix("http") {
        Some(rest) => format!("ws{}/v1/ws", rest.trim_end_matches('/')),
        None => return Err(Error::Transport(format!("{base} is no http or https URL"))),
    };
    if url.starts_with("wss:") {
        // Only a program without a provider of its own gets this one; one that chose already keeps its choice.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let mut request = url.into_client_request().map_err(|e| Error::Transport(e.to_string()))?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(format.protocol()));
    if let Some(origin) = origin {
        let origin = HeaderValue::from_str(origin).map_err(|e| Error::Transport(e.to_string()))?;
        headers.insert("origin", origin);
    }
    // Small buffers: a load generator or a bot holds thousands of these.
    let config = WebSocketConfig::default().read_buffer_size(8 * 1024).write_buffer_size(0);
    // Boxed, because with TLS the handshake is 20 KiB of future that every caller would carry.
    match Box::pin(tokio_tungstenite::connect_async_with_config(request, Some(config), true)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(answer)) => Err(Error::Handshake(answer.status().as_u16())),
        Err(e) => Err(Error::Transport(e.to_string())),
    }
}

/// Runs until the socket or the last handle is gone, then says how it ended and lets every waiting request fail.
pub(super) async fn run(
    mut socket: Socket,
    mut requests: mpsc::Receiver<Request>,
    events: mpsc::Sender<Event>,
    closed: watch::Sender<Option<Close>>,
) {
    let mut answers = Answers::new();
    let close = pump(&mut socket, &mut requests, &events, &mut answers).await;
    tracing::debug!(close.code = close.code, close.reason = close.reason, "connection closed");
    // First how, then the answers: who sees a request fail can ask why.
    closed.send_replace(Some(close));
    drop(answers);
}

async fn pump(
    socket: &mut Socket,
    requests: &mut mpsc::Receiver<Request>,
    events: &mpsc::Sender<Event>,
    answers: &mut Answers,
) -> Close {
    let mut heard = Instant::now();
    loop {
        let outcome = tokio::select! {
            // Reading comes first, so that a flood of requests can not starve the close frame.
            biased;
            incoming = socket.next() => {
                heard = Instant::now();
                take_in(incoming, events, answers)
            }
            request = requests.recv() => match request {
                Some(request) if request.id != BYE => write(socket, request, requests, answers).await,
                _ => say_goodbye(socket).await,
            },
            () = tokio::time::sleep_until(heard + SILENCE) => Err(Close::abnormal("the server fell silent")),
        };
        if let Err(close) = outcome {
            if close.code != ABNORMAL {
                // Writes our close frame, or the answer to theirs; whether it arrives changes nothing any more.
                let _ = in_time(socket.close(None)).await;
            }
            return close;
        }
    }
}

/// One thing read from the socket.
fn take_in(
    incoming: Option<Result<Message, tungstenite::Error>>,
    events: &mpsc::Sender<Event>,
    answers: &mut Answers,
) -> Result<(), Close> {
    let frame = match incoming {
        Some(Ok(Message::Text(text))) => frame::decode(&text),
        Some(Ok(Message::Binary(bytes))) => frame::decode_binary(&bytes),
        Some(Ok(Message::Close(frame))) => return Err(close_of(frame)),
        Some(Ok(_)) => return Ok(()),
        Some(Err(e)) => return Err(Close::abnormal(e.to_string())),
        None => return Err(Close::abnormal("the stream ended")),
    };
    match frame {
        Ok(Frame::Answer { re, outcome }) => {
            if let Some(answer) = answers.remove(&re) {
                // The caller may have given up; then nobody misses the answer.
                let _ = answer.send(outcome);
            }
            Ok(())
        }
        Ok(Frame::Event(event)) => match events.try_send(event) {
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(Close { code: UNREAD, reason: "too many events were left unread".into() })
            }
            // A caller without interest in events has dropped its end.
            _ => Ok(()),
        },
        // A server that breaks the contract can not be trusted with the order of what follows.
        Err(e) => Err(Close::abnormal(e.to_string())),
    }
}

/// Writes this request and all that already wait behind it, then flushes once.
async fn write(
    socket: &mut Socket,
    first: Request,
    waiting: &mut mpsc::Receiver<Request>,
    answers: &mut Answers,
) -> Result<(), Close> {
    let mut next = Some(first);
    let mut goodbye = false;
    while let Some(request) = next {
        if request.id == BYE {
            goodbye = true;
            break;
        }
        if answers.len() >= ANSWERS_BOUND {
            answers.retain(|_, answer| !answer.is_closed());
        }
        if answers.len() < ANSWERS_BOUND {
            answers.insert(request.id, request.answer);
            in_time(socket.feed(request.frame)).await?;
        }
        next = waiting.try_recv().ok();
    }
    in_time(socket.flush()).await?;
    if goodbye { say_goodbye(socket).await } else { Ok(()) }
}

async fn in_time(writing: impl Future<Output = Result<(), tungstenite::Error>>) -> Result<(), Close> {
    match tokio::time::timeout(SILENCE, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Close::abnormal(e.to_string())),
        Err(_) => Err(Close::abnormal("the server does not read")),
    }
}

async fn say_goodbye(socket: &mut Socket) -> Result<(), Close> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let goodbye = async {
        socket.close(None).await.ok()?;
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Close(frame) = message {
                return Some(close_of(frame));
            }
        }
        None
    };
    let answered = tokio::time::timeout(PATIENCE, goodbye).await.ok().flatten();
    Err(answered.unwrap_or(Close { code: 1000, reason: String::new() }))
}

fn close_of(frame: Option<CloseFrame>) -> Close {
    match frame {
        Some(frame) => Close { code: frame.code.into(), reason: frame.reason.to_string() },
        None => Close { code: ABNORMAL, reason: "a close frame without a code".into() },
    }
}
