//! notify-service: what members without a live session are told of, and why they were or were not.
//!
//! `worker` takes batches of events from the bus, `news` says what is new in them, and `plan` makes rows of it: of what users
//! are told inside the program (`notifications`), and of pushes; `deliver` takes these when they are due
//! (`jobs`), has `decide` say whether they are still wanted, and sends them by `attempt`: `webpush`, `webhook`, `fcm`, `apns`, `email`; `why` reads what became of them.
//! `admin` and `dead_letters` are
//! for operators: what was given up is listed and tried again. `devices` keeps where a user's pushes go, `settings` what a user wants of them; `grpc` answers the gateways.
//! It writes its own tables (migrations/0005_push.sql) and only reads the others.

pub mod admin;
mod apns;
mod attempt;
pub mod dead_letters;
mod decide;
mod deliver;
mod devices;
mod digest;
mod email;
mod error;
mod fcm;
mod grpc;
mod jobs;
pub mod news;
pub mod notifications;
mod origins;
mod payload;
pub mod plan;
mod settings;
mod sweep;
mod target;
mod vapid;
mod webhook;
mod webpush;
mod why;
pub mod worker;

use std::{fmt, sync::Arc, time::Duration};

use parlance_proto::presence::{directory_client::DirectoryClient, presence_client::PresenceClient};
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

use crate::{
    apns::Apns,
    email::Email,
    fcm::Fcm,
    notifications::{missed, tell::Teller},
    plan::Planner,
    worker::{Counts, Worker},
};
pub use crate::{devices::MOST as MOST_DEVICES, vapid::Vapid};

/// The group of consumers that shares the events. Senders make its queue too, so that none is lost before the first
/// start.
pub const GROUP: &str = "notify";
/// How often the database is asked whether it is there.
const PROBE: Duration = Duration::from_secs(2);

/// What the service is told from outside.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// How long things take.
    pub timing: Timing,
    /// P-256 private key of Web Push, in PKCS#8 PEM; empty: no Web Push.
    pub vapid_key: String,
    /// Whom push services may turn to: a `mailto:` or `https:` URL.
    pub vapid_subject: Option<String>,
    /// The JSON file of a service account of Firebase; empty: no FCM.
    pub fcm_credentials: String,
    /// Where pushes of FCM go, if not to Google: for tests.
    pub fcm_base: Option<String>,
    /// What APNs knows this deployment by; none: no APNs.
    pub apns: Option<ApnsConfig>,
    /// Who takes mail; none: no e-mail.
    pub email: Option<EmailConfig>,
    /// Certificates in PEM of authorities that are trusted beside those of the system; empty: none. For tests: operators
    /// have `SSL_CERT_FILE`.
    pub roots: String,
    /// Pushes in a second to one provider, by this process; 0: as many as come.
    pub rate: u32,
    /// Whether pushes may go to private addresses, and without TLS.
    pub private_targets: bool,
}

/// What APNs knows a deployment by.
#[derive(Clone, Debug)]
pub struct ApnsConfig {
    /// P-256 private key (a `.p8` file: PKCS#8 PEM) of the developer team.
    pub key: String,
    /// Its id, 10 characters.
    pub key_id: String,
    /// The id of the team, 10 characters.
    pub team_id: String,
    /// Where pushes go, of released apps and of those in development, if not to Apple: for tests.
    pub bases: Option<[String; 2]>,
}

/// An SMTP server that takes mail for everybody.
#[derive(Clone)]
pub struct EmailConfig {
    /// `smtp://user:password@host:port`, `?tls=required` for STARTTLS, or `smtps:`.
    pub url: String,
    /// The mailbox that mail is from: an address, or a name and an address in brackets.
    pub from: String,
}

impl fmt::Debug for EmailConfig {
    /// The URL may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmailConfig").field("from", &self.from).finish_non_exhaustive()
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a push waits for a read elsewhere.
    pub delay: Duration,
    /// How long mail waits, from its message on, for more of the same room.
    pub email_delay: Duration,
    /// The wait after the first failed try, at most; it doubles with each further one.
    pub retry: Duration,
    /// How long one try may take.
    pub timeout: Duration,
    /// When it is first looked whether what was sent has been read elsewhere; each further look comes ten times later.
    pub look: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(3),
            email_delay: Duration::from_secs(15 * 60),
            retry: Duration::from_secs(15),
            timeout: Duration::from_secs(10),
            look: Duration::from_secs(15),
        }
    }
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
        let fcm_credentials: String = env::optional(get, "PARLANCE_FCM_CREDENTIALS")?.unwrap_or_default();
        if !fcm_credentials.is_empty() {
            Fcm::new(&fcm_credentials, fcm::BASE).map_err(|error| Invalid::new("PARLANCE_FCM_CREDENTIALS", error))?;
        }
        let timing = Timing {
            delay: env::millis(get, "PARLANCE_PUSH_DELAY_MS")?,
            email_delay: env::millis(get, "PARLANCE_EMAIL_DELAY_MS")?,
            ..Timing::default()
        };
        Ok(Self {
            fcm_credentials,
            fcm_base: None,
            apns: apns::config(get)?,
            email: email::config(get)?,
            timing,
            roots: String::new(),
            rate: env::value(get, "PARLANCE_PUSH_RATE")?,
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
    pub(crate) fcm: Option<Fcm>,
    pub(crate) apns: Option<Apns>,
    pub(crate) email: Option<Email>,
    pub(crate) rate: u32,
    pub(crate) private_targets: bool,
    pub(crate) timing: Timing,
    /// What pushes go through.
    pub(crate) client: reqwest::Client,
    pub(crate) planner: Planner,
    /// Tells connections what is new in lists.
    pub(crate) teller: Teller,
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
    let fcm = match config.fcm_credentials.as_str() {
        "" => None,
        credentials => Some(Fcm::new(credentials, config.fcm_base.as_deref().unwrap_or(fcm::BASE))?),
    };
    let (private, timeout) = (config.private_targets, config.timing.timeout);
    let apns =
        config.apns.map(|apns| Apns::new(apns, target::http2_client(private, timeout, &config.roots)?)).transpose()?;
    // Mail servers take their time, some of them on purpose.
    let email = config.email.map(|email| Email::new(&email, 2 * timeout, &config.roots)).transpose()?;
    readiness.note("webpush", vapid.is_some());
    readiness.note("fcm", fcm.is_some());
    readiness.note("apns", apns.is_some());
    readiness.note("email", email.is_some());
    let counts = Arc::new(Counts::default());
    let directory = DirectoryClient::new(presence.clone()).max_decoding_message_size(MAX_MESSAGE);
    let teller = Teller::start(bus.clone(), directory, tasks);
    let presence = PresenceClient::new(presence).max_decoding_message_size(MAX_MESSAGE);
    let planner = Planner::new(db.clone(), config.timing.delay, teller.clone(), presence.clone());
    let app = Arc::new(App {
        db,
        counts: Arc::clone(&counts),
        planner: planner.clone(),
        teller,
        presence,
        vapid,
        fcm,
        apns,
        email,
        rate: config.rate,
        private_targets: private,
        timing: config.timing,
        client: target::client(private, timeout, &config.roots)?,
    });
    deliver::start(&app, &bus, tasks);
    tasks.spawn_until_stop(missed::run(Arc::clone(&app)));
    let worker = Worker::new(counts, planner);
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
