//! Whether something that was started answers yet, asked in its own protocol.

use std::time::Duration;

use anyhow::bail;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const POLL: Duration = Duration::from_millis(50);
/// One question may not take longer, the next one may find the answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Enough for a status line, a PONG, or the head of an AMQP frame.
const ANSWER_BYTES: usize = 64;

/// Redis answers only when it serves.
pub(crate) async fn redis(port: u16) -> bool {
    ask(port, b"PING\r\n").await.starts_with(b"+PONG")
}

/// RabbitMQ opens its listener last; a method frame on channel 0 is its `connection.start`.
pub(crate) async fn amqp(port: u16) -> bool {
    ask(port, b"AMQP\x00\x00\x09\x01").await.starts_with(b"\x01\x00\x00")
}

/// The status of a GET, if anything there speaks HTTP.
pub(crate) async fn http(port: u16, path: &str) -> Option<u16> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    status(&ask(port, request.as_bytes()).await)
}

/// Repeats a question until it is answered with yes, or fails at the deadline.
pub(crate) async fn until(
    deadline: Instant,
    what: &str,
    mut question: impl AsyncFnMut() -> bool,
) -> anyhow::Result<()> {
    while !question().await {
        if Instant::now() >= deadline {
            bail!("{what} is not ready in time");
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// The beginning of the answer, empty when nobody is there.
async fn ask(port: u16, question: &[u8]) -> Vec<u8> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(question).await?;
        let mut answer = vec![0; ANSWER_BYTES];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        std::io::Result::Ok(answer)
    };
    timeout(PATIENCE, exchange).await.ok().and_then(Result::ok).unwrap_or_default()
}

fn status(answer: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(answer).ok()?;
    let rest = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "))?;
    rest.get(..3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::status;

    #[test]
    fn only_http_has_a_status() {
        assert_eq!(status(b"HTTP/1.1 401 Unauthorized\r\n"), Some(401));
        assert_eq!(status(b"HTTP/1.0 200 OK\r\n"), Some(200));
        assert_eq!(status(b"+PONG\r\n"), None);
        assert_eq!(status(b""), None);
        assert_eq!(status(b"HTTP/1.1 2"), None);
    }
}
