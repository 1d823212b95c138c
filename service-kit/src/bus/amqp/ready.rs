//! Whether every part of the bus is connected.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// All parts together. Cheap to clone.
#[derive(Clone)]
pub(super) struct Ready {
    // Locked on changes only. The place of a part that is gone stays, as ready.
    parts: Arc<Mutex<Vec<bool>>>,
    all: watch::Sender<bool>,
}

/// One part; gone when dropped.
pub(super) struct Part {
    ready: Ready,
    place: usize,
}

impl Ready {
    pub(super) fn new() -> Self {
        Self { parts: Arc::default(), all: watch::Sender::new(true) }
    }

    /// A new part, not ready yet.
    pub(super) fn part(&self) -> Part {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.push(false);
        self.all.send_replace(false);
        Part { ready: self.clone(), place: parts.len() - 1 }
    }

    pub(super) fn changes(&self) -> watch::Receiver<bool> {
        self.all.subscribe()
    }
}

impl Part {
    pub(super) fn set(&self, ready: bool) {
        let mut parts = self.ready.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts[self.place] = ready;
        let all = parts.iter().all(|ready| *ready);
        self.ready.all.send_if_modified(|was| std::mem::replace(was, all) != all);
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.set(true);
    }
}
