//! Redis is emptied: the directory has to be rebuilt from the gateways.

use e2e::OwnCluster;
use parlance_client::Draft;

use super::witness::Witness;

fault_stories!([]; every_acknowledged_message_arrives_once);

async fn every_acknowledged_message_arrives_once(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (alices, bobs) = (Witness::of(&alice, &[0]).await, Witness::of(&bob, &[1]).await);

    let mut sent = Vec::new();
    for n in 0..300 {
        if n == 50 || n == 150 {
            cluster.empties_redis().await;
        }
        let answer = alices.session.send(room, Draft::text(n.to_string())).await.unwrap();
        sent.push((room, answer.seq));
    }

    bobs.has_all(&sent).await;
    alices.has_all(&sent).await;
    assert_eq!((alices.connected(), bobs.connected()), (1, 1), "nobody had to reconnect for it");
}
