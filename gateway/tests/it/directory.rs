//! The gateway's entries in the delivery directory: there before anything is read, and there again after any loss.

use std::time::Duration;

use parlance_proto::{
    presence::op::Kind,
    v1::PresenceState::{Dnd, Invisible, Unspecified},
};
use service_kit::id::Topic;
use tokio::time::{Instant, timeout};

use crate::stage::{Stage, chat::Person, gates::until, of_room};

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn hello_is_read_only_when_the_entries_are_acknowledged() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    stage.directory.gates.hold("update");
    let mut socket = stage.comes(alice).await;
    stage.directory.gates.called("update", 1).await;
    assert_eq!(stage.chat.gates.calls("memberships"), 0, "the user's topic comes first");
    stage.directory.gates.let_one_go("update");
    stage.directory.gates.called("update", 2).await;
    assert_eq!(stage.chat.gates.calls("memberships"), 1);
    assert_eq!(stage.chat.gates.calls("hello"), 0, "the rooms' topics come before the read");
    stage.directory.gates.open("update");
    assert_eq!(socket.told(1).await, ["welcome"]);
    assert_eq!(stage.directory.attached(Topic::Room(room)), 1);
    assert_eq!(stage.directory.attached(Topic::User(alice.user)), 1);
}

#[tokio::test]
async fn a_directory_that_hangs_delays_hello_a_little_and_is_made_up_for_when_it_answers() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let mut known = stage.enters(alice).await;
    stage.chat.room(&[bob]);
    stage.directory.gates.hold("update");
    let began = Instant::now();
    let mut socket = stage.comes(bob).await;
    assert_eq!(socket.told(1).await, ["welcome"]);
    assert!(began.elapsed() < Duration::from_millis(3_000), "{:?}", began.elapsed());
    // Published to nobody, since no publisher knows of this gateway yet.
    stage.chat.message(room);
    let heads = stage.chat.gates.calls("heads");
    stage.directory.gates.open("update");
    stage.chat.gates.called("heads", heads + 1).await;
    assert_eq!(socket.told(1).await, ["message 11"]);
    assert_eq!(known.told(1).await, ["message 11"]);
}

#[tokio::test]
async fn a_directory_that_is_merely_slow_is_made_up_for_too() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    stage.directory.gates.hold("update");
    let mut socket = stage.comes(alice).await;
    // Longer than a connection waits for its entries, and not so long that the call itself is given up.
    stage.chat.gates.called("memberships", 1).await;
    stage.directory.gates.let_one_go("update");
    assert_eq!(socket.told(1).await, ["welcome"]);
    stage.chat.message(room);
    stage.directory.gates.open("update");
    let told = timeout(Duration::from_secs(5), socket.told(1)).await;
    assert_eq!(told.expect("heads are compared as soon as the entries are there"), ["message 11"]);
}

#[tokio::test]
async fn an_expired_lease_has_everything_registered_again_and_closes_nothing() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let (mut first, mut second) = (stage.enters(alice).await, stage.enters(bob).await);
    until("both sessions", || stage.directory.count(Kind::Session) == 2).await;
    let ops = stage.directory.ops();
    stage.chat.message(room);
    stage.directory.expire();
    until("a full registration", || stage.directory.sweeps().len() == 1).await;
    let numbers = stage.directory.numbers_after(ops);
    assert_eq!(numbers.len(), 5, "a room, two users, two sessions");
    let below = stage.directory.sweeps()[0];
    assert!(numbers.iter().all(|number| *number >= below), "{numbers:?} are not below {below}");
    for socket in [&mut first, &mut second] {
        assert_eq!(socket.told(1).await, ["message 11"], "what was missed meanwhile");
    }
    assert_eq!(stage.directory.boots().len(), 1);
}

#[tokio::test]
async fn a_directory_that_came_back_empty_is_filled_again() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    stage.directory.forget_all();
    stage.chat.message(room);
    until("a full registration", || stage.directory.sweeps().len() == 1).await;
    assert_eq!(socket.told(1).await, ["message 11"]);
    assert_eq!(stage.directory.attached(Topic::Room(room)), 2);
}

