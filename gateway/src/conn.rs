//! One client connection as the rest of the gateway sees it: a bounded queue of frames, and a way to close it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use service_kit::id::{RoomId, SessionId, UserId};
use uuid::Uuid;

use crate::{
    frame::{Close, Format},
    socket::Frame,
};

/// Frames that may wait for a slow client.
const MAX_FRAMES: usize = 4_096;
/// Bytes that may wait for a slow client.
const MAX_BYTES: usize = 1024 * 1024;
/// With more frames waiting than this, typing and receipts are dropped and presence waits for its newest.
const PRESSED: usize = 256;
/// Presences and own states that may wait to be coalesced.
const MAX_COALESCED: usize = 1_024;
/// Requests of one connection that are worked on at the same time; it is not read further above that.
pub(crate) const MAX_IN_FLIGHT: u32 = 64;

/// What only the newest of is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Newest {
    /// Somebody's presence.
    Presence(UserId),
    /// The own state in a room.
    Me(RoomId),
}

/// A connection whose token was accepted.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Unique in this process.
    pub(crate) number: u64,
    /// Shown to the client.
    pub(crate) id: Uuid,
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
    /// What its frames are written in.
    pub(crate) format: Format,
    /// Whether it makes its user online.
    pub(crate) presence: bool,
    /// When the token expires, seconds since the epoch.
    expires_at: AtomicI64,
    /// When the peer was last heard, milliseconds since the epoch.
    heard_at: AtomicI64,
    in_flight: AtomicU32,
    welcomed: AtomicBool,
    // Pushed to by the fan-out and taken from by the socket's task; never held across an await.
    out: Mutex<Out>,
    woken: AtomicBool,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Out {
    frames: Vec<Frame>,
    bytes: usize,
    coalesced: BTreeMap<Newest, Frame>,
    ping: bool,
    closed: Option<Close>,
    /// What happened to the user's own affairs before `welcome` was written.
    early: Vec<Early>,
}

/// An event on the user's topic that waits for `welcome`.
#[derive(Debug)]
pub(crate) enum Early {
    /// The user's own list changed.
    Joined(RoomId),
    /// An own state, with its rev.
    Me(RoomId, i64, Frame),
}

/// Connections that were given frames and whose tasks are still to be woken: together, when this is dropped, so that what
/// comes for a connection at once is written at once.
#[derive(Debug, Default)]
#[must_use = "dropped at once, it gathers nothing"]
pub(crate) struct Wakes(Vec<Arc<Conn>>);

impl Wakes {
    /// Queues a frame as [`Conn::push`] does.
    pub(crate) fn push(&mut self, conn: &Arc<Conn>, frame: Frame) {
        if conn.queue(frame) {
            self.0.push(Arc::clone(conn));
        }
    }

    /// Queues an answer as [`Conn::answer`] does.
    pub(crate) fn answer(&mut self, conn: &Arc<Conn>, frame: Frame) {
        conn.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.push(conn, frame);
    }

    /// Wakes those of `other` together with these.
    pub(crate) fn join(&mut self, mut other: Self) {
        self.0.append(&mut other.0);
    }
}

impl Drop for Wakes {
    fn drop(&mut self) {
        self.0.iter().for_each(|conn| conn.wake());
    }
}

/// What the socket's task has to write.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) frames: Vec<Frame>,
    pub(crate) close: Option<Close>,
}

