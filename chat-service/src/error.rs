//! What a call of this service can fail with. Refusals go to the caller as they are; everything else is logged once, here,
//! and shown as `internal` or `unavailable`.

use service_kit::fault::Fault;
use tonic::Status;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The caller is refused, and told why.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The database did not do it.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// Anything else that is our fault.
    #[error(transparent)]
    Internal(#[from] anyhow::Error),
}

/// What calls of this service return.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// What the caller is told. Logs what the caller is not told.
    #[must_use]
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Refused(fault) => fault,
            Self::Database(error) if is_passing(&error) => {
                tracing::warn!(error = %error, "the database is not available for a call");
                Fault::unavailable("the database is not available at the moment; send it again")
            }
            Self::Database(error) => {
                tracing::error!(error = %error, "a call failed in the database");
                Fault::internal()
            }
            Self::Internal(error) => {
                tracing::error!(error = format!("{error:#}"), "a call failed");
                Fault::internal()
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        error.into_fault().into()
    }
}

/// Whether the same call may succeed a moment later: connection, resources, locks, deadlock, cancelled statement.
#[must_use]
pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::BeginFailed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // PostgreSQL classes: connection, transaction rollback, resources, object state, operator intervention,
            // system error. SQLite: busy, locked.
            ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.len() == 5 && code.starts_with(class))
                || matches!(code.as_ref(), "5" | "6" | "261" | "517" | "262")
        }),
        _ => false,
    }
}

/// Whether PostgreSQL ended a transaction that another one waited for in a circle: doing it again is what it asks for.
pub(crate) fn is_deadlock(error: &Error) -> bool {
    matches!(error, Error::Database(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40P01"))
}
