//! The task of a session: connect, serve until the connection ends, again.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::asking::{Back, Waiting, ask, list_rooms, send, send_again};
use super::connecting::{Dialed, Dialer, Try};
use super::{Command, Options, Update};
use crate::backoff::Backoff;
use crate::close::{Advice, Close};
use crate::connection::{Connection, Events};
use crate::error::{Code, Error};
use crate::event::Event;
use crate::outbox::Outbox;
use crate::revs::{Ask, Revs, Step};

/// Updates made but not yet taken by the channel; above it no event is read.
const OUT_BOUND: usize = 4_096;

/// How a connection ended.
enum End {
    Closed(Close),
    /// `going_away`: the time has come to go elsewhere.
    Moved,
    Stopped,
}

struct Running {
    dialer: Dialer,
    revs: Revs,
    outbox: Outbox,
    out: VecDeque<Update>,
    backoff: Backoff,
    commands: mpsc::Receiver<Command>,
    updates: mpsc::Sender<Update>,
    current: watch::Sender<Option<Connection>>,
    stopped: watch::Receiver<bool>,
}

pub(super) async fn run(
    options: Options,
    commands: mpsc::Receiver<Command>,
    updates: mpsc::Sender<Update>,
    current: watch::Sender<Option<Connection>>,
    stopped: watch::Receiver<bool>,
) {
    let dialer = Dialer::new(options);
    let (revs, outbox, out, backoff) = (Revs::default(), Outbox::default(), VecDeque::new(), Backoff::default());
    let mut running = Running { dialer, revs, outbox, out, backoff, commands, updates, current, stopped };
    let error = loop {
        let dialed = match running.connect().await {
            Ok(dialed) => dialed,
            Err(error) => break error,
        };
        if let Err(error) = running.serve(*dialed).await {
            break error;
        }
    };
    running.outbox.end();
    running.out.push_back(Update::Ended(error));
    running.drain().await;
}

impl Running {
    /// Tries until it is connected, stopped, or told that trying is of no use.
    async fn connect(&mut self) -> Result<Box<Dialed>, Error> {
        loop {
            let mut stopped = self.stopped.clone();
            let outcome = tokio::select! {
                outcome = self.dialer.dial(&self.revs) => outcome,
                () = until(&mut stopped) => return Err(Error::Ended),
            };
            let outcome = match outcome {
                Try::Refresh => match self.dialer.refresh().await {
                    Ok(()) => {
                        self.out.push_back(Update::Tokens(self.dialer.tokens().clone()));
                        continue;
                    }
                    Err(instead) => instead,
                },
                other => other,
            };
            match outcome {
                Try::Connected(dialed) => return Ok(dialed),
                Try::Over(error) => return Err(error),
                Try::Refresh => {}
                Try::Later(wait) => self.pause(wait).await?,
            }
        }
    }

