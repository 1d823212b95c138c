//! A WebSocket client that costs next to nothing: one buffered, non-blocking socket, frames read in place.
//!
//! The load generator shares the machine with what it measures, so every microsecond here is taken from the servers. It speaks just
//! enough of RFC 6455 for one well-behaved peer: unfragmented frames, a masking key of zero, which leaves the text as it is.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long the server may take for each part of opening a connection.
const OPEN_PATIENCE: Duration = Duration::from_secs(15);
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

/// An open connection past its handshake.
pub(crate) struct Socket {
    stream: TcpStream,
    /// The beginning of a frame whose end has not come yet.
    partial: Vec<u8>,
    unwritten: Vec<u8>,
}

impl Socket {
    /// Connects, makes the handshake and says `hello`; the socket does not block any more afterwards.
    pub(crate) fn open(url: &str, source: Option<Ipv4Addr>, token: &str) -> anyhow::Result<Self> {
        let authority =
            url.strip_prefix("http://").context("the load goes to http:// URLs only")?.trim_end_matches('/');
        let stream = match source {
            None => TcpStream::connect(authority),
            Some(source) => connect_from(source, authority),
        };
        let stream = stream.with_context(|| format!("cannot connect to {authority}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(OPEN_PATIENCE))?;
        let mut socket = Self { stream, partial: vec![], unwritten: vec![] };
        socket.handshake(authority)?;
        socket.feed(&format!(r#"{{"id":1,"hello":{{"token":"{token}"}}}}"#));
        socket.flush()?;
        socket.welcomed()?;
        socket.stream.set_nonblocking(true)?;
        Ok(socket)
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
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
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
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
        if self.partial.is_empty() {
            let used = self.frames(&buffer[..count], &mut take)?;
            self.partial.extend_from_slice(&buffer[used..count]);
        } else {
            let mut whole = std::mem::take(&mut self.partial);
            whole.extend_from_slice(&buffer[..count]);
            let used = self.frames(&whole, &mut take)?;
            whole.drain(..used);
            // An idle connection keeps no buffer.
            self.partial = if whole.is_empty() { vec![] } else { whole };
        }
        Ok(())
    }

    /// Takes all whole frames off the front of these bytes; how many bytes they were.
    fn frames(&mut self, bytes: &[u8], take: &mut impl FnMut(&[u8])) -> anyhow::Result<usize> {
        let mut at = 0;
        while let Some((opcode, payload, length)) = parse(&bytes[at..])? {
            match opcode {
                TEXT => take(payload),
                PING => {
                    frame(&mut self.unwritten, PONG, payload);
                    self.flush()?;
                }
                CLOSE => bail!("the server closed: {}", reason(payload)),
                _ => {}
            }
            at += length;
        }
        Ok(at)
    }

    fn handshake(&mut self, authority: &str) -> anyhow::Result<()> {
        let request = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bG9hZHRlc3QgbG9hZHRlcw==\r\n\
             Sec-WebSocket-Protocol: parlance.v1.json\r\n\r\n"
        );
        self.stream.write_all(request.as_bytes())?;
        let mut head = Vec::new();
        let mut byte = [0];
        // Byte by byte, once for each connection: what follows the head belongs to the frames.
        while !head.ends_with(b"\r\n\r\n") {
            self.stream.read_exact(&mut byte).context("the handshake was not answered")?;
            head.push(byte[0]);
            ensure!(head.len() <= MAX_HEAD, "the answer to the handshake does not end");
        }
        let head = String::from_utf8_lossy(&head);
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 101 "), "the handshake was answered with {status}");
        Ok(())
    }

    fn welcomed(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut answer = None;
        while answer.is_none() {
            self.read(&mut buffer, |text| answer = answer.take().or(Some(text.to_vec())))?;
        }
        let answer = String::from_utf8_lossy(answer.as_deref().unwrap_or_default()).into_owned();
        ensure!(answer.contains(r#""welcome""#), "hello was answered with {answer}");
        Ok(())
    }
}

/// Connects from one of this machine's other addresses, since each has ports of its own.
fn connect_from(source: Ipv4Addr, authority: &str) -> io::Result<TcpStream> {
    let invalid =
        || io::Error::new(ErrorKind::InvalidInput, "source addresses need an IPv4 address and port as the URL");
    let target: SocketAddr = authority.parse().map_err(|_| invalid())?;
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
    rustix::net::bind(&socket, &SocketAddr::from((source, 0)))?;
    rustix::net::connect(&socket, &target)?;
    Ok(TcpStream::from(socket))
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

fn reason(payload: &[u8]) -> String {
    match payload {
        [high, low, text @ ..] => {
            format!("{} {}", u16::from_be_bytes([*high, *low]), String::from_utf8_lossy(text))
        }
        _ => "without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{TEXT, frame, parse};

    fn from_server(length: usize) -> Vec<u8> {
        let mut bytes = vec![];
        frame(&mut bytes, TEXT, &vec![b'a'; length]);
        // What a server writes is the same without the mask.
        let header = bytes.len() - length - 4;
        bytes[1] &= 0x7f;
        bytes.drain(header..header + 4);
        bytes
    }

    #[test]
    fn frames_of_every_length_are_read_back() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = from_server(length);
            let (opcode, payload, used) = parse(&bytes).unwrap().unwrap();
            assert_eq!((opcode, payload.len(), used), (TEXT, length, bytes.len()));
        }
    }

    #[test]
    fn a_frame_without_its_end_waits() {
        let bytes = from_server(300);
        for cut in [0, 1, 3, 4, 303] {
            assert!(parse(&bytes[..cut]).unwrap().is_none());
        }
    }
}
