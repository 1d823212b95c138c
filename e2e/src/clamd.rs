//! ClamAV's own clamd with a signature of our making, and a line to it on which its verdicts can be held up.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::breaking::Signal;
use crate::patience::eventually;

/// What is infected here.
pub const MARKER: &[u8] = b"what the stories of Parlance call a virus";
/// What clamd calls it.
pub const SIGNATURE: &str = "Parlance.Story.Marker.UNOFFICIAL";
/// Bytes of the largest stream that clamd takes here.
const MOST: &str = "1M";

/// A clamd on a socket in a folder of its own, both gone when this is dropped.
#[derive(Debug)]
pub struct Clamd {
    program: PathBuf,
    folder: PathBuf,
    running: Option<Child>,
}

impl Clamd {
    /// One that does not run yet. None, with a notice, where it is not installed.
    pub fn prepare() -> Option<Self> {
        let Some(program) = installed() else {
            let required = std::env::var("PARLANCE_TEST_REQUIRED").is_ok_and(|value| value == "1");
            assert!(!required, "PARLANCE_TEST_REQUIRED=1, but there is no clamd (Debian: clamav-daemon)");
            eprintln!("skipped: there is no clamd");
            return None;
        };
        let folder = std::env::temp_dir().join(format!("parlance-clamd-{}", Uuid::new_v4().simple()));
        let database = folder.join("database");
        std::fs::create_dir_all(&database).expect("a fresh folder");
        let marker: String = MARKER.iter().map(|byte| format!("{byte:02x}")).collect();
        // In any file, at any place.
        std::fs::write(database.join("story.ndb"), format!("Parlance.Story.Marker:0:*:{marker}\n")).expect("written");
        let clamd = Self { program, folder, running: None };
        let settings = [
            ("Foreground", "yes"),
            ("DatabaseDirectory", &*database.display().to_string()),
            ("LocalSocket", &*clamd.socket().display().to_string()),
            ("TemporaryDirectory", &*clamd.folder.display().to_string()),
            ("StreamMaxLength", MOST),
            ("AlertExceedsMax", "yes"),
        ];
        let config: String = settings.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        std::fs::write(clamd.config(), config).expect("written");
        Some(clamd)
    }

    /// The same, running.
    pub fn start() -> Option<Self> {
        let mut clamd = Self::prepare()?;
        clamd.starts();
        Some(clamd)
    }

    /// Starts it; it answers soon.
    pub fn starts(&mut self) {
        let log = std::fs::File::create(self.folder.join("log")).expect("a log");
        let mut command = Command::new(&self.program);
        command.arg("--config-file").arg(self.config()).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a handle")).stderr(log);
        self.running = Some(command.spawn().expect("clamd starts"));
    }

    /// Signals it.
    pub fn signals(&self, signal: Signal) {
        let pid = self.running.as_ref().expect("it runs").id().to_string();
        let told = Command::new("kill").args([signal.flag(), &pid]).status().expect("kill runs");
        assert!(told.success(), "clamd was gone already: {}", self.log());
    }

    /// As the setting `PARLANCE_FILES_CLAMD` has it.
    pub fn address(&self) -> String {
        format!("unix:{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("clamd.conf")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Debian puts it where only administrators look.
fn installed() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(OsStr::new("clamd"))).find(|program| program.is_file())
}

/// A TCP line to a clamd, which asks it everything and may keep back what it says of files.
#[derive(Debug)]
pub struct Line {
    scans: Arc<AtomicUsize>,
    open: watch::Sender<bool>,
    _carrying: JoinSet<()>,
}

impl Line {
    /// From this listener to a clamd. It keeps verdicts back from the beginning.
    pub fn new(listener: TcpListener, clamd: &Clamd) -> Self {
        let (scans, socket) = (Arc::<AtomicUsize>::default(), clamd.socket());
        let (open, is_open) = watch::channel(false);
        let mut carrying = JoinSet::new();
        let counted = Arc::clone(&scans);
        carrying.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                lines.spawn(carry(client, socket.clone(), Arc::clone(&counted), is_open.clone()));
            }
        });
        Self { scans, open, _carrying: carrying }
    }

    /// Scans that were asked for so far.
    pub fn scans(&self) -> usize {
        self.scans.load(Ordering::Relaxed)
    }

    /// Waits until so many scans were asked for.
    pub async fn carries(&self, scans: usize) {
        eventually("scans", async || (self.scans() >= scans).then_some(())).await;
    }

    /// From now on verdicts come through.
    pub fn lets_through(&self) {
        self.open.send_replace(true);
    }

    /// From now on they do not.
    pub fn keeps_back(&self) {
        self.open.send_replace(false);
    }
}

/// One connection. What fails on it ends it, as it would without a line between.
async fn carry(
    client: TcpStream,
    socket: impl AsRef<Path>,
    scans: Arc<AtomicUsize>,
    mut is_open: watch::Receiver<bool>,
) -> Option<()> {
    let (from_client, mut to_client) = client.into_split();
    let mut from_client = BufReader::new(from_client);
    let mut command = Vec::new();
    from_client.read_until(0, &mut command).await.ok()?;
    let (mut from_clamd, mut to_clamd) = UnixStream::connect(socket).await.ok()?.into_split();
    to_clamd.write_all(&command).await.ok()?;
    let asking = async {
        let _ = copy(&mut from_client, &mut to_clamd).await;
    };
    let answering = async {
        if command.starts_with(b"zINSTREAM") {
            scans.fetch_add(1, Ordering::Relaxed);
            let _ = is_open.wait_for(|open| *open).await;
        }
        let _ = copy(&mut from_clamd, &mut to_client).await;
        // Clamd has said all: a client that waits for more is to know.
        let _ = to_client.shutdown().await;
    };
    tokio::join!(asking, answering);
    Some(())
}
