//! chat-service: accounts, rooms, messages, receipts. Authorises every operation and is the only writer of its database.

mod accounts;
mod actor;
mod changes;
mod commit;
mod error;
pub mod files;
mod gateways;
mod grpc;
mod hello;
mod last_seen;
mod messages;
mod outbox;
mod page;
mod receipts;
mod rooms;
mod together;

use std::{path::PathBuf, sync::Arc, time::Duration};

use parlance_proto::{chat, presence::directory_client::DirectoryClient};
use service_kit::{
    admin::Readiness,
    auth::Signer,
    bus::Bus,
    db::Db,
    env::{self, Get, Invalid},
    id::UserId,
    on_tx,
    rpc::Client,
    tasks::Tasks,
};
use tonic::service::Routes;
use uuid::Uuid;

use crate::{
    accounts::password::Passwords, commit::Committer, hello::Hello, outbox::Outbox, receipts::Cursors,
    together::Together,
};

/// How often the database is asked whether it is there.
const PROBE: Duration = Duration::from_secs(2);

/// What this service is told at its start.
#[derive(Debug)]
pub struct Config {
    /// `postgres://…` or `sqlite:<file>`.
    pub database_url: String,
    /// Ed25519 private key that signs access tokens, in PKCS#8 PEM.
    pub signing_key: String,
    /// Life of an access token in seconds.
    pub access_ttl_s: i64,
    /// How much and how long files are kept.
    pub files: files::Limits,
    /// Test hook: while this file exists nothing is published after a commit.
    pub hold_publish: Option<PathBuf>,
}

impl Config {
    /// Reads the settings; where the database is and the key come from the caller, whose defaults differ.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn from_get(get: &impl Get, database_url: String, signing_key: String) -> Result<Self, Invalid> {
        Ok(Self {
            database_url,
            signing_key,
            access_ttl_s: env::value(get, "PARLANCE_ACCESS_TOKEN_TTL_S")?,
            files: files::Limits::from_get(get)?,
            hold_publish: env::optional(get, "PARLANCE_TEST_HOLD_PUBLISH")?,
        })
    }
}

/// What every call needs.
pub(crate) struct App {
    pub(crate) db: Db,
    pub(crate) outbox: Outbox,
    pub(crate) signer: Signer,
    pub(crate) passwords: Passwords,
    pub(crate) committer: Committer,
    pub(crate) cursors: Cursors,
    pub(crate) hellos: Together<Hello, chat::HelloReply>,
    pub(crate) memberships: Together<UserId, chat::MembershipList>,
    pub(crate) access_ttl_s: i64,
    pub(crate) files: files::Limits,
    /// For work that must be finished even when its caller has gone.
    pub(crate) tasks: Tasks,
}

/// Starts the service: connects, brings the schema up to date, starts its workers, and returns what it answers.
///
/// # Errors
/// When the database cannot be reached or brought up to date, or the signing key is not one.
pub async fn start(
    config: Config,
    bus: Bus,
    presence: Client,
    readiness: Readiness,
    tasks: &Tasks,
) -> anyhow::Result<Routes> {
    let db = Db::connect(&config.database_url).await?;
    start_on(config, db, bus, presence, readiness, tasks).await
}

/// The same on a connected database, which others of this process may use too: SQLite has one writer at a time.
///
/// # Errors
/// As [`start`], but for the connecting.
pub async fn start_on(
    config: Config,
    db: Db,
    bus: Bus,
    presence: Client,
    readiness: Readiness,
    tasks: &Tasks,
) -> anyhow::Result<Routes> {
    let signer = Signer::from_pem(&config.signing_key)?;
    db.migrate(&sqlx::migrate!("../migrations")).await?;
    tune(&db).await?;
    readiness.set("database", true);
    let outbox = Outbox::start(db.clone(), bus, DirectoryClient::new(presence.clone()), config.hold_publish, tasks);
    note_generation(&db).await?;
    let (hellos, waiting_hellos) = Together::new();
    let (memberships, waiting_memberships) = Together::new();
    let app = Arc::new(App {
        db,
        outbox,
        signer,
        passwords: Passwords::new(),
        committer: Committer::default(),
        cursors: Cursors::default(),
        hellos,
        memberships,
        access_ttl_s: config.access_ttl_s,
        files: config.files,
        tasks: tasks.clone(),
    });
    app.committer.start(&app, tasks);
    app.cursors.start(&app, tasks);
    waiting_hellos.serve(&app, tasks, hello::read);
    waiting_memberships.serve(&app, tasks, gateways::memberships);
    last_seen::start(&app, presence, tasks);
    tasks.spawn_until_stop(watch(Arc::clone(&app), readiness));
    Ok(grpc::routes(&app))
}

/// Sets how PostgreSQL stores the busiest tables, where that is not done yet: room in the pages for updates in place, and
/// no compressing of outbox rows that live for a moment. The migrations are the subset that SQLite has as well.
async fn tune(db: &Db) -> anyhow::Result<()> {
    let Db::Postgres(pool) = db else { return Ok(()) };
    let tuned: Option<(bool,)> =
        sqlx::query_as("select reloptions is not null from pg_class where oid = to_regclass('rooms')")
            .fetch_optional(pool)
            .await?;
    if tuned == Some((true,)) {
        return Ok(());
    }
    let statements = "alter table outbox alter column batch set storage external;
         alter table members set (fillfactor = 70);
         alter table rooms set (fillfactor = 50)";
    sqlx::raw_sql(statements).execute(pool).await?;
    Ok(())
}

/// Makes the generation of a new deployment: clients that hold another one start over.
async fn note_generation(db: &Db) -> anyhow::Result<()> {
    let mut tx = db.begin().await?;
    on_tx!(&mut tx, c => sqlx::query(
        "insert into facts (name, value) values ('generation', $1) on conflict (name) do nothing",
    )
    .bind(Uuid::now_v7().to_string())
    .execute(c)
    .await
    .map(|_| ()))?;
    tx.commit().await?;
    Ok(())
}

/// Keeps readiness true to whether the database answers.
async fn watch(app: Arc<App>, readiness: Readiness) {
    let mut ticks = tokio::time::interval(PROBE);
    loop {
        ticks.tick().await;
        readiness.set("database", app.db.is_alive().await);
    }
}
