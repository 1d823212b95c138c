//! gateway: the public edge. Sockets, the public protocol, rate limits, local fan-out; no durable state, and no decision on
//! who may do what.
//!
//! A message's way: `ws` reads it, `frame` understands it, `uplink` sends it to chat-service; the event comes back through
//! `fanout` and `hub`, and `ws` writes it. `attach` and `repair` see to it that nothing is missed.

mod attach;
mod conn;
mod directory;
pub mod error;
mod fanout;
pub mod files;
pub mod frame;
pub mod http;
mod hub;
pub mod json;
mod life;
pub mod limit;
mod presence;
mod public;
mod repair;
pub mod services;
pub mod socket;
pub mod token;
mod uplink;
mod verbs;
mod ws;

use std::{
    future::IntoFuture,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::serve::ListenerExt;
use service_kit::{
    admin::Readiness,
    bus::Bus,
    env::{self, Get, Invalid},
    rpc::Client,
    tasks::Tasks,
};
use tokio::net::TcpListener;

use crate::{
    files::Files,
    frame::{Close, Event},
    http::Edge,
    life::{Life, Shared},
    limit::{FORGET_EVERY, Limits},
    services::Services,
    token::Tokens,
    uplink::Uplink,
};

/// Connections that are asked to move each second when the gateway leaves.
const MOVED_PER_S: u64 = 200;
/// How long the rest may take after the last one was asked.
const LAST: Duration = Duration::from_millis(500);
/// What those who stay to the end are asked to wait, in milliseconds.
const RESTART_MS: u64 = 500;

/// What the gateway is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Browser origins beside the server's own.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// Whether rate limits hold.
    pub rate_limits: bool,
    /// Connections of one user; the oldest gives way to one more.
    pub most_connections: usize,
    /// How long leaving may take.
    pub grace: Duration,
    /// Where files are and which are taken.
    pub files: files::Config,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn from_get(get: &impl Get) -> Result<Self, Invalid> {
        let proxies = env::list(get, "PARLANCE_TRUSTED_PROXIES")?;
        let proxies = proxies.iter().map(|address| address.parse::<IpAddr>());
        let proxies =
            proxies.collect::<Result<_, _>>().map_err(|error| Invalid::new("PARLANCE_TRUSTED_PROXIES", error))?;
        Ok(Self {
            trusted_proxies: proxies,
            allowed_origins: env::list(get, "PARLANCE_ALLOWED_ORIGINS")?,
            rate_limits: env::switch(get, "PARLANCE_RATE_LIMITS")?,
            most_connections: env::value(get, "PARLANCE_MAX_CONNECTIONS_PER_USER")?,
            grace: env::millis(get, "PARLANCE_SHUTDOWN_GRACE_MS")?,
            files: files::Config::from_get(get)?,
        })
    }
}

/// The services behind the gateway.
#[derive(Clone)]
pub struct Upstreams {
    /// Any replica of chat-service.
    pub chat: Client,
    /// One client for each replica of chat-service.
    pub chat_replicas: Vec<Client>,
    /// Any replica of presence-service.
    pub presence: Client,
    /// Any replica of notify-service.
    pub notify: Client,
}

/// What the public port shares: the edge, and the life that new connections begin in.
pub(crate) struct Door {
    pub(crate) edge: Edge,
    pub(crate) life: Arc<ArcSwap<Life>>,
    /// What connections run on.
    pub(crate) tasks: Tasks,
}

/// A gateway that is ready to serve.
pub struct Gateway {
    door: Arc<Door>,
    grace: Duration,
    readiness: Readiness,
}

