//! Files in an object store: all that holds in a folder holds there too, chat does without it, and whoever may read a file can
//! be sent to the store itself. Each story has a server of its own and is told once: what clients are answered does not depend
//! on the stack or on the format of frames.

mod servers;

use std::time::Duration;

use e2e::{OwnStandalone, Person, eventually, multipart, tell};
use parlance_client::{Draft, FileId};
use reqwest::{Method, Response, redirect::Policy};
use serde_json::Value;

use self::servers::Server;
use super::{
    files::{code, says, some_bytes, turned_jpeg},
    uploads::{appends, begins, breaks_off, file_of, offset},
};

/// A standalone that has its files there.
fn own(server: &Server, more: &[(&'static str, &str)]) -> OwnStandalone {
    let settings = server.settings(more);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    OwnStandalone::start(&settings)
}

async fn nothing_is_left(server: &Server) {
    eventually("an empty bucket", async || (server.objects().await == 0).then_some(())).await;
}

async fn bytes(answer: Response) -> Vec<u8> {
    answer.bytes().await.expect("a body").to_vec()
}

/// Sends a file to somebody in a message of its own, and deletes that.
async fn comes_and_goes(alice: &Person, bob: &Person, file: FileId) {
    let room = alice.direct_with(bob).await;
    let draft = Draft { attachments: vec![file], ..Draft::text("look") };
    let sent = alice.on(0).await.sends_draft(room, &draft).await;
    assert_eq!(bob.reads(0, file, "", &[]).await.status(), 200);
    alice.api.delete(room, sent.seq).await.expect("deleted");
    assert_eq!(bob.reads(0, file, "", &[]).await.status(), 404);
}

#[test]
fn a_bucket_holds_files_as_a_folder_does() {
    tell(Box::pin(async {
        let Some(server) = Server::rclone() else { return };
        holds_files_as_a_folder_does(&server).await;
    }));
}

#[test]
fn a_container_holds_files_as_a_folder_does() {
    tell(Box::pin(async {
        let Some(server) = Server::azurite().await else { return };
        holds_files_as_a_folder_does(&server).await;
        let own = own(&server, &[("PARLANCE_FILES_SIGNED_URLS", "true")]);
        let alice = own.stack().user("alice").await;
        let id = alice.uploads("page.html", b"<script>alert(1)</script>").await;
        let there = alice.reads(0, id, "", &[]).await;
        assert!(there.url().as_str().starts_with(&server.settings(&[])[1].1), "{}", there.url());
        assert_eq!(there.headers()["content-type"], "application/octet-stream", "nothing that runs");
        let deleted = reqwest::Client::new().delete(there.url().clone()).send().await.expect("an answer");
        assert_eq!(deleted.status(), 403);
        assert_eq!(bytes(there).await, b"<script>alert(1)</script>");
    }));
}

async fn holds_files_as_a_folder_does(server: &Server) {
    let own = own(server, &[]);
    let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
    eventually("the store is noted", async || own.notes("files").await.filter(|there| *there)).await;

    // One request, one request with bytes from the disk, and four parts.
    for (objects, length) in [(1, 5), (2, 700_001), (3, 20_000_000)] {
        let sent = some_bytes(length);
        let id = alice.uploads("cat.bin", &sent).await;
        assert_eq!(server.objects().await, objects);
        let whole = alice.reads(0, id, "", &[]).await;
        assert_eq!(whole.status(), 200);
        let etag = whole.headers()["etag"].to_str().expect("text").to_owned();
        assert!(bytes(whole).await == sent, "{length}: what came is what was sent");
        let head = alice.asks(0, Method::HEAD, &format!("/v1/files/{id}")).send().await.expect("an answer");
        assert_eq!(head.headers()["content-length"].to_str().expect("text"), length.to_string());
        assert_eq!(head.headers()["etag"].to_str().expect("text"), etag);
        let tail = alice.reads(0, id, "", &[("range", "bytes=-4")]).await;
        assert_eq!((tail.status().as_u16(), bytes(tail).await), (206, sent[length - 4..].to_vec()));
        let held = alice.reads(0, id, "", &[("if-none-match", &etag)]).await;
        assert_eq!(held.status(), 304);
        assert_eq!(bob.reads(0, id, "", &[]).await.status(), 404);
    }

    let picture = alice.uploads("cat.jpg", &turned_jpeg()).await;
    let small = alice.reads(0, picture, "/thumbnail?size=160", &[]).await;
    let small = image::load_from_memory(&bytes(small).await).expect("a picture");
    assert_eq!((small.width(), small.height()), (80, 160));
    assert_eq!(server.objects().await, 7, "with three smaller ones");
    comes_and_goes(&alice, &bob, picture).await;
    eventually("it is swept", async || (server.objects().await == 3).then_some(())).await;
}

#[test]
fn an_upload_in_pieces_goes_on_in_a_bucket() {
    let Some(server) = Server::rclone() else { return };
    let own = own(&server, &[]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let whole = some_bytes(20_000_000);
        let path = begins(&alice, whole.len()).await;
        breaks_off(&alice, own.stack().gateway(0), &path, 0, whole.len(), &whole[..9_000_000]).await;
        let at = eventually("what has come counts", async || offset(&alice, 0, &path).await.filter(|at| *at > 0)).await;
        // A request that has been broken off may still be on its way to the store.
        let at = eventually("all that has come counts", async || {
            let last = appends(&alice, 0, &path, at, &[], &[]).await.status();
            let now = offset(&alice, 0, &path).await?;
            (last == 409 || now > 8_000_000).then_some(now)
        })
        .await;
        assert_eq!(appends(&alice, 0, &path, at, &[], &whole[at..]).await.status(), 204);
        let id = file_of(&path);
        assert!(bytes(alice.reads(0, id, "", &[]).await).await == whole, "what came is what was sent");
        eventually("the pieces are gone", async || (server.objects().await == 1).then_some(())).await;

        let path = begins(&alice, 9_000_000).await;
        assert_eq!(appends(&alice, 0, &path, 0, &[], &whole[..8_000_000]).await.status(), 204);
        assert_eq!(server.objects().await, 3, "two pieces more");
        let given_up = alice.asks(0, Method::DELETE, &path).header("tus-resumable", "1.0.0").send().await;
        assert_eq!(given_up.expect("an answer").status(), 204);
        eventually("they go", async || (server.objects().await == 1).then_some(())).await;
    }));
}

