//! What waits to be committed, per room and in order, and which rooms a worker holds.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use service_kit::{fault::Fault, id::RoomId, tasks::Tasks};
use tokio::{sync::Notify, time::Instant};

use super::{Item, worker};
use crate::App;

/// Most messages of one transaction.
pub(super) const MAX_BATCH: usize = 512;
/// Most messages that wait; a client that sends more is asked to try again.
const MAX_WAITING: usize = 32_768;
/// Their bytes.
const MAX_WAITING_BYTES: usize = 64 * 1024 * 1024;
/// What such a client is asked to wait.
const OVERLOADED_WAIT: Duration = Duration::from_millis(500);
/// Misses in a row after which a room gets a transaction of its own that waits for the lock.
const MISSES: u8 = 2;
/// Transactions that may wait for a lock: each holds a connection, and the other rooms need some too.
const WAITERS: usize = 4;
/// Misses in a row after which a room that found no free waiter is given up for now, 3 s after the first.
const LAST_MISS: u8 = 45;
/// How much longer a missed room rests after each miss before it is tried again.
const REST: Duration = Duration::from_millis(3);
/// How long after the beginning of one transaction the next one begins at the earliest. Each costs the database, the
/// broker and the gateways the same whatever it holds: many small ones would leave nothing for the messages.
const PACE: Duration = Duration::from_millis(2);
/// With so many messages waiting it begins at once.
const MANY: usize = 128;

/// Takes messages and has them committed. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Committer(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // Held to move items in and out, never across an await.
    queues: Mutex<Queues>,
    wake: Notify,
    /// There are [`MANY`] now.
    many: Notify,
}

#[derive(Default)]
struct Queues {
    /// When the last batch was taken.
    taken: Option<Instant>,
    rooms: HashMap<RoomId, VecDeque<Item>>,
    /// Rooms with something to do that no worker holds, in the order in which they came.
    ready: VecDeque<RoomId>,
    /// Rooms that a worker holds, or that rest after a miss.
    held: HashSet<RoomId>,
    /// How often in a row a room's lock was somebody else's.
    misses: HashMap<RoomId, u8>,
    waiting: usize,
    /// The bytes of those that wait.
    bytes: usize,
    /// Transactions that wait for a lock.
    waiters: usize,
}

/// What is to be done about a room whose lock is somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missed {
    /// Try again with the others after this time.
    Rest(Duration),
    /// Wait for the lock in a transaction of its own; say [`Committer::waited`] afterwards.
    Wait,
    /// Refuse what waits.
    GiveUp,
}

/// Items taken together. Its rooms are this worker's until [`Committer::release`].
#[derive(Default)]
pub(super) struct Batch {
    pub(super) items: Vec<Item>,
    pub(super) rooms: Vec<RoomId>,
}

/// What there is for a worker.
enum Taken {
    Batch(Batch),
    /// Something, but not before this time.
    Later(Instant),
    Nothing,
}

impl Committer {
    /// Starts the worker. One is enough: what comes while it commits is the next batch, and with more of them the batches
    /// are smaller and dearer.
    pub(crate) fn start(&self, app: &Arc<App>, tasks: &Tasks) {
        tasks.spawn(worker::run(Arc::clone(app), self.clone(), tasks.clone()));
    }

    /// Queues a message behind those of its room. The answer goes to its `reply`, a refusal for overload at once.
    pub(crate) fn push(&self, item: Item) {
        let mut queues = self.lock();
        if queues.waiting >= MAX_WAITING || queues.bytes + item.bytes() > MAX_WAITING_BYTES {
            drop(queues);
            let fault = Fault::unavailable("too many messages wait to be stored; send it again");
            item.reply.send(Err(fault.retry_after(OVERLOADED_WAIT)));
            return;
        }
        queues.waiting += 1;
        queues.bytes += item.bytes();
        if queues.waiting == MANY {
            self.0.many.notify_one();
        }
        let room = item.room;
        let queue = queues.rooms.entry(room).or_default();
        queue.push_back(item);
        if queue.len() == 1 && !queues.held.contains(&room) {
            queues.ready.push_back(room);
            drop(queues);
            self.0.wake.notify_one();
        }
    }

