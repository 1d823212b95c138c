//! Who is removed hears nothing more; whose session is revoked is cut off.

use std::time::{Duration, Instant};

use e2e::Stack;
use parlance_client::{Code, Draft, Event};

use super::is_refused;

/// What the contract promises.
const AT_ONCE: Duration = Duration::from_secs(1);

stories!(a_removed_member_hears_nothing_more, a_removed_member_may_come_back, a_revoked_session_is_cut_off);

async fn a_removed_member_hears_nothing_more(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    let room = alice.makes_a_group("circle", &[&bob, &carol]).await.id;
    let direct = alice.direct_with(&bob).await;
    let (desk, here, there, carols) = (alice.on(0).await, bob.on(0).await, bob.on(1).await, carol.on(1).await);
    desk.sends(room, "all of you").await;
    here.receives("all of you").await;
    there.receives("all of you").await;

    alice.api.remove_member(room, bob.id()).await.unwrap();
    let removed = Instant::now();
    for device in [&here, &there] {
        device.sees("left", |event| matches!(event, Event::Left(left) if left.room == room).then_some(())).await;
    }
    assert!(removed.elapsed() < AT_ONCE, "it took {:?}", removed.elapsed());
    carols
        .sees("removed", |event| {
            matches!(event, Event::Removed(e) if e.room == room && e.user == bob.id()).then_some(())
        })
        .await;

    desk.sends_all(room, (0..20).map(|n| format!("without bob {n}"))).await;
    carols.has_texts(room, 21).await;
    // What comes to Bob after all that stands behind whatever would have come to him of it.
    desk.sends(direct, "sorry").await;
    for device in [&here, &there] {
        device.receives("sorry").await;
        assert_eq!(device.texts(room).len(), 1);
    }
    is_refused(here.connection.send(room, &Draft::text("wait!")).await, Code::NotFound);
    is_refused(bob.api.history(room, Default::default()).await, Code::NotFound);
    is_refused(bob.api.changes(room, 0, None).await, Code::NotFound);
}

async fn a_removed_member_may_come_back(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("again", &[&bob]).await.id;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    alice.api.remove_member(room, bob.id()).await.unwrap();
    bobs.sees("left", |event| matches!(event, Event::Left(_)).then_some(())).await;
    desk.sends(room, "while he is away").await;
    assert!(alice.api.put_member(room, bob.id(), None).await.unwrap().created);
    let joined = bobs
        .sees("joined", |event| match event {
            Event::Joined(joined) if joined.id == room => Some(joined.clone()),
            _ => None,
        })
        .await;
    assert_eq!((joined.me.unread, joined.me.read_seq), (0, joined.seq), "who joins has read what was there");

    desk.sends(room, "welcome back").await;
    bobs.receives("welcome back").await;
    assert_eq!(bobs.texts(room).len(), 1);
}

async fn a_revoked_session_is_cut_off(stack: &Stack) {
    let alice = stack.user("alice").await;
    let phone = alice.logs_in_again().await;
    let (desk, phones) = (alice.on(0).await, phone.on(1).await);

    alice.api.revoke_session(phone.login.session).await.unwrap();
    let revoked = Instant::now();
    phones.is_closed_with(4003).await;
    assert!(revoked.elapsed() < AT_ONCE, "it took {:?}", revoked.elapsed());

    is_refused(phone.api.me().await, Code::Unauthenticated);
    desk.connection.ping().await.unwrap();
}
