//! A gateway is asked to end with SIGTERM while people write through it.

use std::time::Duration;

use e2e::{OwnCluster, Signal, lasts, within};
use futures_util::future::join3;
use parlance_client::{Draft, Event, RoomId};

use super::witness::Witness;

fault_stories!([]; compliant_clients_show_no_error_and_miss_nothing);

/// Enough people on it that its leaving takes a moment.
const CROWD: usize = 20;
const MESSAGES: u32 = 200;

async fn compliant_clients_show_no_error_and_miss_nothing(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob, deaf) = (stack.user("alice").await, stack.user("bob").await, stack.user("deaf").await);
    let room = alice.makes_a_group("moving", &[&bob, &deaf]).await.id;
    let (alices, bobs) = (Witness::of(&alice, &[0, 1]).await, Witness::of(&bob, &[0, 1]).await);
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let member = stack.user(&format!("m{n}")).await;
        alice.api.put_member(room, member.id(), None).await.unwrap();
        crowd.push(Witness::of(&member, &[0, 1]).await);
    }
    let deafs = deaf.on(0).await;

    let leaving = async {
        within("the first messages", async {
            while bobs.texts(room).len() < 20 {
                lasts(Duration::from_millis(5)).await;
            }
        })
        .await;
        cluster.signals(Signal::Term, "gateway", 0).await;
    };
    let (sent, (), statuses) = join3(writes(&alices, room), leaving, readyz_to_the_end(cluster)).await;

    deafs.sees("going_away", |event| matches!(event, Event::GoingAway(_)).then_some(())).await;
    deafs.is_closed_with(1012).await;
    assert_eq!(cluster.end_of("gateway", 0).await, "exit status: 0");
    assert!(statuses.contains(&503), "/readyz while it was leaving: {statuses:?}");

    for witness in crowd.iter().chain([&alices, &bobs]) {
        witness.has_all(&sent).await;
        assert_eq!(witness.error(), None);
        assert_eq!(witness.connected(), 2, "once here, once there");
        assert!(witness.closes().iter().all(|code| *code == 1012), "closed with {:?}", witness.closes());
    }
    assert_eq!(
        bobs.texts(room).iter().filter(|text| text.parse::<u32>().is_ok()).cloned().collect::<Vec<_>>(),
        (0..MESSAGES).map(|n| n.to_string()).collect::<Vec<_>>()
    );
}

async fn writes(alices: &Witness, room: RoomId) -> Vec<(RoomId, u64)> {
    let mut sent = Vec::new();
    for n in 0..MESSAGES {
        let answer = alices.session.send(room, Draft::text(n.to_string())).await.unwrap();
        sent.push((room, answer.seq));
    }
    sent
}

/// What `/readyz` answered, from now until nobody answers any more.
async fn readyz_to_the_end(cluster: &OwnCluster) -> Vec<u16> {
    let mut statuses = Vec::new();
    within("the end of the admin port", async {
        while let Some(status) = cluster.readyz(0).await {
            statuses.push(status);
            lasts(Duration::from_millis(20)).await;
        }
    })
    .await;
    statuses.dedup();
    statuses
}
