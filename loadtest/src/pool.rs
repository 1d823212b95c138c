//! Many sockets on one thread.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use parlance_client::Close;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::socket::{Closed, HELLO, Socket};

/// How many connections are on their way at a time when all are opened.
const OPENING: usize = 128;
/// How long a connection may take until its `hello` is answered.
const OPEN_PATIENCE: Duration = Duration::from_secs(15);
/// How often the impatient are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Read from one socket at once.
const READ_BYTES: usize = 256 * 1024;
/// Sockets looked at before the caller is asked again.
const READY: usize = 2_048;

/// What is needed to open one connection.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) token: String,
}

/// What happens on a connection.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// A text frame; the first is the answer to `hello`.
    Frame(&'a [u8]),
    /// It has ended, or could not be opened.
    Closed(Close),
}

/// Connections by their number.
pub(crate) struct Pool {
    sockets: Vec<Option<Socket>>,
    /// Those on their way, and since when.
    opening: Vec<(usize, Instant)>,
    looked: Instant,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Address {
    /// A `hello` without anything to resume.
    pub(crate) fn hello(&self) -> String {
        format!(r#"{{"id":{HELLO},"hello":{{"token":"{}"}}}}"#, self.token)
    }
}

impl Pool {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let ready = Vec::with_capacity(READY);
        Ok(Self { sockets: vec![], opening: vec![], looked: Instant::now(), epoll, ready, buffer: vec![0; READ_BYTES] })
    }

    /// Opens one more connection for each of these and waits for all; others are kept alive meanwhile.
    pub(crate) fn open(&mut self, addresses: &[Address]) -> anyhow::Result<()> {
        let mut left = addresses.iter();
        loop {
            while self.opening.len() < OPENING
                && let Some(address) = left.next()
            {
                self.begin(self.sockets.len(), address, address.hello())?;
            }
            if self.opening.is_empty() {
                return Ok(());
            }
            let mut failed = None;
            self.poll(LOOK_EVERY, |connection, event| {
                if let Event::Closed(close) = event {
                    failed.get_or_insert_with(|| anyhow!("connection {connection}: {close}"));
                }
            })?;
            failed.map_or(Ok(()), Err)?;
        }
    }

    /// Begins to open the connection of this number.
    pub(crate) fn begin(&mut self, connection: usize, address: &Address, hello: String) -> anyhow::Result<()> {
        let socket = Socket::begin(&address.url, address.source, hello)?;
        let data = epoll::EventData::new_u64(connection as u64);
        let interest = if socket.has_unwritten() { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
        epoll::add(&self.epoll, socket.stream(), data, interest | epoll::EventFlags::IN)?;
        if self.sockets.len() <= connection {
            self.sockets.resize_with(connection + 1, || None);
        }
        self.sockets[connection] = Some(socket);
        self.opening.push((connection, Instant::now()));
        Ok(())
    }

    /// The connection of this number, when it is open.
    pub(crate) fn socket(&mut self, connection: usize) -> Option<&mut Socket> {
        self.sockets.get_mut(connection)?.as_mut().filter(|socket| socket.is_open())
    }

    /// Reads what has come to any socket, waiting at most this long for the first.
    pub(crate) fn poll(&mut self, wait: Duration, mut take: impl FnMut(usize, Event<'_>)) -> anyhow::Result<()> {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&wait)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in &self.ready {
            let connection = event.data.u64() as usize;
            let Some(socket) = self.sockets.get_mut(connection).and_then(Option::as_mut) else { continue };
            let flags = event.flags;
            let mut outcome = Ok(());
            if flags.contains(epoll::EventFlags::OUT) {
                outcome = socket.flush();
                if !socket.has_unwritten() {
                    epoll::modify(&self.epoll, socket.stream(), event.data, epoll::EventFlags::IN)?;
                }
            }
            if outcome.is_ok() {
                outcome = socket.read(&mut self.buffer, |frame| take(connection, Event::Frame(frame)));
            }
            if let Err(error) = outcome {
                // Closing the file takes it out of the epoll.
                self.sockets[connection] = None;
                take(connection, Event::Closed(close(error)));
            }
        }
        self.look(&mut take);
        Ok(())
    }

    /// Gives up those that take too long to open.
    fn look(&mut self, take: &mut impl FnMut(usize, Event<'_>)) {
        let now = Instant::now();
        if self.opening.is_empty() || (self.opening.len() > OPENING && now < self.looked + LOOK_EVERY) {
            return;
        }
        self.looked = now;
        let sockets = &mut self.sockets;
        self.opening.retain(|(connection, begun)| {
            let is_late = now > *begun + OPEN_PATIENCE;
            match &sockets[*connection] {
                Some(socket) if socket.is_open() => false,
                Some(_) if is_late => {
                    sockets[*connection] = None;
                    take(*connection, Event::Closed(Close::abnormal("it did not open in time")));
                    false
                }
                Some(_) => true,
                None => false,
            }
        });
    }

    /// Keeps everything alive for this long; none may end.
    pub(crate) fn hold(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            let mut closed = None;
            self.poll(left, |connection, event| {
                if let Event::Closed(close) = event {
                    closed.get_or_insert((connection, close));
                }
            })?;
            if let Some((connection, close)) = closed {
                return Err(Closed(close)).with_context(|| format!("connection {connection}"));
            }
        }
        Ok(())
    }
}

/// How a connection ended, by the error that ended it.
fn close(error: anyhow::Error) -> Close {
    match error.downcast::<Closed>() {
        Ok(Closed(close)) => close,
        Err(error) => Close::abnormal(format!("{error:#}")),
    }
}
