//! Redis is emptied: the directory has to be rebuilt from the gateways, and who is gone and what was chosen were stored.

use e2e::{Device, OwnCluster};
use parlance_client::{Draft, Event, UserId};

use super::witness::Witness;

fault_stories!([]; every_acknowledged_message_arrives_once, what_was_chosen_still_counts);
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

/// Everything that a device was told of a user's presence.
fn states_of(device: &Device, user: UserId) -> Vec<String> {
    let told = device.heard().into_iter().filter_map(|event| match event {
        Event::Presence(it) if it.user == user => Some(it.state),
        _ => None,
    });
    told.collect()
}

/// Waits until a device was told this of a user so many times.
async fn is_told(device: &Device, user: UserId, state: &str, times: usize) {
    let told = |event: &&Event| matches!(event, Event::Presence(it) if it.user == user && it.state == state);
    device.knows(state, |events| (events.iter().filter(told).count() >= times).then_some(())).await;
}

async fn what_was_chosen_still_counts(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, shy, busy) = (stack.user("alice").await, stack.user("shy").await, stack.user("busy").await);
    // One at each gateway whose state is told again: then that gateway has registered everything.
    let (here, there) = (stack.user("here").await, stack.user("there").await);
    alice.makes_a_group("seen", &[&shy, &busy, &here, &there]).await;
    let _heres = (here.on(0).await, there.on(1).await);
    // The other gateway has to find out what was chosen at this one.
    let (shy_device, _shy_elsewhere) = (shy.on(0).await, shy.on(1).await);
    let (busy_device, _busy_elsewhere) = (busy.on(1).await, busy.on(0).await);
    shy_device.connection.status("invisible").await.unwrap();
    busy_device.connection.status("dnd").await.unwrap();
    let desk = alice.on(0).await;
    let users = [shy.id(), busy.id(), here.id(), there.id()];
    let watched = desk.connection.watch(&users, &[]).await.unwrap().presence;
    let states: Vec<&str> = watched.iter().map(|it| it.state.as_str()).collect();
    assert_eq!(states, ["offline", "dnd", "online", "online"]);

    for times in 1..=2 {
        cluster.empties_redis().await;
        is_told(&desk, here.id(), "online", times).await;
        is_told(&desk, there.id(), "online", times).await;
        is_told(&desk, busy.id(), "dnd", times).await;
    }
    assert!(states_of(&desk, busy.id()).iter().all(|state| state == "dnd"), "{:?}", states_of(&desk, busy.id()));
    // Whoever comes when nothing is known of them.
    let later = shy.on(1).await;
    assert_eq!(alice.api_at(1).presence(&[shy.id()]).await.unwrap()[0].state, "offline");
    assert!(states_of(&desk, shy.id()).is_empty(), "{:?}", states_of(&desk, shy.id()));

    later.connection.status("online").await.unwrap();
    is_told(&desk, shy.id(), "online", 1).await;
}
