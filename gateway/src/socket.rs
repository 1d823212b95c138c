//! WebSocket (RFC 6455) on a TCP connection, for servers with very many of them.
//!
//! An idle connection holds no buffer: what is read goes through one scratch buffer of the thread, and only the beginning
//! of a frame that is not complete yet is kept. What is written is made once, header included, and handed to the kernel
//! from where it lies, many frames with one system call. There is no compression and no extension.

mod decoder;
mod frame;
mod handshake;

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice},
    task::{Context, Poll, ready},
};

use tokio::net::TcpStream;

pub use decoder::{Incoming, Violation};
pub use frame::{Frame, HEADROOM};
pub use handshake::{Handshake, Refused};

use decoder::Decoder;

/// What is read with one system call at most.
const SCRATCH: usize = 16 * 1024;
/// Frames that are written with one system call at most.
const GATHER: usize = 128;

thread_local! {
    // Used between two awaits only: the connections of a thread share it.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Socket {
    stream: TcpStream,
    decoder: Decoder,
}

/// What waits to be written, in order.
#[derive(Debug, Default)]
pub struct Unwritten {
    frames: Vec<Frame>,
    /// Frames that are written already.
    done: usize,
    /// Bytes of the next one that are written already.
    offset: usize,
}

impl Unwritten {
    /// These frames, from the first byte on.
    #[must_use]
    pub fn new(frames: Vec<Frame>) -> Self {
        Self { frames, done: 0, offset: 0 }
    }

    /// Fills `slices` with what comes next; tells how many there are.
    fn gather<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut offset = self.offset;
        let waiting = &self.frames[self.done..];
        for (slice, frame) in slices.iter_mut().zip(waiting) {
            *slice = IoSlice::new(&frame.as_bytes()[offset..]);
            offset = 0;
        }
        waiting.len().min(slices.len())
    }

    /// Notes that so many bytes are written.
    fn advance(&mut self, written: usize) {
        self.offset += written;
        while let Some(frame) = self.frames.get(self.done)
            && self.offset >= frame.len()
        {
            self.offset -= frame.len();
            self.done += 1;
        }
    }
}

impl Socket {
    /// A connection whose handshake is done. `early` is what the peer has sent behind it already; frames of the peer with
    /// more than `max_message` bytes are refused.
    #[must_use]
    pub fn new(stream: TcpStream, early: &[u8], max_message: usize) -> Self {
        let mut decoder = Decoder::new(max_message);
        decoder.push(early);
        Self { stream, decoder }
    }

    /// The next message or control frame of the peer. Nothing when the peer has gone.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Incoming, Violation>>> {
        loop {
            match self.decoder.next() {
                Ok(None) => {}
                Ok(Some(incoming)) => return Poll::Ready(Some(Ok(incoming))),
                Err(violation) => return Poll::Ready(Some(Err(violation))),
            }
            if ready!(self.stream.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            let read = READ.with_borrow_mut(|scratch| {
                let count = self.stream.try_read(scratch)?;
                self.decoder.push(&scratch[..count]);
                io::Result::Ok(count)
            });
            match read {
                Ok(0) => return Poll::Ready(None),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// As [`Socket::poll_next`].
    pub async fn next(&mut self) -> Option<Result<Incoming, Violation>> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Writes as much as the kernel takes now. True when all of it is written.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn try_write(&self, unwritten: &mut Unwritten) -> io::Result<bool> {
        loop {
            let mut slices = [IoSlice::new(&[]); GATHER];
            let count = unwritten.gather(&mut slices);
            if count == 0 {
                return Ok(true);
            }
            match self.stream.try_write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => unwritten.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes all of it, waiting for the peer to read. The caller sets the deadline.
    ///
    /// # Errors
    /// When the connection is broken.
    pub async fn write(&self, unwritten: &mut Unwritten) -> io::Result<()> {
        while !self.try_write(unwritten)? {
            self.stream.writable().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "socket/socket_tests.rs"]
mod tests;
