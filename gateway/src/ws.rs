//! A client's socket: the handshake, `hello`, then one loop that reads frames and drains the queue.
//!
//! One task for each connection does both, without a timer of its own: heartbeats and expiry are looked after for all
//! connections together.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, StatusCode};
use service_kit::{
    auth::{Claims, Rejected},
    clock,
    fault::{Fault, Kind},
};
use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    Door, attach,
    conn::{Conn, Outgoing},
    error::Problem,
    frame::{self, Close, Code, Format, Hello, MAX_FRAME, Parsed, Re, Verb},
    http::origin_allowed,
    life::Life,
    limit::{FrameLimiter, IGNORED_WAIT_MS, Verdict},
    socket::{Frame, Handshake, Incoming, Refused, Socket, Unwritten, Violation},
    token::bearer,
    verbs,
};

/// How long the first frame may take, and then its answer.
const HELLO: Duration = Duration::from_secs(10);
/// How long the peer may take to read what is written to it.
const WRITE: Duration = Duration::from_secs(10);
/// How long the peer may take to answer a close.
const GOODBYE: Duration = Duration::from_secs(2);
/// The route of the WebSocket.
pub(crate) fn routes(door: Arc<Door>) -> Router {
    Router::new().route("/v1/ws", get(handshake)).with_state(door)
}

async fn handshake(State(door): State<Arc<Door>>, mut request: Request) -> Response {
    if !origin_allowed(&door.edge, request.headers()) {
        return Problem::new(Code::Forbidden, "this origin may not open a WebSocket here").into_response();
    }
    let handshake = match Handshake::read(&mut request) {
        Ok(handshake) => handshake,
        Err(refused) => return refuse(refused),
    };
    let token = bearer(request.headers()).map(str::to_owned);
    // What is not supported is agreed to and then closed with 4009: a browser would not see why otherwise.
    let asked = asked_protocols(request.headers());
    let known = asked.iter().find_map(|asked| Some((asked, Format::of(asked)?)));
    let (protocol, format) = match (known, asked.first()) {
        (Some((name, format)), _) => (Some(name), Some(format)),
        (None, Some(unknown)) => (Some(unknown), None),
        (None, None) => (None, Some(Format::Json)),
    };
    let answer = handshake.agree::<Body>(protocol.map(String::as_str));
    let tasks = door.tasks.clone();
    tasks.spawn_until_stop(async move {
        if let Some(socket) = Box::pin(handshake.socket(MAX_FRAME)).await {
            attend(socket, door, token, format).await;
        }
    });
    answer
}

fn refuse(refused: Refused) -> Response {
    match refused {
        Refused::NotAsked => {
            Problem::new(Code::BadRequest, "this path is a WebSocket: ask for it with Upgrade").into_response()
        }
        Refused::Version => {
            let problem = Problem::new(Code::BadRequest, "only version 13 of the WebSocket protocol is spoken here");
            (StatusCode::UPGRADE_REQUIRED, [Refused::version_header()], problem).into_response()
        }
    }
}

/// The whole life of a connection: what it needs for that, every idle one holds.
async fn attend(mut socket: Socket, door: Arc<Door>, token: Option<String>, format: Option<Format>) {
    let Some(format) = format else {
        return Box::pin(goodbye(&mut socket, Close::Unsupported)).await;
    };
    // Boxed: what a connection needs at its beginning is not kept for its whole life.
    let Some(entered) = Box::pin(enter(&mut socket, &door, token, format)).await else { return };
    let Entered { life, conn, mut limiter } = entered;
    let (close, tell) = serve(&mut socket, &door, &life, &conn, &mut limiter).await;
    if tell {
        Box::pin(goodbye(&mut socket, close)).await;
    }
    life.hub.remove(&conn);
    life.directory.end_session(conn.user, conn.number);
    tracing::debug!(connection.id = %conn.id, user.id = %conn.user, close = ?close, "a connection ended");
}

