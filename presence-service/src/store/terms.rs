//! The words in which the store is asked and answers.

use std::time::Duration;

use service_kit::id::{BootId, Topic, UserId};

use crate::presence::{Chosen, Session};

/// The durations of the contract. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a renewal keeps a gateway alive.
    pub lease: Duration,
    /// From the last sign of life of a session until it stops counting.
    pub grace: Duration,
    /// How long after its epoch was made the directory cannot answer.
    pub unknown: Duration,
    /// How long a cleared boot is remembered.
    pub remember: Duration,
    /// How long a user without sessions is kept.
    pub keep: Duration,
    /// After which time a transition that nobody confirmed is handed out again.
    pub resay: Duration,
    /// After which time the users that a sweeper took are taken by another.
    pub claim: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            grace: Duration::from_secs(15),
            unknown: Duration::from_secs(15),
            remember: Duration::from_secs(60 * 60),
            keep: Duration::from_secs(30 * 24 * 60 * 60),
            resay: Duration::from_secs(2),
            claim: Duration::from_secs(10),
        }
    }
}

/// One change that a gateway asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Op {
    /// Grows with every operation of a boot; at most [`MAX_NUMBER`](super::MAX_NUMBER).
    pub number: u64,
    /// What changes.
    pub change: Change,
}

/// What an operation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The gateway wants to hear of this.
    Attach(Topic),
    /// It no longer does.
    Detach(Topic),
    /// A connection of a user is there.
    Session {
        /// Whose.
        user: UserId,
        /// Which, at that gateway.
        connection: u64,
        /// Not in use at the moment.
        idle: bool,
        /// What the user has chosen, as far as it is stored: the first state that others see has it already.
        chosen: Option<Chosen>,
    },
    /// It is not any more.
    SessionEnd {
        /// Whose.
        user: UserId,
        /// Which, at that gateway.
        connection: u64,
    },
}

/// What a renewal found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The lease was alive.
    Alive,
    /// There was none, or it had expired, or the store came back empty.
    Expired,
    /// A sweeper has taken the boot for dead.
    Cleared,
}

/// The answer to a renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renewal {
    /// What it found.
    pub standing: Standing,
    /// Topics and sessions stored for the boot.
    pub entries: u64,
    /// Another one than before: the store was lost in between.
    pub epoch: String,
    /// Boots that hold a live lease.
    pub gateways: u64,
}

/// The answer to a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// The directory cannot tell: publish to all.
    pub unknown: bool,
    /// Per topic, in the order asked, the live boots that want it.
    pub served: Vec<Vec<BootId>>,
}

/// A boot whose entries are to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dead {
    /// Which.
    pub boot: BootId,
    /// Its last renewal, or when it left.
    pub last_sign: i64,
    /// A sweeper took it for dead; false when it left by itself.
    pub cleared: bool,
}

/// An entry of a boot: what it is noted under there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Entry {
    Topic(Topic),
    Session(UserId, u64),
}

impl Op {
    pub(super) fn entry(&self) -> Entry {
        match self.change {
            Change::Attach(topic) | Change::Detach(topic) => Entry::Topic(topic),
            Change::Session { user, connection, .. } | Change::SessionEnd { user, connection } => {
                Entry::Session(user, connection)
            }
        }
    }

    pub(super) fn adds(&self) -> bool {
        matches!(self.change, Change::Attach(_) | Change::Session { .. })
    }
}

impl Entry {
    pub(super) fn session(self, boot: BootId) -> Option<(UserId, Session)> {
        match self {
            Self::Topic(_) => None,
            Self::Session(user, connection) => Some((user, Session { boot, connection })),
        }
    }
}
