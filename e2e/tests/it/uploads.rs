//! Uploads by tus: broken off and gone on with on another gateway, checked, given up, and by the protocol's own client.

use std::{path::PathBuf, process::Stdio, sync::OnceLock};

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use e2e::{OwnStandalone, Person, Stack, eventually, files_below, tell};
use parlance_client::FileId;
use reqwest::{Method, Response};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream, process::Command};

stories! {
    an_upload_goes_on_where_it_was_broken_off,
    the_client_of_the_protocol_sends_a_file_over_both_gateways,
}

fn some_bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| u8::try_from(place * 31 % 251).expect("small")).collect()
}

async fn asks(
    who: &Person,
    gateway: usize,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let mut request = who.asks(gateway, method, path).header("tus-resumable", "1.0.0").body(body.to_vec());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("an answer")
}

/// Begins an upload and has its path.
pub(crate) async fn begins(who: &Person, length: usize) -> String {
    let headers = [("upload-length", &*length.to_string()), ("upload-metadata", "filetype eA==,filename Y2F0LmJpbg==")];
    let answer = asks(who, 0, Method::POST, "/v1/uploads", &headers, b"").await;
    assert_eq!(answer.status(), 201);
    assert!(answer.headers().contains_key("upload-expires"));
    answer.headers()["location"].to_str().expect("a path").to_owned()
}

pub(crate) async fn appends(
    who: &Person,
    gateway: usize,
    path: &str,
    offset: usize,
    more: &[(&str, &str)],
    body: &[u8],
) -> Response {
    let offset = offset.to_string();
    let own = [("upload-offset", &*offset), ("content-type", "application/offset+octet-stream")];
    asks(who, gateway, Method::PATCH, path, &[&own, more].concat(), body).await
}

pub(crate) async fn offset(who: &Person, gateway: usize, path: &str) -> Option<usize> {
    let answer = asks(who, gateway, Method::HEAD, path, &[], b"").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["cache-control"]),
        (200, &"no-store".parse().expect("text"))
    );
    answer.headers()["upload-offset"].to_str().expect("text").parse().ok()
}

pub(crate) fn file_of(path: &str) -> FileId {
    path.rsplit('/').next().expect("an id").parse().expect("an id")
}

/// Sends the head of a PATCH and some bytes of its body, then hangs up.
pub(crate) async fn breaks_off(who: &Person, base: &str, path: &str, offset: usize, length: usize, body: &[u8]) {
    let address = base.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: application/offset+octet-stream\r\nUpload-Offset: {offset}\r\nContent-Length: {length}\r\n\r\n",
        who.token()
    );
    socket.write_all(head.as_bytes()).await.expect("written");
    socket.write_all(body).await.expect("written");
}

async fn an_upload_goes_on_where_it_was_broken_off(stack: &Stack) {
    let (alice, eve) = (stack.user("alice").await, stack.user("eve").await);
    let bytes = some_bytes(300_000);
    let path = begins(&alice, bytes.len()).await;
    let id = file_of(&path);
    breaks_off(&alice, stack.gateway(0), &path, 0, bytes.len(), &bytes[..100_000]).await;
    let at = eventually("what has come counts", async || offset(&alice, 1, &path).await.filter(|at| *at > 0)).await;
    assert!(at <= 100_000);
    assert_eq!(alice.reads(0, id, "", &[]).await.status(), 422, "it is not whole");

    let wrong = appends(&alice, 1, &path, at + 1, &[], &bytes[at + 1..]).await;
    assert_eq!(wrong.status(), 409);
    assert_eq!(asks(&eve, 1, Method::HEAD, &path, &[], b"").await.status(), 404);
    assert_eq!(appends(&eve, 1, &path, at, &[], &bytes[at..]).await.status(), 404);

    let half = at + 50_000;
    let more = appends(&alice, 1, &path, at, &[], &bytes[at..half]).await;
    assert_eq!(
        (more.status().as_u16(), more.headers()["upload-offset"].to_str().expect("text")),
        (204, &*half.to_string())
    );
    let last = appends(&alice, 0, &path, half, &[], &bytes[half..]).await;
    assert_eq!((last.status().as_u16(), &last.headers()["upload-offset"]), (204, &"300000".parse().expect("text")));
    assert_eq!(offset(&alice, 1, &path).await, Some(300_000));
    let info: Value = alice.reads(1, id, "/info", &[]).await.json().await.expect("JSON");
    assert_eq!((&info["state"], &info["name"], &info["size"]), (&"ready".into(), &"cat.bin".into(), &300_000.into()));
    assert_eq!(alice.reads(1, id, "", &[]).await.bytes().await.expect("a body"), bytes);
}

#[test]
fn what_a_checksum_denies_does_not_count() {
    let own = OwnStandalone::start(&[]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let bytes = some_bytes(50_000);
        let path = begins(&alice, bytes.len()).await;
        let sum = |bytes: &[u8]| format!("sha256 {}", STANDARD.encode(digest(&SHA256, bytes)));
        let wrong = appends(&alice, 0, &path, 0, &[("upload-checksum", &sum(b"other"))], &bytes[..20_000]).await;
        assert_eq!((wrong.status().as_u16(), offset(&alice, 0, &path).await), (460, Some(0)));
        assert_eq!(files_below(&own.data().join("files")), 0);
        let unknown = appends(&alice, 0, &path, 0, &[("upload-checksum", "crc32 AAAA")], &bytes).await;
        assert_eq!(unknown.status(), 400);
        let right = appends(&alice, 0, &path, 0, &[("upload-checksum", &sum(&bytes))], &bytes).await;
        assert_eq!((right.status().as_u16(), offset(&alice, 0, &path).await), (204, Some(50_000)));
        assert_eq!(files_below(&own.data().join("files")), 1, "the pieces are gone");
    }));
}

