//! The sends that no server has acknowledged yet, in the order in which they were made. No IO.
//!
//! A send stays here until it is acknowledged or refused for good, through any number of connections; its `client_id` makes
//! repeating it safe.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use uuid::Uuid;

use crate::error::Error;
use crate::frame::{Draft, Sent};
use crate::id::RoomId;

/// Sends that may be unacknowledged at once.
pub const OUTBOX_BOUND: usize = 1_024;

/// One unacknowledged send.
#[derive(Debug)]
pub struct Pending {
    /// Where it goes.
    pub room: RoomId,
    /// What it says.
    pub draft: Draft,
    /// Who waits for the answer.
    pub answer: oneshot::Sender<Result<Sent, Error>>,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Outbox {
    pending: VecDeque<Pending>,
}

impl Outbox {
    /// Whether one more fits.
    pub fn has_room(&self) -> bool {
        self.pending.len() < OUTBOX_BOUND
    }

    /// Keeps a send. It must fit: see [`Outbox::has_room`].
    pub fn push(&mut self, pending: Pending) {
        self.pending.push_back(pending);
    }

    /// Everything to write on a new connection, oldest first. Sends that nobody waits for any more are given up here.
    pub fn all(&mut self) -> Vec<(RoomId, Draft)> {
        self.pending.retain(|pending| !pending.answer.is_closed());
        self.pending.iter().map(|pending| (pending.room, pending.draft.clone())).collect()
    }

    /// One that has to be written again on the same connection.
    pub fn again(&self, client_id: Uuid) -> Option<(RoomId, Draft)> {
        let pending = self.pending.iter().find(|pending| pending.draft.client_id == client_id)?;
        Some((pending.room, pending.draft.clone()))
    }

    /// Takes an answer. True means: not final, write it again later.
    pub fn answered(&mut self, client_id: Uuid, outcome: Result<Sent, Error>) -> bool {
        if outcome.as_ref().is_err_and(Error::is_transient) {
            return true;
        }
        let at = self.pending.iter().position(|pending| pending.draft.client_id == client_id);
        if let Some(pending) = at.and_then(|at| self.pending.remove(at)) {
            // Whoever gave up waiting does not need the answer.
            let _ = pending.answer.send(outcome);
        }
        false
    }

    /// The session ends: nobody will answer any more.
    pub fn end(&mut self) {
        for pending in self.pending.drain(..) {
            let _ = pending.answer.send(Err(Error::Ended));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Code, Refusal};

    fn refused(code: Code) -> Result<Sent, Error> {
        Err(Error::Refused(Refusal { code, message: String::new(), retry_after_ms: None }))
    }

    #[test]
    fn a_transient_failure_keeps_the_send_and_a_final_one_ends_it() {
        let mut outbox = Outbox::default();
        let (answer, mut outcome) = oneshot::channel();
        let draft = Draft::text("hi");
        outbox.push(Pending { room: RoomId(Uuid::nil()), draft: draft.clone(), answer });

        assert!(outbox.answered(draft.client_id, refused(Code::Unavailable)));
        assert_eq!(outbox.all().len(), 1, "still to be written on the next connection");
        assert!(!outbox.answered(draft.client_id, refused(Code::Forbidden)));
        assert_eq!(outcome.try_recv().ok(), Some(refused(Code::Forbidden)));
        assert!(outbox.all().is_empty());
    }

    #[test]
    fn order_is_kept_across_connections() {
        let mut outbox = Outbox::default();
        let mut waiting = Vec::new();
        for text in ["1", "2", "3"] {
            let (answer, outcome) = oneshot::channel();
            waiting.push(outcome);
            outbox.push(Pending { room: RoomId(Uuid::nil()), draft: Draft::text(text), answer });
        }
        let texts: Vec<_> = outbox.all().into_iter().map(|(_, draft)| draft.text).collect();
        assert_eq!(texts, ["1", "2", "3"]);
        drop(waiting);
        assert!(outbox.all().is_empty(), "given up by their callers");
    }
}
