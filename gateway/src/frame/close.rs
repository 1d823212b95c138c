//! The close codes of the contract, and what their reason says.

use std::borrow::Cow;

/// Why the server closes a connection. The client's side of each is in docs/protocol.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// Done.
    Normal,
    /// The peer said goodbye, or the server is going for good.
    Away,
    /// Not WebSocket (RFC 6455 §7.4.1).
    ProtocolError,
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
            Self::ProtocolError => 1002,
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
    pub fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Restarting(wait_ms) | Self::Overloaded(wait_ms) | Self::RateLimited(wait_ms) => {
                Cow::Owned(wait_ms.to_string())
            }
            Self::Normal | Self::Away => Cow::Borrowed("done"),
            Self::ProtocolError => Cow::Borrowed("not the WebSocket protocol"),
            Self::FrameTooLarge => Cow::Borrowed("a frame is too large"),
            Self::Internal => Cow::Borrowed("internal error"),
            Self::NotAFrame => Cow::Borrowed("not a valid frame"),
            Self::Unauthenticated => Cow::Borrowed("not authenticated"),
            Self::TokenExpired => Cow::Borrowed("the access token has expired"),
            Self::Revoked => Cow::Borrowed("the session was revoked"),
            Self::TooManyConnections => Cow::Borrowed("too many connections of this user"),
            Self::TooSlow => Cow::Borrowed("too slow"),
            Self::Unsupported => Cow::Borrowed("this sub-protocol is not supported"),
        }
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
            assert_eq!((close.code(), &*close.reason()), (code, "1500"));
        }
    }
}
