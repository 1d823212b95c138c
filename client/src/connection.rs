//! One WebSocket: `hello`, requests matched to their answers, a bounded stream of events, and how it ended.
//!
//! A connection never reconnects and never looks at revs; [`crate::Session`] does.

mod io;
mod verbs;

pub use verbs::{HeldRevs, Hello};
pub(crate) use verbs::{changes_body, send_body};

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Message;

use crate::close::Close;
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::frame::{self, Format};
use crate::task::Task;
use crate::wire::Welcome;

/// How long opening may take: TCP, TLS, handshake and `welcome` each.
pub const OPEN_DEADLINE: Duration = Duration::from_secs(15);
/// How long one answer may take. The server's own deadlines are shorter, so this one means that the socket is dead.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Events that wait for the reader. One that leaves more unread loses the connection and resumes, as with the server's 4008.
pub const EVENTS_BOUND: usize = 8_192;
/// Requests that wait to be written.
const REQUESTS_BOUND: usize = 1_024;
/// No frame id above this is valid.
const LAST_ID: u32 = u32::MAX;

/// A handle to an open socket. Clones share it; it closes when the last one is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    requests: mpsc::Sender<io::Request>,
    closed: watch::Receiver<Option<Close>>,
    next_id: AtomicU32,
    format: Format,
    _io: Task,
}

/// The events of a connection, in the order in which they came. They end when the socket does.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
}

impl Events {
    /// The next event, or none when the socket has closed.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Connection {
    /// Opens a socket at this base URL (`http:` or `https:`) and says `hello`.
    pub async fn open(base: &str, hello: &Hello) -> Result<(Self, Welcome, Events), Error> {
        let opening = io::dial(base, hello.format, hello.origin.as_deref());
        let socket =
            tokio::time::timeout(OPEN_DEADLINE, opening).await.map_err(|_| Error::Deadline("the handshake"))??;

        let (requests, to_write) = mpsc::channel(REQUESTS_BOUND);
        let (event_sender, events) = mpsc::channel(EVENTS_BOUND);
        let (close_sender, closed) = watch::channel(None);
        let io = Task::spawn(io::run(socket, to_write, event_sender, close_sender));
        let shared = Shared { requests, closed, next_id: AtomicU32::new(1), format: hello.format, _io: io };
        let connection = Self { shared: Arc::new(shared) };

        match connection.call::<Welcome>("hello", hello.body()).await {
            Ok(welcome) => Ok((connection, welcome, Events { events })),
            // The code of the close frame says what to do next, so the error waits for it.
            Err(Error::Refused(refusal)) => {
                let close = connection.closed().await;
                Err(Error::HelloRefused { refusal, close })
            }
            Err(other) => Err(other),
        }
    }

    /// Queues a request and returns its answer to wait for. Requests are written in the order of these calls.
    pub fn begin(
        &self,
        verb: &str,
        body: Value,
    ) -> Result<impl Future<Output = Result<Value, Error>> + Send + 'static, Error> {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        if id == LAST_ID {
            return Err(Error::Busy);
        }
        let frame = frame::encode(self.shared.format, id, verb, body)?;
        let (answer, outcome) = oneshot::channel::<Result<Value, Refusal>>();
        let request = io::Request { id, frame, answer };
        self.shared.requests.try_send(request).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::Busy,
            mpsc::error::TrySendError::Closed(_) => Error::Closed(self.how_closed()),
        })?;
        let closed = self.shared.closed.clone();
        Ok(async move {
            match tokio::time::timeout(ANSWER_DEADLINE, outcome).await {
                Ok(Ok(answer)) => answer.map_err(Error::Refused),
                Ok(Err(_)) => Err(Error::Closed(closed.borrow().clone().unwrap_or_else(|| Close::abnormal("")))),
                Err(_) => Err(Error::Deadline("a request")),
            }
        })
    }

    /// One request and its typed answer.
    pub async fn call<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T, Error> {
        let answer = self.begin(verb, body)?.await?;
        serde_json::from_value(answer).map_err(|e| Error::Malformed(format!("{verb}: {e}")))
    }

    /// Waits until the socket is closed, and says how. Without an answer in time it counts as broken.
    pub async fn closed(&self) -> Close {
        let mut closed = self.shared.closed.clone();
        let waiting = closed.wait_for(Option::is_some);
        match tokio::time::timeout(OPEN_DEADLINE, waiting).await {
            Ok(Ok(close)) => close.clone().unwrap_or_else(|| Close::abnormal("")),
            Ok(Err(_)) => Close::abnormal("the reader ended"),
            Err(_) => Close::abnormal("no close frame in time"),
        }
    }

    /// How the socket was closed, if it was.
    pub fn close_seen(&self) -> Option<Close> {
        self.shared.closed.borrow().clone()
    }

    /// Says good-bye with 1000 and waits for the other side's close frame.
    pub async fn close(self) -> Close {
        let (answer, _) = oneshot::channel();
        let bye = io::Request { id: io::BYE, frame: Message::text(""), answer };
        // When the queue is full or gone the socket goes without a good-bye, which the server takes as well.
        let _ = self.shared.requests.try_send(bye);
        self.closed().await
    }

    fn how_closed(&self) -> Close {
        self.close_seen().unwrap_or_else(|| Close::abnormal("the writer ended"))
    }
}
