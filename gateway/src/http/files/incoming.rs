//! The body of an upload: read no faster than it is used, and read on for a while when it was refused.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use service_kit::tasks::Tasks;

/// Bytes that may have been read and not used: what surrounds a file never needs as many.
const MOST_AHEAD: u64 = 1024 * 1024;
/// How long the rest of a refused body is read and thrown away: a client that is still writing would otherwise find
/// its connection reset and never see the answer.
const LINGER: Duration = Duration::from_secs(10);

/// Bytes of a body that were used so far. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Used(Arc<AtomicU64>);

impl Used {
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// More was read than used.
#[derive(Debug)]
pub(super) struct TooFarAhead;

impl std::fmt::Display for TooFarAhead {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("too much surrounds the file")
    }
}

impl std::error::Error for TooFarAhead {}

/// The body as it comes in.
pub(super) struct Incoming {
    /// Absent when it has ended.
    body: Option<BodyDataStream>,
    read: u64,
    used: Used,
    /// The last poll gave bytes. The next one gives none: the parser asks until it hears that there are none now, and
    /// would hold a whole file if these came fast enough.
    paused: bool,
    tasks: Tasks,
}

impl Incoming {
    pub(super) fn new(body: Body, used: Used, tasks: Tasks) -> Self {
        Self { body: Some(body.into_data_stream()), read: 0, used, paused: false, tasks }
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if std::mem::take(&mut self.paused) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.read.saturating_sub(self.used.0.load(Ordering::Relaxed)) > MOST_AHEAD {
            return Poll::Ready(Some(Err(Box::new(TooFarAhead))));
        }
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let next = std::task::ready!(body.poll_next_unpin(context));
        match next {
            Some(Ok(bytes)) => {
                self.read += bytes.len() as u64;
                self.paused = true;
                Poll::Ready(Some(Ok(bytes)))
            }
            Some(Err(error)) => {
                self.body = None;
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                self.body = None;
                Poll::Ready(None)
            }
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let Some(mut rest) = self.body.take() else { return };
        self.tasks.spawn_until_stop(async move {
            let reading = async { while let Some(Ok(_)) = rest.next().await {} };
            let _ = tokio::time::timeout(LINGER, reading).await;
        });
    }
}