    /// Waits for work and takes it: rooms in the order in which they became ready, each with all it has.
    pub(super) async fn take(&self) -> Batch {
        loop {
            // Registered before looking, so that a push in between is not missed.
            let woken = self.0.wake.notified();
            match self.try_take() {
                Taken::Batch(batch) => return batch,
                Taken::Nothing => woken.await,
                Taken::Later(at) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.0.many.notified() => {}
                    }
                }
            }
        }
    }

    fn try_take(&self) -> Taken {
        let mut queues = self.lock();
        if queues.ready.is_empty() {
            return Taken::Nothing;
        }
        let now = Instant::now();
        if let Some(at) = queues.taken.map(|taken| taken + PACE).filter(|at| *at > now && queues.waiting < MANY) {
            return Taken::Later(at);
        }
        queues.taken = Some(now);
        let mut batch = Batch::default();
        while batch.items.len() < MAX_BATCH
            && let Some(room) = queues.ready.pop_front()
        {
            let Some(queue) = queues.rooms.get_mut(&room) else { continue };
            let count = queue.len().min(MAX_BATCH - batch.items.len());
            batch.items.extend(queue.drain(..count));
            if queue.is_empty() {
                queues.rooms.remove(&room);
            }
            queues.held.insert(room);
            batch.rooms.push(room);
        }
        queues.waiting -= batch.items.len();
        queues.bytes -= batch.items.iter().map(Item::bytes).sum::<usize>();
        if !queues.ready.is_empty() {
            self.0.wake.notify_one();
        }
        if batch.items.is_empty() { Taken::Nothing } else { Taken::Batch(batch) }
    }

    /// Puts items back in front of their room's queue, in their order, and tells how that room goes on.
    pub(super) fn put_back(&self, room: RoomId, items: Vec<Item>) -> Missed {
        let mut queues = self.lock();
        queues.waiting += items.len();
        queues.bytes += items.iter().map(Item::bytes).sum::<usize>();
        let queue = queues.rooms.entry(room).or_default();
        for item in items.into_iter().rev() {
            queue.push_front(item);
        }
        let misses = queues.misses.entry(room).or_default();
        *misses = misses.saturating_add(1);
        let misses = *misses;
        if misses >= MISSES && queues.waiters < WAITERS {
            queues.waiters += 1;
            return Missed::Wait;
        }
        if misses >= LAST_MISS { Missed::GiveUp } else { Missed::Rest(REST * u32::from(misses)) }
    }

    /// A transaction that waited for a lock has ended.
    pub(super) fn waited(&self) {
        self.lock().waiters -= 1;
    }

    /// Takes everything of one room that this worker still holds.
    pub(super) fn take_room(&self, room: RoomId) -> Vec<Item> {
        let mut queues = self.lock();
        let Some(queue) = queues.rooms.get_mut(&room) else { return Vec::new() };
        let count = queue.len().min(MAX_BATCH);
        let items: Vec<Item> = queue.drain(..count).collect();
        if queue.is_empty() {
            queues.rooms.remove(&room);
        }
        queues.waiting -= items.len();
        queues.bytes -= items.iter().map(Item::bytes).sum::<usize>();
        items
    }

    /// Gives rooms free for the next worker; those that were reached are forgiven their misses.
    pub(super) fn release(&self, rooms: &[RoomId], reached: bool) {
        let mut queues = self.lock();
        for room in rooms {
            queues.held.remove(room);
            if reached {
                queues.misses.remove(room);
            }
            if queues.rooms.contains_key(room) {
                queues.ready.push_back(*room);
            }
        }
        let ready = !queues.ready.is_empty();
        drop(queues);
        if ready {
            self.0.wake.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