#[tokio::test]
async fn a_count_that_differs_twice_has_everything_registered_again() {
    let stage = Stage::set().await;
    let alice = Person::new();
    stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    stage.directory.lose_an_entry();
    let renewals = stage.directory.gates.calls("renew");
    until("a full registration", || stage.directory.sweeps().len() == 1).await;
    assert!(stage.directory.gates.calls("renew") >= renewals + 2, "once may be an operation on its way");
    assert_eq!(stage.told(&mut socket).await, NOTHING);
}

#[tokio::test]
async fn a_gateway_declared_dead_closes_its_sockets_and_begins_anew_under_another_boot() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    let dead = stage.boot();
    stage.directory.clear(dead);
    let updates = stage.directory.gates.calls("update");
    stage.chat.join(room, Person::new());
    let (code, reason, _) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (1012, "1000"));
    until("another boot", || stage.directory.boots().len() == 2).await;
    assert_ne!(stage.boot(), dead);
    assert!(stage.directory.gates.calls("update") <= updates + 1, "what a dead boot wants is not tried again");
    let mut again = stage.enters(alice).await;
    stage.publish([of_room(stage.chat.message(room))]);
    assert_eq!(stage.told(&mut again).await, ["message 12"]);
}

#[tokio::test]
async fn a_second_connection_of_a_user_adds_no_entry_but_its_session() {
    let stage = Stage::set().await;
    let alice = Person::new();
    for _ in 0..5 {
        stage.chat.room(&[alice]);
    }
    let first = stage.enters(alice).await;
    assert_eq!(stage.directory.count(Kind::Attach), 6);
    let _second = stage.enters(alice).await;
    first.leave().await;
    until("the session ended", || stage.directory.count(Kind::SessionEnd) == 1).await;
    let _third = stage.enters(alice).await;
    until("its session", || stage.directory.count(Kind::Session) == 3).await;
    assert_eq!(stage.directory.count(Kind::Attach), 6);
    assert_eq!(stage.directory.count(Kind::Detach), 0, "gone and back within the linger");
}

#[tokio::test]
async fn a_connection_that_does_not_make_its_user_online_has_no_session_there() {
    let stage = Stage::set().await;
    let alice = Person::new();
    stage.chat.room(&[alice]);
    let mut socket = crate::stage::socket::Socket::open(stage.address).await;
    let hello = serde_json::json!({"token": stage.token(alice, 60), "presence": false});
    socket.ask("hello", hello).await;
    assert_eq!(socket.told(1).await, ["welcome"]);
    socket.leave().await;
    let other = stage.enters(alice).await;
    until("the other's session", || stage.directory.count(Kind::Session) == 1).await;
    other.leave().await;
    until("its end", || stage.directory.count(Kind::SessionEnd) == 1).await;
}

#[tokio::test]
async fn a_session_has_its_users_choice_from_the_beginning() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    stage.chat.choose(alice, Invisible, 7);
    let _sockets = (stage.enters(alice).await, stage.enters(bob).await);
    until("both sessions", || stage.directory.count(Kind::Session) == 2).await;
    assert_eq!(stage.directory.choices(alice.user), [(Invisible, 7)]);
    assert_eq!(stage.directory.choices(bob.user), [(Unspecified, 0)]);
}

#[tokio::test]
async fn sessions_are_registered_again_with_what_their_users_have_chosen_since() {
    let stage = Stage::set().await;
    let (alice, late) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, late]);
    let _socket = stage.enters(alice).await;
    until("the session", || stage.directory.count(Kind::Session) == 1).await;
    // By another gateway, which this one is not told.
    stage.chat.choose(alice, Dnd, 8);
    stage.chat.gates.hold("choices");
    stage.directory.forget_all();
    stage.chat.gates.called("choices", 1).await;
    until("the topics", || stage.directory.attached(Topic::Room(room)) == 2).await;
    // Whoever comes now does not wait for it.
    let _late = stage.enters(late).await;
    until("the newcomer", || stage.directory.choices(late.user).len() == 1).await;
    assert_eq!(stage.directory.choices(alice.user), [(Unspecified, 0)], "not before it was read");
    stage.chat.gates.open("choices");
    until("a full registration", || stage.directory.sweeps().len() == 1).await;
    assert_eq!(stage.directory.choices(alice.user), [(Unspecified, 0), (Dnd, 8)]);
    assert_eq!(stage.directory.choices(late.user).len(), 1, "it was there already");
}
