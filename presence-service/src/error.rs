//! What the store can fail with, and what a caller hears of it.

use service_kit::fault::Fault;

/// Why the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis did not answer within the deadline. What was asked may still happen.
    #[error("Redis did not answer in time")]
    TooLate,
    /// Redis could not be reached, or refused.
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// Redis answered something that no script of ours answers.
    #[error("Redis answered something unexpected to {0}")]
    Unexpected(&'static str),
    /// A sweeper has cleared this gateway.
    #[error("this gateway has been cleared; it has to start anew under another boot id")]
    Cleared,
    /// This gateway is leaving.
    #[error("this gateway has left")]
    Left,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::Cleared | Error::Left => Self::unprocessable(error.to_string()),
            Error::TooLate | Error::Redis(_) | Error::Unexpected(_) => {
                tracing::warn!(error = %error, "the presence store cannot be used at the moment");
                Self::unavailable("the presence store is not reachable at the moment; send it again")
            }
        }
    }
}
