//! What comes back from the servers, counted, timed and checked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use parlance_client::RoomId;
use parlance_client::wire::{Changes, Heads, Message};
use serde::Deserialize;

use crate::check::{Check, Head};
use crate::plan::{self, Plan, Told};
use crate::scan::{Frame, frame};

/// The longest latency that is told apart, in microseconds.
const LONGEST_US: u64 = 120_000_000;
/// The ids of requests for history: this and the number of the room.
pub(crate) const PAGES: u32 = 0xf000_0000;

/// One kind of thing that comes back.
pub(crate) struct Returns {
    pub(crate) latency: Histogram<u64>,
    /// How many came while it was measured, of whichever message.
    pub(crate) measured: u64,
}

/// Messages of a room that a connection has to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) connection: usize,
    pub(crate) room: usize,
    /// Not before this.
    pub(crate) at: Duration,
}

/// What has come back, apart from the sockets so that both can be used at once.
pub(crate) struct Tally {
    pub(crate) plan: Plan,
    pub(crate) begun: Instant,
    pub(crate) check: Check,
    pub(crate) acks: Returns,
    pub(crate) deliveries: Returns,
    pub(crate) acked: u64,
    pub(crate) delivered: u64,
    pub(crate) refused: u64,
    pub(crate) first_refusal: Option<String>,
    pub(crate) resyncs: u64,
    /// Connections that have resumed, for whoever asks next.
    pub(crate) resumed: Vec<usize>,
    pub(crate) asks: Vec<Ask>,
    run: String,
    rooms: HashMap<RoomId, usize>,
    /// Whether the sender's own copies are left out of the latency of deliveries.
    peers_only: bool,
    /// By room and connection: what came while older messages were being asked for.
    catching_up: HashMap<(usize, usize), Vec<(Head, Told)>>,
}

#[derive(Deserialize)]
struct Welcomed {
    welcome: Heads,
}

#[derive(Deserialize)]
struct Paged {
    messages: Page,
}

#[derive(Deserialize)]
struct Page {
    items: Vec<Message>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Resyncing {
    event: ResyncEvent,
}

#[derive(Deserialize)]
struct ResyncEvent {
    resync: Resync,
}

#[derive(Deserialize)]
struct Resync {
    room: RoomId,
    after_ms: u64,
}

impl Returns {
    pub(crate) fn new() -> Self {
        Self { latency: histogram(), measured: 0 }
    }

