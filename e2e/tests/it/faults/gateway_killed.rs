//! A gateway is killed with SIGKILL.

use std::time::Duration;

use e2e::OwnCluster;
use parlance_client::{Draft, Event, UserId};

use super::witness::Witness;

fault_stories!([]; its_clients_resume_elsewhere_and_miss_nothing, a_send_through_it_is_stored_once);
fault_stories!([("PARLANCE_PRESENCE_GRACE_MS", "5000")]; only_who_stays_away_is_reported_offline_and_once);

/// The lease of the dead gateway, its sweep and the grace, with room for two busy cores.
const OFFLINE: Duration = Duration::from_secs(60);

async fn its_clients_resume_elsewhere_and_miss_nothing(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (alices, bobs) = (Witness::of(&alice, &[1]).await, Witness::of(&bob, &[0, 1]).await);

    let mut sent = Vec::new();
    for n in 0..100 {
        if n == 30 {
            cluster.kills("gateway", 0).await;
        }
        let answer = alices.session.send(room, Draft::text(n.to_string())).await.unwrap();
        sent.push((room, answer.seq));
    }

    bobs.has_all(&sent).await;
    alices.has_all(&sent).await;
    assert_eq!(bobs.texts(room), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    assert!(bobs.connected() >= 2, "he was on the gateway that died");
}

async fn a_send_through_it_is_stored_once(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (alices, bobs) = (Witness::of(&alice, &[0, 1]).await, Witness::of(&bob, &[1]).await);

    let sends = (0..200).map(|n| alices.session.send(room, Draft::text(n.to_string())));
    let (sent, ()) =
        futures_util::future::join(futures_util::future::join_all(sends), cluster.kills("gateway", 0)).await;

    let sent: Vec<_> = sent.into_iter().map(|answer| (room, answer.unwrap().seq)).collect();
    bobs.has_all(&sent).await;
    let mut texts = bobs.texts(room);
    texts.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(texts, (0..200).map(|n| n.to_string()).collect::<Vec<_>>(), "each once, whoever sent it again");
}

async fn only_who_stays_away_is_reported_offline_and_once(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob, gone) = (stack.user("alice").await, stack.user("bob").await, stack.user("gone").await);
    alice.direct_with(&bob).await;
    let shared = alice.direct_with(&gone).await;
    let desk = alice.on(1).await;
    let bobs = Witness::of(&bob, &[0, 1]).await;
    let _gones = gone.on(0).await;
    desk.connection.watch(&[bob.id(), gone.id()], &[]).await.unwrap();
    let offline = |events: &[Event], user: UserId| {
        events
            .iter()
            .filter(|event| matches!(event, Event::Presence(e) if e.user == user && e.state == "offline"))
            .count()
    };

    cluster.kills("gateway", 0).await;
    tokio::time::timeout(OFFLINE, async {
        while offline(&desk.heard(), gone.id()) == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("who does not come back is offline at last");

    // He comes back and goes on: whatever was wrongly said of Bob, or said twice, stands before this.
    let back = gone.on(1).await;
    desk.sees("online again", |event| {
        matches!(event, Event::Presence(e) if e.user == gone.id() && e.state == "online").then_some(())
    })
    .await;
    back.sends(shared, "here I am").await;
    desk.receives("here I am").await;
    assert_eq!(offline(&desk.heard(), gone.id()), 1);
    assert_eq!(offline(&desk.heard(), bob.id()), 0, "he was back within the grace");
    assert!(bobs.connected() >= 2);
}
