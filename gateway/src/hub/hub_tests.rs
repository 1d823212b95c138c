//! Who is here, and for how long after they went.

use service_kit::id::SessionId;

use super::*;
use crate::frame::Format;

fn conn(number: u64, user: UserId) -> Arc<Conn> {
    Arc::new(Conn::new(number, user, SessionId::generate(), Format::Json, true, 0, 0))
}

/// Waits until these are the topics that nobody has wanted for long enough.
fn wait_for_idle(hub: &Hub, topics: &[Topic]) {
    let deadline = Instant::now() + Duration::from_secs(5);
    let wanted: HashSet<Topic> = topics.iter().copied().collect();
    while hub.idle().into_iter().collect::<HashSet<_>>() != wanted {
        assert!(Instant::now() < deadline, "{:?}", hub.idle());
        std::thread::yield_now();
    }
}

#[test]
fn a_topic_lingers_after_its_last_connection_and_is_forgotten_then() {
    let (hub, user, room) = (Hub::default(), UserId::generate(), RoomId::generate());
    let first = conn(1, user);
    hub.add(&first, 10);
    assert!(hub.hold(&first, room));
    hub.remove(&first);
    assert_eq!(hub.idle(), [], "against churn");
    let second = conn(2, user);
    hub.add(&second, 10);
    assert!(hub.hold(&second, room));
    std::thread::sleep(2 * LINGER);
    assert_eq!(hub.idle(), [], "back within the linger");
    hub.remove(&second);
    wait_for_idle(&hub, &[Topic::User(user), Topic::Room(room)]);
    assert!(hub.forget(Topic::User(user)));
    assert!(hub.forget(Topic::Room(room)));
    assert!(hub.find(room).is_none() && hub.user_heads().is_empty());
}

#[test]
fn who_comes_back_at_the_last_moment_keeps_the_topic() {
    let (hub, user, room) = (Hub::default(), UserId::generate(), RoomId::generate());
    let first = conn(1, user);
    hub.add(&first, 10);
    hub.hold(&first, room);
    hub.remove(&first);
    wait_for_idle(&hub, &[Topic::User(user), Topic::Room(room)]);
    let second = conn(2, user);
    hub.add(&second, 10);
    hub.hold(&second, room);
    assert!(!hub.forget(Topic::User(user)));
    assert!(!hub.forget(Topic::Room(room)));
}

#[test]
fn a_connection_that_is_gone_is_not_attached_any_more() {
    let (hub, user, room) = (Hub::default(), UserId::generate(), RoomId::generate());
    let gone = conn(1, user);
    hub.add(&gone, 10);
    hub.remove(&gone);
    assert!(!hub.hold(&gone, room));
    assert!(hub.find(room).is_none_or(|room| !lock(&room).has(user)), "nobody would ever take it away");
}

#[test]
fn a_hello_covers_a_user_only_when_no_other_connection_can_have_missed_something() {
    let (hub, user) = (Hub::default(), UserId::generate());
    let (first, second, third) = (conn(1, user), conn(2, user), conn(3, user));
    hub.add(&first, 10);
    hub.add(&second, 10);
    assert!(hub.greeted(&first, 5), "the second one has not read anything yet");
    first.welcome();
    assert!(hub.greeted(&second, 5), "the same read");
    second.welcome();
    hub.add(&third, 10);
    assert!(!hub.greeted(&third, 6), "what happened at 6 may not have reached the others");
    hub.user_read(user, 7);
    assert!(!hub.greeted(&third, 6), "and this one has not seen 7");
    assert!(hub.greeted(&third, 7));
}

#[test]
fn the_oldest_open_connection_gives_way_to_one_too_many() {
    let (hub, user) = (Hub::default(), UserId::generate());
    let conns: Vec<_> = (1..=4).map(|number| conn(number, user)).collect();
    assert!(conns[..2].iter().all(|conn| hub.add(conn, 2).is_none()));
    let oldest = hub.add(&conns[2], 2).expect("one too many");
    assert_eq!(oldest.number, 1);
    oldest.close(crate::frame::Close::TooManyConnections);
    assert_eq!(hub.add(&conns[3], 2).expect("one too many").number, 2, "what is being closed does not count");
}
