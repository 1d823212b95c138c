//! A WebSocket client that costs next to nothing: one buffered, non-blocking socket, frames read in place.
//!
//! The load generator shares the machine with what it measures, so every microsecond here is taken from the servers. It speaks just
//! enough of RFC 6455 for one well-behaved peer: unfragmented frames, a masking key of zero, which leaves the text as it is.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs};

use anyhow::{Context, bail, ensure};
use parlance_client::Close;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::scan::{Frame, frame as frame_kind};

/// What may wait to be written before the load counts as refused by this connection.
const MAX_UNWRITTEN: usize = 256 * 1024;
/// The longest answer to the handshake.
const MAX_HEAD: usize = 8 * 1024;
/// The longest frame of a server that is read: a `welcome` with many rooms.
const MAX_FRAME: usize = 4 * 1024 * 1024;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// A close frame without a code.
const NO_CODE: u16 = 1005;

/// The id of every `hello`, above those of messages.
pub(crate) const HELLO: u32 = u32::MAX;

/// A connection on its way, or open.
pub(crate) struct Socket {
    stream: TcpStream,
    stage: Stage,
    /// The beginning of a frame whose end has not come yet.
    partial: Vec<u8>,
    unwritten: Vec<u8>,
}

/// The server has closed the connection, with this code.
#[derive(Debug)]
pub(crate) struct Closed(pub(crate) Close);

impl std::error::Error for Closed {}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server closed: {}", self.0)
    }
}

/// How far it is.
enum Stage {
    /// The answer to the handshake is awaited; then this `hello` is said.
    Handshake(String),
    /// The answer to `hello` is awaited.
    Hello,
    Open,
}

impl Socket {
    /// Begins to connect; the rest happens as answers are read. It never blocks.
    pub(crate) fn begin(url: &str, source: Option<Ipv4Addr>, hello: String) -> anyhow::Result<Self> {
        let authority =
            url.strip_prefix("http://").context("the load goes to http:// URLs only")?.trim_end_matches('/');
        let stream = connect(source, authority).with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        let unwritten = handshake(authority).into_bytes();
        let mut socket = Self { stream, stage: Stage::Handshake(hello), partial: vec![], unwritten };
        socket.flush()?;
        Ok(socket)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether `hello` has been answered.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Queues a text frame to be written by the next [`Self::flush`]; false when too much waits already.
    pub(crate) fn feed(&mut self, text: &str) -> bool {
        let fits = self.unwritten.len() + text.len() <= MAX_UNWRITTEN;
        if fits {
            frame(&mut self.unwritten, TEXT, text.as_bytes());
        }
        fits
    }

    /// Writes what the kernel takes now; the rest waits for the next call.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        let mut written = 0;
        while written < self.unwritten.len() {
            match self.stream.write(&self.unwritten[written..]) {
                Ok(count) => written += count,
                // Also while it connects.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e).context("the server does not take what is sent"),
            }
        }
        self.unwritten.drain(..written);
        Ok(())
    }

    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Reads once into the shared buffer and hands over every text frame that is whole. Pings are answered.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut take: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let count = match self.stream.read(buffer) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => count,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(e) => return Err(e).context("cannot read from the server"),
        };
        let bytes = &buffer[..count];
        if let Stage::Handshake(_) = self.stage {
            return self.answered(bytes, &mut take);
        }
        let Some(at) = self.completed(bytes, &mut take)? else { return Ok(()) };
        let used = self.frames(&bytes[at..], &mut take)?;
        self.partial.extend_from_slice(&bytes[at + used..]);
        Ok(())
    }

    /// Completes the frame that the last read had cut, and takes it; where the rest begins, which is then read in place.
    fn completed(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<Option<usize>> {
        let mut at = 0;
        while !self.partial.is_empty() {
            let (length, is_whole) = needed(&self.partial)?;
            let more = length.saturating_sub(self.partial.len());
            let Some(found) = bytes.get(at..at + more) else {
                self.partial.extend_from_slice(&bytes[at..]);
                return Ok(None);
            };
            self.partial.extend_from_slice(found);
            at += more;
            if is_whole {
                // An idle connection keeps no buffer.
                let frame = std::mem::take(&mut self.partial);
                self.frames(&frame, take)?;
            }
        }
        Ok(Some(at))
    }

    /// Reads the answer to the handshake, then says `hello`.
    fn answered(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.partial.extend_from_slice(bytes);
        let Some(end) = memchr::memmem::find(&self.partial, b"\r\n\r\n") else {
            ensure!(self.partial.len() <= MAX_HEAD, "the answer to the handshake does not end");
            return Ok(());
        };
        let rest = self.partial.split_off(end + 4);
        let head = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned();
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 101 "), "the handshake was answered with {status}");
        if let Stage::Handshake(hello) = std::mem::replace(&mut self.stage, Stage::Hello) {
            frame(&mut self.unwritten, TEXT, hello.as_bytes());
        }
        self.flush()?;
        let used = self.frames(&rest, take)?;
        self.partial.extend_from_slice(&rest[used..]);
        Ok(())
    }

    /// Takes all whole frames off the front of these bytes; how many bytes they were.
    fn frames(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some((opcode, payload, length)) = parse(&bytes[at..])? {
            match opcode {
                TEXT => {
                    if !self.is_open() {
                        self.welcomed(payload)?;
                    }
                    take(payload);
                }
                PING => {
                    frame(&mut self.unwritten, PONG, payload);
                    self.flush()?;
                }
                CLOSE => return Err(closed(payload).into()),
                _ => {}
            }
            at += length;
        }
        Ok(at)
    }

    /// The first frame has to be the answer to `hello`.
    fn welcomed(&mut self, answer: &[u8]) -> anyhow::Result<()> {
        let is_welcome = frame_kind(answer) == Frame::Welcome;
        ensure!(is_welcome, "hello was answered with {}", String::from_utf8_lossy(answer));
        self.stage = Stage::Open;
        Ok(())
    }
}

