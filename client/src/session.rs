//! A session that stays: reconnects to any of several gateways, resumes, repairs, sends again, gives events out in order.

mod asking;
mod connecting;
mod running;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::api::{Api, Tokens};
use crate::close::Close;
use crate::connection::Connection;
use crate::error::Error;
use crate::event::Event;
use crate::frame::{Draft, Format, Sent};
use crate::id::RoomId;
use crate::outbox::Pending;
use crate::task::Task;
use crate::wire::{Changes, Welcome};

/// How long a send may wait for its acknowledgement, through any number of connections.
pub const SEND_DEADLINE: Duration = Duration::from_secs(60);
/// How long a request waits for a connection.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);
/// Updates that wait for the application. While they are full no event is read, and in the end the connection resumes.
const UPDATES_BOUND: usize = 1_024;
/// Commands on their way to the session's task.
const COMMANDS_BOUND: usize = 64;

/// What a session needs to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The base URLs of the gateways; one of a load balancer is enough. Each failure moves on to the next.
    pub urls: Vec<String>,
    /// Begins at a random URL, so that many clients with one list spread out; false begins with the first.
    pub spread: bool,
    /// Talks REST, for tokens and the list of rooms.
    pub api: Api,
    /// From register or login.
    pub tokens: Tokens,
    /// What this device is called.
    pub device: Option<String>,
    /// False keeps this session from making its user online.
    pub presence: bool,
    /// What its frames are written in.
    pub format: Format,
}

/// What a session tells the application, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Update {
    /// Connected, for the first time or again. What was missed follows as `Changes`.
    Connected(Box<Welcome>),
    /// An event, never twice and never before what it follows.
    Event(Event),
    /// What was missed in a room. `truncated`: forget what is cached of the room and load the newest page.
    Changes(Box<Changes>),
    /// The tokens were rotated: keep the new ones, the old refresh token is spent.
    Tokens(Tokens),
    /// The connection is gone; the session reconnects by itself.
    Disconnected(Close),
    /// The end: nothing that a reconnect could heal.
    Ended(Error),
}

/// A handle to a running session. It lives as long as its [`Updates`].
#[derive(Clone, Debug)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    connection: watch::Receiver<Option<Connection>>,
    stop: Arc<watch::Sender<bool>>,
}

/// The updates of a session. Dropping them ends it.
#[derive(Debug)]
pub struct Updates {
    updates: mpsc::Receiver<Update>,
    _running: Task,
}

#[derive(Debug)]
enum Command {
    Send(Pending),
}

impl Session {
    /// Starts connecting.
    pub fn start(options: Options) -> (Self, Updates) {
        let (commands, to_do) = mpsc::channel(COMMANDS_BOUND);
        let (updates, to_read) = mpsc::channel(UPDATES_BOUND);
        let (connection, current) = watch::channel(None);
        let (stop, stopped) = watch::channel(false);
        let running = Task::spawn(running::run(options, to_do, updates, connection, stopped));
        let session = Self { commands, connection: current, stop: Arc::new(stop) };
        (session, Updates { updates: to_read, _running: running })
    }

    /// Sends a message and waits until it is committed, across reconnects. After an error the message may be stored or not;
    /// sending the same draft again finds out.
    pub async fn send(&self, room: RoomId, draft: Draft) -> Result<Sent, Error> {
        let (answer, outcome) = oneshot::channel();
        let sending = async {
            self.commands.send(Command::Send(Pending { room, draft, answer })).await.map_err(|_| Error::Ended)?;
            outcome.await.unwrap_or(Err(Error::Ended))
        };
        tokio::time::timeout(SEND_DEADLINE, sending).await.unwrap_or(Err(Error::Deadline("a send")))
    }

    /// The present connection, waiting for one if there is none: for the verbs that need no resending.
    pub async fn connection(&self) -> Result<Connection, Error> {
        let mut current = self.connection.clone();
        let waiting = current.wait_for(|connection| connection.as_ref().is_some_and(|c| c.close_seen().is_none()));
        match tokio::time::timeout(CONNECTION_DEADLINE, waiting).await {
            Ok(Ok(connection)) => connection.clone().ok_or(Error::Ended),
            Ok(Err(_)) => Err(Error::Ended),
            Err(_) => Err(Error::Deadline("a connection")),
        }
    }

    /// Says good-bye and ends the session.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Updates {
    /// The next update, or none after the end.
    pub async fn next(&mut self) -> Option<Update> {
        self.updates.recv().await
    }
}
