//! Files: sent, read in whole and in part, never shown as something that runs, and gone without a trace when they fail.

use std::pin::pin;

use e2e::{OwnStandalone, Person, eventually, files_below, multipart, multipart_type, tell};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parlance_client::{Code, FileId};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use super::{
    is_refused,
    uploads::{appends, begins, file_of, offset},
};

/// A standalone that sweeps all the time.
fn swept(settings: &[(&str, &str)]) -> OwnStandalone {
    OwnStandalone::start(&[&[("PARLANCE_TEST_FILES_SWEEP_MS", "50")], settings].concat())
}

pub(crate) fn some_bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| u8::try_from(place * 31 % 251).expect("small")).collect()
}

async fn nothing_is_left(own: &OwnStandalone) {
    let folder = own.data().join("files");
    eventually("an empty store", async || (files_below(&folder) == 0).then_some(())).await;
}

pub(crate) fn code(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["code"].as_str().unwrap_or_default())
}

#[test]
fn a_file_comes_back_as_it_was_to_its_owner_only() {
    let own = OwnStandalone::start(&[]);
    tell(Box::pin(async {
        let (alice, eve) = (own.stack().user("alice").await, own.stack().user("eve").await);
        let bytes = some_bytes(700_001);
        let id = alice.uploads("../../etc/Grüße.bin", &bytes).await;

        let info: Value = alice.reads(0, id, "/info", &[]).await.json().await.expect("JSON");
        assert_eq!(info["name"], "Grüße.bin");
        assert_eq!(info["media_type"], "application/octet-stream", "the content decides, not the header");
        assert_eq!(info["size"], 700_001);

        let whole = alice.reads(0, id, "", &[]).await;
        let headers = whole.headers().clone();
        assert_eq!(whole.bytes().await.expect("a body"), bytes);
        assert_eq!(headers["content-length"], "700001");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-security-policy"], "sandbox; default-src 'none'");
        assert_eq!(headers["cache-control"], "private, no-cache");
        assert_eq!(
            headers["content-disposition"],
            "attachment; filename=\"Gr__e.bin\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.bin"
        );
        let etag = headers["etag"].to_str().expect("text");
        let held = alice.reads(0, id, "", &[("if-none-match", etag)]).await;
        assert_eq!((held.status().as_u16(), held.bytes().await.expect("a body").len()), (304, 0));

        let head = alice.asks(0, Method::HEAD, &format!("/v1/files/{id}")).send().await.expect("an answer");
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &headers["content-length"]));

        let all = alice.reads(0, id, "", &[("range", "bytes=0-")]).await;
        assert_eq!((all.status().as_u16(), &all.headers()["content-length"]), (206, &headers["content-length"]));
        let tail = alice.reads(0, id, "", &[("range", "bytes=-5"), ("if-range", etag)]).await;
        assert_eq!(tail.bytes().await.expect("a body"), &bytes[699_996..]);
        let another = alice.reads(0, id, "", &[("range", "bytes=-5"), ("if-range", "\"another\"")]).await;
        assert_eq!((another.status().as_u16(), another.bytes().await.expect("a body").len()), (200, 700_001));
        let part = alice.reads(0, id, "", &[("range", "bytes=699990-")]).await;
        assert_eq!(
            (part.status().as_u16(), &part.headers()["content-range"].to_str().expect("text")),
            (206, &"bytes 699990-700000/700001")
        );
        assert_eq!(part.bytes().await.expect("a body"), &bytes[699_990..]);
        assert_eq!(alice.reads(0, id, "", &[("range", "bytes=700001-")]).await.status(), 416);

        for suffix in ["", "/info"] {
            assert_eq!(eve.reads(0, id, suffix, &[]).await.status(), 404);
        }
        let url = format!("{}/v1/files/{id}", own.stack().gateway(0));
        assert_eq!(reqwest::get(url).await.expect("an answer").status(), 401);
    }));
}

