//! What was lost on its way is noticed, asked for once, and told once and in order.

use parlance_proto::event::user_event::Kind;
use service_kit::id::{RoomId, Topic};
use tonic::Code;

use crate::stage::{Stage, chat::Person, gates::until, of_room, of_user, socket::Socket};

const NOTHING: [&str; 0] = [];

/// So many people with a connection each, all in one room.
async fn crowd(stage: &Stage, count: usize) -> (RoomId, Vec<Socket>) {
    let people: Vec<_> = (0..count).map(|_| Person::new()).collect();
    let room = stage.chat.room(&people);
    let mut sockets = Vec::new();
    for person in people {
        sockets.push(stage.enters(person).await);
    }
    (room, sockets)
}

#[tokio::test]
async fn a_loss_is_asked_for_once_for_all_connections_and_told_in_order() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 50).await;
    stage.publish([of_room(stage.chat.message(room))]);
    for _ in 0..3 {
        stage.chat.message(room);
    }
    stage.lose();
    // Any later parcel shows that one is missing.
    stage.publish([of_user(Person::new(), 1, Kind::Left(room.to_wire()))]);
    for socket in &mut sockets {
        assert_eq!(socket.told(4).await, ["message 11", "message 12", "message 13", "message 14"]);
    }
    stage.publish([of_room(stage.chat.message(room))]);
    for socket in &mut sockets {
        assert_eq!(stage.told(socket).await, ["message 15"]);
    }
    assert_eq!(stage.chat.gates.calls("repair"), 1, "one query for the room, not one for each of fifty");
    assert_eq!(stage.chat.heads_asked(), [(0, 50), (1, 0)], "each slice once");
}

#[tokio::test]
async fn a_loss_without_anything_after_it_is_told_by_the_beat() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    stage.publish([of_room(stage.chat.message(room))]);
    stage.chat.message(room);
    stage.lose();
    assert_eq!(sockets[0].told(2).await, ["message 11", "message 12"]);
}

#[tokio::test]
async fn an_early_event_waits_for_the_one_before_it_and_is_repaired_when_that_does_not_come() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 2).await;
    let [first, second] = [stage.chat.message(room), stage.chat.message(room)];
    stage.publish([of_room(second)]);
    stage.publish([of_room(first)]);
    assert_eq!(stage.told(&mut sockets[0]).await, ["message 11", "message 12"]);
    stage.chat.message(room);
    let early = stage.chat.message(room);
    let began = tokio::time::Instant::now();
    stage.publish([of_room(early)]);
    for socket in &mut sockets {
        let told = socket.told_until(|frame| frame["event"]["message"]["rev"] == 14).await;
        assert!(told.ends_with(&["message 13".to_owned()]), "{told:?}");
    }
    assert!(began.elapsed() >= std::time::Duration::from_millis(90), "it was given no time");
    assert_eq!(stage.chat.gates.calls("repair"), 1);
}

#[tokio::test]
async fn a_chain_over_compacted_revs_reaches_the_clients_with_prev() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    for _ in 0..5 {
        stage.chat.message(room);
    }
    stage.chat.compact(room, 3);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(sockets[0].told(3).await, ["message 14 after 10", "message 15", "message 16"]);
}

#[tokio::test]
async fn an_event_that_names_its_prev_is_taken_when_that_was_delivered() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    for _ in 0..2 {
        stage.chat.message(room);
    }
    let mut event = stage.chat.message(room);
    event.prev = 10;
    stage.publish([of_room(event)]);
    assert_eq!(stage.told(&mut sockets[0]).await, ["message 13 after 10"]);
}

#[tokio::test]
async fn a_repair_that_fails_is_tried_again_until_it_works() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    stage.chat.gates.fail("repair", Code::Unavailable);
    stage.chat.message(room);
    stage.publish([of_room(stage.chat.message(room))]);
    stage.chat.gates.called("repair", 3).await;
    stage.chat.gates.recover("repair");
    assert_eq!(sockets[0].told(2).await, ["message 11", "message 12"]);
    assert_eq!(stage.told(&mut sockets[0]).await, NOTHING);
}

#[tokio::test]
async fn heads_that_cannot_be_compared_are_asked_again() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    stage.chat.gates.fail("heads", Code::Unavailable);
    stage.publish([of_room(stage.chat.message(room))]);
    stage.chat.message(room);
    stage.lose();
    stage.chat.gates.called("heads", 3).await;
    stage.chat.gates.recover("heads");
    assert_eq!(sockets[0].told(2).await, ["message 11", "message 12"]);
}

