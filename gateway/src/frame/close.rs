//! The close codes of the contract, and what their reason says.

use axum::extract::ws::{CloseFrame, Utf8Bytes};

/// Why the server closes a connection. The client's side of each is in docs/protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Done.
    Normal,
    /// The peer said goodbye, or the server is going for good.
    Away,
    /// A frame above [`super::MAX_FRAME`].
    FrameTooLarge,
    /// A fault of ours: connect again and resume.
    Internal,
    /// The gateway leaves: connect again after so many milliseconds.
    Restarting(u64),
    /// Too much to do: connect again after so many milliseconds.
    Overloaded(u64),
    /// Not a frame at all.
    NotAFrame,
    /// A bad token, or no `hello`.
    Unauthenticated,
    /// The access token has expired.
    TokenExpired,
    /// The session was revoked.
    Revoked,
    /// A newer connection of the same user took the place of this one.
    TooManyConnections,
    /// The queue to the client overflowed.
    TooSlow,
    /// The sub-protocol or its version is not supported.
    Unsupported,
    /// Refused frames kept coming: stay away for so many milliseconds.
    RateLimited(u64),
}

impl Close {
    /// The number that the client sees.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Normal => 1000,
            Self::Away => 1001,
            Self::FrameTooLarge => 1009,
            Self::Internal => 1011,
            Self::Restarting(_) => 1012,
            Self::Overloaded(_) => 1013,
            Self::NotAFrame => 4000,
            Self::Unauthenticated => 4001,
            Self::TokenExpired => 4002,
            Self::Revoked => 4003,
            Self::TooManyConnections => 4004,
            Self::TooSlow => 4008,
            Self::Unsupported => 4009,
            Self::RateLimited(_) => 4029,
        }
    }

    /// The text beside the number: the milliseconds to wait in decimal where there are any, else a few words for
    /// people. Never longer than the 123 bytes that a close frame holds.
    #[must_use]
    pub fn reason(self) -> Utf8Bytes {
        match self {
            Self::Restarting(wait_ms) | Self::Overloaded(wait_ms) | Self::RateLimited(wait_ms) => {
                wait_ms.to_string().into()
            }
            Self::Normal | Self::Away => Utf8Bytes::from_static("done"),
            Self::FrameTooLarge => Utf8Bytes::from_static("a frame is too large"),
            Self::Internal => Utf8Bytes::from_static("internal error"),
            Self::NotAFrame => Utf8Bytes::from_static("not a valid frame"),
            Self::Unauthenticated => Utf8Bytes::from_static("not authenticated"),
            Self::TokenExpired => Utf8Bytes::from_static("the access token has expired"),
            Self::Revoked => Utf8Bytes::from_static("the session was revoked"),
            Self::TooManyConnections => Utf8Bytes::from_static("too many connections of this user"),
            Self::TooSlow => Utf8Bytes::from_static("too slow"),
            Self::Unsupported => Utf8Bytes::from_static("this sub-protocol is not supported"),
        }
    }

    /// Both together, as they are sent.
    #[must_use]
    pub fn frame(self) -> CloseFrame {
        CloseFrame { code: self.code(), reason: self.reason() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_that_ask_to_wait_say_how_long_in_decimal() {
        for (close, code) in
            [(Close::Restarting(1500), 1012), (Close::Overloaded(1500), 1013), (Close::RateLimited(1500), 4029)]
        {
            assert_eq!((close.code(), close.reason().as_str()), (code, "1500"));
        }
        assert_eq!(Close::NotAFrame.frame().code, 4000);
    }
}