#[test]
fn what_could_run_is_only_offered_for_saving() {
    let own = OwnStandalone::start(&[]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        for (name, bytes) in [
            ("cat.png", "<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
            ("cat.jpg", "<!doctype html><script>alert(1)</script>"),
        ] {
            let id = alice.uploads(name, bytes.as_bytes()).await;
            let answer = alice.reads(0, id, "", &[]).await;
            assert_eq!(answer.headers()["content-type"], "application/octet-stream", "{name}");
            assert!(answer.headers()["content-disposition"].to_str().expect("text").starts_with("attachment;"));
        }
        let id = alice.uploads("notes.html", b"just words").await;
        let answer = alice.reads(0, id, "", &[]).await;
        assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
        assert!(answer.headers()["content-disposition"].to_str().expect("text").starts_with("inline;"));
    }));
}

#[test]
fn a_form_that_is_wrong_is_named_and_leaves_nothing() {
    let own = swept(&[("PARLANCE_FILES_MAX_BYTES", "1000"), ("PARLANCE_FILES_TYPES", "text/*, image/png")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let post = async |parts: &[(&str, &str, &[u8])]| alice.posts_files(0, multipart(parts)).await;
        assert_eq!(code(&post(&[("file", "a", b"")]).await), (400, "bad_request"));
        assert_eq!(code(&post(&[("data", "a", b"x")]).await), (400, "bad_request"));
        assert_eq!(code(&post(&[("file", "a", b"x"), ("file", "b", b"y")]).await), (400, "bad_request"));
        assert_eq!(code(&post(&[]).await), (400, "bad_request"));
        assert_eq!(code(&post(&[("file", "a", &some_bytes(100_000))]).await), (413, "too_large"));
        assert_eq!(code(&post(&[("file", "a", &[b'a'; 1001])]).await), (413, "too_large"), "one byte too many");
        assert_eq!(code(&post(&[("file", "a", b"%PDF-1.7")]).await), (415, "unsupported_media"));
        let plain = alice.asks(0, Method::POST, "/v1/files").body("x").send().await.expect("an answer");
        assert_eq!(plain.status(), 415);
        alice.uploads("a", &[b'a'; 1000]).await;
    }));
}

#[test]
fn what_surrounds_a_file_is_not_kept_in_memory() {
    let own = swept(&[]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let padding = vec![b'x'; 8_000_000];
        let before = [&padding[..], &multipart(&[("file", "a", b"x")])].concat();
        assert_eq!(code(&alice.posts_files(0, before).await), (400, "bad_request"));
        let name = format!("a\"\r\nX-Padding: {}", "x".repeat(8_000_000));
        assert_eq!(code(&alice.posts_files(0, multipart(&[("file", &name, b"x")])).await), (400, "bad_request"));
        nothing_is_left(&own).await;
    }));
}

#[test]
fn a_client_that_is_still_writing_reads_why_it_is_refused() {
    let own = swept(&[("PARLANCE_FILES_MAX_BYTES", "1000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let body = multipart(&[("file", "a", &some_bytes(20_000_000))]);
        assert_eq!(code(&alice.posts_files(0, body.clone()).await), (413, "too_large"));
        // The same without a length in front.
        let chunk = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
        let answer = says(&own, &alice, "Transfer-Encoding: chunked", &chunk, false).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        nothing_is_left(&own).await;
    }));
}

/// Writes `head` and `body` to the gateway as they are; what comes back until it closes or `patience` ends.
pub(crate) async fn says(own: &OwnStandalone, alice: &Person, length: &str, body: &[u8], hang_up: bool) -> String {
    let address = own.stack().gateway(0).trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.expect("a connection");
    let head = format!(
        "POST /v1/files HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nContent-Type: {}\r\n{length}\r\n\
         Connection: close\r\n\r\n",
        alice.token(),
        multipart_type()
    );
    socket.write_all(head.as_bytes()).await.expect("written");
    socket.write_all(body).await.expect("written");
    if hang_up {
        return String::new();
    }
    let mut answer = String::new();
    socket.shutdown().await.expect("half closed");
    // A server may hang up on what is cut off instead of answering.
    let _ = socket.read_to_string(&mut answer).await;
    answer
}

