//! The rules of presence: what a user's sessions and choice add up to, and when that is worth telling.
//!
//! Pure: time is passed in. The Redis store runs the same rules in `store/user.lua`, because there each transition
//! has to be one atomic script; the contract suite holds the two together.

use std::{collections::BTreeMap, time::Duration};

use service_kit::id::{BootId, UserId};

/// How many ended sessions of one user are remembered during their grace. A client that reconnects more often than
/// that within the grace loses the grace of the surplus, nothing else. The same number stands in `user.lua`.
pub const MAX_ENDED: usize = 32;

/// What a user is to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// No session, or an invisible user.
    #[default]
    Offline,
    /// A session that is in use.
    Online,
    /// Sessions, all of them idle.
    Away,
    /// Does not want to be disturbed, by choice.
    Dnd,
}

impl State {
    /// The word that the store keeps.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Online => "online",
            Self::Away => "away",
            Self::Dnd => "dnd",
        }
    }

    /// Reads what `as_str` wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Offline, Self::Online, Self::Away, Self::Dnd].into_iter().find(|state| state.as_str() == text)
    }
}

/// What a user has chosen to be shown as while connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// What the sessions say.
    #[default]
    Online,
    /// Do not disturb.
    Dnd,
    /// Offline to everybody else.
    Invisible,
}

impl Choice {
    /// The word that the store keeps.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Dnd => "dnd",
            Self::Invisible => "invisible",
        }
    }
}

/// A choice as chat-service has stored it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// What was chosen.
    pub choice: Choice,
    /// Grows with each choice of the user. 0: of a gateway that stores nothing.
    pub version: i64,
}

/// One connection of a user at a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session {
    /// The gateway that holds it.
    pub boot: BootId,
    /// Its number at that gateway.
    pub connection: u64,
}

/// What everybody may know of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The public state.
    pub state: State,
    /// When the user went offline, while offline; nothing for one who was never seen.
    pub last_seen: Option<i64>,
    /// Grows with each transition; 0 for one who was never seen.
    pub version: i64,
}

/// A user as presence-service knows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// What everybody may know.
    pub status: Status,
    /// Whether a session is there that counts, be the user invisible or not. No client may know it.
    pub present: bool,
}

/// A change of a user's public state, for one caller to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub user: UserId,
    /// What it is now.
    pub status: Status,
}

/// When a user was last seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who.
    pub user: UserId,
    /// The instant.
    pub at: i64,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    number: u64,
    idle: bool,
    /// The last sign of life of a session that is over; it goes on counting until the grace has passed.
    ended: Option<i64>,
}

/// One user: sessions, choice, and what was said last.
#[derive(Clone, Debug, Default)]
pub struct User {
    sessions: BTreeMap<Session, Record>,
    chosen: Chosen,
    status: Status,
    /// Whether any session counted at the last step.
    present: bool,
    /// The last sign of life of a session that is over.
    left: Option<i64>,
}

impl User {
    /// A session is there, active or idle, of a user who has chosen this, if anything. A `number` at or below the stored
    /// one is ignored.
    pub fn session(&mut self, session: Session, number: u64, idle: bool, chosen: Option<Chosen>) {
        let newer = self.sessions.get(&session).is_none_or(|record| record.number < number);
        if newer {
            self.sessions.insert(session, Record { number, idle, ended: None });
            if let Some(chosen) = chosen {
                self.choose(chosen);
            }
        }
    }

    /// A session ended. A `number` at or below the stored one is ignored.
    pub fn end(&mut self, session: Session, number: u64, now: i64) {
        if let Some(record) = self.sessions.get_mut(&session).filter(|record| record.number < number) {
            record.number = number;
            self.over(session, now);
        }
    }

    /// A session whose number is below `below` is gone with its gateway, or was left out of a full registration.
    pub fn sweep(&mut self, session: Session, below: u64, ended: i64) {
        if self.sessions.get(&session).is_some_and(|record| record.number < below) {
            self.over(session, ended);
        }
    }

    /// Shows the user as chosen from now on, unless a later choice is known: two gateways may tell of two choices in
    /// either order. One that is stored nowhere counts until one comes that is.
    pub fn choose(&mut self, chosen: Chosen) {
        if chosen.version == 0 {
            self.chosen.choice = chosen.choice;
        } else if chosen.version > self.chosen.version {
            self.chosen = chosen;
        }
    }

    fn over(&mut self, session: Session, ended: i64) {
        let ghosts = self.sessions.values().filter(|record| record.ended.is_some()).count();
        self.left = self.left.max(Some(ended));
        match self.sessions.get_mut(&session) {
            Some(record) if record.ended.is_none() && ghosts >= MAX_ENDED => {
                self.sessions.remove(&session);
            }
            Some(record) => record.ended = record.ended.or(Some(ended)),
            None => {}
        }
    }

    /// Forgets what is over, and finds out what the user is now. `dead` gives the last sign of life of a gateway that
    /// is being cleared: its sessions count as ended then. Returns the transition of the public state, if there is one.
    pub fn settle(&mut self, now: i64, grace: Duration, dead: impl Fn(BootId) -> Option<i64>) -> Option<Status> {
        let grace = millis(grace);
        self.sessions.retain(|_, record| record.ended.is_none_or(|ended| ended + grace > now));
        let (mut present, mut active) = (false, false);
        for (session, record) in &self.sessions {
            let ended = record.ended.or_else(|| dead(session.boot));
            self.left = self.left.max(ended);
            if ended.is_none_or(|ended| ended + grace > now) {
                present = true;
                active |= !record.idle;
            }
        }
        self.present = present;
        let state = match (present, self.chosen.choice) {
            (false, _) | (true, Choice::Invisible) => State::Offline,
            (true, Choice::Dnd) => State::Dnd,
            (true, Choice::Online) if active => State::Online,
            (true, Choice::Online) => State::Away,
        };
        if state == self.status.state {
            return None;
        }
        // Somebody who becomes invisible is last seen now, and nothing of what they do unseen moves that.
        let seen = if present { now } else { self.left.unwrap_or(now) };
        self.status = Status {
            state,
            last_seen: (state == State::Offline).then_some(seen),
            version: now.max(self.status.version + 1),
        };
        Some(self.status)
    }

    /// When an ended session stops counting next.
    #[must_use]
    pub fn due(&self, grace: Duration) -> Option<i64> {
        self.sessions.values().filter_map(|record| record.ended).min().map(|ended| ended + millis(grace))
    }

    /// When the user was last seen, of one who has gone: known as soon as the last session has ended, though others are
    /// told only after the grace. What somebody does unseen does not count.
    #[must_use]
    pub fn seen(&self) -> Option<i64> {
        match self.status.state {
            State::Offline => self.status.last_seen,
            State::Online | State::Away | State::Dnd if self.is_connected() => None,
            State::Online | State::Away | State::Dnd => self.left,
        }
    }

    /// What is known since the last step.
    #[must_use]
    pub fn known(&self) -> Known {
        Known { status: self.status, present: self.present }
    }

    /// Whether a session is there that has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.sessions.values().any(|record| record.ended.is_none())
    }
}

/// A duration in the unit of every instant here.
#[must_use]
pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