impl Conn {
    pub(crate) fn new(
        number: u64,
        user: UserId,
        session: SessionId,
        format: Format,
        presence: bool,
        expires_at: i64,
        now: i64,
    ) -> Self {
        Self {
            number,
            id: Uuid::now_v7(),
            user,
            session,
            format,
            presence,
            expires_at: AtomicI64::new(expires_at),
            heard_at: AtomicI64::new(now),
            in_flight: AtomicU32::new(0),
            welcomed: AtomicBool::new(false),
            out: Mutex::default(),
            woken: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Queues a frame that must not be missed. A client too slow for it is closed, and resumes.
    pub(crate) fn push(&self, frame: Frame) {
        if self.queue(frame) {
            self.wake();
        }
    }

    /// Queues it without waking the socket's task; true when that is to be done.
    #[must_use]
    fn queue(&self, frame: Frame) -> bool {
        let mut out = self.lock();
        if out.closed.is_some() {
            return false;
        }
        if out.frames.len() >= MAX_FRAMES || out.bytes + frame.len() > MAX_BYTES {
            metrics::counter!("ws_too_slow_total").increment(1);
            out.close(Close::TooSlow);
        } else {
            out.bytes += frame.len();
            out.frames.push(frame);
        }
        out.frames.len() == 1 || out.closed.is_some()
    }

    /// Queues the answer to a request that is no longer in flight.
    pub(crate) fn answer(&self, frame: Frame) {
        // Before the frame is queued: the task that finds the frame finds the place as well.
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.push(frame);
    }

    /// Queues a frame that nobody misses, which is not even written for a client that is behind.
    pub(crate) fn push_droppable(&self, frame: impl FnOnce() -> Frame) {
        if self.lock().frames.len() < PRESSED {
            self.push(frame());
        }
    }

    /// Queues a frame that replaces an older one of the same kind which still waits.
    pub(crate) fn push_newest(&self, key: Newest, frame: Frame) {
        let mut out = self.lock();
        if out.frames.len() < PRESSED && out.coalesced.is_empty() {
            drop(out);
            return self.push(frame);
        }
        if out.coalesced.len() < MAX_COALESCED || out.coalesced.contains_key(&key) {
            out.coalesced.insert(key, frame);
        }
    }

    /// Closes the connection after what waits has been written; the first reason counts.
    pub(crate) fn close(&self, close: Close) {
        self.lock().close(close);
        self.wake();
    }

    /// Has the server's ping sent.
    pub(crate) fn ping(&self) {
        self.lock().ping = true;
        self.wake();
    }

    /// Ready when there may be something to write, or a request has been answered. Only the socket's task asks.
    pub(crate) fn poll_woken(&self, cx: &Context<'_>) -> Poll<()> {
        if self.woken.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        // Asked again: it may have been woken before it was registered.
        if self.woken.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Takes what is to be written.
    pub(crate) fn take(&self) -> Outgoing {
        let mut out = self.lock();
        let mut frames = std::mem::take(&mut out.frames);
        out.bytes = 0;
        frames.extend(std::mem::take(&mut out.coalesced).into_values());
        if std::mem::take(&mut out.ping) {
            frames.push(Frame::ping());
        }
        Outgoing { frames, close: out.closed }
    }

    /// Whether it is being closed because the peer does not read: nothing waits for it then.
    pub(crate) fn is_cut(&self) -> bool {
        self.lock().closed == Some(Close::TooSlow)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }

    /// Takes a place for one more request, if there is one.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= MAX_IN_FLIGHT
    }

    pub(crate) fn heard(&self, now: i64) {
        self.heard_at.store(now, Ordering::Relaxed);
    }

    pub(crate) fn heard_at(&self) -> i64 {
        self.heard_at.load(Ordering::Relaxed)
    }

    pub(crate) fn expires_at(&self) -> i64 {
        self.expires_at.load(Ordering::Relaxed)
    }

    pub(crate) fn renew(&self, expires_at: i64) {
        self.expires_at.store(expires_at, Ordering::Relaxed);
    }

    pub(crate) fn is_welcomed(&self) -> bool {
        self.welcomed.load(Ordering::Acquire)
    }

    /// Keeps an event on the user's topic for after `welcome`; false when that is written already.
    pub(crate) fn keep_early(&self, early: Early) -> bool {
        let mut out = self.lock();
        if self.is_welcomed() {
            return false;
        }
        let joined =
            |kept: &Early| matches!((kept, &early), (Early::Joined(kept), Early::Joined(room)) if kept == room);
        if out.early.iter().any(joined) {
            // It only causes a fresh read, and that is still to come.
        } else if out.early.len() < MAX_COALESCED {
            out.early.push(early);
        } else if matches!(early, Early::Joined(_)) {
            // Not to be missed, and not to be kept: the client resumes, and reads all of it then.
            out.close(Close::TooSlow);
            drop(out);
            self.wake();
        }
        true
    }

    /// From here on events on the user's topic go out at once; gives those that waited.
    pub(crate) fn welcome(&self) -> Vec<Early> {
        let mut out = self.lock();
        self.welcomed.store(true, Ordering::Release);
        std::mem::take(&mut out.early)
    }

    fn lock(&self) -> MutexGuard<'_, Out> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Out {
    fn close(&mut self, close: Close) {
        if self.closed.is_none() {
            self.closed = Some(close);
            if close == Close::TooSlow {
                self.frames.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conn() -> Conn {
        Conn::new(1, UserId::generate(), SessionId::generate(), Format::Json, true, 0, 0)
    }

    fn frame(text: &str) -> Frame {
        Frame::pong(text.as_bytes())
    }

    #[test]
    fn a_client_that_does_not_read_is_closed_and_nothing_is_kept_for_it() {
        let conn = conn();
        for _ in 0..=MAX_FRAMES {
            conn.push(frame("x"));
        }
        let out = conn.take();
        assert_eq!(out.close, Some(Close::TooSlow));
        assert!(out.frames.is_empty());
    }

    #[test]
    fn joining_and_leaving_before_welcome_is_kept_once_for_each_room() {
        let (conn, room) = (conn(), RoomId::generate());
        for _ in 0..10 {
            assert!(conn.keep_early(Early::Joined(room)));
        }
        assert!(conn.keep_early(Early::Joined(RoomId::generate())));
        assert_eq!(conn.welcome().len(), 2);
        assert!(!conn.keep_early(Early::Joined(room)), "from now on it goes out at once");
    }

    #[test]
    fn who_joins_too_many_rooms_before_welcome_has_to_come_again() {
        let conn = conn();
        for _ in 0..=MAX_COALESCED {
            conn.keep_early(Early::Joined(RoomId::generate()));
        }
        assert!(conn.is_closed());
        assert_eq!(conn.welcome().len(), MAX_COALESCED);
    }

    #[test]
    fn under_pressure_only_the_newest_presence_is_kept() {
        let conn = conn();
        for _ in 0..PRESSED {
            conn.push(frame("x"));
        }
        let user = UserId::generate();
        conn.push_newest(Newest::Presence(user), frame("old"));
        conn.push_newest(Newest::Presence(user), frame("new"));
        conn.push_droppable(|| frame("typing"));
        let frames = conn.take().frames;
        assert_eq!(frames.len(), PRESSED + 1);
        assert_eq!(frames.last(), Some(&frame("new")));
    }
}
