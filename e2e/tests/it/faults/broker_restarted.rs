//! RabbitMQ is restarted.

use e2e::OwnCluster;
use parlance_client::Draft;

use super::witness::Witness;

fault_stories!([]; every_acknowledged_message_arrives_once);

async fn every_acknowledged_message_arrives_once(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (alices, bobs) = (Witness::of(&alice, &[0]).await, Witness::of(&bob, &[1]).await);

    let restarting = cluster.restarts_the_broker();
    let mut sent = Vec::new();
    let sending = async {
        // Sending works on while the broker is away: the messages wait in the outbox.
        for n in 0..200 {
            let answer = alices.session.send(room, Draft::text(n.to_string())).await.unwrap();
            sent.push((room, answer.seq));
        }
    };
    futures_util::future::join(restarting, sending).await;

    bobs.has_all(&sent).await;
    alices.has_all(&sent).await;
    let after = alices.session.send(room, Draft::text("after")).await.unwrap();
    bobs.has_all(&[(room, after.seq)]).await;
}
