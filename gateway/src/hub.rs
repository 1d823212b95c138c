//! Which connections are here, in which rooms, and what has been delivered to them: the heart of the local fan-out.
//!
//! A room's events are delivered in rev order, each once. Membership follows the room's own events and nothing else. A
//! connection that is being attached to a room has what is delivered held back until its own read of the room is done.

pub(crate) mod room;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use service_kit::id::{RoomId, Topic, UserId};

pub(crate) use self::room::After;
use self::{room::Room, watch::Watches};
use crate::conn::Conn;

/// How long a room or user without local connections stays attached, against churn.
const LINGER: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };

/// A room behind its own lock: rooms do not wait for one another.
pub(crate) type SharedRoom = Arc<Mutex<Room>>;

/// All local state of one life of the gateway.
#[derive(Default)]
pub(crate) struct Hub {
    // Held for a look-up or an insert; room locks are taken after it was let go.
    rooms: Mutex<HashMap<RoomId, SharedRoom>>,
    users: Mutex<HashMap<UserId, User>>,
    pub(crate) watches: Watches,
}

/// A user with connections here.
#[derive(Debug, Default)]
struct User {
    /// The user's own rev that this gateway has acted upon.
    rev: i64,
    conns: Vec<Arc<Conn>>,
    /// Every room that one of the connections was attached to; may name some that it is not in any more.
    rooms: HashSet<RoomId>,
    idle_since: Option<Instant>,
}

impl User {
    fn has(&self, conn: &Conn) -> bool {
        self.conns.iter().any(|other| other.number == conn.number)
    }
}

impl Hub {
    /// The room, made when it was not here.
    pub(crate) fn room(&self, id: RoomId) -> SharedRoom {
        Arc::clone(lock(&self.rooms).entry(id).or_insert_with(|| Arc::new(Mutex::new(Room::new(id)))))
    }

    /// The room, if it is here.
    pub(crate) fn find(&self, id: RoomId) -> Option<SharedRoom> {
        lock(&self.rooms).get(&id).cloned()
    }

    /// All rooms that are here with the rev that each has delivered; rooms that have not begun are left out.
    pub(crate) fn heads(&self) -> Vec<(RoomId, i64)> {
        let rooms: Vec<SharedRoom> = lock(&self.rooms).values().cloned().collect();
        rooms
            .iter()
            .filter_map(|room| {
                let room = lock(room);
                Some((room.id(), room.delivered()?))
            })
            .collect()
    }

    /// All users that are here with the own rev that was acted upon.
    pub(crate) fn user_heads(&self) -> Vec<(UserId, i64)> {
        lock(&self.users).iter().map(|(user, state)| (*user, state.rev)).collect()
    }

    /// Adds a connection; gives the oldest one when there are now more than `most`.
    pub(crate) fn add(&self, conn: &Arc<Conn>, most: usize) -> Option<Arc<Conn>> {
        let mut users = lock(&self.users);
        let user = users.entry(conn.user).or_default();
        user.conns.push(Arc::clone(conn));
        user.idle_since = None;
        metrics::gauge!("ws_connections").increment(1.0);
        let open = user.conns.iter().filter(|conn| !conn.is_closed());
        if open.clone().count() > most { open.min_by_key(|conn| conn.number).cloned() } else { None }
    }

    /// Takes a connection away from everything.
    pub(crate) fn remove(&self, conn: &Arc<Conn>) {
        let mut users = lock(&self.users);
        if let Some(user) = users.get_mut(&conn.user) {
            let before = user.conns.len();
            user.conns.retain(|other| other.number != conn.number);
            if before != user.conns.len() {
                metrics::gauge!("ws_connections").decrement(1.0);
            }
            if user.conns.is_empty() {
                user.idle_since = Some(Instant::now());
            }
        }
        let rooms = users.get(&conn.user).map(|user| user.rooms.clone()).unwrap_or_default();
        drop(users);
        for room in rooms.into_iter().filter_map(|room| self.find(room)) {
            lock(&room).detach(conn);
        }
        self.watches.remove(conn);
    }

    /// The connections of a user.
    pub(crate) fn conns(&self, user: UserId) -> Vec<Arc<Conn>> {
        lock(&self.users).get(&user).map(|user| user.conns.clone()).unwrap_or_default()
    }

