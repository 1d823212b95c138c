//! Many sockets on one thread.

use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;

use crate::socket::Socket;

/// How many connections are opened at a time.
const OPENERS: usize = 8;
/// Read from one socket at once.
const READ_BYTES: usize = 256 * 1024;
/// Sockets looked at before the caller is asked again.
const READY: usize = 1_024;

/// What is needed to open one connection.
#[derive(Clone)]
pub(crate) struct Address {
    pub(crate) url: String,
    pub(crate) source: Option<Ipv4Addr>,
    pub(crate) token: String,
}

/// Open connections, by the order in which they were asked for.
pub(crate) struct Pool {
    sockets: Vec<Socket>,
    epoll: OwnedFd,
    ready: Vec<epoll::Event>,
    buffer: Vec<u8>,
}

impl Pool {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { sockets: vec![], epoll, ready: Vec::with_capacity(READY), buffer: vec![0; READ_BYTES] })
    }

    /// Opens one more connection for each of these, and answers pings of the others meanwhile.
    pub(crate) fn open(&mut self, addresses: &[Address]) -> anyhow::Result<()> {
        // In rounds, as those already open have to answer pings.
        for round in addresses.chunks(OPENERS * 16) {
            let share = round.len().div_ceil(OPENERS);
            let opened: Vec<_> = thread::scope(|scope| {
                let openers: Vec<_> = round.chunks(share).map(|part| scope.spawn(|| open_all(part))).collect();
                openers
                    .into_iter()
                    .map(|opener| opener.join().map_err(|_| anyhow!("an opener failed"))?)
                    .collect::<Result<Vec<_>, _>>()
            })?;
            for socket in opened.into_iter().flatten() {
                let data = epoll::EventData::new_u64(self.sockets.len() as u64);
                epoll::add(&self.epoll, socket.stream(), data, epoll::EventFlags::IN)?;
                self.sockets.push(socket);
            }
            self.poll(Duration::ZERO, |_, _| {})?;
        }
        Ok(())
    }

    pub(crate) fn socket(&mut self, index: usize) -> &mut Socket {
        &mut self.sockets[index]
    }

    /// Reads what has come to any socket, waiting at most this long for the first.
    pub(crate) fn poll(&mut self, wait: Duration, mut take: impl FnMut(usize, &[u8])) -> anyhow::Result<()> {
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.ready), Some(&wait)) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            other => other?,
        };
        for event in &self.ready {
            let index = event.data.u64() as usize;
            let socket = &mut self.sockets[index];
            socket.read(&mut self.buffer, |frame| take(index, frame)).with_context(|| format!("connection {index}"))?;
        }
        Ok(())
    }

    /// Keeps everything alive for this long.
    pub(crate) fn hold(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.poll(left, |_, _| {})?;
        }
        Ok(())
    }
}

fn open_all(addresses: &[Address]) -> anyhow::Result<Vec<Socket>> {
    addresses.iter().map(|address| Socket::open(&address.url, address.source, &address.token)).collect()
}
