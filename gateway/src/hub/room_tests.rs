//! Each of these is a way to lose, double or leak a message.

use parlance_proto::{
    event::{MemberChanged, MemberRemoved},
    v1,
};
use service_kit::id::{ClientId, MessageId, SessionId};

use super::*;
use crate::frame::Format;

struct Fixture {
    room: Room,
    next: u64,
}

impl Fixture {
    fn new() -> Self {
        Self { room: Room::new(RoomId::generate()), next: 0 }
    }

    fn conn(&mut self, user: UserId) -> Arc<Conn> {
        self.next += 1;
        let conn = Conn::new(self.next, user, SessionId::generate(), Format::Json, true, 0, 0);
        conn.welcome();
        Arc::new(conn)
    }

    /// A connection that has read the room at `rev`.
    fn member(&mut self, rev: i64) -> Arc<Conn> {
        let conn = self.conn(UserId::generate());
        assert!(self.room.hold(&conn));
        assert!(self.room.covers(&conn, rev));
        self.room.release(&conn, rev, 0);
        conn
    }

    fn event(&self, rev: i64, kind: Kind) -> RoomEvent {
        RoomEvent { room: self.room.id().to_wire(), rev, kind: Some(kind), ..RoomEvent::default() }
    }

    fn message(&self, rev: i64) -> RoomEvent {
        let message = v1::Message {
            room: self.room.id().to_wire(),
            seq: rev,
            rev,
            id: MessageId::generate().to_wire(),
            client_id: ClientId::generate().to_wire(),
            sender: UserId::generate().to_wire(),
            kind: v1::MessageKind::Text.into(),
            text: "hi".to_owned(),
            ..v1::Message::default()
        };
        self.event(rev, Kind::Message(message))
    }

    fn joined(&self, rev: i64, user: UserId) -> RoomEvent {
        let user = v1::User { id: user.to_wire(), ..v1::User::default() };
        let member = v1::Member { user: Some(user), role: v1::Role::Member.into(), rev, ..v1::Member::default() };
        let changed = MemberChanged { member: Some(member), joined_rev: rev, visible_from_seq: 0 };
        self.event(rev, Kind::Member(changed))
    }

    fn removed(&self, rev: i64, user: UserId, joined_rev: i64) -> RoomEvent {
        self.event(rev, Kind::Removed(MemberRemoved { user: user.to_wire(), joined_rev }))
    }
}

/// The kinds and revs of what a connection was sent, like `message 5`.
fn got(conn: &Conn) -> Vec<String> {
    conn.take()
        .frames
        .iter()
        .map(|frame| {
            let frame: serde_json::Value = serde_json::from_slice(frame.payload()).unwrap();
            let (kind, body) = frame["event"].as_object().unwrap().iter().next().unwrap();
            match body["prev"].as_i64() {
                Some(prev) => format!("{kind} {} after {prev}", body["rev"]),
                None if body["rev"].is_null() => kind.clone(),
                None => format!("{kind} {}", body["rev"]),
            }
        })
        .collect()
}

#[test]
fn events_are_delivered_in_order_and_once_however_they_come() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    for rev in [12, 11, 12, 11, 10, 9, 13] {
        here.room.take(here.message(rev));
    }
    assert_eq!(got(&alice), ["message 11", "message 12", "message 13"]);
}

#[test]
fn an_event_that_follows_a_missing_one_waits_and_asks_for_a_repair() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    assert!(here.room.take(here.message(12)).gap);
    assert!(got(&alice).is_empty());
    assert!(here.room.begin_repair());
    assert!(!here.room.begin_repair());
    here.room.begin_read();
    here.room.feed(vec![here.message(11), here.message(12)]);
    assert!(!here.room.end_repair());
    assert_eq!(got(&alice), ["message 11", "message 12"]);
}

#[test]
fn rows_of_a_repair_are_chained_where_revs_are_missing() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    let edited = RoomEvent { prev: 10, ..here.message(14) };
    here.room.feed(vec![edited, here.message(15)]);
    assert_eq!(got(&alice), ["message 14 after 10", "message 15"]);
}

#[test]
fn what_comes_while_a_connection_reads_is_held_and_only_the_rest_is_sent() {
    let mut here = Fixture::new();
    here.member(10);
    let bob = here.conn(UserId::generate());
    assert!(here.room.hold(&bob));
    for rev in 11..=14 {
        here.room.take(here.message(rev));
    }
    assert!(got(&bob).is_empty());
    assert!(here.room.covers(&bob, 12));
    here.room.release(&bob, 12, 0);
    assert_eq!(got(&bob), ["message 13", "message 14"]);
}

#[test]
fn a_read_that_was_ahead_of_the_delivery_is_not_told_again() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    here.room.release(&bob, 12, 0);
    for rev in 11..=13 {
        here.room.take(here.message(rev));
    }
    assert_eq!(got(&bob), ["message 13"]);
    assert_eq!(got(&alice), ["message 11", "message 12", "message 13"]);
}

#[test]
fn a_read_that_is_older_than_what_was_delivered_before_the_attachment_is_not_trusted() {
    let mut here = Fixture::new();
    here.member(10);
    here.room.take(here.message(11));
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    assert!(!here.room.covers(&bob, 10));
    assert!(here.room.covers(&bob, 11));
}