#[test]
fn an_upload_that_is_given_up_or_forgotten_leaves_nothing() {
    let settings = [
        ("PARLANCE_TEST_FILES_SWEEP_MS", "50"),
        ("PARLANCE_FILES_UNATTACHED_S", "2"),
        ("PARLANCE_FILES_USER_QUOTA_BYTES", "100000"),
        ("PARLANCE_FILES_MAX_BYTES", "90000"),
    ];
    let own = OwnStandalone::start(&settings);
    let left = || files_below(&own.data().join("files"));
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let path = begins(&alice, 80_000).await;
        appends(&alice, 0, &path, 0, &[], &[1; 1000]).await;
        assert_eq!(asks(&alice, 0, Method::DELETE, &path, &[], b"").await.status(), 204);
        assert_eq!(asks(&alice, 0, Method::HEAD, &path, &[], b"").await.status(), 404);
        eventually("the bytes are gone", async || (left() == 0).then_some(())).await;
        let path = eventually("its room is free again", async || {
            let headers = [("upload-length", "80000")];
            let answer = asks(&alice, 0, Method::POST, "/v1/uploads", &headers, b"").await;
            (answer.status() == 201).then(|| answer.headers()["location"].to_str().expect("a path").to_owned())
        })
        .await;
        appends(&alice, 0, &path, 0, &[], &[1; 1000]).await;
        eventually("its time is over", async || (left() == 0).then_some(())).await;
        assert_eq!(asks(&alice, 0, Method::HEAD, &path, &[], b"").await.status(), 404);
    }));
}

#[test]
fn a_form_that_is_wrong_is_named() {
    let own = OwnStandalone::start(&[("PARLANCE_FILES_MAX_BYTES", "1000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let post =
            async |headers: &[(&str, &str)]| asks(&alice, 0, Method::POST, "/v1/uploads", headers, b"").await.status();
        assert_eq!(post(&[]).await, 400);
        assert_eq!(post(&[("upload-length", "0")]).await, 400);
        assert_eq!(post(&[("upload-length", "-1")]).await, 400);
        assert_eq!(post(&[("upload-length", "1001")]).await, 413);
        assert_eq!(post(&[("upload-length", "5"), ("upload-metadata", "filename !")]).await, 400);
        let plain =
            alice.asks(0, Method::POST, "/v1/uploads").header("upload-length", "5").send().await.expect("an answer");
        assert_eq!(plain.status(), 412, "it does not speak the protocol");
        let able = reqwest::Client::new().request(Method::OPTIONS, format!("{}/v1/uploads", own.stack().gateway(0)));
        let able = able.send().await.expect("an answer");
        assert_eq!((able.status().as_u16(), able.headers()["tus-max-size"].to_str().expect("text")), (204, "1000"));
        assert_eq!(able.headers()["tus-resumable"], "1.0.0");

        let path = begins(&alice, 10).await;
        let json = [("upload-offset", "0"), ("content-type", "application/json")];
        assert_eq!(asks(&alice, 0, Method::PATCH, &path, &json, b"12345").await.status(), 415);
        assert_eq!(appends(&alice, 0, &path, 0, &[], &[1; 11]).await.status(), 413, "more than was said");
        assert_eq!(appends(&alice, 0, &path, 0, &[], b"<svg></svg>").await.status(), 413);
    }));
}

/// The folder that has tus-js-client, installed once.
fn tus_client() -> Option<PathBuf> {
    static INSTALLED: OnceLock<Option<PathBuf>> = OnceLock::new();
    let install = || {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tus-js-client-4.3.1");
        std::fs::create_dir_all(&folder).ok()?;
        if !folder.join("node_modules/tus-js-client").exists() {
            let mut npm = std::process::Command::new("npm");
            npm.args(["install", "--silent", "--no-audit", "--no-fund", "tus-js-client@4.3.1"]);
            npm.current_dir(&folder).stdout(Stdio::null()).status().ok().filter(std::process::ExitStatus::success)?;
        }
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/tus_client.mjs"), folder.join("client.mjs"))
            .ok()?;
        Some(folder)
    };
    INSTALLED.get_or_init(install).clone()
}

async fn the_client_of_the_protocol_sends_a_file_over_both_gateways(stack: &Stack) {
    let Some(folder) = tus_client() else {
        assert!(std::env::var_os("PARLANCE_TEST_REQUIRED").is_none(), "node and npm are needed");
        eprintln!("skipped: there is no node or no npm");
        return;
    };
    let alice = stack.user("alice").await;
    let bytes = some_bytes(20_000_000);
    let source = folder.join(format!("{}.bin", alice.id()));
    std::fs::write(&source, &bytes).expect("written");
    let mut node = Command::new("node");
    node.arg("client.mjs").args([stack.gateway(0), stack.gateway(1), alice.token()]).arg(&source).current_dir(&folder);
    let output = node.output().await.expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(source).expect("removed");
    let id = file_of(said.trim());
    assert!(alice.reads(1, id, "", &[]).await.bytes().await.expect("a body") == bytes, "what came is what was sent");
}
