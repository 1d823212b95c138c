//! A client's socket: the handshake, `hello`, then one loop that reads frames and drains the queue.
//!
//! One task for each connection does both, without a timer of its own: heartbeats and expiry are looked after for all
//! connections together.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{
        State,
        ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::SinkExt;
use http::HeaderMap;
use service_kit::{
    auth::{Claims, Rejected},
    clock,
    fault::{Fault, Kind},
};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::tungstenite;

use crate::{
    Door, attach,
    conn::{Conn, Outgoing},
    error::Problem,
    frame::{self, Close, Code, Hello, MAX_FRAME, Parsed, Verb},
    http::origin_allowed,
    life::Life,
    limit::{FrameLimiter, IGNORED_WAIT_MS, Verdict},
    token::bearer,
    verbs,
};

/// The sub-protocol that is spoken here.
const JSON: &str = "parlance.v1.json";
/// How long the first frame may take, and then its answer.
const HELLO: Duration = Duration::from_secs(10);
/// How long the peer may take to read what is written to it.
const WRITE: Duration = Duration::from_secs(10);
/// How long the peer may take to answer a close.
const GOODBYE: Duration = Duration::from_secs(2);
/// What is read from a socket at once. The default of 128 KiB would be held by every idle connection.
const READ_BUFFER: usize = 4 * 1024;
/// Largest frame that is read at all. Above [`MAX_FRAME`] it is refused with a close that the peer can still read; above
/// this the connection breaks.
const MAX_READ: usize = 4 * MAX_FRAME;

/// The route of the WebSocket.
pub(crate) fn routes(door: Door) -> Router {
    Router::new().route("/v1/ws", get(handshake)).with_state(door)
}

async fn handshake(State(door): State<Door>, headers: HeaderMap, upgrade: WebSocketUpgrade) -> Response {
    if !origin_allowed(&door.edge, &headers) {
        return Problem::new(Code::Forbidden, "this origin may not open a WebSocket here").into_response();
    }
    let token = bearer(&headers).map(str::to_owned);
    // What is not supported is agreed to and then closed with 4009: a browser would not see why otherwise.
    let (protocol, supported) = match asked_protocols(&headers) {
        asked if asked.is_empty() || asked.iter().any(|asked| asked == JSON) => (JSON.to_owned(), true),
        mut asked => (asked.swap_remove(0), false),
    };
    upgrade
        .protocols([protocol])
        .read_buffer_size(READ_BUFFER)
        .max_message_size(MAX_READ)
        .max_frame_size(MAX_READ)
        .on_upgrade(move |socket| attend(socket, door, token, supported))
}

/// The whole life of a connection: what it needs for that, every idle one holds.
async fn attend(mut socket: WebSocket, door: Door, token: Option<String>, supported: bool) {
    if !supported {
        return Box::pin(goodbye(&mut socket, Close::Unsupported)).await;
    }
    // Boxed: what a connection needs at its beginning is not kept for its whole life.
    let Some(mut entered) = Box::pin(enter(socket, &door, token)).await else { return };
    let (socket, life, conn, limiter) = &mut *entered;
    let (close, tell) = serve(socket, &door, life, conn, limiter).await;
    if tell {
        Box::pin(goodbye(socket, close)).await;
    }
    life.hub.remove(conn);
    life.directory.end_session(conn.user, conn.number);
    tracing::debug!(connection.id = %conn.id, user.id = %conn.user, close = ?close, "a connection ended");
}

/// The sub-protocols that a client offers, in its order.
fn asked_protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// A socket that has said `hello`, and what belongs to it. Boxed: it is moved, and a future keeps room for each move.
type Entered = (WebSocket, Arc<Life>, Arc<Conn>, FrameLimiter);