fn handshake(authority: &str) -> String {
    format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3QgbG9hZHRlcw==\r\n\
         Sec-WebSocket-Protocol: parlance.v1.json\r\n\r\n"
    )
}

/// Begins to connect, from one of this machine's other addresses when given, since each has ports of its own.
fn connect(source: Option<Ipv4Addr>, authority: &str) -> anyhow::Result<TcpStream> {
    let target = authority.to_socket_addrs()?.next().context("no such host")?;
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if let Some(source) = source {
        rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    }
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(TcpStream::from(socket)),
        Err(error) => Err(error.into()),
    }
}

/// Writes a client's frame whose masking key is zero.
fn frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        length @ 0..=125 => out.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The first frame of these bytes, if it is whole: opcode, payload, length with its header.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(u8, &[u8], usize)>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    ensure!(first & 0x80 != 0 && second & 0x80 == 0, "a fragmented or masked frame");
    let (length, header) = match second & 0x7f {
        126 => match rest.first_chunk() {
            Some(length) => (usize::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (usize::try_from(u64::from_be_bytes(*length))?, 10),
            None => return Ok(None),
        },
        length => (usize::from(length), 2),
    };
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
    Ok(bytes.get(header..header + length).map(|payload| (first & 0x0f, payload, header + length)))
}

/// How many bytes the first frame of these needs in all, or its header as long as that is cut; and whether it is the former.
fn needed(bytes: &[u8]) -> anyhow::Result<(usize, bool)> {
    let Some(second) = bytes.get(1) else { return Ok((2, false)) };
    let header = match second & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    };
    let Some(lengths) = bytes.get(2..header) else { return Ok((header, false)) };
    let length = match header {
        2 => usize::from(second & 0x7f),
        _ => lengths.iter().fold(0, |length: usize, byte| length.saturating_mul(256).saturating_add((*byte).into())),
    };
    ensure!(length <= MAX_FRAME, "a frame of {length} bytes");
    Ok((header + length, true))
}

/// The close frame of a server.
fn closed(payload: &[u8]) -> Closed {
    match payload {
        [high, low, text @ ..] => Closed(Close {
            code: u16::from_be_bytes([*high, *low]),
            reason: String::from_utf8_lossy(text).into_owned(),
        }),
        _ => Closed(Close { code: NO_CODE, reason: String::new() }),
    }
}

#[cfg(test)]
mod tests;
