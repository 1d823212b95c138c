//! What a call can be refused with, and how that crosses a gRPC boundary.

use std::time::Duration;

use tonic::{Code, Status};

/// Metadata key that carries the time to wait in milliseconds.
const RETRY_AFTER: &str = "retry-after-ms";

/// Why a call was refused. Each kind is one public error code (docs/protocol.md, "Common rules").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request's form, type, length or count is wrong.
    BadRequest,
    /// No valid credential, or a session that no longer stands.
    Unauthenticated,
    /// Known to the caller, but not theirs to do.
    Forbidden,
    /// Does not exist, or the caller may not know of it.
    NotFound,
    /// Already there.
    Conflict,
    /// Was there and is not any more.
    Gone,
    /// The present state forbids it.
    Unprocessable,
    /// Too often; wait.
    RateLimited,
    /// A fault of ours.
    Internal,
    /// Not now; safe to send again.
    Unavailable,
    /// Took too long; safe to send again.
    Timeout,
}

/// A refusal: its kind, and a sentence for the caller that names what is wrong and what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// Which public code it becomes.
    pub kind: Kind,
    /// Shown to the caller; never carries inner text.
    pub message: String,
    /// How long to wait before trying again.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A refusal of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }

    /// The request's form is wrong; `message` names the field.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, message)
    }

    /// The caller is not who they say, or their session no longer stands.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, message)
    }

    /// Not the caller's to do.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(Kind::Forbidden, message)
    }

    /// Does not exist for this caller.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Already there.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// The present state forbids it.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unprocessable, message)
    }

    /// Not now; safe to send again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// Our fault. The cause is logged where it happened and never shown.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(Kind::Internal, "internal error")
    }

    /// With the time to wait before trying again.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The time to wait in whole milliseconds.
    #[must_use]
    pub fn retry_after_ms(&self) -> Option<i64> {
        self.retry_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Kind {
    /// The gRPC status code that stands for this kind between services.
    #[must_use]
    pub fn code(self) -> Code {
        match self {
            Self::BadRequest => Code::InvalidArgument,
            Self::Unauthenticated => Code::Unauthenticated,
            Self::Forbidden => Code::PermissionDenied,
            Self::NotFound => Code::NotFound,
            Self::Conflict => Code::AlreadyExists,
            // gRPC has no code for what once was; no call of ours uses this one otherwise.
            Self::Gone => Code::OutOfRange,
            Self::Unprocessable => Code::FailedPrecondition,
            Self::RateLimited => Code::ResourceExhausted,
            Self::Internal => Code::Internal,
            Self::Unavailable => Code::Unavailable,
            Self::Timeout => Code::DeadlineExceeded,
        }
    }

    /// The kind that a status of a peer means. What a transport makes by itself (connection lost, call cancelled) is
    /// safe to send again.
    #[must_use]
    pub fn from_code(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::BadRequest,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Forbidden,
            Code::NotFound => Self::NotFound,
            Code::AlreadyExists => Self::Conflict,
            Code::OutOfRange => Self::Gone,
            Code::FailedPrecondition => Self::Unprocessable,
            Code::ResourceExhausted => Self::RateLimited,
            Code::Unavailable | Code::Aborted => Self::Unavailable,
            Code::DeadlineExceeded | Code::Cancelled => Self::Timeout,
            _ => Self::Internal,
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Self {
        let mut status = Self::new(fault.kind.code(), fault.message.clone());
        if let Some(wait) = fault.retry_after_ms()
            && let Ok(value) = wait.to_string().parse()
        {
            status.metadata_mut().insert(RETRY_AFTER, value);
        }
        status
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let kind = Kind::from_code(status.code());
        let message = match kind {
            // These may come from the transport with text that is not for callers.
            Kind::Internal => "internal error".to_owned(),
            Kind::Unavailable => "a service is not reachable at the moment; send it again".to_owned(),
            Kind::Timeout => "this took too long; send it again".to_owned(),
            _ => status.message().to_owned(),
        };
        let retry_after = status
            .metadata()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(Duration::from_millis);
        Self { kind, message, retry_after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_way_through_a_status() {
        for kind in [
            Kind::BadRequest,
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::NotFound,
            Kind::Conflict,
            Kind::Gone,
            Kind::Unprocessable,
            Kind::RateLimited,
            Kind::Internal,
            Kind::Unavailable,
            Kind::Timeout,
        ] {
            let fault = Fault::new(kind, "why").retry_after(Duration::from_millis(70));
            let back = Fault::from(Status::from(fault));
            assert_eq!(back.kind, kind);
            assert_eq!(back.retry_after_ms(), Some(70));
        }
    }
}
