//! What a life does by the clock, and what it does not deliver when it cannot know who may have it.

use parlance_proto::event::{Event, Parcel as Events, Resync, RoomEvent, event, room_event};
use prost::Message as _;
use service_kit::{id::SessionId, rpc};

use super::*;
use crate::frame::Format;
use crate::socket::Frame;

const NOW: i64 = 1_000_000_000;

fn conn(number: u64) -> Conn {
    Conn::new(number, UserId::generate(), SessionId::generate(), Format::Json, true, NOW / 1000 + 600, NOW)
}

#[test]
fn a_peer_that_is_silent_for_two_heartbeats_is_closed() {
    let conn = conn(1);
    let heartbeat = i64::try_from(HEARTBEAT_MS).unwrap();
    look_at(&conn, NOW + 2 * heartbeat, 0);
    assert!(!conn.is_closed());
    conn.heard(NOW + heartbeat);
    look_at(&conn, NOW + 3 * heartbeat, 0);
    assert!(!conn.is_closed(), "a pong is a sign of life");
    look_at(&conn, NOW + 3 * heartbeat + 1, 0);
    assert_eq!(conn.take().close, Some(Close::Away));
}

#[test]
fn every_connection_is_pinged_once_in_each_heartbeat() {
    for number in 0..50 {
        let conn = conn(number);
        let pings = (100..100 + BEATS).filter(|tick| {
            look_at(&conn, NOW, *tick);
            conn.take().frames == [Frame::ping()]
        });
        assert_eq!(pings.count(), 1, "connection {number}");
    }
}

#[test]
fn a_connection_ends_with_its_token() {
    let conn = conn(1);
    conn.heard(NOW + 599_999);
    look_at(&conn, NOW + 599_999, 0);
    assert!(!conn.is_closed());
    look_at(&conn, NOW + 600_000, 0);
    assert_eq!(conn.take().close, Some(Close::TokenExpired));
}

/// A life whose services are nowhere.
async fn alone(tasks: &Tasks) -> Arc<Life> {
    let nowhere = rpc::connect("http://127.0.0.1:9").unwrap();
    let shared = Shared {
        services: Services::new(&nowhere, &nowhere, &nowhere),
        bus: Bus::connect("memory:", "test", tasks).await.unwrap(),
        uplink: Uplink::start(Vec::new(), tasks),
        readiness: Readiness::new(),
        most_connections: 10,
        numbers: AtomicU64::new(1),
    };
    Life::begin(Arc::new(shared), tasks.clone()).await.unwrap()
}

fn parcel(room: RoomId, rev: i64, prev: i64) -> Parcel {
    let kind = Some(room_event::Kind::Resync(Resync { after_ms: 0 }));
    let event =
        Event { kind: Some(event::Kind::Room(RoomEvent { room: room.to_wire(), rev, prev, kind, direct: false })) };
    let body = Events { events: vec![event.encode_to_vec().into()] }.encode_to_vec();
    Parcel { body: body.into(), traceparent: None }
}

#[tokio::test]
async fn a_blind_gateway_delivers_nothing_and_compares_heads_when_it_sees_again() {
    let tasks = Tasks::new();
    let life = alone(&tasks).await;
    let (conn, room) = (Arc::new(conn(1)), RoomId::generate());
    conn.welcome();
    life.hub.add(&conn, 10);
    assert!(life.hub.hold(&conn, room));
    lock(&life.hub.room(room)).release(&conn, 10, 0);
    life.blind.store(true, Ordering::Relaxed);
    fanout::arrived(&life, &parcel(room, 11, 0));
    assert!(conn.take().frames.is_empty(), "the user may have been removed, and nobody could say so");
    life.probed();
    assert!(!life.is_blind());
    tokio::time::timeout(Duration::from_secs(1), life.compare_wanted()).await.expect("what was dropped is asked for");
    fanout::arrived(&life, &parcel(room, 12, 10));
    assert_eq!(conn.take().frames.len(), 1);
    tasks.stop();
}

#[tokio::test]
async fn who_comes_after_everybody_was_sent_away_is_sent_away_too() {
    let tasks = Tasks::new();
    let life = alone(&tasks).await;
    let (early, late) = (Arc::new(conn(1)), Arc::new(conn(2)));
    life.hub.add(&early, 10);
    life.refuse_when_over(&early);
    assert!(!early.is_closed());
    life.close_all();
    life.hub.add(&late, 10);
    life.refuse_when_over(&late);
    for conn in [early, late] {
        assert_eq!(conn.take().close, Some(Close::Restarting(RESTART_MS)));
    }
    tasks.stop();
}
