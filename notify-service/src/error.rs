//! What a call of this service can fail with. Refusals go to the caller as they are; everything else is logged once, here,
//! and shown as `unavailable`: the caller may send it again.

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
}

/// What calls of this service return.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(fault) => fault.into(),
            Error::Database(error) => {
                tracing::error!(error = %error, "a call failed in the database");
                Fault::unavailable("the database is not available at the moment; send it again").into()
            }
        }
    }
}
