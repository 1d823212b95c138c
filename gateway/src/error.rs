//! What a REST call is refused with: `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use service_kit::{auth::Rejected, fault::Fault};

use crate::frame::Code;

/// What each problem type begins with; the code follows.
const TYPE: &str = "urn:parlance:error:";

tokio::task_local! {
    /// The id of the request that this task answers: set by `http`, read where a problem is written.
    pub(crate) static REQUEST_ID: String;
}

/// A refusal as REST answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    status: StatusCode,
    detail: String,
    retry_after: Option<Duration>,
}

impl Problem {
    /// A refusal with this code. `detail` is for the caller: what is wrong, and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, status: code.status(), detail: detail.into(), retry_after: None }
    }

    /// The path is known, the method is not. The contract has no code of its own for it.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let detail = "this path does not take this method; see the Allow header";
        Self { status: StatusCode::METHOD_NOT_ALLOWED, ..Self::new(Code::BadRequest, detail) }
    }

    /// Of a file of so many bytes, a part that it does not have was asked for.
    #[must_use]
    pub fn range_not_satisfiable(size: u64) -> Self {
        let detail = format!("Range: the file has {size} bytes");
        Self { status: StatusCode::RANGE_NOT_SATISFIABLE, ..Self::new(Code::BadRequest, detail) }
    }

    /// The same with a status that the contract has no code of its own for.
    #[must_use]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// What is wrong, for people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The public code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self { retry_after: fault.retry_after, ..Self::new(fault.kind.into(), fault.message) }
    }
}

impl From<tonic::Status> for Problem {
    fn from(status: tonic::Status) -> Self {
        Fault::from(status).into()
    }
}

impl From<Rejected> for Problem {
    fn from(rejected: Rejected) -> Self {
        let code = match rejected {
            Rejected::Expired => Code::TokenExpired,
            Rejected::UnknownKey | Rejected::Invalid => Code::Unauthenticated,
        };
        Self::new(code, rejected.to_string())
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("{TYPE}{}", self.code.name()),
            title: self.code.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code.name(),
            request_id: REQUEST_ID.try_with(Clone::clone).ok(),
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let whole_s = u64::try_from(wait.as_millis().div_ceil(1000)).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(whole_s));
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    async fn written(problem: Problem) -> (http::HeaderMap, Value) {
        let response = REQUEST_ID.scope("r-1".to_owned(), async { problem.into_response() }).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 4096).await.unwrap();
        (parts.headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_problem_names_its_code_and_its_request_and_how_long_to_wait() {
        let fault = Fault::new(service_kit::fault::Kind::RateLimited, "too many logins; wait")
            .retry_after(Duration::from_millis(1200));
        let (headers, body) = written(fault.into()).await;
        assert_eq!(headers["content-type"], "application/problem+json");
        assert_eq!(headers["retry-after"], "2", "whole seconds, rounded up");
        assert_eq!(
            body,
            json!({"type": "urn:parlance:error:rate_limited", "title": "Too many requests", "status": 429,
                   "detail": "too many logins; wait", "code": "rate_limited", "request_id": "r-1", "retry_after_ms": 1200})
        );
    }

    #[tokio::test]
    async fn an_expired_token_has_a_code_of_its_own() {
        let (headers, body) = written(Rejected::Expired.into()).await;
        assert_eq!((&body["code"], &body["status"]), (&json!("token_expired"), &json!(401)));
        assert_eq!(headers["www-authenticate"], "Bearer");
        assert!(body.get("retry_after_ms").is_none());
        let (_, body) = written(Rejected::UnknownKey.into()).await;
        assert_eq!(body["code"], "unauthenticated");
    }
}
