//! Files that ClamAV's clamd has to find clean: until then nobody gets them, whoever is away, and what is infected is gone.
//!
//! Told once, on standalone: nothing of it is in the frames of connections. `faults::scans` has the cluster.

use std::time::Instant;

use e2e::{Clamd, Line, MARKER, OwnStandalone, Person, SIGNATURE, Signal, eventually, files_below, multipart, tell};
use parlance_client::{Code, Draft, FileId, RoomId};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    files::turned_jpeg,
    is_refused,
    uploads::{appends, begins, file_of, offset},
};

/// A JPEG with the marker among what its camera has added.
fn infected_jpeg() -> Vec<u8> {
    let jpeg = turned_jpeg();
    let length = u16::try_from(MARKER.len() + 2).expect("short").to_be_bytes();
    [&jpeg[..2], b"\xff\xfe", &length, MARKER, &jpeg[2..]].concat()
}

fn stored(own: &OwnStandalone) -> usize {
    files_below(&own.data().join("files"))
}

/// Nobody gets this file, and nothing can show it.
async fn is_out_of_reach(owner: &Person, other: &Person, room: RoomId, file: FileId) {
    for suffix in ["", "/thumbnail?size=160"] {
        let status = owner.reads(0, file, suffix, &[]).await.status().as_u16();
        assert!([404, 422].contains(&status), "{suffix}: {status}");
        assert_eq!(other.reads(0, file, suffix, &[]).await.status(), 404);
    }
    assert_eq!(owner.reads(0, file, "", &[]).await.status(), 422);
    assert_eq!(other.reads(0, file, "/info", &[]).await.status(), 404);
    let draft = Draft { attachments: vec![file], ..Draft::text("look") };
    is_refused(owner.api.post_message(room, &draft).await, Code::Unprocessable);
    is_refused(owner.api.patch_me(json!({ "avatar": file })).await, Code::Unprocessable);
}

/// Sends a file by tus, in two requests.
async fn uploads_in_pieces(who: &Person, bytes: &[u8]) -> (String, FileId) {
    let path = begins(who, bytes.len()).await;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    assert_eq!(appends(who, 0, &path, 0, &[], first).await.status(), 204);
    assert_eq!(appends(who, 0, &path, first.len(), &[], second).await.status(), 204);
    let file = file_of(&path);
    (path, file)
}

#[test]
fn what_is_clean_becomes_ready_and_what_is_infected_is_gone() {
    let Some(clamd) = Clamd::start() else { return };
    let settings = [
        ("PARLANCE_FILES_CLAMD", &*clamd.address()),
        ("PARLANCE_FILES_STRIP_EXIF", "true"),
        ("PARLANCE_FILES_USER_QUOTA_BYTES", "4000000"),
    ];
    let own = OwnStandalone::start(&settings);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        let room = alice.direct_with(&bob).await;
        let begun = Instant::now();

        // Looked for in the bytes that came, not in those that are kept.
        let text = [b"this is ", MARKER].concat();
        for bytes in [infected_jpeg(), text.clone()] {
            let id = alice.uploads_held("cat.jpg", &bytes).await;
            let file = alice.sees_scanned(0, id).await;
            assert_eq!((&file["state"], &file["size"]), (&"rejected".into(), &0.into()));
            assert_eq!(file["reason"].as_str(), Some(&*format!("a virus was found in it: {SIGNATURE}")));
            is_out_of_reach(&alice, &bob, room, id).await;
        }
        let (path, id) = uploads_in_pieces(&alice, &text).await;
        assert_eq!(alice.sees_scanned(0, id).await["state"], "rejected");
        assert_eq!(appends(&alice, 0, &path, 0, &[], &text).await.status(), 413, "it is over");
        let id = alice.uploads_held("large", &vec![b'x'; 3_000_000]).await;
        let file = alice.sees_scanned(0, id).await;
        assert_eq!(file["state"], "rejected");
        assert!(file["reason"].as_str().is_some_and(|reason| reason.contains("StreamMaxLength")), "{file}");
        eventually("the bytes are gone", async || (stored(&own) == 0).then_some(())).await;
        // Four scans, one after the other: had each waited until it was asked for by the clock, it would be up to 20 s.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());

        // And they take no room: as many again fit in.
        alice.uploads_held("large", &vec![b'x'; 3_000_000]).await;
        let id = alice.uploads_held("cat.jpg", &turned_jpeg()).await;
        let file = alice.sees_scanned(0, id).await;
        assert_eq!((&file["state"], &file["width"], &file["height"]), (&"ready".into(), &200.into(), &400.into()));
        assert_eq!(file["blurhash"].as_str().map(str::len), Some(28));
        let draft = Draft { attachments: vec![id], ..Draft::text("look") };
        let sent = alice.api.post_message(room, &draft).await.expect("it is sent").body;
        let seen = bob.api.message(room, sent.seq).await.expect("a message");
        assert_eq!((seen.attachments[0].width, &*seen.attachments[0].state), (Some(200), "ready"));
        let kept = bob.reads(0, id, "", &[]).await.bytes().await.expect("a body");
        assert!(!kept.windows(8).any(|window| window == b"13.4050E"), "what its camera has added is taken out");
        assert_eq!(bob.reads(0, id, "/thumbnail?size=160", &[]).await.status(), 200);

        let (path, id) = uploads_in_pieces(&alice, &vec![b'y'; 50_000]).await;
        assert_eq!(alice.sees_scanned(0, id).await["state"], "ready");
        assert_eq!(offset(&alice, 0, &path).await, Some(50_000));
        assert_eq!(alice.reads(0, id, "", &[]).await.bytes().await.expect("a body"), vec![b'y'; 50_000]);
    }));
}

