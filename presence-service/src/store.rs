//! Where the directory and presence are kept: Redis for a cluster, memory for one process.
//!
//! The contract, which `tests/it` holds on both:
//! - A topic has boots, a user has sessions, each under the number of the operation that put it there. An operation with
//!   a number at or below the stored one changes nothing. An entry too many may be left behind by operations that
//!   overtake each other; an entry that should be there is never missing once its update was acknowledged.
//! - A boot has one lease. Lookups take boots without a live one as absent; sessions go on counting until a sweeper has
//!   taken the boot for dead, and then for the grace since its last renewal.
//! - A transition of a user's public state is handed to exactly one caller. On Redis it is handed out again when it was
//!   not confirmed by [`Store::said`] and its operation is repeated, or a check finds it more than `Timing::resay` old: an
//!   answer can get lost on its way.
//! - Of a user who has been said to be offline, when that was is handed out to be stored until it was
//!   ([`Store::take_seen`]). Memory, which ends with its process, does so as soon as the last session has ended.
//! - Of two choices of a user the one with the greater version counts, in whichever order they come, and whether by
//!   themselves or with a session.
//! - Nothing in the store is the only copy of anything for longer than that: gateways register again what they have, each
//!   session with its user's choice.

mod memory;
mod redis;
mod terms;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use service_kit::{
    clock,
    id::{BootId, Topic, UserId},
};

pub use self::{
    memory::Guarded,
    redis::Redis,
    terms::{Change, Dead, Located, Op, Renewal, Standing, Timing},
};
use self::{memory::Memory, terms::Entry};
use crate::{
    error::Error,
    presence::{Chosen, Known, Seen, Transition},
};

/// Entries that one step of clearing, sweeping, checking or taking takes.
pub const BATCH: usize = 512;
/// Largest number of an operation or renewal: Redis counts in doubles.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// The clock of the memory store.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The wall clock.
    Wall,
    /// Turned by hand, for tests: milliseconds.
    Hand(Arc<AtomicI64>),
}

impl Clock {
    fn now(&self) -> i64 {
        match self {
            Self::Wall => clock::now_ms(),
            Self::Hand(hand) => hand.load(Ordering::Relaxed),
        }
    }
}

/// The store: cheap to clone, the same one in every clone.
#[derive(Clone)]
pub enum Store {
    /// Shared by all replicas.
    Redis(Redis),
    /// Inside this process; empty when it starts, which nobody outlives.
    Memory(Guarded),
}

impl Store {
    /// Opens the store that `url` names: `memory:`, or `redis://` and `rediss://`. Does not wait for Redis.
    ///
    /// # Errors
    /// When the URL is not one of these.
    pub fn connect(url: &str, prefix: &str, timing: Timing) -> anyhow::Result<Self> {
        match url.split_once(':').map(|(scheme, _)| scheme) {
            Some("memory") => Ok(Self::memory(timing, Clock::Wall)),
            Some("redis" | "rediss") => Ok(Self::Redis(Redis::open(url, prefix, timing)?)),
            // The URL may carry a password: it is not repeated.
            _ => anyhow::bail!("the URL of the presence store is neither memory: nor redis: nor rediss:"),
        }
    }

    /// A store in memory with this clock.
    #[must_use]
    pub fn memory(timing: Timing, clock: Clock) -> Self {
        Self::Memory(Guarded::new(Memory::new(timing, clock.now()), clock))
    }

    /// Applies changes of a boot in their order, then, unless it is 0, removes its entries with a number below
    /// `sweep_below`. Returns once all is stored. Transitions are added to `out`, also when it fails half-way.
    ///
    /// # Errors
    /// [`Error::Cleared`] or [`Error::Left`] for a boot that is over; else when the store cannot be reached within 500 ms,
    /// or 2 s for a batch of more than 32. Doing the same again is safe.
    pub async fn update(
        &self,
        boot: BootId,
        ops: &[Op],
        sweep_below: u64,
        out: &mut Vec<Transition>,
    ) -> Result<(), Error> {
        match self {
            Self::Redis(redis) => redis.update(boot, ops, sweep_below, out).await,
            Self::Memory(memory) => memory.with(|memory, now| memory.update(boot, ops, sweep_below, now, out)),
        }
    }

