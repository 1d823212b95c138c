//! Attach, then trust the read: what is published while somebody comes, joins or leaves is told once, or not at all when
//! the answer has told it already.

use parlance_proto::event::user_event::Kind;
use serde_json::json;
use service_kit::id::{RoomId, Topic};

use crate::stage::{Stage, chat::Person, of_me, of_room, of_user};

const NOTHING: [&str; 0] = [];

/// Alice is in the room already, at rev 10, and Bob has said hello, which is read but not answered yet.
async fn bob_waits(
    stage: &Stage,
    alice: Person,
    bob: Person,
) -> (RoomId, crate::stage::socket::Socket, crate::stage::socket::Socket) {
    let room = stage.chat.room(&[alice, bob]);
    let first = stage.enters(alice).await;
    stage.chat.gates.hold("hello");
    let second = stage.comes(bob).await;
    stage.chat.gates.called("hello", 2).await;
    (room, first, second)
}

#[tokio::test]
async fn what_is_published_while_hello_is_read_comes_after_welcome_and_once() {
    let stage = Stage::set().await;
    let (room, mut alice, mut bob) = bob_waits(&stage, Person::new(), Person::new()).await;
    let (first, second) = (stage.chat.message(room), stage.chat.message(room));
    stage.publish([of_room(first.clone()), of_room(second.clone())]);
    stage.publish([of_room(first), of_room(second)]);
    assert_eq!(stage.told(&mut alice).await, ["message 11", "message 12"]);
    stage.chat.gates.open("hello");
    assert_eq!(stage.told(&mut bob).await, ["welcome", "message 11", "message 12"]);
    assert_eq!(stage.chat.gates.calls("hello"), 2, "the first read could be trusted");
}

#[tokio::test]
async fn what_hello_has_read_is_not_told_again_however_late_it_comes() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let mut alice = stage.enters(alice).await;
    let late = [stage.chat.message(room), stage.chat.message(room)];
    let mut bob = stage.enters(bob).await;
    stage.publish(late.map(of_room));
    assert_eq!(stage.told(&mut alice).await, ["message 11", "message 12"]);
    assert_eq!(stage.told(&mut bob).await, NOTHING, "welcome gave rev 12");
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut bob).await, ["message 13"]);
}

#[tokio::test]
async fn a_hello_older_than_what_was_delivered_before_the_attachment_is_read_again() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice]);
    let mut alice_socket = stage.enters(alice).await;
    // Bob is added after his rooms were listed: his hello names a room that is not attached.
    stage.chat.gates.hold("memberships");
    stage.chat.gates.hold("hello");
    let mut bob_socket = stage.comes(bob).await;
    stage.chat.gates.called("memberships", 2).await;
    stage.publish([of_room(stage.chat.join(room, bob))]);
    stage.chat.gates.open("memberships");
    stage.chat.gates.called("hello", 2).await;
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut alice_socket).await, ["member 11", "message 12"]);
    stage.chat.gates.let_one_go("hello");
    stage.chat.gates.called("hello", 3).await;
    assert_eq!(stage.directory.attached(Topic::Room(room)), 1, "one entry for all who are here");
    stage.publish([of_room(stage.chat.message(room))]);
    stage.chat.gates.open("hello");
    let heard = stage.told(&mut bob_socket).await;
    assert_eq!(heard, ["welcome", "message 13"], "the answer was read at 12");
}

#[tokio::test]
async fn a_room_in_the_answer_that_nobody_had_attached_is_attached_and_read_again() {
    let stage = Stage::set().await;
    let bob = Person::new();
    let room = stage.chat.room(&[]);
    stage.chat.gates.hold("memberships");
    let mut socket = stage.comes(bob).await;
    stage.chat.gates.called("memberships", 1).await;
    stage.chat.join(room, bob);
    stage.chat.gates.open("memberships");
    assert_eq!(stage.told(&mut socket).await, ["welcome"]);
    assert_eq!(stage.chat.gates.calls("hello"), 2);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut socket).await, ["message 12"]);
}

#[tokio::test]
async fn a_member_who_is_removed_while_hello_is_read_gets_nothing_of_the_room() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    stage.chat.room(&[bob]);
    let (room, mut first, mut second) = bob_waits(&stage, alice, bob).await;
    let removed = stage.chat.remove(room, bob);
    stage.publish([of_room(removed), of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut first).await, ["removed 11", "message 12"]);
    stage.chat.gates.open("hello");
    let welcome = second.frame().await;
    assert_eq!(welcome["welcome"]["rooms"].as_array().map(Vec::len), Some(1), "{welcome}");
    assert_eq!(stage.chat.gates.calls("hello"), 3, "the first answer named the room");
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut second).await, NOTHING);
    assert_eq!(stage.told(&mut first).await, ["message 13"]);
}

#[tokio::test]
async fn own_states_that_wait_for_welcome_are_told_only_when_they_are_newer() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    stage.chat.set_me_rev(5);
    let (room, _, mut socket) = bob_waits(&stage, alice, bob).await;
    stage.publish([of_me(bob, room, 4), of_me(bob, room, 5), of_me(bob, room, 6)]);
    let mut other = stage.comes(alice).await;
    stage.chat.gates.open("hello");
    assert_eq!(stage.told(&mut socket).await, ["welcome", "me 6"]);
    assert_eq!(stage.told(&mut other).await, ["welcome"], "and nobody else hears of it");
}