/// Starts a gateway: its streams, its keys, its first life.
///
/// # Errors
/// When its inbox cannot be made.
pub async fn start(
    config: Config,
    upstreams: Upstreams,
    bus: Bus,
    readiness: Readiness,
    tasks: &Tasks,
) -> anyhow::Result<Gateway> {
    let services = Services::new(&upstreams.chat, &upstreams.presence, &upstreams.notify);
    let tokens = Tokens::new(services.accounts.clone());
    tokens.load().await;
    let limits = Limits::new(config.rate_limits);
    let files = Files::start(config.files, &services, readiness.clone(), tasks)?;
    let shared = Arc::new(Shared {
        services: services.clone(),
        bus,
        uplink: Uplink::start(upstreams.chat_replicas, tasks),
        readiness: readiness.clone(),
        most_connections: config.most_connections,
        numbers: AtomicU64::new(1),
    });
    let first = tasks.child();
    let life = Arc::new(ArcSwap::new(Life::begin(Arc::clone(&shared), first.clone()).await?));
    tasks.spawn_until_stop(live(shared, Arc::clone(&life), first, tasks.clone()));
    let forgetting = limits.clone();
    tasks.spawn_until_stop(async move {
        let mut ticks = tokio::time::interval(FORGET_EVERY);
        loop {
            ticks.tick().await;
            forgetting.forget_idle();
        }
    });
    let edge = Edge {
        services,
        tokens,
        limits,
        files,
        allowed_origins: config.allowed_origins.into(),
        trusted_proxies: config.trusted_proxies.into(),
    };
    let door = Arc::new(Door { edge, life, tasks: tasks.clone() });
    Ok(Gateway { door, grace: config.grace, readiness })
}

/// One life after the other. A life ends when the directory says that it is dead.
async fn live(shared: Arc<Shared>, current: Arc<ArcSwap<Life>>, mut tasks: Tasks, all: Tasks) {
    loop {
        let life = current.load_full();
        life.live().await;
        tracing::warn!("this gateway was declared dead: its connections go, and it begins anew");
        loop {
            let next = all.child();
            match Life::begin(Arc::clone(&shared), next.clone()).await {
                Ok(fresh) => {
                    current.store(fresh);
                    life.close_all();
                    tasks.stop();
                    tasks = next;
                    break;
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "a new life cannot begin; trying again");
                    life.close_all();
                    tokio::time::sleep(LAST).await;
                }
            }
        }
    }
}

impl Gateway {
    /// Serves the public port until `stop` resolves, then moves its clients away and returns.
    ///
    /// # Errors
    /// When the transport fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let sockets = http::wrap(self.door.edge.clone(), ws::routes(Arc::clone(&self.door)));
        let router = http::router(self.door.edge.clone()).merge(sockets);
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let door = Arc::clone(&self.door);
        let (readiness, grace) = (self.readiness.clone(), self.grace);
        let (left, gone) = tokio::sync::oneshot::channel();
        let leave = async move {
            stop.await;
            readiness.drain();
            leave(&door, grace).await;
            // Nobody waits for it when everything else has ended already.
            let _ = left.send(());
        };
        // Frames are flushed when they are complete: waiting for more to fill a packet only delays them.
        let listener = listener.tap_io(|socket| drop(socket.set_nodelay(true)));
        let serving = axum::serve(listener, service).with_graceful_shutdown(leave);
        // A request that never ends must not hold up the end of the gateway.
        let overdue = async move {
            let _ = gone.await;
            tokio::time::sleep(grace / 4).await;
        };
        tokio::select! {
            served = serving.into_future() => served?,
            () = overdue => tracing::warn!("left with requests that had not ended"),
        }
        Ok(())
    }
}

/// Asks the clients to move, each after a time of its own, closes those who stay, and leaves the directory.
async fn leave(door: &Door, grace: Duration) {
    let life = door.life.load_full();
    let conns = life.hub.all();
    let count = u64::try_from(conns.len()).unwrap_or(u64::MAX);
    let window = Duration::from_millis(count * 1000 / MOVED_PER_S).min(grace / 2);
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    for (place, conn) in conns.iter().enumerate() {
        let place = u64::try_from(place).unwrap_or_default();
        conn.push(Event::GoingAway(window_ms * place / count.max(1)).write(conn.format));
    }
    if !conns.is_empty() {
        tracing::info!(connections = count, window_ms, "asked the clients to move");
        tokio::time::sleep(window + LAST).await;
    }
    for conn in life.hub.all() {
        conn.close(Close::Restarting(RESTART_MS));
    }
    let gone = async {
        while !life.hub.all().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(grace / 4, gone).await;
    life.tasks.stop();
    life.directory.leave().await;
}
