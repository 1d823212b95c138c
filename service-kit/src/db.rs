//! One database behind two engines, chosen by URL: PostgreSQL for a cluster, SQLite for one process.
//!
//! Both speak one SQL text wherever possible: ids made by the program, instants as `bigint` milliseconds,
//! `on conflict … returning`, no arrays. [`crate::on_db!`] and [`crate::on_tx!`] stamp one body for either engine.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use sqlx::{
    PgPool, Postgres, Sqlite, SqlitePool, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

/// How long a caller waits for a connection.
const ACQUIRE: Duration = Duration::from_secs(5);
/// How long a statement may run, the ceiling for what no caller's deadline reaches.
const STATEMENT_MS: u32 = 15_000;
/// Connections of one process to PostgreSQL.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Readers of SQLite beside its one writer.
const SQLITE_READERS: u32 = 4;
/// How long SQLite waits for another process that holds the file.
const SQLITE_BUSY: Duration = Duration::from_secs(5);

/// A pool of connections to one of the two engines.
#[derive(Clone, Debug)]
pub enum Db {
    /// PostgreSQL.
    Postgres(PgPool),
    /// SQLite.
    Sqlite(SqliteDb),
}

/// SQLite has one writer at a time: a pool of one connection keeps writers in a fair queue instead of failing busy.
#[derive(Clone, Debug)]
pub struct SqliteDb {
    /// The one connection that writes.
    pub write: SqlitePool,
    /// Connections that only read; with WAL they see committed state and wait for nobody.
    pub read: SqlitePool,
}

/// A transaction on one of the two engines.
pub enum Tx {
    /// PostgreSQL.
    Postgres(Transaction<'static, Postgres>),
    /// SQLite.
    Sqlite(Transaction<'static, Sqlite>),
}

/// Stamps a reading body for either engine: `on_db!(&db, pool => sqlx::query(..).fetch_all(pool).await)`.
#[macro_export]
macro_rules! on_db {
    ($db:expr, $pool:ident => $body:expr) => {
        match $db {
            $crate::db::Db::Postgres($pool) => $body,
            $crate::db::Db::Sqlite(sqlite) => {
                let $pool = &sqlite.read;
                $body
            }
        }
    };
}

/// Stamps a body for the transaction of either engine: `on_tx!(tx, c => sqlx::query(..).execute(c).await)`.
#[macro_export]
macro_rules! on_tx {
    ($tx:expr, $connection:ident => $body:expr) => {
        match &mut *$tx {
            $crate::db::Tx::Postgres(tx) => {
                let $connection = &mut **tx;
                $body
            }
            $crate::db::Tx::Sqlite(tx) => {
                let $connection = &mut **tx;
                $body
            }
        }
    };
}

impl Db {
    /// Connects to `postgres://…` or `sqlite:<file>`, and fails when it cannot be reached.
    ///
    /// # Errors
    /// For another scheme, or when the database does not answer.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("postgres" | "postgresql") => Self::connect_postgres(url).await,
            Some("sqlite") => Self::connect_sqlite(url, true).await,
            _ => anyhow::bail!("PARLANCE_DATABASE_URL: is neither postgres://… nor sqlite:<file>"),
        }
    }

    /// The same, but a file of SQLite that is not there is not made.
    ///
    /// # Errors
    /// As [`Db::connect`].
    pub async fn open(url: &str) -> anyhow::Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("sqlite") => Self::connect_sqlite(url, false).await,
            _ => Self::connect(url).await,
        }
    }

    async fn connect_postgres(url: &str) -> anyhow::Result<Self> {
        // An acknowledged message must survive the loss of power: never weaker than `on`, whatever the server's default.
        let options = PgConnectOptions::from_str(url)
            .context("PARLANCE_DATABASE_URL: is not a PostgreSQL URL")?
            .application_name("parlance")
            .options([
                ("synchronous_commit", "on"),
                ("statement_timeout", &STATEMENT_MS.to_string()),
                ("idle_in_transaction_session_timeout", &STATEMENT_MS.to_string()),
                // Every statement here finds its rows by an index. A plan that was made while a table was small, or not yet
                // analysed, would read all of it for every batch, until the next analysis.
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("plan_cache_mode", "force_generic_plan"),
                // The same for an index: ten look-ups in it must never seem dearer than all of it.
                ("cpu_index_tuple_cost", "100"),
            ]);
        let pool = PgPoolOptions::new()
            .max_connections(POSTGRES_CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .test_before_acquire(false)
            .connect_with(options)
            .await
            .context("cannot reach PostgreSQL")?;
        Ok(Self::Postgres(pool))
    }

    async fn connect_sqlite(url: &str, create: bool) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::from_str(url)
            .context("PARLANCE_DATABASE_URL: is not an SQLite URL")?
            .create_if_missing(create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false)
            // PostgreSQL's name for comparing byte by byte, so that one migration serves both.
            .collation("C", |left, right| left.cmp(right))
            .busy_timeout(SQLITE_BUSY);
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(ACQUIRE)
            .connect_with(options.clone())
            .await
            .context("cannot open the SQLite file")?;
        let read = SqlitePoolOptions::new()
            .max_connections(SQLITE_READERS)
            .acquire_timeout(ACQUIRE)
            .connect_with(options.read_only(true))
            .await
            .context("cannot open the SQLite file")?;
        Ok(Self::Sqlite(SqliteDb { write, read }))
    }

    /// Brings the schema up to date. Replicas that start together wait for one another.
    ///
    /// # Errors
    /// When a migration fails or an applied one was changed since.
    pub async fn migrate(&self, migrator: &Migrator) -> anyhow::Result<()> {
        match self {
            Self::Postgres(pool) => migrator.run(pool).await,
            Self::Sqlite(sqlite) => migrator.run(&sqlite.write).await,
        }
        .context("cannot bring the database schema up to date")
    }

    /// Begins a transaction that writes.
    ///
    /// # Errors
    /// When no connection is to be had in time.
    pub async fn begin(&self) -> sqlx::Result<Tx> {
        match self {
            Self::Postgres(pool) => pool.begin().await.map(Tx::Postgres),
            // A deferred transaction that reads first fails when it then writes after another writer.
            Self::Sqlite(sqlite) => sqlite.write.begin_with("begin immediate").await.map(Tx::Sqlite),
        }
    }

    /// Begins a transaction that reads everything in one snapshot of the primary.
    ///
    /// # Errors
    /// When no connection is to be had in time.
    pub async fn snapshot(&self) -> sqlx::Result<Tx> {
        match self {
            Self::Postgres(pool) => {
                pool.begin_with("begin isolation level repeatable read read only").await.map(Tx::Postgres)
            }
            Self::Sqlite(sqlite) => sqlite.read.begin().await.map(Tx::Sqlite),
        }
    }

    /// Whether the database answers.
    pub async fn is_alive(&self) -> bool {
        let probe = async { on_db!(self, pool => sqlx::query("select 1").execute(pool).await.is_ok()) };
        tokio::time::timeout(ACQUIRE, probe).await.unwrap_or(false)
    }

    /// Ends all connections.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(sqlite) => {
                sqlite.read.close().await;
                sqlite.write.close().await;
            }
        }
    }
}

impl Tx {
    /// Commits; after this returned without an error the change survives a crash.
    ///
    /// # Errors
    /// When the commit failed, or its outcome is not known.
    pub async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Postgres(tx) => tx.commit().await,
            Self::Sqlite(tx) => tx.commit().await,
        }
    }

    /// Whether this is PostgreSQL, for the few statements that differ.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }
}
