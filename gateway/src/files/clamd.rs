//! ClamAV's clamd, as much of its protocol as is needed (clamd(8)): whether it is there, and what it finds in a stream of bytes.

use std::{io, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{bail, ensure};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_util::either::Either;

/// How long clamd may take to accept a connection, and to say that it is there.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of the longest answer that is read.
const MOST_ANSWER: u64 = 4096;
/// Bytes that are written at once.
const CHUNK: usize = 64 * 1024;
/// Characters of a signature's name that are told.
const MAX_NAME: usize = 128;

/// Where a clamd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clamd {
    /// `host:port`.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

/// What clamd says of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing was found in it.
    Clean,
    /// What this signature describes was found in it.
    Infected(String),
    /// It is above clamd's `StreamMaxLength`.
    TooLarge,
}

impl FromStr for Clamd {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            _ => Err("is neither host:port nor unix:/path"),
        }
    }
}

impl Clamd {
    async fn connect(&self) -> anyhow::Result<Either<TcpStream, UnixStream>> {
        let connecting = async {
            io::Result::Ok(match self {
                Self::Tcp(address) => Either::Left(TcpStream::connect(address).await?),
                Self::Unix(path) => Either::Right(UnixStream::connect(path).await?),
            })
        };
        Ok(timeout(ANSWER, connecting).await??)
    }

    /// Asks whether it is there.
    ///
    /// # Errors
    /// When it does not say so in time.
    pub(super) async fn ping(&self) -> anyhow::Result<()> {
        let asking = async {
            let mut socket = self.connect().await?;
            socket.write_all(b"zPING\0").await?;
            let answer = answer(&mut socket).await?;
            ensure!(answer == "PONG", "clamd answers {answer:?}");
            Ok(())
        };
        timeout(ANSWER, asking).await?
    }

    /// Has these bytes scanned, which have to be `size`. The caller has the deadline.
    ///
    /// # Errors
    /// When the bytes cannot be read, are not as many, or clamd gives no verdict.
    pub(super) async fn scan<E: std::error::Error + Send + Sync + 'static>(
        &self,
        bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
        size: u64,
    ) -> anyhow::Result<Verdict> {
        scan(self.connect().await?, bytes, size).await
    }
}

async fn scan<E: std::error::Error + Send + Sync + 'static>(
    socket: impl AsyncRead + AsyncWrite,
    bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
    size: u64,
) -> anyhow::Result<Verdict> {
    let (from, to) = tokio::io::split(socket);
    let mut answering = Box::pin(answer(from));
    // It answers before it has all when that is more than it takes, and hears no more then.
    let sent = tokio::select! {
        biased;
        answer = &mut answering => match verdict(&answer?)? {
            Verdict::Clean => bail!("clamd has not seen all of it"),
            early => return Ok(early),
        },
        sent = send(to, bytes) => sent,
    };
    match sent {
        // What is cut off may look clean.
        Ok(sent) => ensure!(sent == size, "the store gave {sent} bytes of {size}"),
        Err(Broken::Bytes(error)) => return Err(error),
        // Then it has said why, perhaps.
        Err(Broken::Socket(error)) => match verdict(&answering.await?)? {
            Verdict::Clean => return Err(error.into()),
            early => return Ok(early),
        },
    }
    verdict(&answering.await?)
}

/// Which side an error is of.
enum Broken {
    Bytes(anyhow::Error),
    Socket(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Socket(error)
    }
}

/// Sends a stream in the form of INSTREAM: chunks, each with its length before it, and one of no length at the end. Tells how
/// many bytes there were.
async fn send<E: std::error::Error + Send + Sync + 'static>(
    to: impl AsyncWrite + Unpin,
    mut bytes: impl Stream<Item = Result<Bytes, E>> + Unpin,
) -> Result<u64, Broken> {
    let mut to = BufWriter::with_capacity(CHUNK, to);
    let mut sent = 0;
    to.write_all(b"zINSTREAM\0").await?;
    while let Some(bytes) = bytes.try_next().await.map_err(|error| Broken::Bytes(error.into()))? {
        for chunk in bytes.chunks(CHUNK) {
            to.write_u32(u32::try_from(chunk.len()).map_err(io::Error::other)?).await?;
            to.write_all(chunk).await?;
            sent += chunk.len() as u64;
        }
    }
    to.write_u32(0).await?;
    to.flush().await?;
    Ok(sent)
}

