//! The queue of one group of consumers in memory: each event to one of them, again until it is settled.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

use crate::bus::{DELIVERY_LIMIT, MAX_UNCONFIRMED, MAX_UNCONFIRMED_BYTES, Parcel, Unpublished, Work, consume::Ticket};

type Outcome = Result<(), Unpublished>;

/// The queue of one group, as those who emit see it.
#[derive(Clone)]
pub(in crate::bus) struct Group(Arc<Shared>);

/// One consumer of a group.
pub(in crate::bus) struct Member(Arc<Shared>);

struct Shared {
    name: &'static str,
    // Held for a push or a pop, never across an await.
    queue: Mutex<Queue>,
    wake: Notify,
    members: AtomicUsize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Uuid>,
    // What waits, and what is with a consumer.
    events: HashMap<Uuid, Event>,
    bytes: usize,
}

struct Event {
    parcel: Parcel,
    deliveries: u32,
    told: Vec<oneshot::Sender<Outcome>>,
}

/// An event that is with a consumer; dropped without a word it waits again.
pub(in crate::bus) struct Taken {
    group: Arc<Shared>,
    id: Uuid,
    settled: bool,
}

impl Group {
    pub(super) fn new(name: &'static str) -> Self {
        Self(Arc::new(Shared { name, queue: Mutex::default(), wake: Notify::new(), members: AtomicUsize::new(0) }))
    }

    pub(super) fn join(&self) -> Member {
        self.0.members.fetch_add(1, Ordering::Relaxed);
        Member(Arc::clone(&self.0))
    }

    pub(super) fn is_consumed(&self) -> bool {
        self.0.members.load(Ordering::Relaxed) > 0
    }

    /// Events that are not settled.
    pub(super) fn len(&self) -> u64 {
        self.0.lock().events.len() as u64
    }

    /// Queues an event, or joins the one of the same id that is not settled yet.
    pub(super) fn put(&self, id: Uuid, parcel: &Parcel) -> Result<oneshot::Receiver<Outcome>, Unpublished> {
        let (tell, told) = oneshot::channel();
        let mut queue = self.0.lock();
        let Queue { waiting, events, bytes } = &mut *queue;
        let full = events.len() >= MAX_UNCONFIRMED || *bytes + parcel.body.len() > MAX_UNCONFIRMED_BYTES;
        match events.entry(id) {
            Entry::Occupied(mut event) => {
                let listeners = &mut event.get_mut().told;
                listeners.retain(|listener| !listener.is_closed());
                listeners.push(tell);
            }
            Entry::Vacant(_) if full => return Err(Unpublished::Overloaded),
            Entry::Vacant(place) => {
                *bytes += parcel.body.len();
                place.insert(Event { parcel: parcel.clone(), deliveries: 0, told: vec![tell] });
                waiting.push_back(id);
            }
        }
        drop(queue);
        self.0.wake.notify_one();
        Ok(told)
    }
}

impl Member {
    /// Waits for the next event. Safe to cancel.
    pub(in crate::bus) async fn take(&mut self) -> Work {
        loop {
            if let Some(work) = self.try_take() {
                return work;
            }
            self.0.wake.notified().await;
        }
    }

    fn try_take(&self) -> Option<Work> {
        let mut queue = self.0.lock();
        let id = queue.waiting.pop_front()?;
        if !queue.waiting.is_empty() {
            // One wake may stand for several puts.
            self.0.wake.notify_one();
        }
        let event = queue.events.get_mut(&id)?;
        event.deliveries += 1;
        Some(Work {
            id,
            body: event.parcel.body.clone(),
            traceparent: event.parcel.traceparent.clone(),
            redelivered: event.deliveries > 1,
            ticket: Ticket::Memory(Taken { group: Arc::clone(&self.0), id, settled: false }),
        })
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.0.members.fetch_sub(1, Ordering::Relaxed);
        // A wake that only this one heard is for the others.
        self.0.wake.notify_one();
    }
}

impl Taken {
    pub(in crate::bus) fn ack(mut self) {
        self.settled = true;
        self.group.lock().settle(self.id);
    }

    pub(in crate::bus) fn reject(mut self) {
        self.settled = true;
        self.group.bury(self.id);
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut queue = self.group.lock();
        if queue.events.get(&self.id).is_some_and(|event| event.deliveries > DELIVERY_LIMIT) {
            drop(queue);
            self.group.bury(self.id);
        } else {
            queue.waiting.push_back(self.id);
            drop(queue);
            self.group.wake.notify_one();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is no queue of the dead in memory: the log has to do.
    fn bury(&self, id: Uuid) {
        self.lock().settle(id);
        metrics::counter!("bus_dead_total", "group" => self.name).increment(1);
        tracing::error!(event.id = %id, group = self.name, "an event could not be worked on and is given up");
    }
}

impl Queue {
    fn settle(&mut self, id: Uuid) {
        let Some(event) = self.events.remove(&id) else { return };
        self.bytes -= event.parcel.body.len();
        for tell in event.told {
            // Whoever emitted it may have stopped waiting.
            let _ = tell.send(Ok(()));
        }
    }
}