/// The sub-protocols that a client offers, in its order.
fn asked_protocols(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(http::header::SEC_WEBSOCKET_PROTOCOL).iter();
    let names = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

/// What belongs to a socket that has said `hello`.
struct Entered {
    life: Arc<Life>,
    conn: Arc<Conn>,
    limiter: FrameLimiter,
}

/// Greets a socket that says `hello`; nothing when it was closed instead.
async fn enter(socket: &mut Socket, door: &Door, token: Option<String>, format: Format) -> Option<Entered> {
    let mut limiter = door.edge.limits.frames();
    let (re, hello) = first_frame(socket, format, &mut limiter).await?;
    let claims = match authenticate(door, token, &hello).await {
        Ok(claims) => claims,
        Err((frame, close)) => {
            let _ = send(socket, frame(re)).await;
            goodbye(socket, close).await;
            return None;
        }
    };
    let life = door.life.load_full();
    let (number, now) = (life.next_number(), clock::now_ms());
    let conn = Arc::new(Conn::new(number, claims.sub, claims.sid, format, hello.presence, claims.exp, now));
    let greeted = timeout(HELLO, attach::greet(&life, &conn, re, &hello)).await;
    let fault = match greeted {
        Ok(Ok(())) => {
            // A life that ended meanwhile has closed its connections, and may have missed this one.
            if !Arc::ptr_eq(&life, &door.life.load_full()) {
                conn.close(Close::Restarting(0));
            }
            return Some(Entered { life, conn, limiter });
        }
        Ok(Err(fault)) => fault,
        Err(_) => Fault::new(Kind::Timeout, "your rooms could not be read in time; try again"),
    };
    life.hub.remove(&conn);
    let close = if fault.kind == Kind::Unauthenticated { Close::Revoked } else { Close::Internal };
    let _ = send(socket, frame::error(re, &fault)).await;
    goodbye(socket, close).await;
    None
}

/// Waits for `hello`; nothing when the socket was closed instead.
async fn first_frame(socket: &mut Socket, format: Format, limiter: &mut FrameLimiter) -> Option<(Re, Hello)> {
    let deadline = Instant::now() + HELLO;
    let close = loop {
        let Ok(received) = timeout_at(deadline, receive(socket)).await else { break Close::Unauthenticated };
        match received {
            Received::Frame(message) => match message.parse(format) {
                Parsed::Frame { re, verb: Verb::Hello(hello) } => return Some((re, hello)),
                Parsed::Refused { re, fault, hello: true } => {
                    // In bad form: said so, and the client may say it again.
                    if !matches!(limiter.check(), Verdict::Allowed)
                        || send(socket, frame::error(re, &fault)).await.is_err()
                    {
                        break Close::Unauthenticated;
                    }
                }
                Parsed::NotAFrame => break Close::NotAFrame,
                Parsed::Frame { .. } | Parsed::Refused { .. } => break Close::Unauthenticated,
            },
            Received::Bad(close) => break close,
            Received::Ping(payload) => {
                if send(socket, Frame::pong(&payload)).await.is_err() {
                    return None;
                }
            }
            Received::Pong => {}
            Received::Goodbye(code) => {
                answer_goodbye(socket, code).await;
                return None;
            }
            Received::Gone => return None,
        }
    };
    goodbye(socket, close).await;
    None
}

type Refusal = (fn(Re) -> Frame, Close);

async fn authenticate(door: &Door, token: Option<String>, hello: &Hello) -> Result<Claims, Refusal> {
    let unauthenticated = |re| frame::error(re, &Fault::unauthenticated("the access token is not valid"));
    let Some(token) = hello.token.clone().or(token) else {
        return Err((|re| frame::error(re, &Fault::unauthenticated("token: is missing")), Close::Unauthenticated));
    };
    door.edge.tokens.verify(&token).await.map_err(|rejected| match rejected {
        Rejected::Expired => (frame::token_expired as fn(Re) -> Frame, Close::TokenExpired),
        Rejected::UnknownKey | Rejected::Invalid => (unauthenticated as fn(Re) -> Frame, Close::Unauthenticated),
    })
}

/// What came from the peer.
enum Received {
    Frame(Message),
    Ping(Vec<u8>),
    Pong,
    /// Something that ends the connection.
    Bad(Close),
    /// The peer says goodbye.
    Goodbye(Option<u16>),
    /// The peer has gone.
    Gone,
}

/// What a data frame carried, or several that belong together.
enum Message {
    Text(String),
    Binary(Vec<u8>),
}

impl Message {
    fn parse(self, format: Format) -> Parsed {
        match (format, self) {
            (Format::Json, Self::Text(text)) => frame::parse(&text),
            (Format::Proto, Self::Binary(bytes)) => frame::parse_proto(bytes.into()),
            (Format::Json, Self::Binary(_)) | (Format::Proto, Self::Text(_)) => Parsed::NotAFrame,
        }
    }
}

fn poll_receive(socket: &mut Socket, cx: &mut Context<'_>) -> Poll<Received> {
    socket.poll_next(cx).map(|next| match next {
        Some(Ok(Incoming::Text(text))) => Received::Frame(Message::Text(text)),
        Some(Ok(Incoming::Binary(bytes))) => Received::Frame(Message::Binary(bytes)),
        Some(Err(Violation::NotUtf8)) => Received::Bad(Close::NotAFrame),
        Some(Ok(Incoming::Ping(payload))) => Received::Ping(payload),
        Some(Ok(Incoming::Pong)) => Received::Pong,
        Some(Ok(Incoming::Close(code))) => Received::Goodbye(code),
        Some(Err(Violation::TooLarge)) => Received::Bad(Close::FrameTooLarge),
        Some(Err(Violation::Protocol)) => Received::Bad(Close::ProtocolError),
        None => Received::Gone,
    })
}

async fn receive(socket: &mut Socket) -> Received {
    std::future::poll_fn(|cx| poll_receive(socket, cx)).await
}

/// Reads and writes until one side ends it. Gives why, and whether the peer is still to be told.
async fn serve(
    socket: &mut Socket,
    door: &Door,
    life: &Arc<Life>,
    conn: &Arc<Conn>,
    limiter: &mut FrameLimiter,
) -> (Close, bool) {
    loop {
        // Nothing when there is something to write, or room for one more request.
        let received = std::future::poll_fn(|cx| {
            if conn.poll_woken(cx).is_ready() {
                return Poll::Ready(None);
            }
            if conn.is_busy() { Poll::Pending } else { poll_receive(socket, cx).map(Some) }
        });
        if let Some(received) = received.await {
            conn.heard(clock::now_ms());
            match received {
                Received::Frame(message) => take(door, life, conn, limiter, message),
                Received::Ping(payload) => conn.push(Frame::pong(&payload)),
                Received::Pong => {}
                Received::Bad(close) => conn.close(close),
                Received::Goodbye(code) => {
                    Box::pin(answer_goodbye(socket, code)).await;
                    return (Close::Normal, false);
                }
                Received::Gone => return (Close::Away, false),
            }
        }
        let Outgoing { frames, close } = conn.take();
        if conn.is_cut() || drain(socket, conn, frames).await.is_err() {
            return if conn.is_cut() { (Close::TooSlow, true) } else { (Close::Away, false) };
        }
        if let Some(close) = close {
            return (close, true);
        }
    }
}

/// Does what a frame asks.
fn take(door: &Door, life: &Arc<Life>, conn: &Arc<Conn>, limiter: &mut FrameLimiter, message: Message) {
    let span = tracing::info_span!("frame", connection.id = %conn.id);
    let _entered = span.enter();
    match message.parse(conn.format) {
        Parsed::NotAFrame => conn.close(Close::NotAFrame),
        Parsed::Refused { re, fault, .. } => match limiter.check() {
            Verdict::Ignored => conn.close(Close::RateLimited(IGNORED_WAIT_MS)),
            Verdict::Allowed | Verdict::Refused(_) => conn.push(frame::error(re, &fault)),
        },
        Parsed::Frame { re, verb } => match limiter.check() {
            Verdict::Allowed => verbs::perform(life, &door.edge.tokens, conn, re, verb),
            Verdict::Refused(fault) => conn.push(frame::error(re, &fault)),
            Verdict::Ignored => conn.close(Close::RateLimited(IGNORED_WAIT_MS)),
        },
    }
}

/// Hands everything that waits to the kernel, with one system call for many frames.
async fn drain(socket: &Socket, conn: &Conn, frames: Vec<Frame>) -> io::Result<()> {
    let mut unwritten = Unwritten::new(frames);
    if socket.try_write(&mut unwritten)? {
        return Ok(());
    }
    // Boxed, as few connections ever come here: the deadline is large.
    match Box::pin(timeout(WRITE, socket.write(&mut unwritten))).await {
        Ok(written) => written,
        Err(_) => {
            conn.close(Close::TooSlow);
            Ok(())
        }
    }
}

async fn send(socket: &Socket, frame: Frame) -> io::Result<()> {
    timeout(WRITE, socket.write(&mut Unwritten::new(vec![frame]))).await.unwrap_or(Ok(()))
}

/// Answers the peer's goodbye; the connection ends with it.
async fn answer_goodbye(socket: &Socket, code: Option<u16>) {
    // The peer may not read any more.
    let _ = timeout(GOODBYE, socket.write(&mut Unwritten::new(vec![Frame::close_answer(code)]))).await;
}

/// Closes a socket: says why, then reads until the peer has answered, so that the reason is not lost with a reset.
async fn goodbye(socket: &mut Socket, close: Close) {
    let mut saying = Unwritten::new(vec![Frame::close(close.code(), &close.reason())]);
    if !matches!(timeout(GOODBYE, socket.write(&mut saying)).await, Ok(Ok(()))) {
        return;
    }
    let answered = async {
        while let Some(next) = socket.next().await {
            if matches!(next, Ok(Incoming::Close(_))) {
                break;
            }
        }
    };
    let _ = timeout(GOODBYE, answered).await;
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
        let (task, socket) = (size_of_future(attend), size_of::<Socket>());
        println!(
            "the task of a connection: {task} bytes, of which {socket} are the socket; Conn: {}",
            size_of::<Conn>()
        );
        assert!(task <= MOST_OF_A_TASK, "the task of a connection has {task} bytes");
        assert!(size_of::<Conn>() <= 224, "Conn has {} bytes", size_of::<Conn>());
    }

    /// Idle memory is bounded by this: raise it only with a measurement of what an idle connection takes.
    const MOST_OF_A_TASK: usize = 768;
}
