//! chat-service: accounts, rooms, messages, receipts. Authorises every operation and is the only writer of its database.

pub mod accounts;
pub mod actor;
pub mod error;
pub mod grpc;
pub mod outbox;

use std::{path::PathBuf, sync::Arc};

use parlance_proto::presence::directory_client::DirectoryClient;
use service_kit::{
    admin::Readiness,
    auth::Signer,
    bus::Bus,
    db::Db,
    env::{self, Get, Invalid},
    rpc::Client,
    tasks::Tasks,
};
use tonic::service::Routes;

use crate::{accounts::password::Passwords, outbox::Outbox};

/// What this service is told at its start.
#[derive(Debug)]
pub struct Config {
    /// `postgres://…` or `sqlite:<file>`.
    pub database_url: String,
    /// Ed25519 private key that signs access tokens, in PKCS#8 PEM.
    pub signing_key: String,
    /// Life of an access token in seconds.
    pub access_ttl_s: i64,
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
    pub(crate) access_ttl_s: i64,
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
    let signer = Signer::from_pem(&config.signing_key)?;
    let db = Db::connect(&config.database_url).await?;
    db.migrate(&sqlx::migrate!("../migrations")).await?;
    readiness.set("database", true);
    let outbox = Outbox::start(db.clone(), bus, DirectoryClient::new(presence), config.hold_publish, tasks);
    let app = Arc::new(App { db, outbox, signer, passwords: Passwords::new(), access_ttl_s: config.access_ttl_s, tasks: tasks.clone() });
    Ok(grpc::routes(&app))
}
