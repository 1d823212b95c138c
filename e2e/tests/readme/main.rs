//! What README.md tells a reader to type works as it stands: its `sh` blocks are run, in order, against the server that one
//! of them starts.
//!
//! Builds in release, which takes minutes, so it runs only with `PARLANCE_TEST_REQUIRED=1` or `PARLANCE_TEST_README=1`.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests read their own switches from the environment")]

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// The block that serves until it is stopped.
const SERVER: &str = "cargo run --release";
/// Blocks with this run tests and clusters: that is what runs us, so they are left out.
const AUTOMATION: &str = "cargo xtask";
/// The two ports of a server without configuration.
const ADDRESSES: [&str; 2] = ["127.0.0.1:8080", "127.0.0.1:9090"];
/// Where a server without configuration keeps its data, under the root.
const DATA: &str = "parlance-data";

/// What begins so is not in a reader's shell: our own settings, and what cargo tells the tests that it runs (some build
/// scripts look at it, and would run again).
const NOT_THE_READERS: [&str; 4] = ["PARLANCE_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_EXE_"];

/// A release build from nothing on two cores, and the start.
const BUILDING: Duration = Duration::from_secs(18 * 60);
/// All blocks that talk to the server.
const TALKING: Duration = Duration::from_secs(60);
/// From SIGINT to the end of the server.
const STOPPING: Duration = Duration::from_secs(30);
/// How often something is looked at.
const TICK: Duration = Duration::from_millis(50);

#[test]
fn what_the_readme_says_works_as_it_stands() {
    if !["PARLANCE_TEST_REQUIRED", "PARLANCE_TEST_README"].iter().any(|name| env::var(name).is_ok_and(|v| v == "1")) {
        eprintln!("skipped: neither PARLANCE_TEST_REQUIRED nor PARLANCE_TEST_README is 1");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace");
    let text = fs::read_to_string(root.join("README.md")).expect("README.md");
    let (server, session) = plan(&blocks(&text));
    for address in ADDRESSES {
        if let Err(error) = TcpListener::bind(address) {
            panic!("the README's server needs {address}, and its commands have to run as they stand: {error}");
        }
    }

    let folder = Folder::make();
    let data = Data::put_aside(root);
    let mut serving = Running::start("the server", &script(&[server]), root, &folder.0);
    serving.wait_until_it_listens();
    let mut talking = Running::start("the session", &script(&session), &folder.0, &folder.0);
    let talked = talking.ended_within(TALKING);
    assert!(talked.success(), "a block failed ({talked}):\n{}\n{}", talking.said(), serving.said());
    serving.interrupt();
    let stopped = serving.ended_within(STOPPING);
    assert!(stopped.success(), "the server did not stop in order ({stopped}):\n{}", serving.said());
    drop(data);
}

/// A fenced block, and the line of README.md on which it begins.
#[derive(Clone, Debug, PartialEq)]
struct Block {
    line: usize,
    text: String,
}

/// The blocks that are fenced as `sh`.
fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.starts_with("```") {
            let body: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            if line == "```sh" {
                blocks.push(Block { line: number + 2, text: body.join("\n") });
            }
        }
    }
    blocks
}

/// The one block that serves, and those after it that talk to the server.
fn plan(blocks: &[Block]) -> (Block, Vec<Block>) {
    let is_server = |block: &Block| block.text.trim() == SERVER;
    let (servers, others): (Vec<Block>, Vec<Block>) = blocks.iter().cloned().partition(is_server);
    let [server] = servers.as_slice() else {
        panic!("README.md has {} blocks `{SERVER}` instead of one", servers.len())
    };
    let session: Vec<Block> = others.into_iter().filter(|block| !block.text.contains(AUTOMATION)).collect();
    assert!(!session.is_empty(), "README.md has no block that talks to the server");
    assert!(session.iter().all(|block| block.line > server.line), "a block stands before the one that serves");
    (server.clone(), session)
}

/// One script for one bash; it says where it is, so that a failure names its block.
fn script(blocks: &[Block]) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for Block { line, text } in blocks {
        script.push_str(&format!("echo '--- README.md:{line}'\n{text}\n"));
    }
    script
}