#[test]
fn an_upload_that_stops_half_way_leaves_nothing() {
    let own = swept(&[("PARLANCE_FILES_MAX_BYTES", "1000000"), ("PARLANCE_FILES_USER_QUOTA_BYTES", "1000000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let whole = multipart(&[("file", "a", &some_bytes(600_000))]);
        let half = &whole[..400_000];

        // The client says more than it sends, and goes away.
        says(&own, &alice, &format!("Content-Length: {}", whole.len()), half, true).await;
        nothing_is_left(&own).await;
        let answer = says(&own, &alice, &format!("Content-Length: {}", whole.len()), half, false).await;
        assert!(!answer.starts_with("HTTP/1.1 201"), "{answer}");
        nothing_is_left(&own).await;

        // It says less: what is there is cut off in the middle of the part.
        let answer = says(&own, &alice, "Content-Length: 300000", half, false).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        nothing_is_left(&own).await;

        // Chunks that end without an end.
        let chunk = [b"40000\r\n", &whole[..0x40000], b"\r\n"].concat();
        says(&own, &alice, "Transfer-Encoding: chunked", &chunk, true).await;
        nothing_is_left(&own).await;

        // None of it counts any more, once the server has seen that the last one has hung up.
        let most = multipart(&[("file", "a", &some_bytes(900_000))]);
        eventually("room for a file", async || (alice.posts_files(0, most.clone()).await.0 == 201).then_some(())).await;
    }));
}

#[test]
fn a_quota_holds_for_each_user() {
    let own = swept(&[("PARLANCE_FILES_USER_QUOTA_BYTES", "100000")]);
    tell(Box::pin(async {
        let (alice, bob) = (own.stack().user("alice").await, own.stack().user("bob").await);
        alice.uploads("a", &some_bytes(60_000)).await;
        let second = multipart(&[("file", "b", &some_bytes(60_000))]);
        assert_eq!(code(&alice.posts_files(0, second.clone()).await), (422, "unprocessable"));
        assert_eq!(bob.posts_files(0, second).await.0, 201, "another's room is another's");
        alice.uploads("c", &some_bytes(30_000)).await;
    }));
}

#[test]
fn what_nothing_refers_to_goes_after_its_time() {
    let own = swept(&[("PARLANCE_FILES_UNATTACHED_S", "1"), ("PARLANCE_FILES_USER_QUOTA_BYTES", "100000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let id = alice.uploads("a", &some_bytes(80_000)).await;
        nothing_is_left(&own).await;
        assert_eq!(alice.reads(0, id, "", &[]).await.status(), 404);
        assert_eq!(alice.reads(0, id, "/info", &[]).await.status(), 404);
        alice.uploads("b", &some_bytes(80_000)).await;
    }));
}

#[test]
fn the_same_key_makes_the_same_file() {
    let own = swept(&[]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let post = async |bytes: &[u8]| {
            let request = alice.asks(0, Method::POST, "/v1/files").header("content-type", multipart_type());
            let request = request.header("idempotency-key", "k").body(multipart(&[("file", "a", bytes)]));
            request.send().await.expect("an answer").json::<Value>().await.expect("JSON")
        };
        let first = post(b"one").await;
        assert_eq!(post(b"two").await, first);
        assert_eq!(files_below(&own.data().join("files")), 1);
    }));
}

/// A JPEG of 400 × 200 pixels that says it is to be turned by a quarter, and where it was taken.
pub(crate) fn turned_jpeg() -> Vec<u8> {
    let mut jpeg = Vec::new();
    let picture = image::RgbImage::from_fn(400, 200, |x, y| image::Rgb([(x % 256) as u8, (y % 256) as u8, 99]));
    picture.write_with_encoder(image::codecs::jpeg::JpegEncoder::new(&mut jpeg)).expect("a picture");
    let exif = b"\xff\xe1\x00\x33Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0\
                 52.5200N 13.4050E";
    [&jpeg[..2], exif, &jpeg[2..]].concat()
}

