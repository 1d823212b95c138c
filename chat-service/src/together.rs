//! Questions that wait together are answered together: a reconnect storm costs a few statements, not a few for each client.

use std::sync::Arc;

use service_kit::{fault::Fault, tasks::Tasks};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::{App, commit, error::Result};

/// Questions that wait for an answer; more are asked to try again.
const WAITING: usize = 4_096;
/// Questions that are answered together.
const MOST: usize = 256;
/// Groups that are answered at the same time.
const READERS: usize = 3;

type Asked<Q, A> = (Q, oneshot::Sender<Result<A, Fault>>);

/// Takes questions. Cheap to clone.
pub(crate) struct Together<Q, A>(mpsc::Sender<Asked<Q, A>>);

/// The questions that wait.
pub(crate) struct Waiting<Q, A>(mpsc::Receiver<Asked<Q, A>>);

impl<Q: Send + Sync + 'static, A: Send + 'static> Together<Q, A> {
    /// A way to ask, and what [`Waiting::serve`] has to work off.
    pub(crate) fn new() -> (Self, Waiting<Q, A>) {
        let (asked, waiting) = mpsc::channel(WAITING);
        (Self(asked), Waiting(waiting))
    }

    /// Asks one question.
    pub(crate) async fn ask(&self, question: Q) -> Result<A, Fault> {
        let (reply, answer) = oneshot::channel();
        self.0
            .try_send((question, reply))
            .map_err(|_| Fault::unavailable("too many connections are being made; try again"))?;
        answer.await.map_err(|_| commit::stopped())?
    }
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Waiting<Q, A> {
    /// Works off the questions until the process stops. `read` gives as many answers as it is given questions, in order.
    pub(crate) fn serve<F, R>(mut self, app: &Arc<App>, tasks: &Tasks, read: F)
    where
        F: Fn(Arc<App>, Vec<Q>) -> R + Send + 'static,
        R: Future<Output = Result<Vec<Result<A, Fault>>>> + Send + 'static,
    {
        let app = Arc::clone(app);
        let readers = Arc::new(Semaphore::new(READERS));
        let group = tasks.clone();
        tasks.spawn_until_stop(async move {
            let mut batch = Vec::with_capacity(MOST);
            while let Ok(reader) = Arc::clone(&readers).acquire_owned().await
                && self.0.recv_many(&mut batch, MOST).await > 0
            {
                let (questions, replies): (Vec<Q>, Vec<_>) = batch.drain(..).unzip();
                let reading = read(Arc::clone(&app), questions);
                group.spawn(async move {
                    let count = replies.len();
                    let answers = reading.await.unwrap_or_else(|error| {
                        let fault = error.into_fault();
                        (0..count).map(|_| Err(fault.clone())).collect()
                    });
                    for (reply, answer) in replies.into_iter().zip(answers) {
                        // A client that went away meanwhile needs no answer.
                        let _ = reply.send(answer);
                    }
                    drop(reader);
                });
            }
        });
    }
}
