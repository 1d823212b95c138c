//! What publishes: numbers given under a lock, one task that hands frames to the channel in that order, confirmations
//! gathered as they come.

mod flight;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use uuid::Uuid;

use self::flight::Flights;
use super::{
    BROKER,
    link::{Backoff, Link, Live},
    ready::Part,
    topology::{self, Names},
};
use crate::{
    bus::{
        DEADLINE, MAX_UNCONFIRMED, MAX_UNCONFIRMED_BYTES, Parcel, To, Unpublished,
        counters::Counters,
        inbox::Weight,
        numbers::{Kind, Stamp},
        pending::Pending,
    },
    tasks::Tasks,
};

/// How often beats that are due are looked for, and whether the broker blocks.
const LOOK: Duration = Duration::from_millis(250);
/// Frames that are handed to the channel before confirmations are looked at.
const BURST: usize = 256;
/// What a message weighs beside its body.
const OVERHEAD: usize = 256;
/// How long what was called before the stop may take to be confirmed.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Those who call.
pub(super) struct Publisher(Arc<Shared>);

struct Shared {
    queue: mpsc::Sender<Outgoing>,
    // Held for a hash look-up and a push, never across an await: the order of the numbers is the order in the queue.
    counters: Mutex<Counters>,
    count: Arc<AtomicUsize>,
    bytes: Arc<AtomicUsize>,
}

/// A message on its way. What waits for its outcome hears `Disconnected` when it is dropped.
struct Outgoing {
    what: What,
    parcel: Parcel,
    called: Instant,
    tell: Option<oneshot::Sender<Result<(), Unpublished>>>,
    _weight: (Weight, Weight),
}

#[derive(Clone, Copy)]
enum What {
    Frame { to: To, stamp: Stamp, kind: Kind },
    Event { id: Uuid },
}

/// The task: alone it talks to the channel.
struct Sending {
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Outgoing>,
    names: Arc<Names>,
    ready: Part,
    tasks: Tasks,
}

/// Why sending on a connection ended.
enum Ended {
    Stopping,
    Broken,
}

impl Publisher {
    pub(super) fn start(link: Link, names: Arc<Names>, ready: Part, tasks: &Tasks) -> Self {
        // The weights bound what is in here; one more place is never needed.
        let (queue, outgoing) = mpsc::channel(MAX_UNCONFIRMED);
        let shared =
            Arc::new(Shared { queue, counters: Mutex::default(), count: Arc::default(), bytes: Arc::default() });
        let sending = Sending { shared: Arc::clone(&shared), queue: outgoing, names, ready, tasks: tasks.clone() };
        tasks.spawn(sending.run(link));
        Self(shared)
    }

    pub(super) fn publish(&self, to: To, parcel: Parcel) -> Pending {
        let Some(weight) = self.0.weigh(&parcel) else { return Pending::Known(Err(Unpublished::Overloaded)) };
        let mut counters = self.0.lock();
        let stamp = counters.next(to, Instant::now());
        self.0.call(What::Frame { to, stamp, kind: Kind::Parcel }, parcel, weight)
    }

    pub(super) fn emit(&self, id: Uuid, parcel: Parcel) -> Pending {
        match self.0.weigh(&parcel) {
            Some(weight) => self.0.call(What::Event { id }, parcel, weight),
            None => Pending::Known(Err(Unpublished::Overloaded)),
        }
    }

    pub(super) fn lose(&self, to: To) {
        self.0.lock().next(to, Instant::now());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn weigh(&self, parcel: &Parcel) -> Option<(Weight, Weight)> {
        let one = Weight::take(&self.count, 1, MAX_UNCONFIRMED)?;
        let bytes = Weight::take(&self.bytes, parcel.body.len() + OVERHEAD, MAX_UNCONFIRMED_BYTES)?;
        Some((one, bytes))
    }

    fn call(&self, what: What, parcel: Parcel, weight: (Weight, Weight)) -> Pending {
        let (tell, told) = oneshot::channel();
        let outgoing = Outgoing { what, parcel, called: Instant::now(), tell: Some(tell), _weight: weight };
        match self.queue.try_send(outgoing) {
            Ok(()) => Pending::told(vec![told]),
            Err(mpsc::error::TrySendError::Full(_)) => Pending::Known(Err(Unpublished::Overloaded)),
            Err(mpsc::error::TrySendError::Closed(_)) => Pending::Known(Err(Unpublished::Disconnected)),
        }
    }

    /// Queues frames without a parcel, behind everything that their numbers stand for.
    fn say(&self, kind: Kind, due: impl FnOnce(&mut Counters) -> Vec<(To, Stamp)>) {
        let mut counters = self.lock();
        for (to, stamp) in due(&mut counters) {
            let parcel = Parcel::default();
            if let Some(weight) = self.weigh(&parcel) {
                // Nobody waits for it, and when there is no room the next beat says the same.
                let _ = self.call(What::Frame { to, stamp, kind }, parcel, weight);
            }
        }
    }
}

impl Sending {
    async fn run(mut self, mut link: Link) {
        let mut backoff = Backoff::new();
        while let Some(live) = link.live().await {
            match self.on(&live, &mut backoff).await {
                Ok(Ended::Stopping) => return,
                Ok(Ended::Broken) => {}
                Err(error) => tracing::warn!(error = format!("{error:#}"), "cannot prepare to publish"),
            }
            self.ready.set(false);
            live.give_up();
            backoff.pause().await;
        }
    }

    /// Sends on one connection, in its only channel.
    async fn on(&mut self, live: &Live, backoff: &mut Backoff) -> anyhow::Result<Ended> {
        let channel = live.channel().await?;
        tokio::time::timeout(BROKER, channel.confirm_select(Default::default())).await??;
        topology::declare(&channel, &self.names).await?;
        self.ready.set(true);
        *backoff = Backoff::new();
        let mut flights = Flights::new(channel, Arc::clone(&self.names), Arc::clone(&self.shared));
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = Box::pin(self.tasks.stopping());
        let mut burst = Vec::with_capacity(BURST);
        loop {
            tokio::select! {
                biased;
                () = &mut stopping => {
                    self.last_words(&mut flights).await;
                    return Ok(Ended::Stopping);
                }
                _ = look.tick() => {
                    if !live.stands() {
                        return Ok(Ended::Broken);
                    }
                    self.ready.set(!live.is_blocked());
                    self.shared.say(Kind::Beat, |counters| counters.beats(Instant::now()));
                    metrics::gauge!("bus_unconfirmed").set(self.shared.count.load(Ordering::Relaxed) as f64);
                }
                stands = flights.land(), if !flights.is_empty() => {
                    if !stands {
                        return Ok(Ended::Broken);
                    }
                }
                _ = self.queue.recv_many(&mut burst, BURST) => {
                    for outgoing in burst.drain(..).filter(|outgoing| outgoing.called.elapsed() < DEADLINE) {
                        flights.start(outgoing).await;
                    }
                }
            }
        }
    }

    /// Sends what was called before the stop and tells readers that the silence to come is no loss.
    async fn last_words(&mut self, flights: &mut Flights) {
        self.shared.say(Kind::Bye, Counters::end);
        self.queue.close();
        let sent = async {
            while let Some(outgoing) = self.queue.recv().await {
                flights.start(outgoing).await;
            }
            while !flights.is_empty() && flights.land().await {}
        };
        if tokio::time::timeout(LAST_WORDS, sent).await.is_err() {
            tracing::warn!("stopping although the broker has not confirmed everything");
        }
    }
}
