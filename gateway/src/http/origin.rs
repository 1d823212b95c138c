//! Which browser origins may talk to this server, and CORS (the Fetch standard) for those that do.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

use super::Edge;
use crate::{error::Problem, frame::Code};

/// What a page may use, and see.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const HEADERS: &str = "authorization, content-type, idempotency-key, x-request-id, traceparent, range, if-none-match, \
     if-range, tus-resumable, upload-length, upload-offset, upload-metadata, upload-checksum";
const EXPOSED: &str = "x-request-id, retry-after, location, etag, accept-ranges, content-range, content-disposition, \
     tus-resumable, tus-version, tus-extension, tus-max-size, tus-checksum-algorithm, upload-offset, upload-length, \
     upload-expires, upload-metadata";
/// How long a browser may remember it, in seconds.
const MAX_AGE_S: &str = "600";

/// Whether the `Origin` of a request is none, the server's own, or one of the list. Compared byte by byte: browsers
/// write an origin in one way only.
pub fn origin_allowed(edge: &Edge, headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin.to_str().is_ok_and(|origin| is_allowed(&edge.allowed_origins, origin, headers)),
        (Some(_), Some(_)) => false,
    }
}

fn is_allowed(list: &[String], origin: &str, headers: &HeaderMap) -> bool {
    if list.iter().any(|allowed| allowed == origin && origin != "null") {
        return true;
    }
    let Some(authority) = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://")) else {
        return false;
    };
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    !authority.is_empty() && host.as_bytes() == authority.as_bytes()
}

/// Whether a browser asks beforehand what it may do.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a preflight from an origin that is allowed, or not.
pub(super) fn preflight(allowed: bool) -> Response {
    if !allowed {
        return Problem::new(Code::Forbidden, "this origin is not allowed").into_response();
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set(&mut response, header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    set(&mut response, header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    set(&mut response, header::ACCESS_CONTROL_MAX_AGE, MAX_AGE_S);
    response
}

/// Lets the page of an allowed origin read the answer.
pub(super) fn share(response: &mut Response, origin: &HeaderValue) {
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    set(response, header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
}

fn set(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_origin_and_those_of_the_list_are_allowed() {
        let list = ["https://chat.example".to_owned(), "https://app.example:8443".to_owned(), "null".to_owned()];
        let own = "127.0.0.1:8080";
        for (origin, expected) in [
            ("http://127.0.0.1:8080", true),
            ("https://127.0.0.1:8080", true),
            ("https://chat.example", true),
            ("https://app.example:8443", true),
            ("null", false),
            ("", false),
            ("http://", false),
            ("https://", false),
            ("http://chat.example", false),
            ("https://chat.example:443", false),
            ("https://chat.example:8443", false),
            ("https://chat.example/", false),
            ("https://chat.example.evil.test", false),
            ("https://evil-chat.example", false),
            ("https://sub.chat.example", false),
            ("https://CHAT.example", false),
            ("HTTPS://chat.example", false),
            ("https://app.example", false),
            ("http://127.0.0.1:80801", false),
            ("http://127.0.0.1", false),
            ("http://127.0.0.1:8080@evil.test", false),
            ("http://evil.test#127.0.0.1:8080", false),
            ("ws://127.0.0.1:8080", false),
            ("file://127.0.0.1:8080", false),
            ("127.0.0.1:8080", false),
            ("https://chat.example https://evil.test", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, own.parse().unwrap());
            assert_eq!(is_allowed(&list, origin, &headers), expected, "{origin}");
        }
    }

    #[test]
    fn without_a_host_nothing_is_the_servers_own() {
        assert!(!is_allowed(&[], "http://127.0.0.1:8080", &HeaderMap::new()));
        let mut two = HeaderMap::new();
        two.append(header::HOST, "a.test".parse().unwrap());
        two.append(header::HOST, "b.test".parse().unwrap());
        assert!(!is_allowed(&[], "http://a.test", &two));
    }
}
