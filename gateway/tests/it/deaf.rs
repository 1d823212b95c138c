//! A gateway whose own probes do not come back: deaf, it asks for revocations instead.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::stage::{Stage, chat::Person, gates::until};

#[tokio::test]
async fn a_deaf_gateway_asks_for_its_users_every_second_and_closes_revoked_sessions() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let elsewhere = alice.elsewhere();
    stage.chat.room(&[alice]);
    let (mut kept, mut revoked) = (stage.enters(alice).await, stage.enters(elsewhere).await);
    stage.bus_tasks.stop();
    stage.chat.gates.called("heads", 2).await;
    assert!(!stage.readiness.is_ready(), "it says so");
    stage.chat.revoke(elsewhere);
    let began = Instant::now();
    assert_eq!(revoked.closed().await.0, 4003);
    assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
    assert_eq!(kept.told_so_far().await, [""; 0]);
}

#[tokio::test]
async fn what_a_blind_gateway_has_missed_is_told_once_when_it_can_ask_again() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    stage.chat.gates.fail("heads", Code::Unavailable);
    stage.bus_tasks.stop();
    stage.chat.gates.called("heads", 2).await;
    for _ in 0..3 {
        stage.chat.message(room);
    }
    assert_eq!(socket.told_so_far().await, [""; 0]);
    stage.chat.gates.recover("heads");
    assert_eq!(socket.told(3).await, ["message 11", "message 12", "message 13"]);
    until("once", || stage.chat.gates.calls("repair") == 1).await;
    assert_eq!(socket.told_so_far().await, [""; 0]);
}