/// The socket after its `hello`, or nothing when it was closed instead.
async fn enter(mut socket: WebSocket, door: &Door, token: Option<String>) -> Option<Box<Entered>> {
    let mut limiter = door.edge.limits.frames();
    let deadline = Instant::now() + HELLO;
    let (re, hello) = loop {
        let received = timeout_at(deadline, receive(&mut socket)).await;
        match received {
            Ok(Received::Text(text)) => match frame::parse(&text) {
                Parsed::Frame { id, verb: Verb::Hello(hello) } => break (id, hello),
                Parsed::Refused { id, fault } if is_hello(&text) => {
                    // In bad form: said so, and the client may say it again.
                    if !matches!(limiter.check(), Verdict::Allowed)
                        || send(&mut socket, frame::error(id, &fault)).await.is_err()
                    {
                        goodbye(&mut socket, Close::Unauthenticated).await;
                        return None;
                    }
                }
                Parsed::NotAFrame => {
                    goodbye(&mut socket, Close::NotAFrame).await;
                    return None;
                }
                Parsed::Frame { .. } | Parsed::Refused { .. } => {
                    goodbye(&mut socket, Close::Unauthenticated).await;
                    return None;
                }
            },
            Ok(Received::Bad(close)) => {
                goodbye(&mut socket, close).await;
                return None;
            }
            Ok(Received::Control) => {}
            Ok(Received::Goodbye) => {
                wait_for_end(&mut socket).await;
                return None;
            }
            Ok(Received::Gone) => return None,
            Err(_) => {
                goodbye(&mut socket, Close::Unauthenticated).await;
                return None;
            }
        }
    };
    let claims = match authenticate(door, token, &hello).await {
        Ok(claims) => claims,
        Err((frame, close)) => {
            let _ = send(&mut socket, frame(re)).await;
            goodbye(&mut socket, close).await;
            return None;
        }
    };
    let life = door.life.load_full();
    let conn =
        Arc::new(Conn::new(life.next_number(), claims.sub, claims.sid, hello.presence, claims.exp, clock::now_ms()));
    let greeted = timeout(HELLO, attach::greet(&life, &conn, re, &hello)).await;
    let fault = match greeted {
        Ok(Ok(())) => {
            // A life that ended meanwhile has closed its connections, and may have missed this one.
            if !Arc::ptr_eq(&life, &door.life.load_full()) {
                conn.close(Close::Restarting(0));
            }
            return Some(Box::new((socket, life, conn, limiter)));
        }
        Ok(Err(fault)) => fault,
        Err(_) => Fault::new(Kind::Timeout, "your rooms could not be read in time; try again"),
    };
    life.hub.remove(&conn);
    let close = if fault.kind == Kind::Unauthenticated { Close::Revoked } else { Close::Internal };
    let _ = send(&mut socket, frame::error(re, &fault)).await;
    goodbye(&mut socket, close).await;
    None
}

/// Whether a refused first frame was a `hello` at all.
fn is_hello(text: &str) -> bool {
    let frame: Option<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).ok();
    frame.is_some_and(|frame| frame.len() == 2 && frame.contains_key("hello"))
}

type Refusal = (fn(u32) -> Utf8Bytes, Close);

async fn authenticate(door: &Door, token: Option<String>, hello: &Hello) -> Result<Claims, Refusal> {
    let unauthenticated = |re| frame::error(re, &Fault::unauthenticated("the access token is not valid"));
    let Some(token) = hello.token.clone().or(token) else {
        return Err((|re| frame::error(re, &Fault::unauthenticated("token: is missing")), Close::Unauthenticated));
    };
    door.edge.tokens.verify(&token).await.map_err(|rejected| match rejected {
        Rejected::Expired => (frame::token_expired as fn(u32) -> Utf8Bytes, Close::TokenExpired),
        Rejected::UnknownKey | Rejected::Invalid => (unauthenticated as fn(u32) -> Utf8Bytes, Close::Unauthenticated),
    })
}

/// What came from the peer.
enum Received {
    Text(Utf8Bytes),
    /// A ping or pong, answered below.
    Control,
    /// Something that ends the connection.
    Bad(Close),
    /// The peer says goodbye.
    Goodbye,
    /// The peer has gone.
    Gone,
}

async fn receive(socket: &mut WebSocket) -> Received {
    match socket.recv().await {
        Some(Ok(Message::Text(text))) if text.len() <= MAX_FRAME => Received::Text(text),
        Some(Ok(Message::Text(_))) => Received::Bad(Close::FrameTooLarge),
        Some(Ok(Message::Binary(bytes))) if bytes.len() <= MAX_FRAME => Received::Bad(Close::NotAFrame),
        Some(Ok(Message::Binary(_))) => Received::Bad(Close::FrameTooLarge),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Received::Control,
        Some(Ok(Message::Close(_))) => Received::Goodbye,
        None => Received::Gone,
        Some(Err(error)) => match error.into_inner().downcast_ref() {
            Some(tungstenite::Error::Capacity(_)) => Received::Bad(Close::FrameTooLarge),
            Some(tungstenite::Error::Utf8(_)) => Received::Bad(Close::NotAFrame),
            _ => Received::Gone,
        },
    }
}