    /// Every connection.
    pub(crate) fn all(&self) -> Vec<Arc<Conn>> {
        lock(&self.users).values().flat_map(|user| user.conns.iter().cloned()).collect()
    }

    /// Notes that a user's own affairs up to `rev` are acted upon. True when it is the next one, or known already: false
    /// when something in between was missed.
    pub(crate) fn user_rev(&self, user: UserId, rev: i64) -> bool {
        let mut users = lock(&self.users);
        let Some(state) = users.get_mut(&user) else { return true };
        let follows = rev <= state.rev + 1;
        if follows {
            state.rev = state.rev.max(rev);
        }
        follows
    }

    /// Notes what the `hello` of a connection has covered. False when the user's other connections may have missed what
    /// is new in it, or this one what they have heard since: the user is to be read anew.
    pub(crate) fn greeted(&self, conn: &Conn, rev: i64) -> bool {
        let mut users = lock(&self.users);
        let Some(state) = users.get_mut(&conn.user) else { return true };
        let alone = !state.conns.iter().any(|other| other.number != conn.number && other.is_welcomed());
        if rev > state.rev && alone {
            state.rev = rev;
        }
        rev == state.rev
    }

    /// Notes what a fresh read of a user has covered.
    pub(crate) fn user_read(&self, user: UserId, rev: i64) {
        if let Some(state) = lock(&self.users).get_mut(&user) {
            state.rev = state.rev.max(rev);
        }
    }

    /// The rooms in which a user has attached connections here.
    pub(crate) fn rooms_of(&self, user: UserId) -> HashSet<RoomId> {
        let rooms = lock(&self.users).get(&user).map(|user| user.rooms.clone()).unwrap_or_default();
        rooms.into_iter().filter(|id| self.find(*id).is_some_and(|room| lock(&room).has(user))).collect()
    }

    /// Whether a connection is still here.
    pub(crate) fn has(&self, conn: &Conn) -> bool {
        lock(&self.users).get(&conn.user).is_some_and(|user| user.has(conn))
    }

    /// Attaches a connection to a room with everything held back; false when it is attached already, or gone.
    pub(crate) fn hold(&self, conn: &Arc<Conn>, id: RoomId) -> bool {
        match lock(&self.users).get_mut(&conn.user) {
            Some(user) if user.has(conn) => user.rooms.insert(id),
            _ => return false,
        };
        let room = self.room(id);
        let held = lock(&room).hold(conn);
        if !self.has(conn) {
            // It went between the two, and was not found in this room.
            lock(&room).detach(conn);
            return false;
        }
        held
    }

    /// Topics that have been without connections for long enough. They stay until [`Hub::forget`].
    pub(crate) fn idle(&self) -> Vec<Topic> {
        let users = lock(&self.users);
        let idle = users.iter().filter(|(_, user)| user.conns.is_empty() && is_over(user.idle_since));
        let mut topics: Vec<Topic> = idle.map(|(user, _)| Topic::User(*user)).collect();
        drop(users);
        let rooms: Vec<SharedRoom> = lock(&self.rooms).values().cloned().collect();
        for room in rooms {
            let room = lock(&room);
            if is_over(room.idle_since()) {
                topics.push(Topic::Room(room.id()));
            }
        }
        topics.extend(self.watches.idle().into_iter().map(Topic::Presence));
        topics
    }

    /// Forgets what a topic was for; false when somebody wants it again.
    pub(crate) fn forget(&self, topic: Topic) -> bool {
        match topic {
            Topic::User(id) => {
                let mut users = lock(&self.users);
                let gone = users.get(&id).is_none_or(|user| user.conns.is_empty());
                if gone {
                    users.remove(&id);
                }
                gone
            }
            Topic::Room(id) => {
                let mut rooms = lock(&self.rooms);
                // Somebody who has taken the room in hand is about to attach to it.
                let gone =
                    rooms.get(&id).is_none_or(|room| Arc::strong_count(room) == 1 && lock(room).idle_since().is_some());
                if gone {
                    rooms.remove(&id);
                }
                gone
            }
            Topic::Presence(id) => self.watches.forget(id),
        }
    }
}

fn is_over(since: Option<Instant>) -> bool {
    since.is_some_and(|since| since.elapsed() > LINGER)
}

/// Locks a mutex of this module; what a panic left behind is still consistent, since every change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "hub/hub_tests.rs"]
mod tests;
