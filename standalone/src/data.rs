//! The data folder: made when missing, owned by one process, holding the keys that were not given.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use notify_service::Vapid;
use service_kit::auth::Signer;

/// The folder is for its owner alone: it holds messages and a key.
const FOLDER_MODE: u32 = 0o700;
/// As is each file that is made here.
const FILE_MODE: u32 = 0o600;
/// Locked by the process that uses the folder. It stays; only the lock counts.
const LOCK_FILE: &str = "lock";
/// The private key that signs access tokens.
const KEY_FILE: &str = "signing-key.pem";
/// The private key of Web Push.
const VAPID_FILE: &str = "vapid-key.pem";

/// The data folder, owned until this is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Data {
    path: PathBuf,
    _lock: File,
}

impl Data {
    /// Makes the folder when it is missing, and takes it.
    ///
    /// # Errors
    /// When it cannot be made, or another process has it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(FOLDER_MODE)
            .create(path)
            .with_context(|| format!("PARLANCE_DATA: cannot make the folder {shown}"))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path.join(LOCK_FILE))
            .with_context(|| format!("PARLANCE_DATA: cannot write to {shown}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                anyhow::bail!("PARLANCE_DATA: {shown} is in use by another parlance; stop it or choose another folder")
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("PARLANCE_DATA: cannot lock the folder {shown}"))
            }
        }
    }

    /// The signing key of this folder as PEM, made when it is missing.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub(crate) fn signing_key(&self) -> anyhow::Result<String> {
        self.key(KEY_FILE, Signer::generate_pem)
    }

    /// The key of Web Push of this folder as PEM, made when it is missing. Subscriptions hold for one key only.
    ///
    /// # Errors
    /// When it can be neither read nor written.
    pub(crate) fn vapid_key(&self) -> anyhow::Result<String> {
        self.key(VAPID_FILE, Vapid::generate_pem)
    }

    fn key(&self, file: &str, make: fn() -> anyhow::Result<String>) -> anyhow::Result<String> {
        let path = self.path.join(file);
        match fs::read_to_string(&path) {
            Ok(pem) => Ok(pem),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let pem = make()?;
                write_whole(&path, &pem).with_context(|| format!("cannot write {}", path.display()))?;
                tracing::info!(path = %path.display(), "a key was made");
                Ok(pem)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Writes a file that is there as a whole or not at all, and survives the loss of power.
fn write_whole(path: &Path, content: &str) -> std::io::Result<()> {
    let half = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&half)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}