/// Reads and writes until one side ends it. Gives why, and whether the peer is still to be told.
async fn serve(
    socket: &mut WebSocket,
    door: &Door,
    life: &Arc<Life>,
    conn: &Arc<Conn>,
    limiter: &mut FrameLimiter,
) -> (Close, bool) {
    loop {
        tokio::select! {
            () = conn.woken() => {}
            received = receive(socket), if !conn.is_busy() => {
                conn.heard(clock::now_ms());
                match received {
                    Received::Text(text) => take(door, life, conn, limiter, &text),
                    Received::Control => {}
                    Received::Bad(close) => conn.close(close),
                    Received::Goodbye => {
                        Box::pin(wait_for_end(socket)).await;
                        return (Close::Normal, false);
                    }
                    Received::Gone => return (Close::Away, false),
                }
            }
        }
        let outgoing = conn.take();
        let close = outgoing.close;
        if conn.is_cut() || drain(socket, conn, outgoing).await.is_err() {
            return if conn.is_cut() { (Close::TooSlow, true) } else { (Close::Away, false) };
        }
        if let Some(close) = close {
            return (close, true);
        }
    }
}

/// Does what a frame asks.
fn take(door: &Door, life: &Arc<Life>, conn: &Arc<Conn>, limiter: &mut FrameLimiter, text: &str) {
    let span = tracing::info_span!("frame", connection.id = %conn.id);
    let _entered = span.enter();
    match frame::parse(text) {
        Parsed::NotAFrame => conn.close(Close::NotAFrame),
        Parsed::Refused { id, fault } => match limiter.check() {
            Verdict::Ignored => conn.close(Close::RateLimited(IGNORED_WAIT_MS)),
            Verdict::Allowed | Verdict::Refused(_) => conn.push(frame::error(id, &fault)),
        },
        Parsed::Frame { id, verb } => match limiter.check() {
            Verdict::Allowed => verbs::perform(life, &door.edge.tokens, conn, id, verb),
            Verdict::Refused(fault) => conn.push(frame::error(id, &fault)),
            Verdict::Ignored => conn.close(Close::RateLimited(IGNORED_WAIT_MS)),
        },
    }
}

/// Writes everything that waits, then hands it to the kernel at once: one system call for many frames.
async fn drain(socket: &mut WebSocket, conn: &Conn, outgoing: Outgoing) -> Result<(), axum::Error> {
    if outgoing.frames.is_empty() && !outgoing.ping {
        return Ok(());
    }
    let writing = async {
        for frame in outgoing.frames {
            socket.feed(Message::Text(frame)).await?;
        }
        if outgoing.ping {
            socket.feed(Message::Ping(Default::default())).await?;
        }
        socket.flush().await
    };
    match timeout(WRITE, writing).await {
        Ok(written) => written,
        Err(_) => {
            conn.close(Close::TooSlow);
            Ok(())
        }
    }
}

async fn send(socket: &mut WebSocket, frame: Utf8Bytes) -> Result<(), axum::Error> {
    timeout(WRITE, socket.send(Message::Text(frame))).await.unwrap_or(Ok(()))
}

/// Closes a socket: says why, then reads until the peer has answered, so that the reason is not lost with a reset.
async fn goodbye(socket: &mut WebSocket, close: Close) {
    let saying = socket.send(Message::Close(Some(close.frame())));
    if timeout(GOODBYE, saying).await.is_ok_and(|said| said.is_ok()) {
        wait_for_end(socket).await;
    }
}

/// Reads on until the closing handshake is over: reading is what sends the answer to the peer's close.
async fn wait_for_end(socket: &mut WebSocket) {
    let reading = async { while let Some(Ok(_)) = socket.recv().await {} };
    let _ = timeout(GOODBYE, reading).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the future that a function with these parameters returns; it is not called.
    fn size_of_future<A, B, C, D, F: Future>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_keeps_little_beside_its_socket() {
        let (task, socket) = (size_of_future(attend), size_of::<WebSocket>());
        println!(
            "the task of a connection: {task} bytes, of which {socket} are the socket; Conn: {}",
            size_of::<Conn>()
        );
        assert!(task <= MOST_OF_A_TASK, "the task of a connection has {task} bytes");
        assert!(size_of::<Conn>() <= 320, "Conn has {} bytes", size_of::<Conn>());
    }

    /// Idle memory is bounded by this: raise it only with a measurement of what an idle connection takes.
    const MOST_OF_A_TASK: usize = 3_328;
}