#[test]
fn an_upload_that_stops_half_way_leaves_nothing_in_a_bucket() {
    let Some(server) = Server::rclone() else { return };
    let own = own(&server, &[("PARLANCE_FILES_MAX_BYTES", "30000000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let whole = multipart(&[("file", "a", &some_bytes(25_000_000))]);
        let length = format!("Content-Length: {}", whole.len());
        for part in [1_000_000, 20_000_000] {
            says(&own, &alice, &length, &whole[..part], true).await;
            nothing_is_left(&server).await;
            let answer = says(&own, &alice, &length, &whole[..part], false).await;
            assert!(!answer.starts_with("HTTP/1.1 201"), "{answer}");
            nothing_is_left(&server).await;
        }
        let too_large = multipart(&[("file", "a", &some_bytes(30_000_001))]);
        assert_eq!(code(&alice.posts_files(0, too_large).await), (413, "too_large"));
        nothing_is_left(&server).await;
    }));
}

#[test]
fn chat_goes_on_without_the_store() {
    let Some(mut server) = Server::rclone() else { return };
    server.stops();
    let own = own(&server, &[]);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        assert!(!eventually("a note", async || own.notes("files").await).await);
        let upload = async |length| alice.posts_files(0, multipart(&[("file", "a", &some_bytes(length))])).await;
        assert_eq!(code(&upload(5).await), (503, "unavailable"), "it was not there at the start");

        server.starts();
        let id = alice.uploads("a", &some_bytes(700_000)).await;
        let path = begins(&alice, 100).await;
        server.stops();
        for length in [5, 20_000_000] {
            assert_eq!(code(&upload(length).await), (503, "unavailable"));
        }
        let read: (u16, Value) = {
            let answer = alice.reads(0, id, "", &[]).await;
            (answer.status().as_u16(), answer.json().await.expect("JSON"))
        };
        assert_eq!(code(&read), (503, "unavailable"));
        assert_eq!(appends(&alice, 0, &path, 0, &[], &[1; 100]).await.status(), 503);
        let room = alice.direct_with(&bob).await;
        alice.on(0).await.sends_draft(room, &Draft::text("still here")).await;

        server.starts();
        assert!(bytes(alice.reads(0, id, "", &[]).await).await == some_bytes(700_000));
        assert_eq!(appends(&alice, 0, &path, 0, &[], &[1; 100]).await.status(), 204);
        alice.uploads("a", &some_bytes(20_000_000)).await;
        eventually("what failed is swept", async || (server.objects().await == 3).then_some(())).await;
        eventually("it is noted", async || own.notes("files").await.filter(|there| *there)).await;
    }));
}

