//! Random bytes from the kernel.

use std::fs::File;
use std::io::{self, Read};

/// As many unpredictable bytes as the caller's array holds.
pub(crate) fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Sixteen hex digits, for names that must not collide.
pub(crate) fn name() -> io::Result<String> {
    Ok(format!("{:016x}", u64::from_le_bytes(bytes()?)))
}
