//! A way to PostgreSQL that counts the round trips of each transaction.
//!
//! It reads the frontend protocol: a round trip is what the client ends with a Query or a Sync and then waits for. One
//! transaction reaches from its `begin` to its `commit`, both counted.

use std::sync::{Arc, Mutex};

use service_kit::tasks::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// What one transaction cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Transaction {
    pub(crate) round_trips: usize,
    /// Statements that were prepared on the way: each costs a round trip, once for each connection.
    pub(crate) prepared: usize,
    /// Size of the largest set of parameters.
    pub(crate) largest_bind: usize,
}

/// Transactions that were committed, in the order of their ends.
#[derive(Clone, Default)]
pub(crate) struct Proxy(Arc<Mutex<Vec<Transaction>>>);

impl Proxy {
    /// Starts in front of the server that this URL names; gives the URL that leads through it.
    pub(crate) async fn start(url: &str, tasks: &Tasks) -> (Self, String) {
        let proxy = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let after = url.find("://").unwrap() + 3;
        let host = url[after..].find('@').map_or(after, |at| after + at + 1);
        let path = host + url[host..].find('/').unwrap();
        let (there, through) = (url[host..path].to_owned(), format!("{}{here}{}", &url[..host], &url[path..]));
        let (accepted, group) = (proxy.clone(), tasks.clone());
        tasks.spawn_until_stop(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&there).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let (from_client, mut to_client) = client.into_split();
                let (mut from_server, to_server) = server.into_split();
                group.spawn_until_stop(async move {
                    // Ends when either side hangs up, which is not this story's business.
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                group.spawn_until_stop(accepted.clone().follow(from_client, to_server));
            }
        });
        (proxy, through)
    }

    /// The transactions since the last time.
    pub(crate) fn take(&self) -> Vec<Transaction> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    async fn follow(self, mut client: impl AsyncReadExt + Unpin, mut server: impl AsyncWriteExt + Unpin) {
        let mut open = None;
        let mut started = false;
        loop {
            let mut kind = [0];
            // Before the session starts, messages have no kind.
            if started && client.read_exact(&mut kind).await.is_err() {
                return;
            }
            let Ok(length) = client.read_u32().await else { return };
            let mut body = vec![0; length as usize - 4];
            if client.read_exact(&mut body).await.is_err() {
                return;
            }
            let mut whole = if started { kind.to_vec() } else { Vec::new() };
            whole.extend(length.to_be_bytes());
            whole.extend(&body);
            // 3.0 of the protocol; before it may come the question for TLS.
            started = started || body.starts_with(&[0, 3, 0, 0]);
            self.count(&mut open, kind[0], &body);
            if server.write_all(&whole).await.is_err() {
                return;
            }
        }
    }

    fn count(&self, open: &mut Option<Transaction>, kind: u8, body: &[u8]) {
        let says = |word: &[u8]| kind == b'Q' && body.to_ascii_lowercase().starts_with(word);
        if says(b"begin") {
            *open = Some(Transaction::default());
        }
        let Some(transaction) = open else { return };
        match kind {
            b'Q' | b'S' => transaction.round_trips += 1,
            b'P' => transaction.prepared += 1,
            b'B' => transaction.largest_bind = transaction.largest_bind.max(body.len()),
            _ => {}
        }
        if says(b"commit") {
            self.0.lock().unwrap().extend(open.take());
        } else if says(b"rollback") {
            *open = None;
        }
    }
}
