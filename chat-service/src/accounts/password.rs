//! Passwords: hashed with Argon2id, apart from everything else, so that a flood of logins starves nobody who chats.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
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
    memory: Memory,
}

/// What hashes are computed in: as many pieces as were ever in use at once, so never more than there are turns. They are
/// kept. Given back, 19 MiB at a time would stay in the allocator's arena of whichever thread had them, and a flood of
/// logins sees many threads.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<Vec<Block>>>>);

impl Memory {
    // Held to take and to put back, never while something is computed.
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<Block>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes something in a piece that nobody uses.
    fn lend<T>(&self, work: impl FnOnce(&mut Vec<Block>) -> T) -> T {
        let mut memory = self.lock().pop().unwrap_or_default();
        let value = work(&mut memory);
        self.lock().push(memory);
        value
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what passwords have left there.
        f.debug_tuple("Memory").finish_non_exhaustive()
    }
}

impl Passwords {
    /// A pool for this machine: one hash per core at once, at most 4.
    pub(crate) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self::with(cores.min(AT_ONCE), WAITING)
    }

    fn with(at_once: usize, waiting: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(at_once)),
            line: Arc::new(Semaphore::new(at_once + waiting)),
            memory: Memory::default(),
        }
    }

    /// The hash of a password with a salt of its own, as a PHC string.
    ///
    /// # Errors
    /// `unavailable` when too many wait already.
    pub(crate) async fn hash(&self, password: String) -> Result<String> {
        let hashed = self.compute(move |memory| hash(password.as_bytes(), memory)).await?;
        Ok(hashed.map_err(anyhow::Error::from)?)
    }

    /// Whether a password is the one that was hashed. Without a hash it takes as long and is not.
    ///
    /// # Errors
    /// `unavailable` when too many wait already.
    pub(crate) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let verified = self.compute(move |memory| verify(password.as_bytes(), &hash, memory)).await?;
        let matches =
            verified.map_err(|error| anyhow::Error::from(error).context("a stored password hash cannot be read"))?;
        Ok(matches && known)
    }

    async fn compute<T: Send + 'static>(&self, work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static) -> Result<T> {
        let place = self.enter()?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(anyhow::Error::from)?;
        let memory = self.memory.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let value = memory.lend(work);
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

/// The hash of a password with a new salt, as a PHC string.
fn hash(password: &[u8], memory: &mut Vec<Block>) -> password_hash::Result<String> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    let (algorithm, version, salt) = (Algorithm::Argon2id, Version::V0x13, Salt::generate());
    let hash = PasswordHash {
        algorithm: algorithm.ident(),
        version: Some(version.into()),
        params: ParamsString::try_from(&params)?,
        salt: Some(salt),
        hash: Some(output(&Argon2::new(algorithm, version, params), password, &salt, memory)?),
    };
    Ok(hash.to_string())
}

/// Whether a password is the one of this PHC string, computed as that says.
fn verify(password: &[u8], hash: &str, memory: &mut Vec<Block>) -> password_hash::Result<bool> {
    let hash = PasswordHash::new(hash)?;
    let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else {
        return Err(password_hash::Error::EncodingInvalid);
    };
    let algorithm = Algorithm::try_from(hash.algorithm.as_str())?;
    let version = hash.version.map(Version::try_from).transpose()?.unwrap_or_default();
    let argon2 = Argon2::new(algorithm, version, Params::try_from(&hash)?);
    // Outputs are compared in constant time.
    Ok(output(&argon2, password, &salt, memory)? == expected)
}

/// Computes a hash in this memory, which grows to what that takes and may hold anything.
fn output(argon2: &Argon2<'_>, password: &[u8], salt: &Salt, memory: &mut Vec<Block>) -> password_hash::Result<Output> {
    let blocks = argon2.params().block_count();
    if memory.len() < blocks {
        memory.resize(blocks, Block::new());
    }
    let mut bytes = [0; Output::MAX_LENGTH];
    let length = argon2.params().output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN);
    let bytes = bytes.get_mut(..length).ok_or(password_hash::Error::OutputSize)?;
    argon2.hash_password_into_with_memory(password, salt, bytes, memory)?;
    Ok(Output::new(bytes)?)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};
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
    async fn a_stored_hash_is_verified_with_its_own_parameters() {
        let small = Argon2::new(Algorithm::Argon2i, Version::V0x10, Params::new(64, 3, 2, Some(24)).unwrap());
        let hash = small.hash_password(b"correct horse").unwrap().to_string();
        let passwords = Passwords::new();
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(passwords.verify("correct horse".to_owned(), Some("nonsense".to_owned())).await.is_err());
    }

    #[tokio::test]
    async fn a_hash_is_what_the_library_makes_and_reads() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(Argon2::default().verify_password(b"correct horse", hash.as_str()).is_ok());
        let params = Params::new(MEMORY_KIB, PASSES, LANES, None).unwrap();
        let theirs = Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password(b"correct horse").unwrap();
        assert!(passwords.verify("correct horse".to_owned(), Some(theirs.to_string())).await.unwrap());
    }

    #[tokio::test]
    async fn however_many_hashes_are_computed_in_the_same_memory() {
        let passwords = Passwords::with(2, 64);
        let pieces = || {
            let memory = passwords.memory.lock();
            let mut pieces: Vec<_> = memory.iter().map(|piece| (piece.as_ptr(), piece.len())).collect();
            pieces.sort_unstable();
            pieces
        };
        let hashes = || futures_util::future::join_all((0..8).map(|_| passwords.hash("correct horse".to_owned())));
        assert!(hashes().await.iter().all(Result::is_ok));
        let before = pieces();
        assert!((1..=2).contains(&before.len()), "{before:?}");
        assert!(before.iter().all(|(_, blocks)| *blocks == MEMORY_KIB as usize), "{before:?}");
        for hash in hashes().await {
            assert!(passwords.verify("correct horse".to_owned(), Some(hash.unwrap())).await.unwrap());
        }
        let after = pieces();
        assert!(after.len() <= 2 && before.iter().all(|piece| after.contains(piece)), "{before:?} {after:?}");
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
