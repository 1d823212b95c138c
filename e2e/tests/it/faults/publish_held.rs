//! A chat-service is killed after it committed and acknowledged, before it published.

use e2e::OwnCluster;
use futures_util::future::join_all;
use parlance_client::Draft;

use super::witness::Witness;

fault_stories!([]; every_acknowledged_message_arrives_once);

/// Enough rooms that the hash of the rooms gives some to each replica.
const ROOMS: usize = 16;

async fn every_acknowledged_message_arrives_once(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let alice = stack.user("alice").await;
    let bob = stack.user("bob").await;
    let rooms = join_all((0..ROOMS).map(|n| {
        let (alice, bob) = (&alice, &bob);
        async move { alice.makes_a_group(&format!("room {n}"), &[bob]).await.id }
    }))
    .await;
    let (alices, bobs) = (Witness::of(&alice, &[0]).await, Witness::of(&bob, &[1]).await);

    cluster.holds_publishing();
    let sends = rooms.iter().map(|room| alices.session.send(*room, Draft::text("committed")));
    let sent: Vec<_> =
        join_all(sends).await.into_iter().map(|answer| answer.unwrap()).map(|sent| (sent.room, sent.seq)).collect();
    for room in &rooms {
        assert!(!bobs.texts(*room).contains(&"committed".to_owned()), "it was published although it is held");
    }

    cluster.kills("chat-service", 0).await;
    cluster.lets_publish();

    bobs.has_all(&sent).await;
    alices.has_all(&sent).await;
    // What is left of the cluster works on for every room.
    let more = rooms.iter().map(|room| alices.session.send(*room, Draft::text("after")));
    let more: Vec<_> =
        join_all(more).await.into_iter().map(|answer| answer.unwrap()).map(|sent| (sent.room, sent.seq)).collect();
    bobs.has_all(&more).await;
}
