//! How a socket ended, and what the close code table of the contract advises.

use std::fmt;

/// No close frame came: the peer died, the network broke, or the peer fell silent.
pub const ABNORMAL: u16 = 1006;
/// This library closed the socket because its own reader left too many events unread.
pub const UNREAD: u16 = 4900;

/// The code and the reason of a closed socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code of the close frame, or [`ABNORMAL`] when none came.
    pub code: u16,
    /// The text of the close frame.
    pub reason: String,
}

/// What a client does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Connect again with back-off and resume, not before this time.
    Resume {
        /// The wait which the server asked for, if it did.
        after_ms: Option<u64>,
    },
    /// Get a new access token, then connect again and resume.
    Refresh,
    /// Nothing that may be repeated unchanged: stop.
    Stop,
}

impl Close {
    /// A socket that ended without a close frame.
    pub fn abnormal(reason: impl Into<String>) -> Self {
        Self { code: ABNORMAL, reason: reason.into() }
    }

    /// The close code table of the contract.
    pub fn advice(&self) -> Advice {
        match self.code {
            1009 | 4000 | 4003 | 4004 | 4009 => Advice::Stop,
            4001 | 4002 => Advice::Refresh,
            1012 | 1013 | 4029 => Advice::Resume { after_ms: self.reason.parse().ok() },
            _ => Advice::Resume { after_ms: None },
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code, self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_must_not_be_retried_stop() {
        for code in [1009, 4000, 4003, 4004, 4009] {
            assert_eq!(Close { code, reason: String::new() }.advice(), Advice::Stop, "{code}");
        }
    }

    #[test]
    fn a_delay_stands_in_the_reason() {
        let close = |code, reason: &str| Close { code, reason: reason.into() };
        assert_eq!(close(1012, "750").advice(), Advice::Resume { after_ms: Some(750) });
        assert_eq!(close(4029, "soon").advice(), Advice::Resume { after_ms: None });
        assert_eq!(close(4008, "12").advice(), Advice::Resume { after_ms: None });
        assert_eq!(close(4002, "").advice(), Advice::Refresh);
    }
}
