//! Who follows whose presence.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use parlance_proto::v1;
use service_kit::id::UserId;

use super::lock;
use crate::{
    conn::{Conn, Newest},
    frame::{Event, Written},
};

/// Users that one connection may follow.
const MOST: usize = 500;

/// The watches of all local connections.
#[derive(Default)]
pub(crate) struct Watches(Mutex<HashMap<UserId, Watched>>);

#[derive(Default)]
struct Watched {
    /// The newest that is known: an older one is ignored.
    newest: v1::Presence,
    conns: Vec<Arc<Conn>>,
}

impl Watches {
    /// Follows these users; false, and nothing done, when it would be too many.
    pub(crate) fn add(&self, conn: &Arc<Conn>, users: &[UserId]) -> bool {
        let mut all = lock(&self.0);
        let follows = |watched: &Watched| watched.conns.iter().any(|other| other.number == conn.number);
        let before = all.values().filter(|watched| follows(watched)).count();
        let new = users.iter().filter(|user| !all.get(user).is_some_and(follows)).count();
        if before + new > MOST {
            return false;
        }
        for user in users {
            let watched = all.entry(*user).or_default();
            if !follows(watched) {
                watched.conns.push(Arc::clone(conn));
            }
        }
        true
    }

    /// Follows these users no longer.
    pub(crate) fn drop(&self, conn: &Conn, users: &[UserId]) {
        let mut all = lock(&self.0);
        for user in users {
            if let Some(watched) = all.get_mut(user) {
                watched.conns.retain(|other| other.number != conn.number);
            }
        }
    }

    /// Takes a connection away that is gone.
    pub(crate) fn remove(&self, conn: &Conn) {
        for watched in lock(&self.0).values_mut() {
            watched.conns.retain(|other| other.number != conn.number);
        }
    }

    /// Passes a presence on to who follows it, unless a newer one has been passed on.
    pub(crate) fn deliver(&self, user: UserId, presence: &v1::Presence) {
        let mut all = lock(&self.0);
        let Some(watched) = all.get_mut(&user) else { return };
        if presence.version <= watched.newest.version {
            return;
        }
        watched.newest = presence.clone();
        if watched.conns.is_empty() {
            return;
        }
        let written = Written::new(Event::Presence(presence));
        for conn in &watched.conns {
            conn.push_newest(Newest::Presence(user), written.get(conn.format).clone());
        }
    }

    /// Takes note of what a read has given, and gives what is newer if an event came meanwhile.
    pub(crate) fn read(&self, user: UserId, presence: v1::Presence) -> v1::Presence {
        let mut all = lock(&self.0);
        let Some(watched) = all.get_mut(&user) else { return presence };
        if presence.version >= watched.newest.version {
            watched.newest = presence;
        }
        watched.newest.clone()
    }

    /// Who follows this user.
    pub(crate) fn followers(&self, user: UserId) -> Vec<Arc<Conn>> {
        lock(&self.0).get(&user).map(|watched| watched.conns.clone()).unwrap_or_default()
    }

    /// Whom this connection follows.
    pub(crate) fn followed_by(&self, conn: &Conn) -> Vec<UserId> {
        let all = lock(&self.0);
        let follows = |watched: &Watched| watched.conns.iter().any(|other| other.number == conn.number);
        all.iter().filter(|(_, watched)| follows(watched)).map(|(user, _)| *user).collect()
    }

    /// Users that nobody follows any more.
    pub(super) fn idle(&self) -> Vec<UserId> {
        lock(&self.0).iter().filter(|(_, watched)| watched.conns.is_empty()).map(|(user, _)| *user).collect()
    }

    /// Forgets a user; false when somebody follows again.
    pub(super) fn forget(&self, user: UserId) -> bool {
        let mut all = lock(&self.0);
        let gone = all.get(&user).is_none_or(|watched| watched.conns.is_empty());
        if gone {
            all.remove(&user);
        }
        gone
    }
}
