//! A session that writes down every message it is shown, across all its connections.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Person, eventually};
use parlance_client::session::Update;
use parlance_client::wire::Message;
use parlance_client::{Error, Event, RoomId, Session};
use tokio::task::JoinSet;

/// The bound that the contract of a fault states: every acknowledged message is there by then.
pub(super) const REPAIRED: Duration = Duration::from_secs(10);

/// How often each (room, seq) was shown, and how often the session connected.
#[derive(Debug, Default)]
struct Seen {
    shown: BTreeMap<(RoomId, u64), (u32, String)>,
    connected: u32,
    closes: Vec<u16>,
    error: Option<Error>,
}

/// A member of rooms who stays connected whatever happens.
pub(super) struct Witness {
    pub(super) session: Session,
    seen: Arc<Mutex<Seen>>,
    _reading: JoinSet<()>,
}

impl Witness {
    /// Connects, beginning with the first of these gateways.
    pub(super) async fn of(person: &Person, gateways: &[usize]) -> Self {
        let (session, mut updates) = person.stays_on(gateways);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let log = Arc::clone(&seen);
        let mut reading = JoinSet::new();
        reading.spawn(async move {
            while let Some(update) = updates.next().await {
                log.lock().unwrap().take(update);
            }
        });
        session.connection().await.unwrap();
        Self { session, seen, _reading: reading }
    }

    /// How many times this one connected.
    pub(super) fn connected(&self) -> u32 {
        self.seen.lock().unwrap().connected
    }

    /// The codes with which its connections were closed.
    pub(super) fn closes(&self) -> Vec<u16> {
        self.seen.lock().unwrap().closes.clone()
    }

    /// The error with which the session ended, if it did.
    pub(super) fn error(&self) -> Option<Error> {
        self.seen.lock().unwrap().error.clone()
    }

    /// The texts shown in a room, in the order of their seq.
    pub(super) fn texts(&self, room: RoomId) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        seen.shown.range((room, 0)..=(room, u64::MAX)).map(|(_, (_, text))| text.clone()).collect()
    }

    /// Waits until these (room, seq) were all shown, each once, within the bound.
    pub(super) async fn has_all(&self, sent: &[(RoomId, u64)]) {
        let looking = eventually("every acknowledged message", async || {
            let seen = self.seen.lock().unwrap();
            sent.iter().all(|place| seen.shown.contains_key(place)).then_some(())
        });
        if tokio::time::timeout(REPAIRED, looking).await.is_err() {
            let seen = self.seen.lock().unwrap();
            let missing: Vec<_> = sent.iter().filter(|place| !seen.shown.contains_key(place)).collect();
            panic!(
                "after {REPAIRED:?} {} of {} were missing, the first: {:?}",
                missing.len(),
                sent.len(),
                missing.first()
            );
        }
        self.has_none_twice();
    }

    /// Nothing was shown twice.
    pub(super) fn has_none_twice(&self) {
        let seen = self.seen.lock().unwrap();
        let twice: Vec<_> = seen.shown.iter().filter(|(_, (times, _))| *times > 1).collect();
        assert!(twice.is_empty(), "shown more than once: {twice:?}");
    }
}

impl Seen {
    fn take(&mut self, update: Update) {
        match update {
            Update::Connected(_) => self.connected += 1,
            Update::Disconnected(close) => self.closes.push(close.code),
            Update::Ended(error) => self.error = Some(error),
            Update::Event(Event::Message(e)) => self.show(&e.message),
            Update::Changes(changes) => {
                assert!(!changes.truncated, "so little was missed that nothing may be truncated");
                for message in &changes.messages {
                    self.show(message);
                }
            }
            _ => {}
        }
    }

    fn show(&mut self, message: &Message) {
        let entry = self.shown.entry((message.room, message.seq)).or_insert_with(|| (0, message.text.clone()));
        entry.0 += 1;
    }
}

/// The seqs of the messages of a room that came to a device more than once.
pub(super) fn shown_twice(heard: &[Event], room: RoomId) -> Vec<u64> {
    let mut seen = HashSet::new();
    let seqs = heard.iter().filter_map(|event| match event {
        Event::Message(e) if e.message.room == room => Some(e.message.seq),
        _ => None,
    });
    seqs.filter(|seq| !seen.insert(*seq)).collect()
}
