//! What can go wrong between a client and Parlance, with the codes of the contract.

use serde::{Deserialize, Serialize};

use crate::close::Close;

/// The codes that a REST problem and a socket's error answer share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "docs/protocol.md lists the codes with their status")]
pub enum Code {
    BadRequest,
    Unauthenticated,
    TokenExpired,
    Forbidden,
    NotFound,
    Conflict,
    Gone,
    TooLarge,
    UnsupportedMedia,
    Unprocessable,
    RateLimited,
    Internal,
    Unavailable,
    Timeout,
    #[serde(other)]
    Unknown,
}

impl Code {
    /// Whether the same request may be sent again later as it stands.
    pub fn is_transient(self) -> bool {
        matches!(self, Self::Unavailable | Self::Timeout | Self::RateLimited)
    }
}

/// An `application/problem+json` body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// The HTTP status once more.
    pub status: u16,
    /// What went wrong, for programs.
    pub code: Code,
    /// A few words that are the same for every problem of this code.
    #[serde(default)]
    pub title: String,
    /// What went wrong this time, for people.
    #[serde(default)]
    pub detail: String,
    /// The id under which the server logged the request.
    #[serde(default)]
    pub request_id: Option<String>,
    /// How long waiting helps.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// The error answer of a socket: `{"re":n,"error":{…}}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// What went wrong, for programs.
    pub code: Code,
    /// What went wrong, for people.
    #[serde(default)]
    pub message: String,
    /// How long waiting helps.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
}

/// Everything that a call of this library can fail with.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// REST answered with a problem.
    #[error("{} {:?}: {}", .0.status, .0.code, .0.detail)]
    Problem(Problem),
    /// The socket answered with an error.
    #[error("{:?}: {}", .0.code, .0.message)]
    Refused(Refusal),
    /// `hello` was answered with an error, and the socket closed.
    #[error("hello: {:?}: {} ({close})", .refusal.code, .refusal.message)]
    HelloRefused {
        /// The error answer.
        refusal: Refusal,
        /// How the socket was closed after it.
        close: Close,
    },
    /// The socket is closed.
    #[error("the connection is closed: {0}")]
    Closed(Close),
    /// The WebSocket handshake was answered with this HTTP status.
    #[error("the handshake was answered with {0}")]
    Handshake(u16),
    /// No answer in time.
    #[error("no answer to {0} in time")]
    Deadline(&'static str),
    /// The network, or the transport's encryption, failed.
    #[error("transport: {0}")]
    Transport(String),
    /// The answer is not what the contract says.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// A bound of this library is reached: too much is unanswered.
    #[error("too much is unanswered")]
    Busy,
    /// The session has ended and will not reconnect.
    #[error("the session has ended")]
    Ended,
}

impl Error {
    /// The code of the contract, when the server gave one.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::Refused(refusal) | Self::HelloRefused { refusal, .. } => Some(refusal.code),
            _ => None,
        }
    }

    /// How long the server asks to wait, when it does.
    pub fn retry_after_ms(&self) -> Option<u64> {
        match self {
            Self::Problem(problem) => problem.retry_after_ms,
            Self::Refused(refusal) => refusal.retry_after_ms,
            _ => None,
        }
    }

    /// Whether the same request may succeed later, here or on another gateway.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Problem(_) | Self::Refused(_) => self.code().is_some_and(Code::is_transient),
            Self::Handshake(status) => *status == 429 || *status >= 500,
            Self::Closed(_) | Self::Deadline(_) | Self::Transport(_) => true,
            Self::HelloRefused { .. } | Self::Malformed(_) | Self::Busy | Self::Ended => false,
        }
    }
}