#[test]
fn a_picture_is_measured_and_made_smaller() {
    let own = OwnStandalone::start(&[]);
    tell(Box::pin(async {
        let (alice, eve) = (own.stack().user("alice").await, own.stack().user("eve").await);
        let original = turned_jpeg();
        let id = alice.uploads("cat.jpg", &original).await;
        let info: Value = alice.reads(0, id, "/info", &[]).await.json().await.expect("JSON");
        assert_eq!(
            (&info["media_type"], &info["width"], &info["height"]),
            (&"image/jpeg".into(), &200.into(), &400.into())
        );
        assert_eq!(info["blurhash"].as_str().map(str::len), Some(28));
        assert_eq!(alice.reads(0, id, "", &[]).await.bytes().await.expect("a body"), original, "unchanged");

        for (size, side) in [("?size=320", 320), ("?size=400", 320), ("?size=160", 160), ("?size=319", 160), ("", 400)]
        {
            let answer = alice.reads(0, id, &format!("/thumbnail{size}"), &[]).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.headers()["content-type"]),
                (200, &"image/jpeg".parse().expect("text"))
            );
            let etag = answer.headers()["etag"].to_str().expect("text").to_owned();
            let bytes = answer.bytes().await.expect("a body");
            let picture = image::load_from_memory(&bytes).expect("a picture");
            assert_eq!((picture.width(), picture.height()), (side / 2, side), "{size}");
            assert!(!bytes.windows(4).any(|window| window == b"Exif"), "{size}");
            let held = alice.reads(0, id, &format!("/thumbnail{size}"), &[("if-none-match", &etag)]).await;
            assert_eq!(held.status(), 304);
        }
        assert_eq!(alice.reads(0, id, "/thumbnail?size=100", &[]).await.status(), 404);
        assert_eq!(alice.reads(0, id, "/thumbnail?size=0", &[]).await.status(), 400);
        assert_eq!(eve.reads(0, id, "/thumbnail?size=160", &[]).await.status(), 404);
        let text = alice.uploads("cat.txt", b"a cat").await;
        assert_eq!(alice.reads(0, text, "/thumbnail?size=160", &[]).await.status(), 404);
    }));
}

#[test]
fn a_picture_that_cannot_be_shown_is_rejected_and_leaves_nothing() {
    let own = swept(&[("PARLANCE_FILES_MAX_PIXELS", "70000")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let whole = turned_jpeg();
        // The head of a PNG of 64k × 64k pixels.
        let mut bomb = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xff\xff\0\0\xff\xff\x08\x06\0\0\0".to_vec();
        bomb.extend_from_slice(&[0x06, 0x6d, 0x56, 0x5e]);
        for (name, bytes) in [("too large", whole.as_slice()), ("cut", &whole[..whole.len() / 2]), ("bomb", &bomb)] {
            let (status, file) = alice.posts_files(0, multipart(&[("file", "a.jpg", bytes)])).await;
            assert_eq!(
                (status, file["state"].as_str(), file["size"].as_i64()),
                (201, Some("rejected"), Some(0)),
                "{name}"
            );
            assert!(file["reason"].as_str().is_some_and(|reason| reason.starts_with("the picture ")), "{name}: {file}");
            let id = file["id"].as_str().expect("an id").parse().expect("an id");
            for suffix in ["", "/thumbnail?size=160"] {
                let status = alice.reads(0, id, suffix, &[]).await.status().as_u16();
                assert!([404, 422].contains(&status), "{name}: {status}");
            }
        }
        nothing_is_left(&own).await;
    }));
}