/// A folder of our own, gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Self {
        let path = env::temp_dir().join(format!("parlance-readme-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a fresh folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The server's data is removed at the end; a developer's own is put aside and comes back.
struct Data {
    path: PathBuf,
    aside: Option<PathBuf>,
}

impl Data {
    fn put_aside(root: &Path) -> Self {
        let path = root.join(DATA);
        let aside = path.exists().then(|| {
            let aside = root.join("target").join(format!("{DATA}.{}", std::process::id()));
            if let Err(error) = fs::rename(&path, &aside) {
                panic!("{} is there and cannot be put aside, please move it away: {error}", path.display());
            }
            aside
        });
        Self { path, aside }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
        if let Some(aside) = &self.aside
            && let Err(error) = fs::rename(aside, &self.path)
        {
            eprintln!("your {DATA} is in {} now: {error}", aside.display());
        }
    }
}

/// A bash with a script, in a process group of its own; whatever is left of it is killed when this is dropped.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(name: &'static str, script: &str, dir: &Path, folder: &Path) -> Self {
        let (file, log) = (folder.join(format!("{name}.sh")), folder.join(format!("{name}.log")));
        fs::write(&file, script).expect("a script");
        let out = fs::File::create(&log).expect("a log");
        let mut bash = Command::new("bash");
        bash.arg(&file).current_dir(dir).process_group(0).stdin(Stdio::null());
        bash.stdout(out.try_clone().expect("the log once more")).stderr(out);
        for (name, _) in env::vars_os() {
            if NOT_THE_READERS.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                bash.env_remove(name);
            }
        }
        Self { name, child: bash.spawn().expect("bash starts"), log }
    }

    fn wait_until_it_listens(&mut self) {
        let until = Instant::now() + BUILDING;
        while TcpStream::connect(ADDRESSES[0]).is_err() {
            if let Some(status) = self.child.try_wait().expect("our child") {
                panic!("{} ended instead of listening ({status}):\n{}", self.name, self.said());
            }
            assert!(Instant::now() < until, "{} does not listen after {BUILDING:?}:\n{}", self.name, self.said());
            std::thread::sleep(TICK);
        }
    }

    fn ended_within(&mut self, patience: Duration) -> ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            assert!(Instant::now() < until, "{} has not ended after {patience:?}:\n{}", self.name, self.said());
            std::thread::sleep(TICK);
        }
    }

    /// As Ctrl-C does: SIGINT to everything in the foreground.
    fn interrupt(&self) {
        assert!(self.signal("-INT").is_ok_and(|status| status.success()), "{} cannot be interrupted", self.name);
    }

    fn signal(&self, signal: &str) -> std::io::Result<ExitStatus> {
        Command::new("kill").args([signal, "--", &format!("-{}", self.child.id())]).stderr(Stdio::null()).status()
    }

    fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        format!("=== {} said\n{}", self.name, String::from_utf8_lossy(&log))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // While it is not waited for, its pid is nobody else's.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.signal("-KILL");
            let _ = self.child.wait();
        }
    }
}

#[test]
fn blocks_are_found_by_their_fence() {
    let text = "# A\n\n```sh\ncargo run --release\n```\n\n```json\n{}\n```\n\n```sh\necho 1\necho 2\n```\n\n```sh\ncargo xtask test\n```\n";
    let found = blocks(text);
    assert_eq!(found.iter().map(|block| block.line).collect::<Vec<_>>(), [4, 12, 17]);
    let (server, session) = plan(&found);
    assert_eq!(server.text, SERVER);
    assert_eq!(session, [Block { line: 12, text: "echo 1\necho 2".to_owned() }]);
}

#[test]
fn a_failing_block_fails_the_session_and_is_named() {
    let folder = Folder(env::temp_dir().join(format!("parlance-readme-fails-{}", std::process::id())));
    fs::create_dir_all(&folder.0).expect("a fresh folder");
    let failing = Block { line: 7, text: "false | true\necho not reached".to_owned() };
    let mut running = Running::start("a session", &script(&[failing]), &folder.0, &folder.0);
    let status = running.ended_within(STOPPING);
    assert!(!status.success() && status.signal().is_none(), "{status}");
    assert!(running.said().contains("README.md:7") && !running.said().contains("not reached"), "{}", running.said());
}
