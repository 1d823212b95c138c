//! The opening handshake (RFC 6455 §4.2), and the TCP connection that comes out of it.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Socket;

/// What the key of a client is hashed with (§1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";

/// A request that asks to become a WebSocket.
#[derive(Debug)]
pub struct Handshake {
    accept: String,
    upgrade: OnUpgrade,
}

/// Why a request cannot become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not ask for it, or not in the right form.
    NotAsked,
    /// It asks for another version of the protocol than 13.
    Version,
}

impl Handshake {
    /// Reads what a request asks.
    ///
    /// # Errors
    /// When it is no opening handshake that can be answered.
    pub fn read<B>(request: &mut Request<B>) -> Result<Self, Refused> {
        let headers = request.headers();
        if request.method() != Method::GET
            || !names(headers, &header::CONNECTION, "upgrade")
            || !names(headers, &header::UPGRADE, "websocket")
        {
            return Err(Refused::NotAsked);
        }
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
            return Err(Refused::Version);
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or(Refused::NotAsked)?;
        let accept = accept(key.as_bytes());
        let upgrade = request.extensions_mut().remove::<OnUpgrade>().ok_or(Refused::NotAsked)?;
        Ok(Self { accept, upgrade })
    }

    /// The answer that agrees, with the sub-protocol that was chosen of those that were asked for.
    #[must_use]
    pub fn agree<B: Default>(&self, protocol: Option<&str>) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        let fields = [(header::SEC_WEBSOCKET_ACCEPT, Some(&*self.accept)), (header::SEC_WEBSOCKET_PROTOCOL, protocol)];
        for (name, value) in fields {
            if let Some(Ok(value)) = value.map(HeaderValue::from_str) {
                headers.insert(name, value);
            }
        }
        response
    }

    /// The connection, once the answer was written. Nothing when it broke, or is not on plain TCP.
    pub async fn socket(self, max_message: usize) -> Option<Socket> {
        let upgraded = self.upgrade.await.ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        Some(Socket::new(parts.io.into_inner(), &parts.read_buf, max_message))
    }
}

impl Refused {
    /// What to answer beside the words: the version that is spoken here.
    #[must_use]
    pub fn version_header() -> (http::HeaderName, HeaderValue) {
        (header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))
    }
}

fn accept(key: &[u8]) -> String {
    let keyed = [key, GUID.as_bytes()].concat();
    // What the RFC asks for; nothing secret depends on it.
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &keyed))
}

/// Whether a comma-separated header has this token, in any case.
fn names(headers: &HeaderMap, header: &header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_answered_as_in_the_rfc() {
        assert_eq!(accept(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        let request = |fields: &[(&str, &str)]| {
            let request =
                fields.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
            request.body(()).expect("a request")
        };
        let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")];
        assert_eq!(Handshake::read(&mut request(&[])).err(), Some(Refused::NotAsked));
        assert_eq!(Handshake::read(&mut request(&upgrade)).err(), Some(Refused::Version));
        let [connection, upgrade] = upgrade;
        let version = ("sec-websocket-version", "8");
        assert_eq!(Handshake::read(&mut request(&[connection, upgrade, version])).err(), Some(Refused::Version));
        // Without a key, and where there is nothing to upgrade.
        let version = ("sec-websocket-version", "13");
        assert_eq!(Handshake::read(&mut request(&[connection, upgrade, version])).err(), Some(Refused::NotAsked));
    }
}