#[tokio::test]
async fn a_user_who_cannot_be_read_keeps_no_room_from_its_repair() {
    let stage = Stage::set().await;
    let people = [Person::new(), Person::new()];
    let room = stage.chat.room(&people);
    let mut socket = stage.enters(people[0]).await;
    let _other = stage.enters(people[1]).await;
    stage.chat.gates.fail("standing", Code::Internal);
    stage.chat.touch_user(people[1]);
    stage.publish([of_room(stage.chat.message(room))]);
    stage.chat.message(room);
    stage.lose();
    assert_eq!(socket.told(2).await, ["message 11", "message 12"]);
}

#[tokio::test]
async fn a_repair_in_pages_is_told_whole() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 1).await;
    stage.chat.set_repair_page(3);
    for _ in 0..10 {
        stage.chat.message(room);
    }
    stage.publish([of_room(stage.chat.message(room))]);
    let told: Vec<String> = (11..=21).map(|rev| format!("message {rev}")).collect();
    assert_eq!(sockets[0].told(11).await, told);
    assert_eq!(stage.chat.gates.calls("repair"), 4);
}

#[tokio::test]
async fn a_gap_of_more_than_five_thousand_events_is_left_to_the_clients() {
    let stage = Stage::set().await;
    let (room, mut sockets) = crowd(&stage, 2).await;
    for _ in 0..6_000 {
        stage.chat.message(room);
    }
    stage.publish([of_room(stage.chat.message(room))]);
    for socket in &mut sockets {
        let told = socket.told_until(|frame| frame["event"]["resync"]["rev"] == 6_011).await;
        assert!(told.len() < 5_000, "{} events before it", told.len());
    }
    stage.publish([of_room(stage.chat.message(room))]);
    for socket in &mut sockets {
        assert_eq!(stage.told(socket).await, ["message 6012"]);
    }
}

#[tokio::test]
async fn a_jump_of_a_users_rev_has_the_user_read_anew() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let elsewhere = alice.elsewhere();
    let (mut here, mut there) = (stage.enters(alice).await, stage.enters(elsewhere).await);
    let room = stage.chat.room(&[]);
    stage.chat.join(room, alice);
    let rev = stage.chat.revoke(elsewhere);
    // Both were lost; a third change of her own affairs shows it.
    stage.publish([of_user(alice, rev + 1, Kind::Left(RoomId::generate().to_wire()))]);
    let (code, _, told) = there.closed().await;
    assert_eq!((code, told.len()), (4003, 0), "{told:?}");
    assert_eq!(here.told(1).await, ["joined 11"]);
    assert_eq!(stage.directory.attached(Topic::Room(room)), 1);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut here).await, ["message 12"]);
    assert_eq!(stage.told(&mut here).await, NOTHING);
}

#[tokio::test]
async fn a_room_that_was_left_in_a_gap_is_let_go() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let (home, room) = (stage.chat.room(&[bob]), stage.chat.room(&[alice, bob]));
    let (mut alice_socket, mut bob_socket) = (stage.enters(alice).await, stage.enters(bob).await);
    stage.publish([of_room(stage.chat.message(home))]);
    assert_eq!(bob_socket.told(1).await, ["message 11"]);
    stage.chat.remove(room, bob);
    stage.lose();
    assert_eq!(bob_socket.told(1).await, ["left"]);
    assert_eq!(alice_socket.told(1).await, ["removed 11"]);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut alice_socket).await, ["message 12"]);
    assert_eq!(stage.told(&mut bob_socket).await, NOTHING);
}

#[tokio::test]
async fn a_revoked_session_is_closed_at_once() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let others = [alice.elsewhere(), alice.elsewhere()];
    let mut kept = stage.enters(alice).await;
    let (mut first, mut second) = (stage.enters(others[0]).await, stage.enters(others[1]).await);
    let rev = stage.chat.revoke(others[0]);
    stage.publish([of_user(alice, rev, Kind::SessionRevoked(others[0].session.to_wire()))]);
    assert_eq!(first.closed().await.0, 4003);
    let rev = stage.chat.revoke(others[1]);
    stage.publish([of_user(alice, rev, Kind::OthersRevoked(alice.session.to_wire()))]);
    assert_eq!(second.closed().await.0, 4003);
    assert_eq!(stage.told(&mut kept).await, NOTHING);
    until("no read was needed", || stage.chat.gates.calls("standing") == 0).await;
}
