//! The reader of an inbox, the same for both backends: what arrives, and what is noticed to be missing.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    time::{Interval, MissedTickBehavior},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    Arrival, Parcel,
    numbers::{Kind, Numbers, Stamp},
};
use crate::tasks::Tasks;

/// How often the reader looks for streams that went silent.
const LOOK: Duration = Duration::from_millis(500);

/// The inbox of one boot of one gateway. Ends when it is dropped.
pub struct Inbox {
    items: mpsc::Receiver<Item>,
    numbers: Numbers,
    // The parcel behind a loss that was yielded first.
    held: Option<Parcel>,
    arrived: Instant,
    look: Interval,
    stopping: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// What a backend hands to the reader.
pub(super) enum Item {
    /// Something that a sender sent.
    Frame(Frame),
    /// A new inbox receives from now on.
    Renewed,
}

/// What a sender sent.
pub(super) struct Frame {
    pub(super) stamp: Stamp,
    pub(super) kind: Kind,
    pub(super) parcel: Parcel,
    /// When it came off the wire, which may be before it is read.
    pub(super) arrived: Instant,
    /// Held while it waits.
    pub(super) _weight: Option<Weight>,
}

/// A share of a bounded number of bytes, given back when dropped.
pub(super) struct Weight {
    total: Arc<AtomicUsize>,
    bytes: usize,
}

impl Weight {
    /// Takes `bytes` of `max`, or nothing when that is too much.
    pub(super) fn take(total: &Arc<AtomicUsize>, bytes: usize, max: usize) -> Option<Self> {
        let taken = total.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
            held.checked_add(bytes).filter(|sum| *sum <= max)
        });
        taken.ok().map(|_| Self { total: Arc::clone(total), bytes })
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Inbox {
    pub(super) fn new(items: mpsc::Receiver<Item>, tasks: &Tasks) -> Self {
        let now = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { items, numbers: Numbers::new(now), held: None, arrived: now, look, stopping: Box::pin(tasks.stopping()) }
    }

    /// The next arrival, or `None` when the bus is stopping. Safe to cancel: nothing is lost.
    pub async fn next(&mut self) -> Option<Arrival> {
        if let Some(parcel) = self.held.take() {
            return Some(Arrival::Parcel(parcel));
        }
        loop {
            let arrival = tokio::select! {
                biased;
                () = &mut self.stopping => return None,
                _ = self.look.tick() => self.look_for_silence(),
                item = self.items.recv() => self.take(item?),
            };
            if arrival == Some(Arrival::Lost) {
                metrics::counter!("bus_lost_total").increment(1);
            }
            if arrival.is_some() {
                return arrival;
            }
        }
    }

    fn take(&mut self, item: Item) -> Option<Arrival> {
        let frame = match item {
            Item::Frame(frame) => frame,
            Item::Renewed => {
                self.numbers.renew(Instant::now());
                return Some(Arrival::Renewed);
            }
        };
        self.arrived = frame.arrived;
        let lost = self.numbers.hear(frame.stamp, frame.kind, frame.arrived);
        let parcel = (frame.kind == Kind::Parcel).then_some(frame.parcel);
        if lost {
            self.held = parcel;
            return Some(Arrival::Lost);
        }
        parcel.map(Arrival::Parcel)
    }

    /// What waits unread may be the word of a sender that seems silent, so time stands still at the last read arrival.
    fn look_for_silence(&mut self) -> Option<Arrival> {
        let now = if self.items.is_empty() { Instant::now() } else { self.arrived };
        self.numbers.forget_silent(now).then_some(Arrival::Lost)
    }
}
