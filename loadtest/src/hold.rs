//! Idle connections held by processes of their own, since one process may open 20,000 files at most.

use std::io::{self, BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::pool::{Address, Pool};

/// Connections of one process, with room for its other files.
const MOST: usize = 19_000;
/// Connections from one address; each has about 28,000 ports.
const PER_SOURCE: usize = 20_000;
/// How often a holder looks whether it is told something.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Lines that wait to be read.
const LINES: usize = 1_024;
/// Tells a holder to open what it was told of.
const GO: &str = "go";
/// What a holder answers.
const DONE: &str = "done";

/// All holders together.
pub(crate) struct Holders {
    holders: Vec<Holder>,
    open: usize,
}

struct Holder {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    open: usize,
}

impl Holders {
    pub(crate) fn new() -> Self {
        Self { holders: vec![], open: 0 }
    }

    /// Opens one more connection for each of these; those that were open stay so.
    pub(crate) fn open(&mut self, addresses: &[Address]) -> anyhow::Result<()> {
        let mut left = addresses;
        while !left.is_empty() {
            if self.holders.last().is_none_or(|holder| holder.open == MOST) {
                self.holders.push(Holder::start()?);
            }
            let holder = self.holders.last_mut().context("one was started")?;
            let (now, later) = left.split_at(left.len().min(MOST - holder.open));
            holder.open(now)?;
            self.open += now.len();
            left = later;
        }
        Ok(())
    }

    /// Fails when one of them has lost a connection, and ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        for holder in &mut self.holders {
            ensure!(holder.child.try_wait()?.is_none(), "a connection that was to be held has ended");
        }
        Ok(())
    }
}

impl Holder {
    fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a holder")?;
        let stdin = child.stdin.take().context("it has no stdin")?;
        let stdout = BufReader::new(child.stdout.take().context("it has no stdout")?);
        Ok(Self { child, stdin, stdout, open: 0 })
    }

    fn open(&mut self, addresses: &[Address]) -> anyhow::Result<()> {
        for Address { url, source, token } in addresses {
            let source = source.map_or_else(|| "-".to_owned(), |source| source.to_string());
            writeln!(self.stdin, "{url} {source} {token}")?;
        }
        writeln!(self.stdin, "{GO}")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        ensure!(line.trim_end() == DONE, "a holder could not open its connections");
        self.open += addresses.len();
        Ok(())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address that a connection comes from, when one alone has too few ports for all.
pub(crate) fn source(first: Option<Ipv4Addr>, number: usize, all: usize) -> Option<Ipv4Addr> {
    let first = match first {
        None if all <= PER_SOURCE => return None,
        first => first.unwrap_or(Ipv4Addr::LOCALHOST),
    };
    let offset = u32::try_from(number / PER_SOURCE).unwrap_or_default();
    Some(Ipv4Addr::from_bits(first.to_bits() + offset))
}

/// The holder's side: opens what it is told of, until stdin ends, which it does when the parent is gone.
pub(crate) fn run() -> anyhow::Result<bool> {
    let (told, lines) = sync_channel(LINES);
    // The thread ends with stdin, or with the process.
    thread::spawn(move || io::stdin().lines().map_while(Result::ok).all(|line| told.send(line).is_ok()));
    let mut pool = Pool::new()?;
    while let Some(addresses) = told_of(&mut pool, &lines)? {
        pool.open(&addresses)?;
        writeln!(io::stdout(), "{DONE}")?;
        io::stdout().flush()?;
    }
    Ok(true)
}

/// What to open next; nothing when it is over. Open connections are kept alive meanwhile.
fn told_of(pool: &mut Pool, lines: &Receiver<String>) -> anyhow::Result<Option<Vec<Address>>> {
    let mut addresses = vec![];
    loop {
        match lines.try_recv() {
            Ok(line) if line == GO => return Ok(Some(addresses)),
            Ok(line) => addresses.push(read(&line)?),
            Err(TryRecvError::Empty) => pool.hold(LOOK_EVERY)?,
            Err(TryRecvError::Disconnected) => return Ok(None),
        }
    }
}

fn read(line: &str) -> anyhow::Result<Address> {
    let mut fields = line.split(' ');
    let (Some(url), Some(source), Some(token)) = (fields.next(), fields.next(), fields.next()) else {
        bail!("not an address")
    };
    let source = if source == "-" { None } else { Some(source.parse()?) };
    Ok(Address { url: url.to_owned(), source, token: token.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::source;

    #[test]
    fn more_connections_than_ports_come_from_more_addresses() {
        assert_eq!(source(None, 19_999, 20_000), None);
        assert_eq!(source(None, 19_999, 30_000), Some(Ipv4Addr::LOCALHOST));
        assert_eq!(source(None, 20_000, 30_000), Some(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!(source(Some(Ipv4Addr::new(127, 1, 0, 255)), 20_000, 30_000), Some(Ipv4Addr::new(127, 1, 1, 0)));
    }
}