#[test]
fn an_avatar_is_shown_to_whoever_may_see_whose_it_is() {
    let own = swept(&[]);
    tell(Box::pin(async {
        let (alice, bob, eve) =
            (own.stack().user("alice").await, own.stack().user("bob").await, own.stack().user("eve").await);
        let (face, room_face) =
            (alice.uploads("me.jpg", &turned_jpeg()).await, alice.uploads("us.jpg", &turned_jpeg()).await);
        let sees = async |who: &Person, file| who.reads(0, file, "/thumbnail?size=160", &[]).await.status().as_u16();
        assert_eq!(sees(&bob, face).await, 404);
        for _ in 0..2 {
            let me = alice.api.patch_me(json!({ "avatar": face })).await.expect("a profile");
            assert_eq!(me.avatar, Some(face));
        }
        assert_eq!(bob.api.user(alice.id()).await.expect("a user").avatar, Some(face));
        assert_eq!(sees(&bob, face).await, 200);

        let room = alice.makes_a_group("us", &[&bob]).await.id;
        let changed = alice.api.patch_room(room, json!({ "avatar": room_face })).await.expect("a room");
        assert_eq!(changed.info.avatar, Some(room_face));
        assert_eq!((sees(&bob, room_face).await, sees(&eve, room_face).await), (200, 404));

        let text = alice.uploads("me.txt", b"no face").await;
        for (avatar, code) in [(text, Code::Unprocessable), (FileId(Uuid::now_v7()), Code::NotFound)] {
            is_refused(alice.api.patch_me(json!({ "avatar": avatar })).await, code);
        }
        is_refused(eve.api.patch_me(json!({ "avatar": room_face })).await, Code::NotFound);
        assert_eq!(alice.api.patch_me(json!({ "avatar": null })).await.expect("a profile").avatar, None);
        assert_eq!(sees(&bob, face).await, 404, "gone with the last that held it");
        alice.api.patch_room(room, json!({ "avatar": null })).await.expect("a room");
        assert_eq!(sees(&alice, room_face).await, 404);
    }));
}

#[test]
fn what_a_camera_has_added_is_taken_out_where_the_operator_wants_it() {
    let own = OwnStandalone::start(&[("PARLANCE_FILES_STRIP_EXIF", "true")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let id = alice.uploads("cat.jpg", &turned_jpeg()).await;
        let info: Value = alice.reads(0, id, "/info", &[]).await.json().await.expect("JSON");
        let bytes = alice.reads(0, id, "", &[]).await.bytes().await.expect("a body");
        assert!(!bytes.windows(8).any(|window| window == b"13.4050E"));
        assert_eq!((&info["width"], &info["size"]), (&200.into(), &bytes.len().into()), "turned as before");
    }));
}

#[test]
fn what_a_camera_has_added_never_comes_back_however_often_pieces_are_put_together() {
    let own = OwnStandalone::start(&[("PARLANCE_FILES_STRIP_EXIF", "true")]);
    tell(Box::pin(async {
        let alice = own.stack().user("alice").await;
        let picture = turned_jpeg();
        for _ in 0..5 {
            let path = begins(&alice, picture.len()).await;
            let id = file_of(&path);
            assert_eq!(appends(&alice, 0, &path, 0, &[], &picture[..100]).await.status(), 204);
            // Whoever asks for an upload that has all its bytes puts them together, as long as nobody has done so. One after
            // the other begins with it, until the file has been read a few times.
            let asks_and_reads = async {
                let (mut asked, mut seen) = (FuturesUnordered::new(), 0);
                while seen < 5 {
                    asked.push(offset(&alice, 0, &path));
                    let mut reading = pin!(alice.reads(0, id, "", &[]));
                    let answer = loop {
                        tokio::select! {
                            answer = &mut reading => break answer,
                            Some(at) = asked.next() => assert!(at.is_some()),
                        }
                    };
                    if answer.status() == 200 {
                        let bytes = answer.bytes().await.expect("a body");
                        assert!(!bytes.windows(8).any(|window| window == b"13.4050E"));
                        seen += 1;
                    }
                }
                assert!(asked.all(async |at| at.is_some()).await);
            };
            let sends = appends(&alice, 0, &path, 100, &[], &picture[100..]);
            let (sent, ()) = tokio::join!(sends, asks_and_reads);
            assert_eq!(sent.status(), 204);
            let info: Value = alice.reads(0, id, "/info", &[]).await.json().await.expect("JSON");
            let bytes = alice.reads(0, id, "", &[]).await.bytes().await.expect("a body");
            assert_eq!((&info["state"], &info["width"]), (&"ready".into(), &200.into()));
            assert_eq!(info["size"], bytes.len());
        }
    }));
}