/// One answer, up to the zero byte that ends it.
async fn answer(from: impl AsyncRead + Unpin) -> anyhow::Result<String> {
    let mut line = Vec::new();
    BufReader::new(from.take(MOST_ANSWER)).read_until(0, &mut line).await?;
    ensure!(line.pop() == Some(0), "clamd hung up");
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What an answer to INSTREAM says.
fn verdict(answer: &str) -> anyhow::Result<Verdict> {
    if answer == "INSTREAM size limit exceeded. ERROR" {
        return Ok(Verdict::TooLarge);
    }
    let said = answer.strip_prefix("stream: ");
    if said == Some("OK") {
        return Ok(Verdict::Clean);
    }
    let Some(name) = said.and_then(|said| said.strip_suffix(" FOUND")) else { bail!("clamd answers {answer:?}") };
    Ok(Verdict::Infected(name.chars().filter(char::is_ascii_graphic).take(MAX_NAME).collect()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    fn bytes(parts: &[&'static str]) -> impl Stream<Item = Result<Bytes, Infallible>> + Unpin + use<> {
        stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes()))).collect::<Vec<_>>())
    }

    #[test]
    fn an_address_is_a_host_with_a_port_or_a_path() {
        for (text, address) in [
            ("localhost:3310", Ok(Clamd::Tcp("localhost:3310".to_owned()))),
            ("[::1]:3310", Ok(Clamd::Tcp("[::1]:3310".to_owned()))),
            ("unix:/run/clamd.sock", Ok(Clamd::Unix("/run/clamd.sock".into()))),
            ("unix:clamd.sock", Err("is neither host:port nor unix:/path")),
            ("tcp://localhost:3310", Err("is neither host:port nor unix:/path")),
            ("localhost", Err("is neither host:port nor unix:/path")),
            (":3310", Err("is neither host:port nor unix:/path")),
        ] {
            assert_eq!(text.parse(), address, "{text}");
        }
    }

    #[test]
    fn only_what_is_said_to_be_clean_is_clean() {
        assert_eq!(verdict("stream: OK").unwrap(), Verdict::Clean);
        assert_eq!(
            verdict("stream: Win.Test.EICAR_HDB-1 FOUND").unwrap(),
            Verdict::Infected("Win.Test.EICAR_HDB-1".to_owned())
        );
        assert_eq!(verdict("INSTREAM size limit exceeded. ERROR").unwrap(), Verdict::TooLarge);
        for odd in ["", "OK", "stream: OK, perhaps", "stream: Can't allocate memory ERROR", "UNKNOWN COMMAND"] {
            assert!(verdict(odd).is_err(), "{odd}");
        }
    }

    #[tokio::test]
    async fn an_empty_part_does_not_end_the_stream() {
        let mut sent = Vec::new();
        assert!(matches!(send(&mut sent, bytes(&["ab", "", "c"])).await, Ok(3)));
        assert_eq!(sent, b"zINSTREAM\0\0\0\0\x02ab\0\0\0\x01c\0\0\0\0");
    }

    #[tokio::test]
    async fn what_was_cut_off_is_never_clean() {
        let scanned = async |answer: &'static [u8], size: u64| {
            let (ours, mut theirs) = tokio::io::duplex(1024);
            theirs.write_all(answer).await.unwrap();
            // Heard to the end, as clamd does.
            let heard = async { tokio::io::copy(&mut theirs, &mut tokio::io::sink()).await };
            tokio::join!(scan(ours, bytes(&["abc"]), size), heard).0
        };
        assert!(scanned(b"stream: OK\0", 3).await.is_err(), "it was said before all had come");
        assert_eq!(scanned(b"stream: Bad FOUND\0", 3).await.unwrap(), Verdict::Infected("Bad".to_owned()));

        let (ours, theirs) = tokio::io::duplex(1024);
        let (from, mut to) = tokio::io::split(theirs);
        let clamd = async {
            let mut from = BufReader::new(from);
            let mut heard = vec![0; b"zINSTREAM\0\0\0\0\x03abc\0\0\0\0".len()];
            from.read_exact(&mut heard).await.unwrap();
            // It may not be heard any more.
            let _ = to.write_all(b"stream: OK\0").await;
        };
        let (cut, ()) = tokio::join!(scan(ours, bytes(&["abc"]), 4), clamd);
        assert!(cut.unwrap_err().to_string().contains("3 bytes of 4"));
    }
}
