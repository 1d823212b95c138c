//! One connection to the broker, made anew for ever.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use lapin::{Channel, Connection, ConnectionProperties, uri::AMQPUri};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::BROKER;
use crate::tasks::Tasks;

/// Both sides send half as often, and give up on the other after twice as long.
const HEARTBEAT_S: u16 = 10;
/// The first and the longest pause before the next attempt, each made random between half and all of it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// How often a connection is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long those who use the connection may go on after the stop, to say goodbye and acknowledge.
const GOODBYE: Duration = Duration::from_secs(3);
/// How long the goodbye of the connection itself may take.
const CLOSE: Duration = Duration::from_secs(1);
/// What an AMQP 0-9-1 client says first.
const PROTOCOL: &[u8] = b"AMQP\x00\x00\x09\x01";

/// Follows one connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link(watch::Receiver<Option<Arc<Live>>>);

/// A connection that stood when it was handed out. Held by those who still need it.
pub(super) struct Live {
    connection: Connection,
    given_up: CancellationToken,
}

/// Pauses that grow.
pub(super) struct Backoff(Duration);

impl Link {
    /// Begins to connect, until the tasks are stopped and the connection is not held any more.
    pub(super) fn start(uri: &AMQPUri, name: String, tasks: &Tasks) -> Self {
        let (live, link) = watch::channel(None);
        let mut uri = uri.clone();
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let stopping = tasks.stopping();
        tasks.spawn(async move {
            tokio::select! {
                () = stopping => {}
                () = keep(&uri, &name, &live) => {}
            }
            let last = live.send_replace(None);
            drop(live);
            if let Some(last) = last {
                close(last).await;
            }
        });
        Self(link)
    }

    /// Waits for a connection that stands. `None` when the bus is stopping.
    pub(super) async fn live(&mut self) -> Option<Arc<Live>> {
        let live = self.0.wait_for(|live| live.as_ref().is_some_and(|live| live.stands())).await.ok()?;
        live.clone()
    }
}

impl Live {
    /// Opens a channel.
    ///
    /// # Errors
    /// When the broker does not within the deadline.
    pub(super) async fn channel(&self) -> anyhow::Result<Channel> {
        timeout(BROKER, self.connection.create_channel())
            .await
            .context("opening a channel")?
            .context("opening a channel")
    }

    /// Whether the broker takes nothing that is published at the moment.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    pub(super) fn stands(&self) -> bool {
        !self.given_up.is_cancelled() && self.connection.status().connected()
    }

    /// It does not work as it should: another one is to be made.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    async fn ended(&self) {
        while self.stands() {
            let _ = timeout(LOOK, self.given_up.cancelled()).await;
        }
    }
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    pub(super) async fn pause(&mut self) {
        let (random, _) = Uuid::new_v4().as_u64_pair();
        let half = self.0 / 2;
        // 1024 steps are random enough to spread a herd.
        sleep(half + half * u32::try_from(random % 1024).unwrap_or_default() / 1024).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

async fn keep(uri: &AMQPUri, name: &str, live: &watch::Sender<Option<Arc<Live>>>) {
    let mut backoff = Backoff::new();
    let mut ever = false;
    let mut attempts = 0_u32;
    let mut hung = false;
    loop {
        match connect(uri, name, hung).await {
            Ok(connection) => {
                tracing::info!(connection.name = name, attempts, "connected to the broker");
                if std::mem::replace(&mut ever, true) {
                    metrics::counter!("bus_reconnects_total").increment(1);
                }
                let current = Arc::new(Live { connection, given_up: CancellationToken::new() });
                let since = Instant::now();
                live.send_replace(Some(Arc::clone(&current)));
                current.ended().await;
                live.send_replace(None);
                tracing::warn!(connection.name = name, "lost the connection to the broker");
                current.give_up();
                let _ = timeout(CLOSE, current.connection.close(200, "broken".into())).await;
                (attempts, hung) = (0, false);
                if since.elapsed() > LONGEST_PAUSE {
                    backoff = Backoff::new();
                }
            }
            Err(error) => {
                attempts = attempts.saturating_add(1);
                hung = error.is::<tokio::time::error::Elapsed>();
                if attempts == 1 {
                    tracing::warn!(connection.name = name, error = %error, "cannot connect to the broker; trying on");
                }
            }
        }
        backoff.pause().await;
    }
}

/// Connects within the deadline. An attempt that is cut off leaves lapin's thread behind until the broker answers it or
/// its socket breaks, so after a broker has `hung` it must show a sign of life before another thread is risked.
async fn connect(uri: &AMQPUri, name: &str, hung: bool) -> anyhow::Result<Connection> {
    if hung {
        timeout(BROKER, probe(uri)).await??;
    }
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    Ok(timeout(BROKER, Connection::connect_uri(uri.clone(), properties)).await??)
}

/// Waits for the first byte of an answer. Behind TLS a connection has to do.
async fn probe(uri: &AMQPUri) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((uri.authority.host.as_str(), uri.authority.port)).await?;
    if uri.scheme == lapin::uri::AMQPScheme::AMQP {
        stream.write_all(PROTOCOL).await?;
        stream.read_u8().await?;
    }
    Ok(())
}

/// Waits for those who still hold it, then says goodbye to the broker.
async fn close(live: Arc<Live>) {
    let since = Instant::now();
    while Arc::strong_count(&live) > 1 && since.elapsed() < GOODBYE && live.stands() {
        sleep(LOOK / 10).await;
    }
    let _ = timeout(CLOSE, live.connection.close(200, "stopping".into())).await;
}
