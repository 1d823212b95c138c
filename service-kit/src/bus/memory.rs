//! The bus inside one process: what a cluster has a broker for. Nothing survives the process, and nothing is confirmed
//! later than it is handed over.

mod group;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use uuid::Uuid;

use self::group::Group;
pub(super) use self::group::{Member, Taken};
use super::{
    Consumer, Depth, Inbox, MAX_INBOX, MAX_INBOX_BYTES, Parcel, To,
    consume::Source,
    counters::Counters,
    inbox::{Frame, Item, Weight},
    numbers::{Kind, Stamp},
    pending::Pending,
};
use crate::{id::BootId, tasks::Tasks};

/// How often the streams are looked through for beats that are due.
const LOOK: Duration = Duration::from_millis(250);

/// A handle to the one registry that all clones share.
#[derive(Clone)]
pub struct Memory(Arc<Shared>);

struct Shared {
    // Held for a hash look-up and a push per inbox, never across an await: numbers are given and parcels handed over
    // under it, so that their order is the same.
    state: Mutex<State>,
    ready: watch::Sender<bool>,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    counters: Counters,
    inboxes: HashMap<BootId, Open>,
    groups: HashMap<&'static str, Group>,
}

struct Open {
    items: mpsc::Sender<Item>,
    bytes: Arc<AtomicUsize>,
}

impl Memory {
    pub(super) fn new(tasks: &Tasks) -> Self {
        let shared =
            Arc::new(Shared { state: Mutex::default(), ready: watch::Sender::new(true), tasks: tasks.clone() });
        tasks.spawn_until_stop(beat(Arc::downgrade(&shared)));
        Self(shared)
    }

    pub(super) fn publish(&self, to: To, parcel: Parcel) -> Pending {
        let label = match to {
            To::Gateway(_) => "gateway",
            To::All => "all",
        };
        metrics::counter!("bus_published_total", "to" => label).increment(1);
        let mut state = self.0.lock();
        let stamp = state.counters.next(to, Instant::now());
        state.send(to, stamp, Kind::Parcel, &parcel);
        Pending::Known(Ok(()))
    }

    pub(super) fn emit(&self, id: Uuid, parcel: Parcel) -> Pending {
        metrics::counter!("bus_published_total", "to" => "worker").increment(1);
        let groups: Vec<Group> = self.0.lock().groups.values().cloned().collect();
        let mut told = Vec::with_capacity(groups.len());
        for group in groups.iter().filter(|group| group.is_consumed()) {
            match group.put(id, &parcel) {
                Ok(receiver) => told.push(receiver),
                Err(unpublished) => return Pending::Known(Err(unpublished)),
            }
        }
        Pending::told(told)
    }

    pub(super) fn inbox(&self, boot: BootId) -> Option<Inbox> {
        let mut state = self.0.lock();
        if state.inboxes.get(&boot).is_some_and(|open| !open.items.is_closed()) {
            return None;
        }
        let (sender, receiver) = mpsc::channel(MAX_INBOX);
        state.inboxes.insert(boot, Open { items: sender, bytes: Arc::default() });
        Some(Inbox::new(receiver, &self.0.tasks))
    }

    pub(super) fn consume(&self, group: &'static str) -> Consumer {
        let group = self.0.lock().groups.entry(group).or_insert_with(|| Group::new(group)).clone();
        Consumer::new(Source::Memory(group.join()), &self.0.tasks)
    }

    pub(super) fn depth(&self, group: &str) -> Depth {
        let waiting = self.0.lock().groups.get(group).map_or(0, Group::len);
        Depth { waiting, dead: 0 }
    }

    pub(super) fn ready_changes(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    pub(super) fn lose(&self, to: To) {
        self.0.lock().counters.next(to, Instant::now());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn send(&mut self, to: To, stamp: Stamp, kind: Kind, parcel: &Parcel) {
        match to {
            To::All => self.inboxes.retain(|_, open| open.push(stamp, kind, parcel)),
            To::Gateway(boot) => {
                if !self.inboxes.get(&boot).is_some_and(|open| open.push(stamp, kind, parcel)) {
                    self.inboxes.remove(&boot);
                    self.counters.forget(to, stamp.stream);
                }
            }
        }
    }
}

impl Open {
    /// False when its reader is gone. A full inbox drops the frame: the next number, or a beat, tells the reader.
    fn push(&self, stamp: Stamp, kind: Kind, parcel: &Parcel) -> bool {
        let Some(weight) = Weight::take(&self.bytes, parcel.body.len(), MAX_INBOX_BYTES) else {
            return !self.items.is_closed();
        };
        let frame = Frame { stamp, kind, parcel: parcel.clone(), arrived: Instant::now(), _weight: Some(weight) };
        !matches!(self.items.try_send(Item::Frame(frame)), Err(mpsc::error::TrySendError::Closed(_)))
    }
}

/// Repeats the last numbers of silent streams until the bus is gone.
async fn beat(shared: Weak<Shared>) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let mut state = shared.lock();
        for (to, stamp) in state.counters.beats(Instant::now()) {
            metrics::counter!("bus_published_total", "to" => "beat").increment(1);
            state.send(to, stamp, Kind::Beat, &Parcel::default());
        }
    }
}
