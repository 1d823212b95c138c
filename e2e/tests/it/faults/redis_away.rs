//! Redis is stopped and comes back empty.

use std::time::{Duration, Instant};

use e2e::{Device, OwnCluster, eventually};
use parlance_client::{Draft, Event, RoomId, UserId};

use super::witness::Witness;

fault_stories!([("PARLANCE_PRESENCE_GRACE_MS", "3000")]; sending_works_on_and_presence_comes_back);

/// The goal for sends without Redis.
const P99: Duration = Duration::from_secs(1);
/// How long Redis is away: longer than the grace of these stories.
const AWAY: Duration = Duration::from_secs(5);
/// Presence may be wrong so long after Redis lost everything.
const TRUE_AGAIN: Duration = Duration::from_secs(30);

async fn sending_works_on_and_presence_comes_back(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob, goer) = (stack.user("alice").await, stack.user("bob").await, stack.user("goer").await);
    let room = alice.direct_with(&bob).await;
    alice.direct_with(&goer).await;
    let (desk, bobs, goers) = (alice.on(0).await, Witness::of(&bob, &[1]).await, goer.on(1).await);
    desk.connection.watch(&[bob.id(), goer.id()], &[]).await.unwrap();

    cluster.takes_down("redis").await;
    let (mut sent, mut times) = (Vec::new(), Vec::new());
    let away = Instant::now();
    while away.elapsed() < AWAY {
        let asked = Instant::now();
        let answer = desk.sends(room, &format!("without redis {}", sent.len())).await;
        times.push(asked.elapsed());
        sent.push((room, answer.seq));
    }
    bobs.has_all(&sent).await;
    cluster.brings_up("redis").await;
    let up = Instant::now();

    times.sort();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < P99, "p99 of {} sends was {p99:?}", times.len());

    let connection = bobs.session.connection().await.unwrap();
    eventually("a status that is taken", async || connection.status("dnd").await.ok()).await;
    shows(&desk, bob.id(), "dnd", up).await;
    // Whatever was wrongly said of Bob stands before what is rightly said of who goes now.
    drop(goers);
    shows(&desk, goer.id(), "offline", up).await;
    assert!(!said(&desk, bob.id(), "offline"), "he was there all the time");
    assert!(!said(&desk, alice.id(), "offline"));
    still_delivers(&desk, &bobs, room).await;
    assert_eq!(bobs.connected(), 1, "nobody had to reconnect for it");
}

fn said(device: &Device, user: UserId, state: &str) -> bool {
    device.heard().iter().any(|event| matches!(event, Event::Presence(p) if p.user == user && p.state == state))
}

async fn shows(device: &Device, user: UserId, state: &str, since: Instant) {
    let looking = async {
        while !said(device, user, state) {
            e2e::lasts(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(TRUE_AGAIN.saturating_sub(since.elapsed()), looking).await;
    assert!(waited.is_ok(), "{TRUE_AGAIN:?} after Redis came back nobody had said `{state}`");
}

async fn still_delivers(desk: &Device, bobs: &Witness, room: RoomId) {
    let after = desk.sends_draft(room, &Draft::text("after")).await;
    bobs.has_all(&[(room, after.seq)]).await;
}
