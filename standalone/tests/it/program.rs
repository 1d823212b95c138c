//! The program and the library, started for real.

use std::{
    collections::HashMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use standalone::{Config, Running};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A data folder that is not there yet, and goes when this is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("parlance-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Self(std::env::temp_dir().join(name))
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.0.join(name)).unwrap().permissions().mode() & 0o777
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs the program to its end.
fn parlance(args: &[&str], vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let Output { status, stderr, .. } =
        Command::new(env!("CARGO_BIN_EXE_parlance")).args(args).envs(vars.iter().copied()).output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

fn config(data: &Path, listen: &str) -> Config {
    let given = [("PARLANCE_DATA", data.to_str().unwrap()), ("PARLANCE_LISTEN", listen)];
    let given = given.into_iter().chain([("PARLANCE_ADMIN_LISTEN", "127.0.0.1:0")]);
    let given: HashMap<String, String> = given.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    Config::from_get(&given).unwrap()
}

async fn starts(data: &Path) -> Running {
    standalone::start(config(data, "127.0.0.1:0")).await.unwrap()
}

async fn fails_to_start(data: &Path, listen: &str) -> String {
    let Err(error) = standalone::start(config(data, listen)).await else { panic!("it started") };
    format!("{error:#}")
}

/// The status line of a GET.
async fn get(url: &str, path: &str) -> String {
    let host = url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Runs the program to its end; its exit code and what it printed.
fn prints(args: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, .. } = Command::new(env!("CARGO_BIN_EXE_parlance")).args(args).output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_is_answered_beside_the_running_program() {
    let folder = Folder::new();
    let data = folder.0.to_str().unwrap();
    let list = ["admin", "dead-letters", "list", "--json", "--data", data];
    assert_eq!(prints(&list).0, Some(1), "there is nothing");
    assert!(!folder.0.exists(), "and nothing is made");
    let running = starts(&folder.0).await;
    let empty = "{\"batches\":0,\"pushes\":[],\"pushes_in_all\":0}\n";
    assert_eq!(prints(&list), (Some(0), empty.to_owned()));
    let replay = ["admin", "dead-letters", "replay", "--all", "--data", data];
    assert_eq!(prints(&replay), (Some(0), "pushes that are tried again: 0\n".to_owned()));
    assert_eq!(prints(&["admin", "dead-letters", "replay"]).0, Some(64));
    assert_eq!(prints(&["admin", "dead-letters", "list", "--unknown", "x"]).0, Some(64));
    running.stop().await;
}

#[test]
fn checking_good_settings_ends_with_0_and_touches_nothing() {
    let folder = Folder::new();
    let (code, said) = parlance(&["--check-config"], &[("PARLANCE_DATA", folder.0.to_str().unwrap())]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!folder.0.exists());
}

#[test]
fn checking_wrong_settings_ends_with_64_and_names_them() {
    let cases = [
        ("PARLANCE_LISTEN", "nowhere"),
        ("PARLANCE_DATABASE_URL", "mysql://x"),
        ("PARLANCE_AMQP_URL", "redis://x"),
        ("PARLANCE_ACCESS_TOKEN_TTL_S", "soon"),
        ("PARLANCE_SIGNING_KEY", "not a key"),
        ("PARLANCE_SIGNING_KEY_FILE", "no-such-file"),
        ("PARLANCE_CONFIG", "no-such-file"),
        ("PARLANCE_LISTN", "127.0.0.1:1"),
    ];
    for (name, value) in cases {
        let (code, said) = parlance(&["--check-config"], &[(name, value)]);
        assert_eq!(code, Some(64), "{name}: {said}");
        assert!(said.contains(name), "{said}");
    }
    let (code, said) = parlance(&["--listn", "x"], &[]);
    assert!(code == Some(64) && said.contains("--listn"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_serves_from_a_fresh_folder_stops_and_starts_again_with_the_same_key() {
    let folder = Folder::new();
    let running = starts(&folder.0).await;
    assert_eq!(get(&running.admin_url, "/readyz").await, "HTTP/1.1 200 OK");
    assert!(get(&running.url, "/").await.starts_with("HTTP/1.1 "));
    assert_eq!((folder.mode(""), folder.mode("signing-key.pem"), folder.mode("lock")), (0o700, 0o600, 0o600));
    assert!(folder.0.join("parlance.db").exists());
    let key = fs::read_to_string(folder.0.join("signing-key.pem")).unwrap();
    let url = running.url.clone();
    running.stop().await;
    assert!(TcpStream::connect(url.strip_prefix("http://").unwrap()).await.is_err(), "the port is free again");
    starts(&folder.0).await.stop().await;
    assert_eq!(fs::read_to_string(folder.0.join("signing-key.pem")).unwrap(), key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_folder_says_so_and_ends() {
    let folder = Folder::new();
    let running = starts(&folder.0).await;
    let vars = [("PARLANCE_DATA", folder.0.to_str().unwrap()), ("PARLANCE_LISTEN", "127.0.0.1:0")];
    let (code, said) = parlance(&["--admin-listen", "127.0.0.1:0"], &vars);
    assert_eq!(code, Some(1));
    assert!(said.contains("PARLANCE_DATA") && said.contains("in use by another parlance"), "{said}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_said_with_the_name_of_the_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let said = fails_to_start(&folder.0, &taken.local_addr().unwrap().to_string()).await;
    assert!(said.contains("PARLANCE_LISTEN"), "{said}");
    starts(&folder.0).await.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_leaves_nothing_running() {
    let folder = Folder::new();
    fs::create_dir_all(&folder.0).unwrap();
    fs::write(folder.0.join("parlance.db"), "not a database, and long enough to be looked at").unwrap();
    let said = fails_to_start(&folder.0, "127.0.0.1:0").await;
    assert!(said.contains("SQLite") || said.contains("database"), "{said}");
    fs::remove_file(folder.0.join("parlance.db")).unwrap();
    starts(&folder.0).await.stop().await;
}