    /// Something due then has come now.
    pub(crate) fn note(&mut self, due_us: u64, now: Duration) {
        self.latency.saturating_record(us(now).saturating_sub(due_us).max(1));
    }
}

/// An empty histogram of microseconds.
pub(crate) fn histogram() -> Histogram<u64> {
    // Three digits over this range always fit.
    #[allow(clippy::expect_used, reason = "constants")]
    Histogram::new_with_bounds(1, LONGEST_US, 3).expect("the bounds are in order")
}

/// In whole microseconds.
pub(crate) fn us(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Tally {
    /// `rooms` with where they stand.
    pub(crate) fn new(plan: Plan, run: u32, rooms: &[RoomId], heads: &[Head], peers_only: bool) -> Self {
        Self {
            plan,
            begun: Instant::now(),
            check: Check::new(plan, heads),
            acks: Returns::new(),
            deliveries: Returns::new(),
            acked: 0,
            delivered: 0,
            refused: 0,
            first_refusal: None,
            resyncs: 0,
            resumed: vec![],
            asks: vec![],
            run: format!("{run:08x}"),
            rooms: rooms.iter().copied().zip(0..).collect(),
            peers_only,
            catching_up: HashMap::new(),
        }
    }

    /// A frame has come on a connection.
    pub(crate) fn take(&mut self, connection: usize, bytes: &[u8], now: Duration) {
        match frame(bytes) {
            Frame::Message { seq, rev, text } => {
                let Some(told) = plan::read(text, self.run.as_bytes()) else { return };
                let head = Head { seq, rev };
                if !self.catching_up.is_empty()
                    && let Some(later) = self.catching_up.get_mut(&(told.room, connection))
                {
                    later.push((head, told));
                } else {
                    self.arrived(connection, head, &told, now);
                }
            }
            Frame::Sent { re, seq } => self.acked(re.saturating_sub(1), seq, now),
            Frame::Refused { re } => self.refused(connection, re, bytes, now),
            Frame::Welcome => self.welcomed(connection, bytes, now),
            Frame::Page { re } => self.page(connection, re, bytes, now),
            Frame::Resync => self.resync(connection, bytes, now),
            Frame::Other => {}
        }
    }

    /// Whether some room of some connection waits for older messages.
    pub(crate) fn is_catching_up(&self) -> bool {
        !self.catching_up.is_empty()
    }

    fn is_measured(&self, now: Duration) -> bool {
        self.plan.due(self.plan.warm) <= now && now < self.plan.due(self.plan.total)
    }

    fn arrived(&mut self, connection: usize, head: Head, told: &Told, now: Duration) {
        self.check.delivered(connection, head, told);
        self.delivered += 1;
        self.deliveries.measured += u64::from(self.is_measured(now));
        let is_own = self.peers_only && self.plan.sender(told.number) == connection;
        if told.number >= self.plan.warm && !is_own {
            self.deliveries.note(told.due_us, now);
        }
    }

    fn acked(&mut self, number: u64, seq: u64, now: Duration) {
        if self.check.acked(number, seq) {
            self.acked += 1;
            self.acks.measured += u64::from(self.is_measured(now));
            if number >= self.plan.warm {
                self.acks.note(us(self.plan.due(number)), now);
            }
        }
    }

    fn refused(&mut self, connection: usize, re: u64, bytes: &[u8], now: Duration) {
        if let Some(room) = re.checked_sub(PAGES.into()) {
            // Asked again a little later: a client would, too.
            let at = now + Duration::from_millis(100);
            self.asks.push(Ask { connection, room: room as usize, at });
        } else {
            self.refused += 1;
            self.check.refused(re.saturating_sub(1));
            self.first_refusal.get_or_insert_with(|| String::from_utf8_lossy(bytes).into_owned());
        }
    }

    /// A connection is back: what it missed comes with the answer, or has to be asked for.
    fn welcomed(&mut self, connection: usize, bytes: &[u8], now: Duration) {
        self.resumed.push(connection);
        let Ok(Welcomed { welcome }) = serde_json::from_slice(bytes) else { return };
        for changes in &welcome.changes {
            let Some(room) = self.rooms.get(&changes.room).copied() else { continue };
            self.caught_up(connection, room, changes, now);
        }
    }

    fn caught_up(&mut self, connection: usize, room: usize, changes: &Changes, now: Duration) {
        changes.messages.iter().for_each(|message| self.read(connection, message, now));
        self.check.hold(room, connection, changes.rev);
        if changes.truncated {
            self.ask(connection, room, now);
        }
    }

    fn ask(&mut self, connection: usize, room: usize, at: Duration) {
        self.catching_up.entry((room, connection)).or_default();
        self.asks.push(Ask { connection, room, at });
    }

    /// A message that was read, not told.
    fn read(&mut self, connection: usize, message: &Message, now: Duration) {
        if let Some(told) = plan::read(message.text.as_bytes(), self.run.as_bytes()) {
            self.arrived(connection, Head { seq: message.seq, rev: message.rev }, &told, now);
        }
    }

    fn page(&mut self, connection: usize, re: u64, bytes: &[u8], now: Duration) {
        let Some(room) = re.checked_sub(PAGES.into()).map(|room| room as usize) else { return };
        let Ok(Paged { messages }) = serde_json::from_slice(bytes) else { return };
        for message in &messages.items {
            if self.check.held(room, connection).is_some_and(|held| message.seq > held.seq) {
                self.read(connection, message, now);
            }
        }
        if messages.has_more {
            self.asks.push(Ask { connection, room, at: now });
            return;
        }
        // What both the page and an event gave is no duplicate: the client asked for it.
        for (head, told) in self.catching_up.remove(&(room, connection)).unwrap_or_default() {
            if self.check.held(room, connection).is_some_and(|held| head.seq > held.seq) {
                self.arrived(connection, head, &told, now);
            }
        }
    }

    fn resync(&mut self, connection: usize, bytes: &[u8], now: Duration) {
        self.resyncs += 1;
        let Ok(Resyncing { event }) = serde_json::from_slice(bytes) else { return };
        if let Some(room) = self.rooms.get(&event.resync.room).copied() {
            self.ask(connection, room, now + Duration::from_millis(event.resync.after_ms));
        }
    }

    /// A connection has ended: what it was catching up with begins anew when it is back.
    pub(crate) fn cut(&mut self, connection: usize) {
        self.catching_up.retain(|(_, other), _| *other != connection);
        self.asks.retain(|ask| ask.connection != connection);
    }
}

#[cfg(test)]
mod tests;
