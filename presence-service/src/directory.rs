//! What gateways and publishers may ask: limits, then the store, then those who are to be told.

use service_kit::{
    fault::Fault,
    id::{BootId, Topic, UserId},
};

use crate::{
    announce::Announcer,
    presence::{Chosen, Known, Seen},
    store::{BATCH, Located, MAX_NUMBER, Op, Renewal, Store},
};

/// Operations in one update. A full registration is several updates, of which the last one sweeps.
pub const MAX_OPS: usize = 65_536;
/// Topics in one lookup.
pub const MAX_TOPICS: usize = 16_384;
/// Users whose state is asked for at once.
pub const MAX_USERS: usize = 16_384;

/// The directory and presence: cheap to clone.
#[derive(Clone)]
pub struct Directory {
    store: Store,
    announcer: Announcer,
}

impl Directory {
    /// On this store, telling transitions by this announcer.
    #[must_use]
    pub fn new(store: Store, announcer: Announcer) -> Self {
        Self { store, announcer }
    }

    /// Applies a gateway's changes. Returns when they are visible to every publisher.
    ///
    /// # Errors
    /// `bad_request` above the limits, `unprocessable` for a gateway that is over, `unavailable` when the store cannot
    /// be reached: then the same update may be sent again.
    pub async fn update(&self, boot: BootId, ops: &[Op], sweep_below: u64) -> Result<(), Fault> {
        within(ops.len(), MAX_OPS, "ops")?;
        let largest = ops.iter().map(|op| op.number).max().unwrap_or(0).max(sweep_below);
        check_number(largest)?;
        let mut transitions = Vec::new();
        let outcome = self.store.update(boot, ops, sweep_below, &mut transitions).await;
        self.announcer.tell(transitions).await;
        Ok(outcome?)
    }

    /// Keeps a gateway alive.
    ///
    /// # Errors
    /// `bad_request` for a number that is too large, `unavailable` when the store cannot be reached.
    pub async fn renew(&self, boot: BootId, number: u64) -> Result<Renewal, Fault> {
        check_number(number)?;
        Ok(self.store.renew(boot, number).await?)
    }

    /// Which gateways want these topics. A store that cannot be reached does not know: that is an answer, not an error.
    ///
    /// # Errors
    /// `bad_request` above the limit.
    pub async fn lookup(&self, topics: &[Topic]) -> Result<Located, Fault> {
        within(topics.len(), MAX_TOPICS, "topics")?;
        Ok(self.store.lookup(topics).await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "a lookup could not be answered: it goes to all gateways");
            metrics::counter!("directory_lookups_unknown_total").increment(1);
            Located { unknown: true, served: Vec::new() }
        }))
    }

    /// A gateway leaves for good. Returns when its entries are gone.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be reached; a sweeper removes what is left.
    pub async fn leave(&self, boot: BootId) -> Result<(), Fault> {
        let dead = self.store.leave(boot).await?;
        loop {
            let mut transitions = Vec::new();
            let outcome = self.store.clear(&dead, &mut transitions).await;
            self.announcer.tell(transitions).await;
            if outcome? < BATCH {
                return Ok(());
            }
        }
    }

    /// The public state of users, and whether they are there, in the order asked.
    ///
    /// # Errors
    /// `bad_request` above the limit, `unavailable` when the store cannot be reached: never "offline" for that.
    pub async fn states(&self, users: &[UserId]) -> Result<Vec<Known>, Fault> {
        within(users.len(), MAX_USERS, "users")?;
        Ok(self.store.states(users).await?)
    }

    /// Users who are gone, and when they were last seen, to be stored by the caller; at most [`BATCH`].
    ///
    /// # Errors
    /// `unavailable` when the store cannot be reached.
    pub async fn take_seen(&self) -> Result<Vec<Seen>, Fault> {
        Ok(self.store.take_seen().await?)
    }

    /// These are stored and are not handed out again.
    ///
    /// # Errors
    /// `bad_request` above the limit, `unavailable` when the store cannot be reached: then they come again.
    pub async fn seen_stored(&self, stored: &[Seen]) -> Result<(), Fault> {
        within(stored.len(), MAX_USERS, "items")?;
        Ok(self.store.seen_stored(stored).await?)
    }

    /// Shows a user as chosen, unless a later choice is known.
    ///
    /// # Errors
    /// `unavailable` when the store cannot be reached.
    pub async fn choose(&self, user: UserId, chosen: Chosen) -> Result<(), Fault> {
        let transition = self.store.choose(user, chosen).await?;
        self.announcer.tell(transition.into_iter().collect()).await;
        Ok(())
    }
}

fn within(count: usize, limit: usize, field: &str) -> Result<(), Fault> {
    if count > limit {
        return Err(Fault::bad_request(format!("{field}: {count} are too many, {limit} is the limit")));
    }
    Ok(())
}

fn check_number(number: u64) -> Result<(), Fault> {
    if number < MAX_NUMBER { Ok(()) } else { Err(Fault::bad_request("number: must stay below 2^53 - 1")) }
}
