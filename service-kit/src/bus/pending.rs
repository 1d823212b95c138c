//! What became of a publish: known already, or to be waited for until its deadline.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{DEADLINE, Unpublished};

/// Where the outcome of one publish comes from.
pub(super) enum Pending {
    /// Known when it was handed over.
    Known(Result<(), Unpublished>),
    /// Told later; every one of them must be good. Made with the instant of the call.
    Told(Vec<oneshot::Receiver<Result<(), Unpublished>>>, Instant),
}

impl Pending {
    /// To be told by these, now being the instant of the call.
    pub(super) fn told(receivers: Vec<oneshot::Receiver<Result<(), Unpublished>>>) -> Self {
        Self::Told(receivers, Instant::now())
    }

    /// Waits for the outcome, at most until [`DEADLINE`] after the call.
    pub(super) async fn outcome(self) -> Result<(), Unpublished> {
        let (receivers, since) = match self {
            Self::Known(outcome) => return outcome,
            Self::Told(receivers, since) => (receivers, since),
        };
        let deadline = tokio::time::Instant::from_std(since + DEADLINE);
        for receiver in receivers {
            match tokio::time::timeout_at(deadline, receiver).await {
                Ok(Ok(outcome)) => outcome?,
                // Who should have told is gone.
                Ok(Err(_)) => return Err(Unpublished::Disconnected),
                Err(_) => return Err(Unpublished::TimedOut),
            }
        }
        Ok(())
    }
}
