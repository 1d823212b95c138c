//! notify-service: what members without a live session are told of, and why they were or were not.
//!
//! `devices` keeps where a user's pushes go; `worker` takes batches of events from the bus; `grpc` answers the gateways.
//! It writes its own tables (migrations/0005_push.sql) and only reads the others.

mod devices;
mod error;
mod grpc;
mod target;
mod vapid;
pub mod worker;

use std::{sync::Arc, time::Duration};

use parlance_proto::presence::presence_client::PresenceClient;
use service_kit::{
    admin::Readiness,
    bus::Bus,
    db::Db,
    env::{self, Get, Invalid},
    fault::Fault,
    rpc::{Client, MAX_MESSAGE},
    tasks::Tasks,
};
use tonic::service::Routes;

use crate::worker::{Counts, Worker};
pub use crate::{devices::MOST as MOST_DEVICES, vapid::Vapid};

/// The group of consumers that shares the events. Senders make its queue too, so that none is lost before the first
/// start.
pub const GROUP: &str = "notify";
/// How often the database is asked whether it is there.
const PROBE: Duration = Duration::from_secs(2);

/// What the service is told from outside.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// P-256 private key of Web Push, in PKCS#8 PEM; empty: no Web Push.
    pub vapid_key: String,
    /// Whom push services may turn to: a `mailto:` or `https:` URL.
    pub vapid_subject: Option<String>,
    /// Whether pushes may go to private addresses, and without TLS.
    pub private_targets: bool,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When one cannot be used.
    pub fn from_get(get: &impl Get) -> Result<Self, Invalid> {
        let vapid_key: String = env::optional(get, "PARLANCE_VAPID_KEY")?.unwrap_or_default();
        if !vapid_key.is_empty() {
            Vapid::from_pem(&vapid_key, None).map_err(|error| Invalid::new("PARLANCE_VAPID_KEY", error))?;
        }
        Ok(Self {
            vapid_key,
            vapid_subject: env::optional(get, "PARLANCE_VAPID_SUBJECT")?,
            private_targets: env::switch(get, "PARLANCE_ALLOW_PRIVATE_TARGETS")?,
        })
    }
}

/// What every call needs.
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) counts: Arc<Counts>,
    /// Who is online.
    pub(crate) presence: PresenceClient<Client>,
    pub(crate) vapid: Option<Vapid>,
    pub(crate) private_targets: bool,
}

impl App {
    /// The key of Web Push.
    ///
    /// # Errors
    /// `unprocessable` when there is none.
    pub(crate) fn vapid(&self) -> Result<&Vapid, Fault> {
        self.vapid.as_ref().ok_or_else(|| Fault::unprocessable("platform: webpush is not configured here"))
    }
}

/// Brings the schema of this database up to date, whichever service comes first.
///
/// # Errors
/// When that fails.
pub async fn migrate(db: &Db) -> anyhow::Result<()> {
    db.migrate(&sqlx::migrate!("../migrations")).await
}

/// Starts the worker on `tasks` and returns what the service answers. Does not wait for the bus: `readiness` says when
/// it is connected.
///
/// # Errors
/// When the schema cannot be brought up to date, the key is none, or the bus does not let it consume.
pub async fn start(
    config: Config,
    db: Db,
    bus: Bus,
    presence: Client,
    readiness: Readiness,
    tasks: &Tasks,
) -> anyhow::Result<Routes> {
    migrate(&db).await?;
    readiness.set("database", true);
    let vapid = match config.vapid_key.as_str() {
        "" => None,
        key => Some(Vapid::from_pem(key, config.vapid_subject)?),
    };
    readiness.note("webpush", vapid.is_some());
    let counts = Arc::new(Counts::default());
    let app = Arc::new(App {
        db,
        counts: Arc::clone(&counts),
        presence: PresenceClient::new(presence).max_decoding_message_size(MAX_MESSAGE),
        vapid,
        private_targets: config.private_targets,
    });
    let worker = Worker::new(counts);
    tasks.spawn(worker::run(worker, bus.consume(GROUP).await?, tasks.stopping()));
    tasks.spawn_until_stop(watch(bus, readiness.clone()));
    tasks.spawn_until_stop(probe(Arc::clone(&app), readiness));
    Ok(grpc::routes(&app))
}

/// Keeps readiness true to whether the bus is connected.
async fn watch(bus: Bus, readiness: Readiness) {
    let mut changes = bus.ready_changes();
    loop {
        readiness.set("bus", *changes.borrow_and_update());
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps readiness true to whether the database answers.
async fn probe(app: Arc<App>, readiness: Readiness) {
    let mut ticks = tokio::time::interval(PROBE);
    loop {
        ticks.tick().await;
        readiness.set("database", app.db.is_alive().await);
    }
}
