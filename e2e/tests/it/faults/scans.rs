//! A gateway is killed while it has files scanned: another one finishes it.

use e2e::{Clamd, Line, MARKER, OwnCluster, SIGNATURE, files_below, tell};
use parlance_client::Draft;
use serde_json::Value;
use tokio::net::TcpListener;

/// Of one scan, in milliseconds: a file that somebody has taken is another's half as long after that.
const SCAN_MS: &str = "2000";

#[test]
fn another_gateway_scans_what_a_killed_one_had_taken() {
    let _turn = super::turn();
    let Some(clamd) = Clamd::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("bound").to_string();
    let settings = [("PARLANCE_FILES_CLAMD", &*address), ("PARLANCE_TEST_FILES_SCAN_MS", SCAN_MS)];
    if let Some(cluster) = OwnCluster::start(&settings) {
        tell(Box::pin(async {
            let line = Line::new(TcpListener::from_std(listener).expect("a listener"), &clamd);
            story(&cluster, &line).await;
        }));
    }
}

async fn story(cluster: &OwnCluster, line: &Line) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    line.lets_through();
    let infected = alice.uploads_held("a", MARKER).await;
    let file = alice.sees_scanned(1, infected).await;
    assert_eq!(file["state"], "rejected");
    assert!(file["reason"].as_str().is_some_and(|reason| reason.ends_with(SIGNATURE)), "{file}");
    assert_eq!(files_below(&cluster.dir().join("files")), 0);
    let ready: Value = cluster.asks_admin(1, "/readyz").await.parse().expect("JSON");
    assert_eq!((&ready["ready"], &ready["notes"]["clamd"]), (&true.into(), &true.into()));

    line.keeps_back();
    let before = line.scans();
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(alice.uploads_held("cat.txt", b"a cat").await);
    }
    // That the other one has taken one of them is possible, all of them not.
    line.carries(before + 3).await;
    cluster.kills("gateway", 0).await;
    let asked = line.scans();
    line.lets_through();
    for file in &files {
        assert_eq!(alice.sees_scanned(1, *file).await["state"], "ready");
    }
    assert!(line.scans() > asked, "somebody has asked again");
    let draft = Draft { attachments: files.clone(), ..Draft::text("cats") };
    alice.api_at(1).post_message(room, &draft).await.expect("a message");
    assert_eq!(bob.reads(1, files[2], "", &[]).await.text().await.expect("a body"), "a cat");
    let metrics = cluster.asks_admin(1, "/metrics").await;
    assert!(metrics.contains("files_scanned_total{outcome=\"clean\"}"), "{metrics}");
}
