//! Which addresses a push may go to: none inside the operator's own network, unless that is allowed.
//!
//! Names are looked up by [`Public`], which the HTTP client connects through: the address that was checked is the one that
//! is connected to. An address in the URL itself is checked when the URL is read, since nobody looks it up.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use reqwest::{
    Certificate,
    dns::{Addrs, Name, Resolve, Resolving},
};
use service_kit::fault::Fault;
use url::{Host, Url};

/// Longest URL, in bytes: PostgreSQL has to hold it in an index.
pub(crate) const MAX_URL: usize = 2000;
/// How often a connection of HTTP/2 is asked whether it still lives.
const PING: Duration = Duration::from_secs(30);

/// Reads the URL of a push target. `field` is its name in refusals. Without `private`, it must be `https` at its
/// usual port and must not name a private address.
///
/// # Errors
/// `bad_request`, naming the field.
pub(crate) fn read(field: &str, text: &str, private: bool) -> Result<Url, Fault> {
    let refuse = |problem: &str| Fault::bad_request(format!("{field}: {problem}"));
    let url = Url::parse(text).map_err(|_| refuse("must be a URL"))?;
    let secure = url.scheme() == "https";
    if !(secure || (private && url.scheme() == "http")) {
        return Err(refuse("must be an https URL"));
    }
    if !private && url.port().is_some() {
        return Err(refuse("must have no port"));
    }
    if url.as_str().len() > MAX_URL {
        return Err(refuse("must have at most 2000 bytes"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("must not hold a user or a password"));
    }
    let reachable = match url.host() {
        Some(Host::Domain(name)) => private || !is_local_name(name),
        Some(Host::Ipv4(address)) => private || is_public(address.into()),
        Some(Host::Ipv6(address)) => private || is_public(address.into()),
        None => false,
    };
    if reachable { Ok(url) } else { Err(refuse("must not name a private address")) }
}

fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name.is_empty() || name == "localhost" || name.ends_with(".localhost")
}

/// Whether an address is one of the public internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(matches!(a, 0 | 10 | 127 | 224..)
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19 || (b == 51 && c == 100)))
        || (a == 203 && b == 0 && c == 113))
}

/// Of IPv6 only global unicast, without the parts of it that carry an IPv4 address or are for documents.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(inner) = address.to_ipv4_mapped() {
        return is_public_v4(inner);
    }
    let [a, b, ..] = address.segments();
    (0x2000..0x4000).contains(&a)
        && a != 0x2002
        && !(a == 0x2001 && (b < 0x0200 || b == 0x0db8))
        && !(a == 0x3fff && b < 0x1000)
}

/// The client that all pushes go through: no redirects and no proxy, and without `private` only to public addresses, by
/// TLS. `timeout` bounds a whole try; `roots` (PEM) are trusted beside the authorities of the system.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn client(private: bool, timeout: Duration, roots: &str) -> anyhow::Result<reqwest::Client> {
    builder(private, timeout, roots)?.build().context("the HTTP client cannot be made")
}

/// The same for a provider that speaks HTTP/2 alone. A connection that went dead without a word is noticed by its pings.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn http2_client(private: bool, timeout: Duration, roots: &str) -> anyhow::Result<reqwest::Client> {
    builder(private, timeout, roots)?
        .http2_prior_knowledge()
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(timeout)
        .http2_keep_alive_while_idle(true)
        .build()
        .context("the HTTP client cannot be made")
}

fn builder(private: bool, timeout: Duration, roots: &str) -> anyhow::Result<reqwest::ClientBuilder> {
    let roots = Certificate::from_pem_bundle(roots.as_bytes()).context("the roots are no certificates")?;
    let builder = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_merge(roots)
        .redirect(reqwest::redirect::Policy::none())
        .timeout(timeout)
        .connect_timeout(timeout / 2)
        .user_agent(concat!("parlance/", env!("CARGO_PKG_VERSION")));
    Ok(match private {
        true => builder,
        false => builder.https_only(true).dns_resolver(Arc::new(Public)),
    })
}

/// Looks names up, and gives only public addresses.
#[derive(Debug)]
pub(crate) struct Public;

/// A name that leads to no public address.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
pub(crate) struct NotPublic;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if addresses.is_empty() {
                return Err(NotPublic.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_count() {
        for (text, public) in [
            ("93.184.216.34", true),
            ("1.1.1.1", true),
            ("172.32.0.1", true),
            ("100.128.0.1", true),
            ("2606:4700:4700::1111", true),
            ("::ffff:1.1.1.1", true),
            ("0.0.0.0", false),
            ("10.1.2.3", false),
            ("127.0.0.1", false),
            ("127.255.255.254", false),
            ("100.64.0.1", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("172.31.255.255", false),
            ("192.168.1.1", false),
            ("192.0.0.8", false),
            ("198.18.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:10.0.0.1", false),
            ("::7f00:1", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("fd12::1", false),
            ("ff02::1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
            ("2001::1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_public(text.parse().unwrap()), public, "{text}");
        }
    }

    #[test]
    fn a_url_is_https_and_names_no_private_address_however_it_is_written() {
        let good = "https://push.example.net/x?y=1";
        assert!(read("endpoint", good, false).is_ok());
        for bad in [
            "",
            "push",
            "ftp://push.example.net/",
            "http://push.example.net/",
            "https://127.0.0.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://017700000001/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://push.example.net:8443/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost:99/",
            "https://169.254.169.254/latest/",
            "https://somebody@push.example.net/",
            "https://:secret@push.example.net/",
        ] {
            let refused = read("endpoint", bad, false).unwrap_err();
            assert!(refused.message.starts_with("endpoint: "), "{bad}: {refused}");
        }
        assert!(read("endpoint", &format!("https://push.example.net/{}", "x".repeat(MAX_URL)), false).is_err());
        assert!(read("endpoint", "http://127.0.0.1:9/", true).is_ok(), "when it is allowed");
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_is_not_found() {
        let found = Public.resolve("localhost".parse().unwrap()).await;
        assert!(found.err().unwrap().is::<NotPublic>());
    }
}