#[test]
fn without_clamd_files_wait_and_everything_else_goes_on() {
    let Some(mut clamd) = Clamd::prepare() else { return };
    let mut own = OwnStandalone::start(&[("PARLANCE_FILES_CLAMD", &*clamd.address())]);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        let room = alice.direct_with(&bob).await;
        let post = async || {
            let request = alice.asks(0, reqwest::Method::POST, "/v1/files").header("idempotency-key", "k");
            let request = request.header("content-type", e2e::multipart_type());
            let answer = request.body(multipart(&[("file", "a", b"a cat")])).send().await.expect("an answer");
            assert_eq!(answer.status(), 201);
            answer.json::<Value>().await.expect("JSON")
        };
        let first = post().await;
        assert_eq!(
            (&first["state"], &first["size"], &first["media_type"]),
            (&"pending".into(), &5.into(), &"text/plain".into())
        );
        assert_eq!(post().await, first, "the same key");
        let id: FileId = first["id"].as_str().expect("an id").parse().expect("an id");
        let (path, second) = uploads_in_pieces(&alice, &[b'y'; 5000]).await;
        let infected = bob.uploads_held("b", MARKER).await;
        for file in [id, second] {
            is_out_of_reach(&alice, &bob, room, file).await;
        }
        assert_eq!(offset(&alice, 0, &path).await, Some(5000), "all of it has come");
        alice.api.post_message(room, &Draft::text("no cat yet")).await.expect("a message");

        own.restarts().await;
        is_out_of_reach(&alice, &bob, room, id).await;
        clamd.starts();
        for (file, size) in [(id, 5), (second, 5000)] {
            let ready = alice.sees_scanned(0, file).await;
            assert_eq!((&ready["state"], &ready["size"]), (&"ready".into(), &size.into()));
        }
        assert_eq!(bob.sees_scanned(0, infected).await["state"], "rejected");
        assert_eq!(post().await["state"], "ready", "the same key, now");
        let draft = Draft { attachments: vec![id], ..Draft::text("a cat") };
        alice.api.post_message(room, &draft).await.expect("a message");
        assert_eq!(bob.reads(0, id, "", &[]).await.text().await.expect("a body"), "a cat");
    }));
}

#[test]
fn a_clamd_that_hangs_holds_up_nothing_else() {
    let Some(clamd) = Clamd::start() else { return };
    let own = OwnStandalone::start(&[("PARLANCE_FILES_CLAMD", &*clamd.address())]);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        let room = alice.direct_with(&bob).await;
        let first = alice.uploads_held("a", b"a cat").await;
        assert_eq!(alice.sees_scanned(0, first).await["state"], "ready");

        clamd.signals(Signal::Stop);
        let begun = Instant::now();
        let mut held = Vec::new();
        for _ in 0..10 {
            held.push(alice.uploads_held("a", b"a cat").await);
            alice.api.post_message(room, &Draft::text("no cat yet")).await.expect("a message");
        }
        assert_eq!(bob.reads(0, first, "", &[]).await.status(), 404);
        assert_eq!(alice.reads(0, first, "", &[]).await.status(), 200);
        // Had each waited for clamd, it would have been ten times as long as clamd is given.
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
        is_out_of_reach(&alice, &bob, room, held[0]).await;

        clamd.signals(Signal::Continue);
        for id in held {
            assert_eq!(alice.sees_scanned(0, id).await["state"], "ready");
        }
    }));
}

#[test]
fn a_scan_that_takes_too_long_is_tried_again() {
    let Some(clamd) = Clamd::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("bound").to_string();
    let settings = [("PARLANCE_FILES_CLAMD", &*address), ("PARLANCE_TEST_FILES_SCAN_MS", "300")];
    let own = OwnStandalone::start(&settings);
    tell(Box::pin(async {
        let line = Line::new(TcpListener::from_std(listener).expect("a listener"), &clamd);
        let alice = own.stack().user("alice").await;
        let id = alice.uploads_held("a", b"a cat").await;
        line.carries(2).await;
        let info: Value = alice.reads(0, id, "/info", &[]).await.json().await.expect("JSON");
        assert_eq!(info["state"], "pending");
        line.lets_through();
        assert_eq!(alice.sees_scanned(0, id).await["state"], "ready");
    }));
}

#[test]
fn what_is_never_scanned_goes_after_the_time_of_what_nothing_refers_to() {
    let settings = [
        ("PARLANCE_FILES_CLAMD", "unix:/nonexistent/clamd"),
        ("PARLANCE_FILES_UNATTACHED_S", "1"),
        ("PARLANCE_TEST_FILES_SWEEP_MS", "50"),
        ("PARLANCE_FILES_USER_QUOTA_BYTES", "100000"),
    ];
    let own = OwnStandalone::start(&settings);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let id = alice.uploads_held("a", &[b'a'; 80_000]).await;
        eventually("the bytes are gone", async || (stored(&own) == 0).then_some(())).await;
        assert_eq!(alice.reads(0, id, "/info", &[]).await.status(), 404);
        let draft = Draft { attachments: vec![id], ..Draft::text("look") };
        let room = alice.makes_a_group("mine", &[]).await.id;
        is_refused(alice.api.post_message(room, &draft).await, Code::NotFound);
        alice.uploads_held("b", &[b'b'; 80_000]).await;
    }));
}