#[tokio::test]
async fn nobody_hears_anything_before_welcome() {
    let stage = Stage::set().await;
    let bob = Person::new();
    let (room, mut alice, mut socket) = bob_waits(&stage, Person::new(), bob).await;
    stage.publish([of_room(stage.chat.message(room)), of_me(bob, room, 9)]);
    stage.publish([of_user(bob, 2, Kind::Joined(room.to_wire()))]);
    assert_eq!(stage.told(&mut alice).await, ["message 11"]);
    stage.chat.gates.open("hello");
    assert_eq!(stage.told(&mut socket).await, ["welcome", "message 11", "me 9"]);
}

#[tokio::test]
async fn who_joins_is_told_once_and_then_everything_above_that() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice]);
    let (mut alice_socket, mut bob_socket) = (stage.enters(alice).await, stage.enters(bob).await);
    let mut second = stage.enters(bob).await;
    stage.chat.gates.hold("read_room");
    let joined = stage.chat.join(room, bob);
    stage.publish([of_user(bob, 2, Kind::Joined(room.to_wire())), of_room(joined.clone())]);
    stage.chat.gates.called("read_room", 1).await;
    stage.publish([of_room(stage.chat.message(room)), of_room(joined)]);
    assert_eq!(stage.told(&mut alice_socket).await, ["member 11", "message 12"]);
    stage.chat.gates.open("read_room");
    for socket in [&mut bob_socket, &mut second] {
        assert_eq!(socket.told(2).await, ["joined 11", "message 12"]);
    }
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut bob_socket).await, ["message 13"]);
    assert_eq!(stage.chat.gates.calls("read_room"), 1, "one read for all connections of the user");
}

#[tokio::test]
async fn who_leaves_is_told_once_whichever_event_comes_first() {
    for room_first in [true, false] {
        let stage = Stage::set().await;
        let (alice, bob) = (Person::new(), Person::new());
        let room = stage.chat.room(&[alice, bob]);
        let (mut alice_socket, mut bob_socket) = (stage.enters(alice).await, stage.enters(bob).await);
        let removed = of_room(stage.chat.remove(room, bob));
        let left = of_user(bob, 2, Kind::Left(room.to_wire()));
        if room_first {
            stage.publish([removed, left]);
            assert_eq!(bob_socket.told(1).await, ["left"]);
        } else {
            stage.publish([left]);
            assert_eq!(bob_socket.told(1).await, ["left"]);
            stage.publish([removed]);
        }
        stage.publish([of_room(stage.chat.message(room))]);
        assert_eq!(stage.told(&mut alice_socket).await, ["removed 11", "message 12"]);
        assert_eq!(stage.told(&mut bob_socket).await, NOTHING);
    }
}

#[tokio::test]
async fn who_was_removed_and_added_again_in_a_gap_hears_nothing_of_the_time_between() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let (mut alice_socket, mut bob_socket) = (stage.enters(alice).await, stage.enters(bob).await);
    stage.chat.remove(room, bob);
    stage.chat.message(room);
    stage.chat.join(room, bob);
    // The row of the membership is the newer one now.
    stage.chat.compact(room, 1);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(alice_socket.told(3).await, ["message 12 after 10", "member 13", "message 14"]);
    assert_eq!(bob_socket.told(2).await, ["left", "joined 14"]);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut bob_socket).await, ["message 15"]);
}

#[tokio::test]
async fn who_goes_while_a_joined_room_is_read_leaves_nothing_behind() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice]);
    let (mut alice_socket, bob_socket) = (stage.enters(alice).await, stage.enters(bob).await);
    stage.chat.gates.hold("read_room");
    let joined = stage.chat.join(room, bob);
    stage.publish([of_user(bob, 2, Kind::Joined(room.to_wire())), of_room(joined)]);
    stage.chat.gates.called("read_room", 1).await;
    bob_socket.leave().await;
    let ended = parlance_proto::presence::op::Kind::SessionEnd;
    crate::stage::gates::until("its session ended", || stage.directory.count(ended) == 1).await;
    stage.chat.gates.open("read_room");
    assert_eq!(stage.told(&mut alice_socket).await, ["member 11"]);
    let mut again = stage.enters(bob).await;
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut again).await, ["message 12"]);
    assert_eq!(stage.chat.gates.calls("read_room"), 1, "nobody was there to be attached again");
}

#[tokio::test]
async fn a_client_that_holds_the_room_gets_only_what_is_above() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.comes_holding(alice, json!({room.to_string(): 10})).await;
    let welcome = socket.frame().await;
    assert_eq!(welcome["welcome"]["rooms"], json!([]), "nothing moved");
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut socket).await, ["message 11"]);
}

#[tokio::test]
async fn what_an_older_connection_has_missed_is_noticed_when_a_newer_one_reads_it() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let elsewhere = alice.elsewhere();
    stage.chat.room(&[alice]);
    let (mut old, mut revoked) = (stage.enters(alice).await, stage.enters(elsewhere).await);
    // Alice joins a room and ends a session, and nobody tells the gateway; then she comes with another device, whose
    // hello says that her own affairs have moved.
    let room = stage.chat.room(&[]);
    stage.chat.join(room, alice);
    stage.chat.revoke(elsewhere);
    let mut new = stage.enters(alice.elsewhere()).await;
    assert_eq!(old.told(1).await, ["joined 11"]);
    assert_eq!(revoked.closed().await.0, 4003);
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(new.told(1).await, ["message 12"]);
    assert_eq!(old.told(1).await, ["message 12"]);
}
