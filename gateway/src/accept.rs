//! The public port: takes connections, and serves HTTP/1.1 on each within bounds.

use std::{
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::pin,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use service_kit::tasks::Tasks;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

/// Bytes of a request that are read ahead of whoever uses them, its head included.
const READ_AHEAD: usize = 64 * 1024;
/// How long nothing is taken when the process has no place for another connection.
const PAUSE: Duration = Duration::from_millis(200);

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// How long a client may take for the head of a request, also for the first byte of the next one.
    pub head: Duration,
    /// How long a client may leave unread what was sent to it. Only Linux can be told.
    pub unread: Duration,
    /// How long what is being answered may still take at the end.
    pub grace: Duration,
}

/// Serves until `leave` resolves. Then no more are taken, and what is being answered may end; tells whether it did in time.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: Tasks,
    leave: impl Future<Output = ()>,
    bounds: Bounds,
) -> bool {
    let mut leave = pin!(leave);
    loop {
        let taken = tokio::select! {
            () = &mut leave => break,
            taken = listener.accept() => taken,
        };
        match taken {
            Ok((socket, peer)) => {
                let serving = connection(socket, peer, router.clone(), connections.clone(), bounds);
                drop(connections.spawn(serving));
            }
            Err(error) => refused(error).await,
        }
    }
    drop(listener);
    connections.shutdown(bounds.grace).await
}

/// What could not be taken: one that has gone again, or any at all, for want of file descriptors.
async fn refused(error: io::Error) {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if !matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
        tracing::error!(error = %error, "no connection can be taken; waiting");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Frames are flushed when they are complete: waiting for more to fill a packet only delays them. And who stops reading in the
/// middle of a download is cut by the kernel, for nothing up here would notice. It serves as well where neither can be had.
fn set_up(socket: &TcpStream, unread: Duration) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_user_timeout(Some(unread))?;
    #[cfg(not(target_os = "linux"))]
    let _ = unread;
    socket.set_nodelay(true)
}

async fn connection(socket: TcpStream, peer: SocketAddr, router: Router, connections: Tasks, bounds: Bounds) {
    if let Err(error) = set_up(&socket, bounds.unread) {
        tracing::debug!(error = %error, "a connection is served without what was to be set up");
    }
    let service = router.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(bounds.head).max_buf_size(READ_AHEAD);
    let served = http.serve_connection(TokioIo::new(socket), TowerToHyperService::new(service)).with_upgrades();
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = connections.stopping() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::oneshot,
        task::JoinHandle,
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// A port that answers at `/` at once, and at `/slow` when it is let.
    struct Port {
        address: SocketAddr,
        leave: oneshot::Sender<()>,
        /// Resolves when `/slow` is asked for.
        asked: oneshot::Receiver<()>,
        let_go: oneshot::Sender<()>,
        served: JoinHandle<bool>,
    }

    async fn port(head: Duration) -> Port {
        let (let_go, held) = oneshot::channel::<()>();
        let (ask, asked) = oneshot::channel::<()>();
        let once = std::sync::Arc::new(std::sync::Mutex::new(Some((ask, held))));
        let slow = move || async move {
            let (ask, held) = once.lock().expect("no panic").take().expect("asked once");
            ask.send(()).expect("the test waits");
            let _ = held.await;
            "slow"
        };
        let router = Router::new()
            .route("/", get(|| async { "at once" }))
            .route("/large", get(|| async { vec![0; 64 * 1024 * 1024] }))
            .route("/slow", get(slow));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (leave, left) = oneshot::channel::<()>();
        let (tasks, bounds) = (Tasks::new(), Bounds { head, unread: Duration::from_millis(300), grace: PATIENCE });
        let connections = tasks.child();
        let served = tasks
            .spawn(async move { serve(listener, router, connections, async move { drop(left.await) }, bounds).await });
        Port { address, leave, asked, let_go, served }
    }

    async fn writes(address: SocketAddr, text: &str) -> TcpStream {
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        socket.write_all(text.as_bytes()).await.expect("written");
        socket
    }

    /// Everything until the server closes.
    async fn rest(mut socket: TcpStream) -> String {
        let mut text = String::new();
        let read = tokio::time::timeout(PATIENCE, socket.read_to_string(&mut text)).await;
        read.expect("it closes in time").map(|_| text).unwrap_or_default()
    }

    #[tokio::test]
    async fn who_never_ends_the_head_of_a_request_is_cut() {
        let port = port(Duration::from_millis(100)).await;
        assert_eq!(rest(writes(port.address, "").await).await, "", "says nothing at all");
        let half = rest(writes(port.address, "GET / HTTP/1.1\r\nhost: x\r\n").await).await;
        assert!(!half.contains("200"), "{half}");
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_stops_reading_an_answer_is_cut() {
        let port = port(PATIENCE).await;
        let mut unread = writes(port.address, "GET /large HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut begun = [0; 12];
        unread.read_exact(&mut begun).await.expect("an answer");
        // Nothing but the cut lets it end in time.
        port.leave.send(()).expect("it serves");
        assert!(port.served.await.expect("no panic"), "the connection is still there");
        drop(unread);
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let port = port(PATIENCE).await;
        let large = format!("GET / HTTP/1.1\r\nhost: x\r\nlarge: {}\r\n\r\n", "x".repeat(2 * READ_AHEAD));
        let said = rest(writes(port.address, &large).await).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{said}");
    }

    #[tokio::test]
    async fn at_the_end_what_is_being_answered_is_answered_and_the_rest_is_closed() {
        let port = port(PATIENCE).await;
        let mut idle = writes(port.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = [0; 12];
        idle.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let slow = writes(port.address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        port.asked.await.expect("it is asked for");
        port.leave.send(()).expect("it serves");
        rest(idle).await;
        port.let_go.send(()).expect("it is being answered");
        assert!(rest(slow).await.ends_with("slow"));
        assert!(port.served.await.expect("no panic"), "nothing was left");
        assert!(TcpStream::connect(port.address).await.is_err(), "nobody is taken any more");
    }
}
