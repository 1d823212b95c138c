//! One socket: answers find their requests, errors and closes are told apart.

use futures_util::future::join;
use parlance_client::connection::Hello;
use parlance_client::{Code, Connection, Error, Event};
use serde_json::json;

use crate::script::{Server, in_time, message, room};

#[tokio::test]
async fn answers_may_come_out_of_order() {
    let server = Server::start().await;
    let hello = Hello::new("token");
    let (opened, mut peer) = join(Connection::open(&server.url, &hello), async {
        let mut peer = server.accepts().await;
        let hello = peer.welcomes(json!([room(1)]), json!([])).await;
        assert_eq!(hello, json!({ "token": "token" }));
        peer
    })
    .await;
    let (connection, welcome, mut events) = opened.unwrap();
    assert_eq!(welcome.rooms[0].rev, 1);

    let (first, second) = (connection.begin("ping", json!({})).unwrap(), connection.begin("ping", json!({})).unwrap());
    let (one, two) = (peer.hears().await, peer.hears().await);
    peer.says(json!({ "re": two["id"], "pong": { "server_time": 2 } })).await;
    peer.says(json!({ "event": { "message": message(2) } })).await;
    peer.says(json!({ "re": one["id"], "error": { "code": "unavailable", "message": "later", "retry_after_ms": 5 } }))
        .await;

    assert_eq!(second.await.unwrap(), json!({ "server_time": 2 }));
    let refused = first.await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.retry_after_ms(), refused.is_transient()),
        (Some(Code::Unavailable), Some(5), true)
    );
    assert!(matches!(in_time(events.next()).await, Some(Event::Message(e)) if e.message.rev == 2));
}

#[tokio::test]
async fn a_close_ends_requests_and_events_and_says_why() {
    let server = Server::start().await;
    let hello = Hello::new("token");
    let opening = Connection::open(&server.url, &hello);
    let (opened, peer) = join(opening, async {
        let mut peer = server.accepts().await;
        peer.welcomes(json!([]), json!([])).await;
        peer
    })
    .await;
    let (connection, _, mut events) = opened.unwrap();
    let request = connection.begin("ping", json!({})).unwrap();

    peer.closes(1012, "750").await;

    assert!(matches!(request.await, Err(Error::Closed(close)) if close.code == 1012 && close.reason == "750"));
    assert_eq!(in_time(events.next()).await, None);
    assert!(matches!(connection.begin("ping", json!({})).err(), Some(Error::Closed(close)) if close.code == 1012));
}

#[tokio::test]
async fn a_refused_hello_carries_error_and_close_code() {
    let server = Server::start().await;
    let hello = Hello::new("token");
    let (opened, ()) = join(Connection::open(&server.url, &hello), async {
        let mut peer = server.accepts().await;
        let hello = peer.hears().await;
        peer.says(json!({ "re": hello["id"], "error": { "code": "token_expired", "message": "" } })).await;
        peer.closes(4002, "").await;
    })
    .await;
    match opened.err() {
        Some(Error::HelloRefused { refusal, close }) => {
            assert_eq!((refusal.code, close.code), (Code::TokenExpired, 4002))
        }
        other => panic!("{other:?}"),
    }
}
