//! Reading back: before, after, around, and where it ends.

use e2e::{Person, Stack};
use parlance_client::Code;
use parlance_client::RoomId;
use parlance_client::frame::Range;
use parlance_client::wire::Seq;

use super::is_refused;

stories!(pages_go_both_ways, around_has_both_sides, a_limit_has_bounds, the_socket_and_rest_agree);

/// A direct room with twenty messages.
async fn twenty(stack: &Stack) -> (Person, RoomId) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    alice.on(0).await.sends_all(room, (1..=20).map(|n| n.to_string())).await;
    (alice, room)
}

async fn page(person: &Person, room: RoomId, range: Range) -> (Vec<Seq>, bool) {
    let page = person.api_at(1).history(room, range).await.unwrap();
    (page.items.iter().map(|m| m.seq).collect(), page.has_more)
}

fn seqs(range: std::ops::RangeInclusive<Seq>) -> Vec<Seq> {
    range.collect()
}

async fn pages_go_both_ways(stack: &Stack) {
    let (alice, room) = twenty(stack).await;
    let five = Range { limit: Some(5), ..Range::default() };

    assert_eq!(page(&alice, room, Range::default()).await, (seqs(1..=20), false));
    assert_eq!(page(&alice, room, five).await, (seqs(16..=20), true));
    assert_eq!(page(&alice, room, Range { before: Some(16), ..five }).await, (seqs(11..=15), true));
    assert_eq!(page(&alice, room, Range { before: Some(6), ..five }).await, (seqs(1..=5), false));
    assert_eq!(page(&alice, room, Range { before: Some(1), ..five }).await, (vec![], false));
    assert_eq!(page(&alice, room, Range { after: Some(0), ..five }).await, (seqs(1..=5), true));
    assert_eq!(page(&alice, room, Range { after: Some(15), ..five }).await, (seqs(16..=20), false));
    assert_eq!(page(&alice, room, Range { after: Some(20), ..five }).await, (vec![], false));
}

async fn around_has_both_sides(stack: &Stack) {
    let (alice, room) = twenty(stack).await;
    let five = |around| Range { around: Some(around), limit: Some(5), ..Range::default() };

    assert_eq!(page(&alice, room, five(10)).await, (seqs(8..=12), true));
    assert_eq!(page(&alice, room, five(1)).await, (seqs(1..=5), false), "has_more looks towards older");
    assert_eq!(page(&alice, room, five(20)).await, (seqs(16..=20), true));
    assert_eq!(page(&alice, room, five(2)).await, (seqs(1..=5), false));
}

async fn a_limit_has_bounds(stack: &Stack) {
    let (alice, room) = twenty(stack).await;
    for limit in [0, 201] {
        is_refused(alice.api.history(room, Range { limit: Some(limit), ..Range::default() }).await, Code::BadRequest);
    }
    let both = Range { before: Some(5), after: Some(1), ..Range::default() };
    is_refused(alice.api.history(room, both).await, Code::BadRequest);
    is_refused(alice.api.message(room, 21).await, Code::NotFound);
}

async fn the_socket_and_rest_agree(stack: &Stack) {
    let (alice, room) = twenty(stack).await;
    let device = alice.on(1).await;
    for range in [Range::default(), Range { around: Some(7), limit: Some(4), ..Range::default() }] {
        let by_socket = device.connection.history(room, range).await.unwrap();
        assert_eq!(by_socket, alice.api.history(room, range).await.unwrap());
    }
}
