//! Connections that come back as the contract asks: with jittered back-off, at another gateway when there is one.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use anyhow::bail;
use parlance_client::backoff::Backoff;
use parlance_client::{Advice, Close};

use crate::pool::{Address, Event, Pool};

/// All connections of a run.
pub(crate) struct Lines {
    pool: Pool,
    urls: Vec<String>,
    /// Where each is, or was last.
    addresses: Vec<Address>,
    backoffs: HashMap<usize, Backoff>,
    waiting: BinaryHeap<Reverse<(Instant, usize)>>,
    /// How many have ended.
    pub(crate) closed: u64,
    pub(crate) first_close: Option<String>,
}

impl Lines {
    /// Opens all of these.
    pub(crate) fn open(urls: &[String], addresses: Vec<Address>) -> anyhow::Result<Self> {
        let mut pool = Pool::new()?;
        pool.open(&addresses)?;
        Ok(Self {
            pool,
            urls: urls.to_vec(),
            addresses,
            backoffs: HashMap::new(),
            waiting: BinaryHeap::new(),
            closed: 0,
            first_close: None,
        })
    }

    pub(crate) fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// Where a connection is, or was last.
    pub(crate) fn address(&self, connection: usize) -> &Address {
        &self.addresses[connection]
    }

    /// Reads what has come, waiting at most this long.
    pub(crate) fn poll(&mut self, wait: Duration, mut frame: impl FnMut(usize, &[u8])) -> anyhow::Result<Vec<usize>> {
        let mut closed = vec![];
        self.pool.poll(wait, |connection, event| match event {
            Event::Frame(bytes) => frame(connection, bytes),
            Event::Closed(close) => closed.push((connection, close)),
        })?;
        closed.into_iter().map(|(connection, close)| self.ended(connection, &close)).collect()
    }

    /// A connection has ended: it will be due again.
    fn ended(&mut self, connection: usize, close: &Close) -> anyhow::Result<usize> {
        self.closed += 1;
        self.first_close.get_or_insert_with(|| close.to_string());
        let Advice::Resume { after_ms } = close.advice() else {
            bail!("connection {connection} may not come back: {close}");
        };
        let wait = self.backoffs.entry(connection).or_default().next(after_ms);
        self.waiting.push(Reverse((Instant::now() + wait, connection)));
        // Its own may be gone for good.
        let address = &mut self.addresses[connection];
        if let Some(at) = self.urls.iter().position(|url| *url == address.url) {
            address.url.clone_from(&self.urls[(at + 1) % self.urls.len()]);
        }
        Ok(connection)
    }

    /// The next connection whose wait is over.
    pub(crate) fn due(&mut self) -> Option<usize> {
        let Reverse((at, connection)) = *self.waiting.peek()?;
        if at > Instant::now() {
            return None;
        }
        self.waiting.pop();
        Some(connection)
    }

    /// Begins to connect again.
    pub(crate) fn resume(&mut self, connection: usize, hello: String) -> anyhow::Result<()> {
        if let Err(error) = self.pool.begin(connection, &self.addresses[connection], hello) {
            self.ended(connection, &Close::abnormal(format!("{error:#}")))?;
        }
        Ok(())
    }

    /// A connection is back.
    pub(crate) fn is_back(&mut self, connection: usize) {
        self.backoffs.remove(&connection);
    }
}
