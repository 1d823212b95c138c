//! Passwords: hashed with Argon2id, apart from everything else, so that a flood of logins starves nobody who chats.

use std::{sync::Arc, thread, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher, PasswordVerifier},
};
use service_kit::fault::Fault;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::error::Result;

/// Memory of one hash in KiB, passes over it, and lanes: what OWASP asks for at least.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// Most hashes that are computed at once, however many cores there are.
const AT_ONCE: usize = 4;
/// Callers that wait for their turn; more are sent away.
const WAITING: usize = 64;
/// When those may come again.
const COME_AGAIN: Duration = Duration::from_secs(1);
/// Verified for whoever has no password, so that time and answer are those of a wrong one. Salt and hash are random
/// bytes: no password is known for them.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$PvJi6JIucq1Hvp8G7mcRrg$CBjKxlP75kgZypx4loMcX2C4MXEOuaz05ajzRyC//5k";

/// Hashes and verifies passwords, a few at once, never on the threads of the async runtime.
#[derive(Debug)]
pub(crate) struct Passwords {
    /// Those who compute.
    turns: Arc<Semaphore>,
    /// Those who compute or wait.
    line: Arc<Semaphore>,
}

impl Passwords {
    /// A pool for this machine: one hash per core at once, at most 4.
    pub(crate) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with(cores.min(AT_ONCE), WAITING)
    }

    fn with(at_once: usize, waiting: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), line: Arc::new(Semaphore::new(at_once + waiting)) }
    }

    /// The hash of a password with a salt of its own, as a PHC string.
    ///
    /// # Errors
    /// `unavailable` when too many wait already.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        let hashed = self.compute(move || argon2()?.hash_password(password.as_bytes())).await?;
        Ok(hashed.map_err(anyhow::Error::from)?.to_string())
    }

    /// Whether a password is the one that was hashed. Without a hash it takes as long and is not.
    ///
    /// # Errors
    /// `unavailable` when too many wait already.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let verified = self.compute(move || argon2()?.verify_password(password.as_bytes(), hash.as_str())).await?;
        match verified {
            Ok(()) => Ok(known),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(anyhow::Error::from(error).context("a stored password hash cannot be read").into()),
        }
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let place = self.enter()?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(anyhow::Error::from)?;
        let worked = tokio::task::spawn_blocking(move || {
            let value = work();
            // Held by the computation, not by its caller: one who hangs up does not make room for another.
            drop((turn, place));
            value
        });
        Ok(worked.await.map_err(anyhow::Error::from)?)
    }

    fn enter(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.line).try_acquire_owned().map_err(|error| match error {
            TryAcquireError::NoPermits => {
                metrics::counter!("passwords_refused_total").increment(1);
                Fault::unavailable("too many logins at the moment; try again").retry_after(COME_AGAIN).into()
            }
            TryAcquireError::Closed => anyhow::Error::from(error).into(),
        })
    }
}

fn argon2() -> password_hash::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| password_hash::Error::ParamsInvalid)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use service_kit::fault::Kind;

    use super::*;

    #[tokio::test]
    async fn a_password_is_its_own_hash_and_no_other() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        let again = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert_ne!(hash, again, "each has a salt of its own");
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn nobody_costs_what_somebody_costs() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        let cost = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(cost(&hash), cost(NOBODY));
        assert_eq!(hash.len(), NOBODY.len());
        assert!(!passwords.verify("correct horse".to_owned(), None).await.unwrap());
    }

    #[tokio::test]
    async fn a_flood_waits_in_a_line_with_an_end() {
        let passwords = Passwords::with(1, 1);
        let hash = || passwords.hash("correct horse".to_owned());
        let (first, second, third) = tokio::join!(hash(), hash(), hash());
        assert!(first.is_ok() && second.is_ok());
        let refused = third.unwrap_err().into_fault();
        assert_eq!((refused.kind, refused.retry_after), (Kind::Unavailable, Some(COME_AGAIN)));
        assert!(hash().await.is_ok(), "there is room again");
    }
}
