//! Files: their bytes stream between clients and the object store. What is known of them, and who may read them, is
//! chat-service's; here are the store, what a content turns out to be, the scan for viruses, and the sweep that removes what
//! nobody needs.

mod clamd;
mod kind;
mod partial;
mod picture;
mod place;
mod resumable;
mod scan;
mod store;
mod sweep;
mod upload;
mod watch;
mod writer;

use std::{sync::Arc, time::Duration};

use service_kit::{
    admin::Readiness,
    env::{self, Get, Invalid},
    tasks::Tasks,
};
use tokio::sync::Semaphore;

use self::scan::Antivirus;
pub use self::{clamd::Clamd, place::Place};
pub(crate) use self::{
    kind::is_inline,
    picture::SIDES,
    resumable::{Checksum, Piece},
    store::{Part, Store},
    upload::{Origin, STALL, clean_name, stalled, upload},
};
use crate::{error::Problem, frame::Code, services::Services};

/// How often what is to be removed is asked for, when nothing else is said.
const SWEEP: u64 = 30_000;

const SIGNED_URLS: &str = "PARLANCE_FILES_SIGNED_URLS";

/// What the gateway is told about files.
#[derive(Clone, Debug)]
pub struct Config {
    /// A folder or an object store. Without one there are no files.
    pub place: Option<Place>,
    /// Whether whoever reads a file is sent to the object store by a signed URL.
    pub signed_urls: bool,
    /// Bytes of the largest file.
    pub max_bytes: u64,
    /// Pixels of the largest picture.
    pub max_pixels: u64,
    /// Whether what cameras add to pictures is taken out of them.
    pub strip_exif: bool,
    /// Media types that are taken: `image/png`, `image/*`, `*/*`.
    pub types: Vec<String>,
    /// How often what is to be removed is asked for.
    pub sweep: Duration,
    /// What has to find each file clean. Without one none is scanned.
    pub clamd: Option<Clamd>,
    /// How long one scan may take in milliseconds, when something else than usual is said.
    pub scan_ms: Option<u64>,
}

impl Config {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a setting cannot be read.
    pub fn from_get(get: &impl Get) -> Result<Self, Invalid> {
        let sweep_ms: Option<u64> = env::optional(get, "PARLANCE_TEST_FILES_SWEEP_MS")?;
        let place = Place::from_get(get)?;
        let signed_urls = env::switch(get, SIGNED_URLS)?;
        if signed_urls && !place.as_ref().is_some_and(Place::signs) {
            let problem = "a folder cannot sign; set PARLANCE_FILES_URL to s3://, gs:// or az://, or leave this off";
            return Err(Invalid::new(SIGNED_URLS, problem));
        }
        Ok(Self {
            place,
            signed_urls,
            max_bytes: env::value(get, "PARLANCE_FILES_MAX_BYTES")?,
            max_pixels: env::value(get, "PARLANCE_FILES_MAX_PIXELS")?,
            strip_exif: env::switch(get, "PARLANCE_FILES_STRIP_EXIF")?,
            types: env::list(get, "PARLANCE_FILES_TYPES")?,
            sweep: Duration::from_millis(sweep_ms.unwrap_or(SWEEP)),
            clamd: env::optional(get, "PARLANCE_FILES_CLAMD")?,
            scan_ms: env::optional(get, "PARLANCE_TEST_FILES_SCAN_MS")?,
        })
    }
}

/// Files of a gateway. Cheap to clone.
#[derive(Clone, Default)]
pub struct Files(Option<Arc<Keeper>>);

/// A gateway that has a store.
pub(crate) struct Keeper {
    pub(crate) store: Store,
    /// Whether whoever reads a file is sent to the store.
    pub(crate) signed_urls: bool,
    pub(crate) max_bytes: u64,
    max_pixels: u64,
    strip_exif: bool,
    /// Pictures that are decoded: one at a time, as each takes a lot of memory.
    decoding: Semaphore,
    /// What has to find files clean before they are ready.
    antivirus: Option<Arc<Antivirus>>,
    types: Vec<String>,
    /// Uploads go on here when the client is gone, to clean up after themselves.
    pub(crate) tasks: Tasks,
}

impl Files {
    /// Opens the store, and begins to sweep it and to have it scanned. `readiness` notes whether it is there: chat goes on
    /// without it.
    ///
    /// # Errors
    /// When a folder cannot be used.
    pub fn start(config: Config, services: &Services, readiness: &Readiness, tasks: &Tasks) -> anyhow::Result<Self> {
        let Some(place) = &config.place else {
            readiness.note(watch::NOTE, false);
            return Ok(Self::default());
        };
        let store = Store::open(place)?;
        tasks.spawn_until_stop(watch::run(store.clone(), readiness.clone()));
        tasks.spawn_until_stop(sweep::run(store.clone(), services.files.clone(), config.sweep));
        let Config { signed_urls, max_bytes, max_pixels, strip_exif, types, clamd, scan_ms, .. } = config;
        let decoding = Semaphore::new(1);
        let antivirus = clamd.map(|clamd| Arc::new(Antivirus::new(clamd, scan_ms)));
        let tasks = tasks.clone();
        let keeper =
            Keeper { store, signed_urls, max_bytes, max_pixels, strip_exif, decoding, antivirus, types, tasks };
        let keeper = Arc::new(keeper);
        if keeper.antivirus.is_some() {
            let scanning = scan::run(Arc::clone(&keeper), services.clone(), readiness.clone());
            keeper.tasks.spawn_until_stop(scanning);
        }
        Ok(Self(Some(keeper)))
    }

    /// What keeps the files.
    ///
    /// # Errors
    /// `unprocessable` when this gateway was given no store.
    pub(crate) fn keeper(&self) -> Result<Arc<Keeper>, Problem> {
        let none = || Problem::new(Code::Unprocessable, "this server keeps no files: PARLANCE_FILES_URL is not set");
        self.0.clone().ok_or_else(none)
    }
}

impl Keeper {
    /// Refuses what the operator does not want to have.
    fn check_type(&self, media_type: &str) -> Result<(), Problem> {
        let family = media_type.split('/').next().unwrap_or_default();
        let wanted = |allowed: &String| {
            allowed == "*/*" || allowed == media_type || allowed.strip_suffix("/*").is_some_and(|other| other == family)
        };
        if self.types.iter().any(wanted) {
            return Ok(());
        }
        Err(Problem::new(Code::UnsupportedMedia, format!("file: {media_type} is not taken here")))
    }
}
