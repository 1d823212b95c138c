//! A connected device of a user: it hears everything, and a story asks what it heard.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use parlance_client::connection::HeldRevs;
use parlance_client::frame::Sent;
use parlance_client::revs::Revs;
use parlance_client::wire::{Message, Seq, Welcome};
use parlance_client::{Connection, Draft, Event, Events, RoomId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::patience::within;

/// One WebSocket and everything it brought.
#[derive(Debug)]
pub struct Device {
    /// For the verbs that have no word of their own here.
    pub connection: Connection,
    /// What `hello` was answered with.
    pub welcome: Welcome,
    name: String,
    heard: Arc<Mutex<Vec<Event>>>,
    count: watch::Receiver<usize>,
    /// Ends the collecting when the device goes.
    _collecting: JoinSet<()>,
}

/// What a device held when it went away.
#[derive(Clone, Debug)]
pub struct Held {
    /// The generation of the revs.
    pub generation: String,
    /// The revs of the rooms.
    pub rooms: HashMap<RoomId, HeldRevs>,
}

impl Device {
    pub(crate) fn new(name: &str, connection: Connection, welcome: Welcome, mut events: Events) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (counter, count) = watch::channel(0);
        let mut collecting = JoinSet::new();
        let log = Arc::clone(&heard);
        collecting.spawn(async move {
            while let Some(event) = events.next().await {
                let length = {
                    let mut log = log.lock().expect("no panic while it is held");
                    log.push(event);
                    log.len()
                };
                counter.send_replace(length);
            }
        });
        Self { connection, welcome, name: name.to_owned(), heard, count, _collecting: collecting }
    }

    /// Sends a text and waits until it is committed.
    pub async fn sends(&self, room: RoomId, text: &str) -> Sent {
        self.sends_draft(room, &Draft::text(text)).await
    }

    /// Sends a draft and waits until it is committed.
    pub async fn sends_draft(&self, room: RoomId, draft: &Draft) -> Sent {
        self.connection.send(room, draft).await.unwrap_or_else(|e| panic!("{} sends `{}`: {e}", self.name, draft.text))
    }

    /// Sends many texts without waiting in between; the answers in the order of the texts.
    pub async fn sends_all(&self, room: RoomId, texts: impl IntoIterator<Item = String>) -> Vec<Sent> {
        let drafts: Vec<_> = texts.into_iter().map(Draft::text).collect();
        // Polled in order, so they are queued in order, which is the order the contract keeps.
        futures_util::future::join_all(drafts.iter().map(|draft| self.sends_draft(room, draft))).await
    }

    /// Waits for a message with this text.
    pub async fn receives(&self, text: &str) -> Message {
        self.sees(text, |event| match event {
            Event::Message(e) if e.message.text == text => Some(e.message.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for an event, from the first one on, that `pick` takes.
    pub async fn sees<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        self.knows(what, |events| events.iter().find_map(&pick)).await
    }

    /// Waits until everything heard so far makes `judge` answer.
    pub async fn knows<T>(&self, what: &str, judge: impl Fn(&[Event]) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let waiting = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = judge(&self.heard.lock().expect("no panic while it is held")) {
                    return Some(found);
                }
                count.changed().await.ok()?;
            }
        };
        let what = format!("`{what}` for {}", self.name);
        match within(&what, waiting).await {
            Some(found) => found,
            None => panic!("no {what}: the connection closed with {:?}", self.connection.close_seen()),
        }
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Event> {
        self.heard.lock().expect("no panic while it is held").clone()
    }

    /// The texts written by people in a room, as they came first; changes of a message do not count again.
    pub fn texts(&self, room: RoomId) -> Vec<(Seq, String)> {
        texts_of(&self.heard(), room)
    }

    /// Waits for so many texts in a room.
    pub async fn has_texts(&self, room: RoomId, number: usize) -> Vec<(Seq, String)> {
        self.knows(&format!("{number} texts"), |events| {
            Some(texts_of(events, room)).filter(|texts| texts.len() >= number)
        })
        .await
    }

    /// What this device holds by the rules of the contract, after all it heard.
    pub fn holds(&self) -> Held {
        let mut revs = Revs::default();
        revs.heads(&self.welcome, &HashSet::new());
        for event in self.heard() {
            revs.event(event);
        }
        let (generation, rooms) = revs.hello();
        Held { generation: generation.expect("welcome names one"), rooms }
    }

    /// Goes without a good-bye, as when the network breaks; says what it held.
    pub fn drops_off(self) -> Held {
        self.holds()
    }

    /// Waits for the end of the socket, and checks its code.
    pub async fn is_closed_with(&self, code: u16) {
        let close = within("close", self.connection.closed()).await;
        assert_eq!(close.code, code, "{} was closed with {close}", self.name);
    }
}

fn texts_of(events: &[Event], room: RoomId) -> Vec<(Seq, String)> {
    let mut seen = HashSet::new();
    let messages = events.iter().filter_map(|event| match event {
        Event::Message(e) if e.message.room == room && e.message.kind == "text" => Some(&e.message),
        _ => None,
    });
    messages.filter(|message| seen.insert(message.seq)).map(|message| (message.seq, message.text.clone())).collect()
}
