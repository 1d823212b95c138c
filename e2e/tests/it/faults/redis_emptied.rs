//! Redis is emptied: the directory has to be rebuilt from the gateways, and who is gone was stored.

use e2e::OwnCluster;
use parlance_client::{Draft, Event};

use super::witness::Witness;

fault_stories!([]; every_acknowledged_message_arrives_once);
fault_stories!([("PARLANCE_PRESENCE_GRACE_MS", "1000")]; when_somebody_was_last_seen_is_still_told);

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

async fn when_somebody_was_last_seen_is_still_told(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob, shy) = (stack.user("alice").await, stack.user("bob").await, stack.user("shy").await);
    alice.makes_a_group("seen", &[&bob, &shy]).await;
    let (desk, bobs, shys) = (alice.on(0).await, bob.on(1).await, shy.on(1).await);
    desk.connection.watch(&[bob.id(), shy.id()], &[]).await.unwrap();
    drop((bobs, shys));
    let gone = |user| {
        let pick = move |event: &Event| match event {
            Event::Presence(it) if it.user == user && it.state == "offline" => it.last_seen,
            _ => None,
        };
        desk.sees("offline", pick)
    };
    let (seen, _) = (gone(bob.id()).await, gone(shy.id()).await);
    cluster.has_stored_last_seen(bob.id()).await;
    cluster.has_stored_last_seen(shy.id()).await;
    shy.api.patch_me(serde_json::json!({ "privacy": { "presence": false } })).await.unwrap();

    cluster.empties_redis().await;
    let asked = alice.api_at(1).presence(&[bob.id(), shy.id()]).await.unwrap();
    assert_eq!(asked.iter().map(|it| (it.user, it.last_seen)).collect::<Vec<_>>(), [(bob.id(), Some(seen))]);
    let watched = alice.on(1).await.connection.watch(&[bob.id(), shy.id()], &[]).await.unwrap().presence;
    assert_eq!(watched.iter().map(|it| (it.user, it.last_seen)).collect::<Vec<_>>(), [(bob.id(), Some(seen))]);
}