#[test]
fn a_store_that_hangs_is_not_waited_for_any_longer_than_said() {
    let Some(server) = Server::rclone() else { return };
    let own = own(&server, &[]);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        let id = alice.uploads("a", &some_bytes(700_000)).await;
        let path = begins(&alice, 100).await;
        server.hangs();
        let upload = async |length| alice.posts_files(0, multipart(&[("file", "a", &some_bytes(length))])).await;
        let talks = async {
            let room = alice.direct_with(&bob).await;
            alice.on(0).await.sends_draft(room, &Draft::text("still here")).await;
        };
        let all = async {
            tokio::join!(
                upload(5),
                upload(12_000_000),
                alice.reads(0, id, "", &[]),
                appends(&alice, 0, &path, 0, &[], &[1; 100]),
                talks
            )
        };
        // 20 s in which it says nothing, 5 for taking back half an object, 5 for removing it, and some for a busy machine.
        let done = tokio::time::timeout(Duration::from_secs(45), all).await.expect("everybody is answered");
        let (small, large, read, piece, ()) = done;
        assert_eq!((code(&small), code(&large)), ((503, "unavailable"), (503, "unavailable")));
        assert_eq!((read.status().as_u16(), piece.status().as_u16()), (504, 503), "calls without a body have 10 s");
        assert!(!eventually("a note", async || own.notes("files").await.filter(|there| !there)).await);

        server.goes_on();
        assert!(bytes(alice.reads(0, id, "", &[]).await).await == some_bytes(700_000));
        assert_eq!(appends(&alice, 0, &path, 0, &[], &[1; 100]).await.status(), 204);
        alice.uploads("a", &some_bytes(12_000_000)).await;
    }));
}

#[test]
fn whoever_may_read_a_file_is_sent_to_the_store() {
    let Some(server) = Server::rclone() else { return };
    let own = own(&server, &[("PARLANCE_FILES_SIGNED_URLS", "true")]);
    tell(Box::pin(async {
        let (alice, eve) = (own.stack().user("alice").await, own.stack().user("eve").await);
        let sent = some_bytes(700_000);
        let id = alice.uploads("Grüße.html", &sent).await;
        let stays = reqwest::Client::builder().redirect(Policy::none()).build().expect("a client");
        let url = format!("{}/v1/files/{id}", own.stack().gateway(0));
        let asks = async |who: &Person| stays.get(&url).bearer_auth(who.token()).send().await.expect("an answer");

        assert_eq!(asks(&eve).await.status(), 404, "the right to read comes first");
        let answer = asks(&alice).await;
        assert_eq!((answer.status().as_u16(), answer.headers()["cache-control"].as_bytes()), (307, &b"no-store"[..]));
        let signed = answer.headers()["location"].to_str().expect("a URL").to_owned();
        let names = |name: &str| {
            let url: reqwest::Url = signed.parse().expect("a URL");
            url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned()).unwrap_or_default()
        };
        assert_eq!(names("response-content-type"), "application/octet-stream");
        assert!(names("response-content-disposition").starts_with("attachment; filename=\"Gr__e.html\""), "{signed}");
        assert_eq!(names("X-Amz-Expires"), "60");

        // Without any token, in whole and in part, and not for anything else.
        assert!(bytes(reqwest::get(&signed).await.expect("an answer")).await == sent);
        let part = stays.get(&signed).header("range", "bytes=2-5").send().await.expect("an answer");
        assert_eq!(bytes(part).await, sent[2..6], "of rclone with the status of a whole");
        for wrong in [signed.replace("X-Amz-Expires=60", "X-Amz-Expires=6000"), signed.replace("octet-stream", "html")]
        {
            assert_ne!(wrong, signed);
            assert_eq!(reqwest::get(&wrong).await.expect("an answer").status(), 403);
        }
        assert_eq!(stays.delete(&signed).send().await.expect("an answer").status(), 403);
        assert!(bytes(alice.reads(0, id, "", &[]).await).await == sent, "a client follows by itself");

        // The rest is answered as ever.
        let head = stays.head(&url).bearer_auth(alice.token()).send().await.expect("an answer");
        assert_eq!((head.status().as_u16(), head.headers()["content-length"].as_bytes()), (200, &b"700000"[..]));
        let picture = alice.uploads("cat.jpg", &turned_jpeg()).await;
        let small = stays.get(format!("{}/v1/files/{picture}/thumbnail", own.stack().gateway(0)));
        assert_eq!(small.bearer_auth(alice.token()).send().await.expect("an answer").status(), 200);
    }));
}
