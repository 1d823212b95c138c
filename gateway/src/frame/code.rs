//! The public error codes: one list, from which both the WebSocket and REST answer.

use http::StatusCode;
use service_kit::fault::Kind;

/// An error code of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of docs/protocol.md, which explains them once")]
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
}

impl Code {
    /// As clients read it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().0
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// A short sentence that is the same for every problem of this code.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.row().2
    }

    const fn row(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, "The request's form is wrong"),
            Self::Unauthenticated => ("unauthenticated", StatusCode::UNAUTHORIZED, "Not authenticated"),
            Self::TokenExpired => ("token_expired", StatusCode::UNAUTHORIZED, "The access token has expired"),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN, "Not allowed"),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "Not found"),
            Self::Conflict => ("conflict", StatusCode::CONFLICT, "Already there"),
            Self::Gone => ("gone", StatusCode::GONE, "Gone"),
            Self::TooLarge => ("too_large", StatusCode::PAYLOAD_TOO_LARGE, "Too large"),
            Self::UnsupportedMedia => {
                ("unsupported_media", StatusCode::UNSUPPORTED_MEDIA_TYPE, "The media type is not supported")
            }
            Self::Unprocessable => {
                ("unprocessable", StatusCode::UNPROCESSABLE_ENTITY, "The present state does not allow it")
            }
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Internal error"),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Not available at the moment"),
            Self::Timeout => ("timeout", StatusCode::GATEWAY_TIMEOUT, "This took too long"),
        }
    }
}

impl From<Kind> for Code {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::BadRequest => Self::BadRequest,
            Kind::Unauthenticated => Self::Unauthenticated,
            Kind::Forbidden => Self::Forbidden,
            Kind::NotFound => Self::NotFound,
            Kind::Conflict => Self::Conflict,
            Kind::Gone => Self::Gone,
            Kind::Unprocessable => Self::Unprocessable,
            Kind::RateLimited => Self::RateLimited,
            Kind::Internal => Self::Internal,
            Kind::Unavailable => Self::Unavailable,
            Kind::Timeout => Self::Timeout,
        }
    }
}
