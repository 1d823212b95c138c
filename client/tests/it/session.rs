//! A session: resumes with what it holds, repairs gaps, sends again, and stops where the contract says so.

use futures_util::future::join;
use parlance_client::session::Update;
use parlance_client::{Draft, Error, Event, Updates};
use serde_json::{Value, json};

use crate::script::{Peer, Server, changes, in_time, message, room, room_id};

/// The revs of the messages shown, up to this one.
async fn shown_to(updates: &mut Updates, last: u64) -> Vec<u64> {
    let mut revs = Vec::new();
    while revs.last() != Some(&last) {
        match in_time(updates.next()).await.expect("it goes on") {
            Update::Event(Event::Message(e)) => revs.push(e.message.rev),
            Update::Changes(changes) => revs.extend(changes.messages.iter().map(|m| m.rev)),
            Update::Ended(error) => panic!("{error}"),
            _ => {}
        }
    }
    revs
}

async fn event(peer: &mut Peer, rev: u64) {
    peer.says(json!({ "event": { "message": message(rev) } })).await;
}

#[tokio::test]
async fn it_resumes_with_the_revs_it_holds() {
    let server = Server::start().await;
    let (_session, mut updates) = server.session();
    let mut peer = server.accepts().await;
    peer.welcomes(json!([room(1)]), json!([])).await;
    event(&mut peer, 2).await;
    assert_eq!(shown_to(&mut updates, 2).await, [2]);
    drop(peer);

    let mut peer = server.accepts().await;
    let hello = peer.welcomes(json!([room(4)]), json!([changes(2, 4)])).await;
    assert_eq!(hello["generation"], "g");
    assert_eq!(hello["rooms"], json!({ (room_id().to_string()): [2, 1] }));
    event(&mut peer, 4).await;
    event(&mut peer, 5).await;
    assert_eq!(shown_to(&mut updates, 5).await, [3, 4, 5]);
}

#[tokio::test]
async fn it_asks_for_what_a_gap_left_out() {
    let server = Server::start().await;
    let (_session, mut updates) = server.session();
    let mut peer = server.accepts().await;
    peer.welcomes(json!([room(1)]), json!([])).await;
    event(&mut peer, 4).await;
    event(&mut peer, 5).await;

    let asked = peer.hears().await;
    assert_eq!(asked["changes"], json!({ "room": room_id(), "after_rev": 1 }));
    peer.says(json!({ "re": asked["id"], "changes": changes(1, 4) })).await;

    assert_eq!(shown_to(&mut updates, 5).await, [2, 3, 4, 5]);
}

#[tokio::test]
async fn it_sends_again_what_was_not_acknowledged() {
    let server = Server::start().await;
    let (session, _updates) = server.session();
    let draft = Draft::text("hi");
    let (sent, ()) = join(session.send(room_id(), draft.clone()), async {
        let mut first = server.accepts().await;
        first.welcomes(json!([room(1)]), json!([])).await;
        let lost = first.hears().await;
        drop(first);

        let mut second = server.accepts().await;
        second.welcomes(json!([]), json!([])).await;
        let again = second.hears().await;
        assert_eq!(again["send"], lost["send"]);
        // Busy: it is asked to come again, on the same socket.
        second.says(json!({ "re": again["id"], "error": { "code": "unavailable", "message": "" } })).await;
        let third = second.hears().await;
        assert_eq!(third["send"], lost["send"]);
        let sent: Value = json!({
            "room": room_id(), "client_id": draft.client_id, "id": draft.client_id, "seq": 2, "rev": 2, "at": 1, "duplicate": true,
        });
        second.says(json!({ "re": third["id"], "sent": sent })).await;
    })
    .await;
    assert_eq!(sent.unwrap().seq, 2);
}

#[tokio::test]
async fn it_moves_when_the_gateway_goes_away() {
    let server = Server::start().await;
    let (_session, mut updates) = server.session();
    let mut peer = server.accepts().await;
    peer.welcomes(json!([room(1)]), json!([])).await;
    peer.says(json!({ "event": { "going_away": { "reconnect_after_ms": 20 } } })).await;

    let (mut next, ()) = join(server.accepts(), async { drain(peer).await }).await;
    next.welcomes(json!([]), json!([])).await;
    event(&mut next, 2).await;
    assert_eq!(shown_to(&mut updates, 2).await, [2]);
}

/// Reads until the client is gone.
async fn drain(peer: Peer) {
    peer.closes(1012, "0").await;
}

#[tokio::test]
async fn it_stops_where_a_retry_is_of_no_use() {
    let server = Server::start().await;
    let (session, mut updates) = server.session();
    let mut peer = server.accepts().await;
    peer.welcomes(json!([]), json!([])).await;
    peer.closes(4003, "").await;

    let mut last = None;
    while let Some(update) = in_time(updates.next()).await {
        last = Some(update);
    }
    assert!(matches!(last, Some(Update::Ended(Error::Closed(close))) if close.code == 4003));
    assert_eq!(session.send(room_id(), Draft::text("hi")).await.unwrap_err(), Error::Ended);
}