#[test]
fn two_first_readers_with_different_snapshots_both_miss_nothing() {
    let mut here = Fixture::new();
    let (alice, bob) = (here.conn(UserId::generate()), here.conn(UserId::generate()));
    here.room.hold(&alice);
    here.room.hold(&bob);
    here.room.take(here.message(12));
    // Bob's read saw 12, and comes first: delivery begins there. Alice's saw 11 only.
    here.room.release(&bob, 12, 0);
    assert!(!here.room.covers(&alice, 11), "event 12 was dropped as known: Alice has to read again");
    assert!(here.room.covers(&alice, 12));
}

#[test]
fn a_removed_member_gets_left_and_nothing_after_it() {
    let mut here = Fixture::new();
    let (alice, bob) = (here.member(10), here.member(10));
    here.room.take(here.message(11));
    here.room.take(here.removed(12, bob.user, 3));
    here.room.take(here.message(13));
    assert_eq!(got(&bob), ["message 11", "left"]);
    assert_eq!(got(&alice), ["message 11", "removed 12", "message 13"]);
    assert!(!here.room.has(bob.user));
}

#[test]
fn a_removal_does_not_overtake_messages_that_come_late() {
    let mut here = Fixture::new();
    let bob = here.member(10);
    here.room.take(here.removed(12, bob.user, 3));
    assert!(here.room.has(bob.user), "its turn has not come");
    here.room.take(here.message(11));
    assert_eq!(got(&bob), ["message 11", "left"]);
}

#[test]
fn a_removal_during_the_read_makes_it_stale() {
    let mut here = Fixture::new();
    here.member(10);
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    here.room.take(here.removed(11, bob.user, 3));
    here.room.take(here.message(12));
    assert!(!here.room.covers(&bob, 10));
    assert!(here.room.hold(&bob), "attached anew");
    assert!(here.room.covers(&bob, 12));
}

#[test]
fn who_was_removed_and_came_back_in_a_gap_gets_nothing_of_the_time_between() {
    let mut here = Fixture::new();
    let (alice, bob) = (here.member(10), here.member(10));
    // Bob was removed at 11, came back at 13: the compacted rows show only the new membership.
    let message = RoomEvent { prev: 10, ..here.message(12) };
    let after = here.room.feed(vec![message, here.joined(13, bob.user), here.message(14)]);
    assert_eq!(after.joined, [bob.user]);
    assert_eq!(got(&bob), ["left"]);
    assert_eq!(got(&alice), ["message 12 after 10", "member 13", "message 14"]);
}

#[test]
fn a_membership_that_began_and_ended_in_a_gap_shows_its_user_nothing() {
    let mut here = Fixture::new();
    let bob = here.member(10);
    here.room.feed(vec![RoomEvent { prev: 10, ..here.message(13) }, here.removed(14, bob.user, 12)]);
    assert_eq!(got(&bob), ["left"]);
}

#[test]
fn messages_from_before_the_visible_history_are_skipped() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    here.room.release(&bob, 10, 11);
    here.room.take(here.message(11));
    here.room.take(here.message(12));
    assert_eq!(got(&bob), ["skip 11", "message 12"]);
    assert_eq!(got(&alice), ["message 11", "message 12"]);
}

#[test]
fn a_resync_waits_for_nobody_but_has_whoever_still_reads_read_again() {
    let mut here = Fixture::new();
    let alice = here.member(10);
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    here.room.skip_to(6_000, 0);
    assert_eq!(got(&alice), ["resync 6000"]);
    assert!(got(&bob).is_empty(), "no event comes before welcome");
    assert!(!here.room.covers(&bob, 5_999), "what lies between is told by nothing but a newer read");
    assert!(here.room.covers(&bob, 6_000));
    here.room.take(here.message(6_001));
    here.room.release(&bob, 6_000, 0);
    assert_eq!(got(&bob), ["message 6001"]);
}

#[test]
fn a_resync_is_not_for_those_whose_read_was_ahead_of_it() {
    let mut here = Fixture::new();
    here.member(10);
    let bob = here.conn(UserId::generate());
    here.room.hold(&bob);
    here.room.release(&bob, 20, 0);
    here.room.skip_to(20, 0);
    assert!(got(&bob).is_empty());
}

#[test]
fn what_finds_no_place_while_a_room_is_first_read_asks_for_a_repair() {
    let mut here = Fixture::new();
    let alice = here.conn(UserId::generate());
    here.room.hold(&alice);
    let count = i64::try_from(MAX_EARLY).unwrap();
    for rev in 11..=11 + count {
        here.room.take(here.message(rev));
    }
    assert!(here.room.release(&alice, 10, 0).gap, "the last one was dropped, and nothing else would show it");
    assert_eq!(got(&alice).len(), MAX_EARLY);
}

#[test]
fn an_early_event_that_comes_at_the_very_end_of_a_repair_is_not_forgotten() {
    let mut here = Fixture::new();
    here.member(10);
    assert!(here.room.begin_repair());
    here.room.begin_read();
    here.room.feed(Vec::new());
    assert!(!here.room.take(here.message(12)).gap, "the repair still has it");
    assert!(here.room.end_repair(), "and leaves it to the next one");
    assert!(here.room.begin_repair());
    here.room.begin_read();
    assert!(!here.room.end_repair(), "which finds nothing: it is left until something comes");
}

#[test]
fn an_event_is_encoded_once_for_all() {
    let mut here = Fixture::new();
    let conns: Vec<_> = (0..3).map(|_| here.member(10)).collect();
    here.room.take(here.message(11));
    let frames: Vec<_> = conns.iter().map(|conn| conn.take().frames.remove(0)).collect();
    let address = frames[0].as_bytes().as_ptr();
    assert!(frames.iter().all(|frame| frame.as_bytes().as_ptr() == address));
}