    /// Waits, but not through a stop.
    async fn pause(&mut self, wait: Duration) -> Result<(), Error> {
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = until(&mut self.stopped) => Err(Error::Ended),
        }
    }

    /// Serves one connection to its end. An error means that the session is over.
    async fn serve(&mut self, dialed: Dialed) -> Result<(), Error> {
        let Dialed { connection, welcome, events, named } = dialed;
        let mut waiting = Waiting::new();
        let steps = self.revs.heads(&welcome.heads, &named);
        let listed_to = welcome.next_cursor.clone();
        self.out.push_back(Update::Connected(Box::new(welcome)));
        self.take(steps, &connection, &mut waiting);
        if let Some(cursor) = listed_to {
            waiting.push(list_rooms(self.dialer.api(), Some(cursor)));
        }
        for (room, draft) in self.outbox.all() {
            waiting.push(send(&connection, room, &draft));
        }
        self.current.send_replace(Some(connection.clone()));
        let end = self.pump(&connection, events, &mut waiting).await;
        // Answers that came before the end still count: without them these sends would be written once more.
        while let Some(Some(back)) = waiting.next().now_or_never() {
            self.came_back(back, &connection, &mut waiting);
        }
        self.current.send_replace(None);
        self.revs.disconnected();
        match end {
            End::Stopped => {
                connection.close().await;
                Err(Error::Ended)
            }
            End::Moved => {
                self.dialer.move_on();
                connection.close().await;
                Ok(())
            }
            End::Closed(close) => self.closed(close).await,
        }
    }

    /// What the close code table says to do.
    async fn closed(&mut self, close: Close) -> Result<(), Error> {
        self.out.push_back(Update::Disconnected(close.clone()));
        match close.advice() {
            Advice::Stop => Err(Error::Closed(close)),
            Advice::Resume { after_ms } => {
                self.dialer.move_on();
                let wait = self.dialer.wait(after_ms);
                self.pause(wait).await
            }
            Advice::Refresh => match self.dialer.refresh().await {
                Ok(()) => {
                    self.out.push_back(Update::Tokens(self.dialer.tokens().clone()));
                    Ok(())
                }
                Err(Try::Over(error)) => Err(error),
                Err(Try::Later(wait)) => self.pause(wait).await,
                Err(_) => Ok(()),
            },
        }
    }

    async fn pump(&mut self, connection: &Connection, mut events: Events, waiting: &mut Waiting) -> End {
        let updates = self.updates.clone();
        let mut stopped = self.stopped.clone();
        let mut move_at: Option<Instant> = None;
        let mut renew_at = Some(self.dialer.renew_at());
        let mut commanded = true;
        loop {
            tokio::select! {
                permit = updates.reserve(), if !self.out.is_empty() => match (permit, self.out.pop_front()) {
                    (Ok(permit), Some(update)) => permit.send(update),
                    _ => return End::Stopped,
                },
                event = events.next(), if self.out.len() < OUT_BOUND => match event {
                    Some(Event::GoingAway(away)) => {
                        move_at = Some(Instant::now() + Duration::from_millis(away.reconnect_after_ms));
                    }
                    Some(event) => {
                        let steps = self.revs.event(event);
                        self.take(steps, connection, waiting);
                    }
                    None => return End::Closed(connection.closed().await),
                },
                command = self.commands.recv(), if commanded && self.outbox.has_room() => match command {
                    Some(Command::Send(pending)) => {
                        waiting.push(send(connection, pending.room, &pending.draft));
                        self.outbox.push(pending);
                    }
                    // Every handle is gone; the updates may still be read.
                    None => commanded = false,
                },
                Some(back) = waiting.next() => self.came_back(back, connection, waiting),
                () = at(renew_at) => renew_at = self.renew(connection).await,
                () = at(move_at) => return End::Moved,
                () = until(&mut stopped) => return End::Stopped,
            }
        }
    }

    /// Does what the revs ask for.
    fn take(&mut self, steps: Vec<Step>, connection: &Connection, waiting: &mut Waiting) {
        for step in steps {
            match step {
                Step::Deliver(event) => self.out.push_back(Update::Event(event)),
                Step::Apply(changes) => self.out.push_back(Update::Changes(changes)),
                Step::Ask(question) => waiting.push(ask(connection, question)),
                Step::Find(_) => waiting.push(list_rooms(self.dialer.api(), None)),
            }
        }
    }

    fn came_back(&mut self, back: Back, connection: &Connection, waiting: &mut Waiting) {
        match back {
            Back::Sent { client_id, outcome } => {
                let retry_after_ms = outcome.as_ref().err().and_then(Error::retry_after_ms);
                let reset = outcome.is_ok();
                if self.outbox.answered(client_id, outcome) {
                    let wait = self.backoff.next(retry_after_ms);
                    waiting.push(send_again(client_id, wait));
                } else if reset {
                    self.backoff.reset();
                }
            }
            Back::SendAgain { client_id } => {
                if let Some((room, draft)) = self.outbox.again(client_id) {
                    waiting.push(send(connection, room, &draft));
                }
            }
            Back::Changes { ask: question, outcome } => match *outcome {
                Ok(changes) => {
                    let steps = self.revs.changes(changes);
                    self.take(steps, connection, waiting);
                }
                Err(error) if matches!(error.code(), Some(Code::NotFound | Code::Forbidden)) => {
                    self.revs.not_found(question.room);
                }
                Err(error) => {
                    let wait = self.backoff.next(error.retry_after_ms());
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(question.wait_ms);
                    waiting.push(ask(connection, Ask { wait_ms, ..question }));
                }
            },
            Back::Rooms { outcome: Ok(rooms) } => {
                let steps = self.revs.listed(&rooms);
                self.take(steps, connection, waiting);
            }
            // Without the list the next event of the room asks again after the reconnect; a gap is never passed over.
            Back::Rooms { outcome: Err(error) } => tracing::debug!(%error, "the list of rooms could not be read"),
        }
    }

    /// Replaces the token in-band and says when to do so next. When it fails, the connection ends with 4002 in time, and the
    /// refresh is tried again then.
    async fn renew(&mut self, connection: &Connection) -> Option<Instant> {
        self.dialer.refresh().await.ok()?;
        self.out.push_back(Update::Tokens(self.dialer.tokens().clone()));
        match connection.renew(&self.dialer.tokens().access_token).await {
            Ok(_) => {
                self.dialer.taken();
                Some(self.dialer.renew_at())
            }
            Err(error) => {
                tracing::debug!(%error, "the token was not renewed in-band");
                None
            }
        }
    }

    /// Gives what is left to the application, for as long as it reads.
    async fn drain(&mut self) {
        const PATIENCE: Duration = Duration::from_secs(30);
        while let Some(update) = self.out.pop_front() {
            if self.updates.send_timeout(update, PATIENCE).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until this instant, or for ever.
async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Waits for [`super::Session::stop`]. A session without handles is not stopped: its updates may still be read.
async fn until(stopped: &mut watch::Receiver<bool>) {
    if stopped.wait_for(|stopped| *stopped).await.is_err() {
        std::future::pending::<()>().await;
    }
}
