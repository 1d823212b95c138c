//! A certificate of 127.0.0.1 with its key, made by `openssl` for one test.

use std::{process::Stdio, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
    server::TlsStream,
};

const MAKE: &str = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout - -out - -days 2 \
    -subj /CN=parlance-test -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// The key, then the certificate.
pub(crate) struct Pem(String);

impl Pem {
    /// None, and the story is not told, where there is no `openssl`; unless this run must not leave anything out.
    #[allow(clippy::disallowed_methods, reason = "whether a test may be left out is no setting of Parlance")]
    pub(crate) async fn make() -> Option<Self> {
        let made = Command::new("openssl").args(MAKE.split_whitespace()).stderr(Stdio::null()).output().await;
        let Ok(made) = made else {
            let required = std::env::var("PARLANCE_TEST_REQUIRED").is_ok_and(|required| required == "1");
            assert!(!required, "no openssl, and PARLANCE_TEST_REQUIRED is set");
            return None;
        };
        assert!(made.status.success(), "openssl makes no certificate");
        Some(Self(String::from_utf8(made.stdout).unwrap()))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The certificate without its key.
    pub(crate) fn certificate(&self) -> &str {
        &self.0[self.0.find(BEGIN).unwrap()..]
    }
}

/// Takes connections by TLS. HTTP/2 is spoken with whoever asks for nothing else (RFC 7301).
pub(crate) struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Tls {
    pub(crate) fn new(listener: TcpListener, pem: &Pem) -> Self {
        let certificate = CertificateDer::from_pem_slice(pem.text().as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(pem.text().as_bytes()).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }
    }
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, from) = self.listener.accept().await.unwrap();
            // Whoever does not trust it hangs up.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
