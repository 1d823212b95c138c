//! A bare broadcast, in a process of its own: what is sent goes to everybody connected, through the gateway's WebSocket library,
//! with nothing in between. It stores nothing, asks nobody, and speaks just enough of the contract for the same client code.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use clap::Args;
use gateway::accept::{self, Bounds};
use gateway::socket::{Frame, HEADROOM, Handshake, Incoming, Socket, Unwritten};
use parlance_client::RoomId;
use serde::Deserialize;
use service_kit::tasks::Tasks;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::socket::HELLO;

/// The largest frame of a client.
const MAX_FRAME: usize = 64 * 1024;
/// The line that says where it is.
const READY: &str = "bare ";

#[derive(Args)]
pub(crate) struct Options {
    #[arg(long)]
    room: RoomId,
    /// How long each delivered frame is at least
    #[arg(long)]
    frame: usize,
}

/// It as a child; it ends with this.
pub(crate) struct Bare {
    child: Child,
    url: String,
}

/// Everybody connected, and the number of the last message.
struct Room {
    id: RoomId,
    frame: usize,
    tasks: Tasks,
    // Held while a message is given to all, so that all get them in one order; never across an await.
    state: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    seq: u64,
    members: Vec<Arc<Member>>,
}

/// The queue of one connection.
#[derive(Default)]
struct Member {
    // Pushed to by whoever sends, taken from by the connection's task; never held across an await.
    frames: Mutex<Vec<Frame>>,
    wake: Notify,
}

#[derive(Deserialize)]
struct Said<'a> {
    id: u32,
    #[serde(borrow)]
    send: Option<Send<'a>>,
}

#[derive(Deserialize)]
struct Send<'a> {
    client_id: &'a str,
    text: &'a str,
}

impl Bare {
    /// Starts it and waits until it listens.
    pub(crate) fn start(room: RoomId, frame: usize) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["bare", "--room", &room.to_string(), "--frame", &frame.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the bare broadcast")?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("it has no stdout")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim_end().strip_prefix(READY).map(str::to_owned);
        ensure!(url.is_some(), "the bare broadcast did not start");
        Ok(Self { child, url: url.unwrap_or_default() })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until stdin ends, which it does when the parent is gone.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    let runtime = Runtime::new()?;
    let room = Room { id: options.room, frame: options.frame, tasks: Tasks::new(), state: Mutex::default() };
    let tasks = room.tasks.clone();
    let router = Router::new().route("/v1/ws", get(handshake)).with_state(Arc::new(room));
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    writeln!(io::stdout(), "{READY}http://{}", listener.local_addr()?)?;
    io::stdout().flush()?;
    runtime.block_on(async {
        // As the gateway does.
        let head = Duration::from_secs(30);
        let bounds = Bounds { head, unread: 2 * head, grace: Duration::ZERO };
        let serving = accept::serve(listener, router, tasks.child(), std::future::pending(), bounds);
        tasks.spawn_until_stop(async move {
            let _ = serving.await;
        });
    });
    io::stdin().lines().for_each(drop);
    runtime.shutdown_background();
    Ok(true)
}

async fn handshake(State(room): State<Arc<Room>>, mut request: Request) -> Response {
    let Ok(handshake) = Handshake::read(&mut request) else { return StatusCode::BAD_REQUEST.into_response() };
    let answer = handshake.agree::<Body>(Some("parlance.v1.json"));
    let tasks = room.tasks.clone();
    tasks.spawn_until_stop(async move {
        if let Some(socket) = handshake.socket(MAX_FRAME).await {
            attend(socket, &room).await;
        }
    });
    answer
}

/// The life of a connection: as the gateway's, it drains its queue with as few system calls as it can.
async fn attend(mut socket: Socket, room: &Room) {
    let member = Arc::new(Member::default());
    loop {
        tokio::select! {
            biased;
            () = member.wake.notified() => {}
            incoming = socket.next() => match incoming {
                Some(Ok(Incoming::Text(text))) => room.said(&member, &text),
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
        }
        let frames = std::mem::take(&mut *lock(&member.frames));
        if socket.write(&mut Unwritten::new(frames)).await.is_err() {
            break;
        }
    }
    lock(&room.state).members.retain(|other| !Arc::ptr_eq(other, &member));
}

impl Room {
    fn said(&self, member: &Arc<Member>, text: &str) {
        let Ok(said) = serde_json::from_str::<Said<'_>>(text) else { return };
        match said.send {
            Some(send) => self.sent(member, said.id, &send),
            None => {
                member.push(frame(&format!(r#"{{"re":{HELLO},"welcome":{{}}}}"#)));
                lock(&self.state).members.push(Arc::clone(member));
            }
        }
    }

    fn sent(&self, member: &Member, id: u32, send: &Send<'_>) {
        let mut state = lock(&self.state);
        state.seq += 1;
        let message = self.message(state.seq, send);
        state.members.iter().for_each(|member| member.push(message.clone()));
        let seq = state.seq;
        member.push(frame(&format!(
            r#"{{"re":{id},"sent":{{"client_id":"{}","seq":{seq},"rev":{seq}}}}}"#,
            send.client_id
        )));
    }

    /// In the gateway's layout, and as long as its frames.
    fn message(&self, seq: u64, send: &Send<'_>) -> Frame {
        let Send { client_id, text } = send;
        let (room, id) = (self.id, Uuid::now_v7());
        let mut message = format!(
            r#"{{"event":{{"message":{{"room":"{room}","seq":{seq},"rev":{seq},"id":"{id}","client_id":"{client_id}","text":"{text}","filling":""#
        );
        let filling = self.frame.saturating_sub(message.len() + 4);
        message.extend(std::iter::repeat_n('x', filling));
        message.push_str("\"}}}");
        frame(&message)
    }
}

impl Member {
    fn push(&self, frame: Frame) {
        let mut frames = lock(&self.frames);
        frames.push(frame);
        let is_first = frames.len() == 1;
        drop(frames);
        if is_first {
            self.wake.notify_one();
        }
    }
}

fn frame(text: &str) -> Frame {
    Frame::text([&[0; HEADROOM], text.as_bytes()].concat())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
