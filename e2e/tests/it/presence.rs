//! Presence: who watches whom, and what is said when.

use e2e::{OwnStandalone, Stack};
use parlance_client::connection::Hello;
use parlance_client::{Event, UserId};

stories!(
    watching_tells_states_and_changes,
    a_silent_connection_is_not_online,
    strangers_are_left_out,
    invisible_looks_offline,
);

own_standalone_stories!([("PARLANCE_PRESENCE_GRACE_MS", "3000")]; offline_comes_once_and_only_after_the_grace);

mod restarted {
    #[test]
    fn when_somebody_was_last_seen_outlives_the_process() {
        let settings = [("PARLANCE_PRESENCE_GRACE_MS", "500"), ("PARLANCE_SHUTDOWN_GRACE_MS", "4000")];
        let mut own = e2e::OwnStandalone::start(&settings);
        e2e::tell(Box::pin(super::when_somebody_was_last_seen_outlives_the_process(&mut own)));
    }

    #[test]
    fn what_was_chosen_outlives_the_process() {
        let mut own = e2e::OwnStandalone::start(&[("PARLANCE_SHUTDOWN_GRACE_MS", "4000")]);
        e2e::tell(Box::pin(super::what_was_chosen_outlives_the_process(&mut own)));
    }
}

fn state(event: &Event, user: UserId) -> Option<&str> {
    match event {
        Event::Presence(e) if e.user == user => Some(&e.state),
        _ => None,
    }
}

async fn watching_tells_states_and_changes(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    alice.direct_with(&bob).await;
    let desk = alice.on(0).await;

    let watched = desk.connection.watch(&[bob.id()], &[]).await.unwrap();
    assert_eq!(
        watched.presence.iter().map(|p| (p.user, p.state.as_str())).collect::<Vec<_>>(),
        [(bob.id(), "offline")]
    );

    let bobs = bob.on(1).await;
    desk.sees("online", |event| (state(event, bob.id()) == Some("online")).then_some(())).await;
    bobs.connection.status("away").await.unwrap();
    desk.sees("away", |event| (state(event, bob.id()) == Some("away")).then_some(())).await;
    bobs.connection.status("dnd").await.unwrap();
    desk.sees("dnd", |event| (state(event, bob.id()) == Some("dnd")).then_some(())).await;
    let by_rest = alice.api_at(1).presence(&[bob.id()]).await.unwrap();
    assert_eq!(by_rest[0].state, "dnd");
}

async fn a_silent_connection_is_not_online(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    alice.direct_with(&bob).await;
    let silent = Hello { presence: Some(false), ..Hello::new(bob.token()) };
    let _bobs = bob.says_hello(1, silent).await;
    let watched = alice.on(0).await.connection.watch(&[bob.id()], &[]).await.unwrap();
    assert_eq!(watched.presence[0].state, "offline");
}

async fn strangers_are_left_out(stack: &Stack) {
    let (alice, eve) = (stack.user("alice").await, stack.user("eve").await);
    let _alices = alice.on(1).await;
    let eves = eve.on(0).await;
    assert!(eves.connection.watch(&[alice.id()], &[]).await.unwrap().presence.is_empty());
    assert!(eve.api.presence(&[alice.id()]).await.unwrap().is_empty());
}

async fn invisible_looks_offline(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    desk.connection.watch(&[bob.id()], &[]).await.unwrap();
    bobs.connection.status("invisible").await.unwrap();
    desk.knows("offline", |events| {
        let last = events.iter().rev().find_map(|event| state(event, bob.id()))?;
        (last == "offline").then_some(())
    })
    .await;
    assert_eq!(alice.api_at(1).presence(&[bob.id()]).await.unwrap()[0].state, "offline");
}

/// The grace is a setting, and fifteen seconds of it would be a slow story: this one has a standalone of its own.
async fn offline_comes_once_and_only_after_the_grace(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    desk.connection.watch(&[bob.id()], &[]).await.unwrap();
    let offline = |events: &[Event]| events.iter().filter(|event| state(event, bob.id()) == Some("offline")).count();

    let bobs = bob.on(0).await;
    desk.sees("online", |event| (state(event, bob.id()) == Some("online")).then_some(())).await;
    let held = bobs.drops_off();
    let back = bob.resumes(0, &held).await;
    assert_eq!(offline(&desk.heard()), 0);

    // The grace counts from the last sign of life, which on a busy machine was a while before this.
    let gone = std::time::Instant::now();
    drop(back);
    desk.knows("offline", |events| (offline(events) == 1).then_some(())).await;
    assert!(
        gone.elapsed().as_millis() >= 1_500,
        "it came after {:?}: the reconnect must not have shown",
        gone.elapsed()
    );
    let seen = desk.heard();
    let last = seen.iter().rev().find_map(|event| match event {
        Event::Presence(e) if e.user == bob.id() => e.last_seen,
        _ => None,
    });
    assert!(last.is_some(), "offline says when he was last seen");
}

async fn when_somebody_was_last_seen_outlives_the_process(own: &mut OwnStandalone) {
    let stack = own.stack().clone();
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    alice.makes_a_group("seen", &[&bob, &carol]).await;
    let (desk, bobs, carols) = (alice.on(0).await, bob.on(0).await, carol.on(0).await);
    desk.connection.watch(&[bob.id(), carol.id()], &[]).await.unwrap();
    drop(bobs);
    let seen = desk
        .sees("offline", |event| match event {
            Event::Presence(e) if e.user == bob.id() && e.state == "offline" => e.last_seen,
            _ => None,
        })
        .await;

    own.restarts().await;
    let asked = alice.api.presence(&[bob.id(), carol.id()]).await.unwrap();
    assert_eq!(asked.iter().map(|it| it.state.as_str()).collect::<Vec<_>>(), ["offline", "offline"]);
    assert_eq!(asked[0].last_seen, Some(seen));
    // Carol was there until the end, which nobody had been told yet.
    assert!(asked[1].last_seen > Some(seen), "{asked:?}");
    let watched = alice.on(0).await.connection.watch(&[bob.id(), carol.id()], &[]).await.unwrap().presence;
    assert_eq!(watched.iter().map(|it| it.last_seen).collect::<Vec<_>>(), [Some(seen), asked[1].last_seen]);
    drop((desk, carols));
}

async fn what_was_chosen_outlives_the_process(own: &mut OwnStandalone) {
    let stack = own.stack().clone();
    let (alice, shy, busy, plain) =
        (stack.user("alice").await, stack.user("shy").await, stack.user("busy").await, stack.user("plain").await);
    alice.makes_a_group("seen", &[&shy, &busy, &plain]).await;
    let (shys, busys) = (shy.on(0).await, busy.on(0).await);
    shys.connection.status("invisible").await.unwrap();
    busys.connection.status("dnd").await.unwrap();

    own.restarts().await;
    drop((shys, busys));
    let desk = alice.on(0).await;
    desk.connection.watch(&[shy.id(), busy.id(), plain.id()], &[]).await.unwrap();
    // In this order at one gateway: when the last is told, the others would have been.
    let _devices = (shy.on(0).await, busy.on(0).await, plain.on(0).await);
    desk.sees("online", |event| (state(event, plain.id()) == Some("online")).then_some(())).await;
    let told: Vec<(UserId, String)> = desk
        .heard()
        .iter()
        .filter_map(|event| match event {
            Event::Presence(e) if e.user != plain.id() => Some((e.user, e.state.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(busy.id(), "dnd".to_owned())]);
    assert_eq!(alice.api.presence(&[shy.id()]).await.unwrap()[0].state, "offline");
}
