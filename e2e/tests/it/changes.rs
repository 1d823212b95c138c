//! What changed: pages of changes, and `sync`, which answers as `hello` does.

use std::collections::HashMap;

use e2e::Stack;
use parlance_client::{Code, RoomId};
use uuid::Uuid;

use super::is_refused;

stories!(changes_page_by_rev, changes_are_compacted, a_rev_above_the_rooms_is_truncated, sync_answers_as_hello_does);

async fn changes_page_by_rev(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let start = alice.api.room(room).await.unwrap().rev;
    desk.sends_all(room, (0..25).map(|n| n.to_string())).await;

    let mut after = start;
    let mut texts = Vec::new();
    loop {
        let by_rest = bob.api_at(1).changes(room, after, Some(10)).await.unwrap();
        let by_socket = desk.connection.changes(room, after, Some(10)).await.unwrap();
        assert_eq!(by_rest, by_socket);
        assert_eq!(by_rest.from_rev, after);
        assert!(by_rest.messages.len() <= 10 && by_rest.messages.is_sorted_by_key(|m| m.rev));
        texts.extend(by_rest.messages.into_iter().map(|m| m.text));
        after = by_rest.rev;
        if !by_rest.more {
            break;
        }
    }
    assert_eq!(texts, (0..25).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(after, bob.api.room(room).await.unwrap().rev);
    let none = bob.api.changes(room, after, None).await.unwrap();
    assert!(none.messages.is_empty() && !none.more && !none.truncated && none.rev == after);
    for limit in [0, 501] {
        is_refused(bob.api.changes(room, after, Some(limit)).await, Code::BadRequest);
    }
}

async fn changes_are_compacted(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let sent = desk.sends(room, "v0").await;
    for version in 1..=5 {
        desk.connection.edit(room, sent.seq, &format!("v{version}")).await.unwrap();
    }
    let changes = bob.api.changes(room, sent.rev - 1, None).await.unwrap();
    let rows: Vec<_> = changes.messages.iter().map(|m| (m.seq, m.text.as_str(), m.rev)).collect();
    assert_eq!(rows, [(sent.seq, "v5", changes.rev)]);
}

async fn a_rev_above_the_rooms_is_truncated(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let rev = alice.api.room(room).await.unwrap().rev;
    let changes = alice.api.changes(room, rev + 1_000, None).await.unwrap();
    assert!(changes.truncated && changes.messages.is_empty());
    assert_eq!(changes.rev, rev);
}

async fn sync_answers_as_hello_does(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (still, moved) = (alice.direct_with(&bob).await, alice.makes_a_group("moved", &[&bob]).await.id);
    let generation = bob.on(0).await.welcome.generation.clone();
    let held: HashMap<RoomId, _> = HashMap::from([
        (still, bob.api.room(still).await.unwrap().rev),
        (moved, bob.api.room(moved).await.unwrap().rev),
        (RoomId(Uuid::now_v7()), 7),
    ]);
    let unknown = *held.keys().find(|room| **room != still && **room != moved).unwrap();
    alice.on(0).await.sends(moved, "news").await;
    let new = alice.makes_a_group("new", &[&bob]).await.id;

    let synced = bob.api_at(1).sync(&held, Some(&generation)).await.unwrap();

    assert_eq!(synced.generation, generation);
    assert_eq!(synced.left, [unknown]);
    assert_eq!(
        synced.rooms.iter().map(|room| room.id).collect::<Vec<_>>(),
        [new, moved],
        "newest activity first, the rest unmoved"
    );
    let [changes] = &synced.changes[..] else { panic!("{:?}", synced.changes) };
    assert_eq!((changes.room, changes.from_rev), (moved, held[&moved]));
    assert_eq!(changes.messages.iter().map(|m| m.text.as_str()).collect::<Vec<_>>(), ["news"]);
}
