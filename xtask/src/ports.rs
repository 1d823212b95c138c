//! Free loopback ports that no outgoing connection will take in the meantime.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::ops::Range;

use anyhow::bail;

use crate::entropy;

/// Above the well-known ports, below where Linux usually begins to hand out its own.
const USUAL: Range<u16> = 15_000..32_000;
const ATTEMPTS: usize = 1_000;

/// Hands out each port once.
#[derive(Default)]
pub(crate) struct Ports {
    taken: BTreeSet<u16>,
}

impl Ports {
    /// A port that was free a moment ago and that this run has not given to anybody else.
    pub(crate) fn pick(&mut self) -> anyhow::Result<u16> {
        let range = below(ephemeral_start());
        for _ in 0..ATTEMPTS {
            let port = within(&range, u16::from_le_bytes(entropy::bytes()?));
            if TcpListener::bind(("127.0.0.1", port)).is_ok() && self.taken.insert(port) {
                return Ok(port);
            }
        }
        bail!("no free port between {} and {}", range.start, range.end)
    }

    /// Keeps a port that somebody already has.
    pub(crate) fn reserve(&mut self, port: u16) {
        self.taken.insert(port);
    }
}

/// The first port the kernel may give to an outgoing connection.
fn ephemeral_start() -> Option<u16> {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    range.split_whitespace().next()?.parse().ok()
}

/// The usual range, cut where the kernel's own begins; all of it if too little would be left.
fn below(ephemeral: Option<u16>) -> Range<u16> {
    let end = ephemeral.map_or(USUAL.end, |start| start.min(USUAL.end));
    if end > USUAL.start + 1_000 { USUAL.start..end } else { USUAL }
}

fn within(range: &Range<u16>, random: u16) -> u16 {
    range.start + random % (range.end - range.start)
}

#[cfg(test)]
mod tests {
    use super::{Ports, USUAL, below, within};

    #[test]
    fn the_range_ends_where_the_kernels_begins() {
        assert_eq!(below(Some(20_000)), 15_000..20_000);
        assert_eq!(below(Some(32_768)), USUAL);
        assert_eq!(below(Some(1_024)), USUAL);
        assert_eq!(below(None), USUAL);
    }

    #[test]
    fn any_random_number_falls_within() {
        for random in [0, 1, 16_999, 17_000, u16::MAX] {
            assert!(USUAL.contains(&within(&USUAL, random)));
        }
    }

    #[test]
    fn no_port_is_given_twice() -> anyhow::Result<()> {
        let mut ports = Ports::default();
        let mut given = Vec::new();
        for _ in 0..50 {
            given.push(ports.pick()?);
        }
        let mut distinct = given.clone();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), given.len());
        Ok(())
    }
}