    /// Keeps everything of a boot alive for another lease; an older `number` prolongs nothing.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn renew(&self, boot: BootId, number: u64) -> Result<Renewal, Error> {
        match self {
            Self::Redis(redis) => redis.renew(boot, number).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.renew(boot, number, now))),
        }
    }

    /// Which live boots want these topics. Never cached.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn lookup(&self, topics: &[Topic]) -> Result<Located, Error> {
        metrics::counter!("directory_lookups_total").increment(1);
        match self {
            Self::Redis(redis) => redis.lookup(topics).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.lookup(topics, now))),
        }
    }

    /// A boot is over by itself: from now on lookups do not see it, the grace of its sessions begins, and
    /// [`Store::bury`] names it until [`Store::clear`] has removed its entries.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn leave(&self, boot: BootId) -> Result<Dead, Error> {
        match self {
            Self::Redis(redis) => redis.leave(boot).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.leave(boot, now))),
        }
    }

    /// The public state of users, and whether they are there, in the order asked.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn states(&self, users: &[UserId]) -> Result<Vec<Known>, Error> {
        match self {
            Self::Redis(redis) => redis.states(users).await,
            Self::Memory(memory) => Ok(memory.with(|memory, _| memory.states(users))),
        }
    }

    /// Shows a user as chosen, as long as any session is there, until changed; unless a later choice is known.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn choose(&self, user: UserId, chosen: Chosen) -> Result<Option<Transition>, Error> {
        match self {
            Self::Redis(redis) => redis.choose(user, chosen).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.choose(user, chosen, now))),
        }
    }

    /// Transitions were published.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms; then some may be handed out again.
    pub async fn said(&self, transitions: &[Transition]) -> Result<(), Error> {
        match self {
            Self::Redis(redis) => redis.said(transitions).await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// Transitions could not be published: a check hands them out again after `Timing::resay`.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn unsaid(&self, transitions: &[Transition]) -> Result<(), Error> {
        match self {
            Self::Redis(redis) => redis.unsaid(transitions).await,
            Self::Memory(_) => Ok(()),
        }
    }

    /// Up to [`BATCH`] users who are gone, and when they were last seen, to be stored by the caller. What
    /// [`Store::seen_stored`] does not name comes again: on Redis after `Timing::claim`, and meanwhile to nobody else.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn take_seen(&self) -> Result<Vec<Seen>, Error> {
        match self {
            Self::Redis(redis) => redis.take_seen().await,
            Self::Memory(memory) => Ok(memory.with(|memory, _| memory.take_seen())),
        }
    }

    /// These are stored. A newer instant of the same user is still handed out.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms; then they come again.
    pub async fn seen_stored(&self, stored: &[Seen]) -> Result<(), Error> {
        match self {
            Self::Redis(redis) => redis.seen_stored(stored.iter().map(|seen| seen.user)).await,
            Self::Memory(memory) => {
                memory.with(|memory, _| memory.seen_stored(stored));
                Ok(())
            }
        }
    }

    /// Reaches for the store, and says which run of the server answered.
    ///
    /// # Errors
    /// When it does not answer within 500 ms.
    pub async fn probe(&self) -> Result<String, Error> {
        match self {
            Self::Redis(redis) => redis.probe().await,
            Self::Memory(_) => Ok(String::new()),
        }
    }

    /// Takes the boots whose lease has expired for dead, and names all whose entries are to be removed.
    ///
    /// # Errors
    /// When the store cannot be reached within 500 ms.
    pub async fn bury(&self) -> Result<Vec<Dead>, Error> {
        match self {
            Self::Redis(redis) => redis.bury().await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.bury(now))),
        }
    }

    /// Removes up to [`BATCH`] entries of a dead boot. Returns how many; fewer than that: it is done with.
    ///
    /// # Errors
    /// When the store cannot be reached within 2 s.
    pub async fn clear(&self, dead: &Dead, out: &mut Vec<Transition>) -> Result<usize, Error> {
        match self {
            Self::Redis(redis) => redis.clear(dead, out).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.clear(dead, now, out))),
        }
    }

    /// Checks up to [`BATCH`] users of whom ended sessions stop counting now. Returns how many.
    ///
    /// # Errors
    /// When the store cannot be reached within 2 s; what was not checked comes again.
    pub async fn check(&self, out: &mut Vec<Transition>) -> Result<usize, Error> {
        match self {
            Self::Redis(redis) => redis.check(out).await,
            Self::Memory(memory) => Ok(memory.with(|memory, now| memory.check(now, out))),
        }
    }
}
