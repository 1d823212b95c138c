//! One of two chat-services is killed while people write through both gateways.

use std::collections::HashSet;
use std::time::Duration;

use e2e::{Device, OwnCluster, eventually};
use futures_util::future::{join, join_all, join3};
use parlance_client::frame::{Range, Sent};
use parlance_client::{Draft, Error, RoomId};

fault_stories!([]; every_send_is_answered_once_and_in_order, what_is_left_answers_everybody);

/// Enough rooms that the hash of the rooms gives some to each replica.
const ROOMS: usize = 8;
/// Texts of one sender in one room: so many times this many at once.
const ROUNDS: usize = 6;
const AT_ONCE: usize = 20;

async fn every_send_is_answered_once_and_in_order(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let rooms = join_all((0..ROOMS).map(|n| {
        let (alice, bob) = (&alice, &bob);
        async move { alice.makes_a_group(&format!("room {n}"), &[bob]).await.id }
    }))
    .await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    let killing = async {
        bobs.has_texts(rooms[0], AT_ONCE).await;
        cluster.kills("chat-service", 0).await;
    };
    let writing = |device, name| join_all(rooms.iter().map(move |room| writes(device, *room, name)));
    let (hers, his, ()) = join3(writing(&desk, "alice"), writing(&bobs, "bob"), killing).await;
    assert!(cluster.end_of("chat-service", 0).await.contains("signal: 9"));

    for (n, room) in rooms.iter().enumerate() {
        let expected: HashSet<_> = hers[n].iter().chain(&his[n]).map(|sent| sent.seq).collect();
        assert_eq!(expected.len(), 2 * ROUNDS * AT_ONCE, "every send has a place of its own");
        let both = join(desk.has_texts(*room, expected.len()), bobs.has_texts(*room, expected.len())).await;
        for texts in [&both.0, &both.1] {
            assert_eq!(texts.iter().map(|(seq, _)| *seq).collect::<HashSet<_>>(), expected);
            assert_eq!(texts.iter().map(|(_, text)| text).collect::<HashSet<_>>().len(), expected.len(), "none twice");
        }
        let newest = async || desk.connection.history(*room, Range::default()).await.ok();
        let last = eventually("the newest page", newest).await.items;
        assert_eq!(
            last.last().map(|message| message.seq),
            expected.iter().max().copied(),
            "and nothing more is stored"
        );
    }
}

/// Reads and logins are no sends: nobody repeats them for a client. One of two replicas is enough for all of them.
async fn what_is_left_answers_everybody(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let alice = stack.user("alice").await;
    cluster.kills("chat-service", 0).await;
    cluster.end_of("chat-service", 0).await;

    // A call that was on its way may fail; after that the dead replica is known and left alone.
    for gateway in [0, 1] {
        eventually("twenty answers in a row", async || {
            for _ in 0..20 {
                alice.api_at(gateway).me().await.ok()?;
            }
            Some(())
        })
        .await;
    }
    alice.on(0).await.connection.ping().await.unwrap();
}

/// Writes texts in rounds; every one is answered in the end, and those answered without an error stand in their order.
async fn writes(device: &Device, room: RoomId, name: &str) -> Vec<Sent> {
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let drafts: Vec<_> = (0..AT_ONCE).map(|n| Draft::text(format!("{name} {round}.{n}"))).collect();
        let first = join_all(drafts.iter().map(|draft| device.connection.send(room, draft))).await;
        let in_order: Vec<_> = first.iter().flatten().map(|sent| sent.seq).collect();
        assert!(in_order.is_sorted(), "{name} in {room}: {in_order:?}");
        for (draft, outcome) in drafts.iter().zip(first) {
            all.push(match outcome {
                Ok(sent) => sent,
                Err(error) => again(device, room, draft, error).await,
            });
        }
    }
    all
}

/// What failed may be sent again as it stands, and only such errors may come.
async fn again(device: &Device, room: RoomId, draft: &Draft, error: Error) -> Sent {
    assert!(error.is_transient(), "{error}");
    let wait = Duration::from_millis(error.retry_after_ms().unwrap_or(100));
    e2e::lasts(wait).await;
    eventually("an answer", async || match device.connection.send(room, draft).await {
        Ok(sent) => Some(sent),
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            None
        }
    })
    .await
}
