//! What a session asks of its connection and of REST while events flow on.

use std::collections::HashSet;
use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use uuid::Uuid;

use crate::api::{Api, List};
use crate::connection::{Connection, changes_body, send_body};
use crate::error::Error;
use crate::frame::{Draft, Sent};
use crate::id::RoomId;
use crate::revs::Ask;
use crate::wire::{Changes, Room};

/// Pages of the list of rooms that are read to find one.
const ROOM_PAGES: usize = 400;

/// Something that a connection was asked and that comes back later.
pub(super) enum Back {
    Sent { client_id: Uuid, outcome: Result<Sent, Error> },
    SendAgain { client_id: Uuid },
    Changes { ask: Ask, outcome: Box<Result<Changes, Error>> },
    Rooms { outcome: Result<Vec<Room>, Error> },
}

pub(super) type Asked = Pin<Box<dyn Future<Output = Back> + Send>>;
pub(super) type Waiting = FuturesUnordered<Asked>;

pub(super) fn send(connection: &Connection, room: RoomId, draft: &Draft) -> Asked {
    let client_id = draft.client_id;
    // Queued here and now, so that sends are written in the order in which they were made.
    let begun = connection.begin("send", send_body(room, draft));
    Box::pin(async move {
        let answer = match begun {
            Ok(answer) => answer.await,
            Err(Error::Busy) => Err(Error::Deadline("a place in the queue")),
            Err(error) => Err(error),
        };
        let outcome = answer.and_then(|body| serde_json::from_value(body).map_err(|e| Error::Malformed(e.to_string())));
        Back::Sent { client_id, outcome }
    })
}

/// Comes back when it is time to write a send once more.
pub(super) fn send_again(client_id: Uuid, wait: Duration) -> Asked {
    Box::pin(async move {
        tokio::time::sleep(wait).await;
        Back::SendAgain { client_id }
    })
}

pub(super) fn ask(connection: &Connection, ask: Ask) -> Asked {
    let connection = connection.clone();
    Box::pin(async move {
        tokio::time::sleep(Duration::from_millis(ask.wait_ms)).await;
        let outcome = connection.call("changes", changes_body(ask.room, ask.after, None)).await;
        Back::Changes { ask, outcome: Box::new(outcome) }
    })
}

/// Reads the list of rooms to its end.
pub(super) fn list_rooms(api: Api, from: Option<String>) -> Asked {
    Box::pin(async move {
        let mut rooms = Vec::new();
        let mut seen = HashSet::new();
        let mut cursor = from;
        for _ in 0..ROOM_PAGES {
            let page: List<Room> = match api.rooms(cursor.as_deref(), 200).await {
                Ok(page) => page,
                Err(error) => return Back::Rooms { outcome: Err(error) },
            };
            rooms.extend(page.items.into_iter().filter(|room| seen.insert(room.id)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        Back::Rooms { outcome: Ok(rooms) }
    })
}
