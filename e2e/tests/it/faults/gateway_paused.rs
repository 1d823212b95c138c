//! A gateway stands still for longer than its lease, as a starved or swapped-out machine does, and goes on.

use std::time::{Duration, Instant};

use e2e::{OwnCluster, Signal, eventually, lasts, within};
use parlance_client::Event;

use super::witness::{Witness, shown_twice};

fault_stories!([]; it_fences_itself_and_nothing_is_doubled);

/// The lease of 10 s, and time for a sweeper to find it dead.
const LONGER_THAN_THE_LEASE: Duration = Duration::from_secs(16);
/// What the contract of this fault states.
const FENCED: Duration = Duration::from_secs(3);

async fn it_fences_itself_and_nothing_is_doubled(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = alice.makes_a_group("paused", &[&bob, &carol]).await.id;
    let carols = Witness::of(&carol, &[0]).await;
    let (desk, stays, moves) = (alice.on(1).await, bob.on(0).await, bob.on(0).await);
    desk.connection.watch(&[bob.id()], &[]).await.unwrap();
    desk.sends(room, "before").await;
    stays.receives("before").await;
    moves.receives("before").await;

    cluster.signals(Signal::Stop, "gateway", 0).await;
    let moved = bob.resumes(1, &moves.drops_off()).await;
    let paused = Instant::now();
    let mut sent = Vec::new();
    while paused.elapsed() < LONGER_THAN_THE_LEASE {
        let answer = desk.sends(room, &format!("meanwhile {}", sent.len())).await;
        sent.push((room, answer.seq));
        lasts(Duration::from_millis(100)).await;
    }
    cluster.signals(Signal::Continue, "gateway", 0).await;

    let continued = Instant::now();
    let close = within("close of the old socket", stays.connection.closed()).await;
    assert!([1012, 1006].contains(&close.code), "its old socket was closed with {close}");
    assert!(continued.elapsed() < FENCED, "it took {:?}", continued.elapsed());

    desk.sends(room, "after").await;
    moved.receives("after").await;
    assert_eq!(moved.texts(room).len(), sent.len() + 1, "everything after the resume");
    assert!(shown_twice(&moved.heard(), room).is_empty());
    assert!(shown_twice(&stays.heard(), room).is_empty());
    carols.has_all(&sent).await;
    assert_eq!(carols.error(), None, "who stayed on it was sent away for a moment, and missed nothing");
    let flaps: Vec<_> =
        desk.heard().into_iter().filter(|e| matches!(e, Event::Presence(p) if p.state == "offline")).collect();
    assert!(flaps.is_empty(), "he was there all the time: {flaps:?}");

    // It serves again, and what comes through it is whole.
    let fresh = Witness::of(&bob, &[0]).await;
    let last = desk.sends(room, "to the new socket").await;
    fresh.has_all(&[(room, last.seq)]).await;
    let steady = eventually("a connection that stays", async || fresh.session.connection().await.ok()).await;
    steady.ping().await.unwrap();
}
