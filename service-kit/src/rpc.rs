//! gRPC between services: served on TCP or on a pipe inside the process, called with a deadline and with the trace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::{
    io::DuplexStream,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status,
    service::{Interceptor, Routes, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Server, Uri, server::TcpIncoming},
};

use uuid::Uuid;

use crate::{tasks::Tasks, telemetry};

/// How long a call may take when its caller has not said.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// How long making a connection may take, to whichever replica.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one of several replicas has for taking a connection.
const DIAL: Duration = Duration::from_millis(800);
/// How often a silent connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Bytes in flight inside a pipe, each way.
const PIPE: usize = 256 * 1024;
/// Connections that wait to be served by an in-process server.
const BACKLOG: usize = 16;
/// Largest call or answer. A chat batch stays far below.
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// A connection to a service: an ordinary channel whose calls carry the trace.
pub type Client = InterceptedService<Channel, Outbound>;

/// Puts the present trace into the metadata of each call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outbound;

impl Interceptor for Outbound {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(parent) = telemetry::current_traceparent()
            && let Ok(value) = parent.parse()
        {
            request.metadata_mut().insert(telemetry::TRACEPARENT, value);
        }
        Ok(request)
    }
}

/// Connects to one replica, now or as soon as it is there: calls fail with `unavailable` until then.
///
/// # Errors
/// When the URL is not one.
pub fn connect(url: &str) -> anyhow::Result<Client> {
    Ok(InterceptedService::new(endpoint(url)?.connect_lazy(), Outbound))
}

/// Connects to whichever of several replicas is there: a connection that breaks, or cannot be made, is made to the next
/// one. Callers begin with different replicas, so that their calls spread.
///
/// # Errors
/// When one of the URLs is not one, or there is none.
pub fn connect_any(urls: &[String]) -> anyhow::Result<Client> {
    let [first, ..] = urls else { anyhow::bail!("no address given") };
    let addresses: Vec<(String, u16)> = urls.iter().map(|url| host_and_port(url)).collect::<anyhow::Result<_>>()?;
    let addresses = Arc::new(addresses);
    let next = Arc::new(AtomicUsize::new(usize::from(Uuid::new_v4().as_bytes()[0])));
    let channel = endpoint(first)?.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let (addresses, start) = (Arc::clone(&addresses), next.fetch_add(1, Ordering::Relaxed));
        async move { dial(&addresses, start).await.map(TokioIo::new) }
    }));
    Ok(InterceptedService::new(channel, Outbound))
}

fn host_and_port(url: &str) -> anyhow::Result<(String, u16)> {
    let uri: Uri = url.parse()?;
    let host = uri.host().with_context(|| format!("{url}: names no host"))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(80)))
}

/// The first of the addresses, from `start` on and around, that takes a connection.
async fn dial(addresses: &[(String, u16)], start: usize) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("no address given");
    for place in 0..addresses.len() {
        let (host, port) = &addresses[(start + place) % addresses.len()];
        match tokio::time::timeout(DIAL, TcpStream::connect((host.as_str(), *port))).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

fn endpoint(url: &str) -> anyhow::Result<Endpoint> {
    Ok(tune(Endpoint::from_shared(url.to_owned())?))
}

fn tune(endpoint: Endpoint) -> Endpoint {
    endpoint
        .timeout(DEADLINE)
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
}

fn server() -> Server {
    Server::builder()
        .trace_fn(|call| {
            let span = tracing::info_span!("rpc", rpc.method = call.uri().path());
            let parent = call.headers().get(telemetry::TRACEPARENT).and_then(|value| value.to_str().ok());
            telemetry::adopt(&span, parent);
            span
        })
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_concurrent_streams(4096)
}

/// Serves on TCP until the tasks are stopped; calls that run then may finish.
///
/// # Errors
/// When the transport fails.
pub async fn serve(listener: TcpListener, routes: Routes, tasks: &Tasks) -> anyhow::Result<()> {
    // The builder's own setting holds for sockets that it opens itself: a small answer would wait 40 ms for the next one.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server().add_routes(routes).serve_with_incoming_shutdown(incoming, tasks.stopping()).await?;
    Ok(())
}

/// Serves on pipes inside the process. What comes back is an ordinary client that makes a new pipe whenever it
/// has to connect anew.
#[must_use]
pub fn in_process(routes: Routes, tasks: &Tasks) -> Client {
    let (dial, accept) = mpsc::channel::<Result<DuplexStream, std::io::Error>>(BACKLOG);
    let stopping = tasks.stopping();
    tasks.spawn(async move {
        let served =
            server().add_routes(routes).serve_with_incoming_shutdown(ReceiverStream::new(accept), stopping).await;
        if let Err(error) = served {
            tracing::error!(error = %error, "an in-process server ended");
        }
    });
    let dial = Arc::new(dial);
    let channel = tune(Endpoint::from_static("http://in.process")).connect_with_connector_lazy(tower::service_fn(
        move |_: Uri| {
            let dial = Arc::clone(&dial);
            async move {
                let (here, there) = tokio::io::duplex(PIPE);
                dial.send(Ok(there)).await.map_err(|_| std::io::Error::other("the service has stopped"))?;
                Ok::<_, std::io::Error>(TokioIo::new(here))
            }
        },
    ));
    InterceptedService::new(channel, Outbound)
}
