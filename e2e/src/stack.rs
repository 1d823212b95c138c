//! Where a story runs: standalone in this process, a running cluster, or a URL.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use parlance_client::{Api, Format};
use uuid::Uuid;

use crate::cluster::Ready;
use crate::in_process::OwnStandalone;
use crate::person::Person;
use crate::raw::Raw;

/// The line that `cargo xtask cluster` prints when it is ready.
const CLUSTER: &str = "PARLANCE_TEST_CLUSTER";
/// One base URL of anything that speaks the contract.
const URL: &str = "PARLANCE_TEST_URL";
/// `1` turns a skipped story into a failed one.
const REQUIRED: &str = "PARLANCE_TEST_REQUIRED";

/// A stack and its gateways.
#[derive(Clone, Debug)]
pub struct Stack {
    kind: Kind,
    gateways: Arc<[String]>,
    formats: Formats,
    /// The shared standalone stops when the last story on it has ended.
    _alive: Option<Arc<OwnStandalone>>,
}

/// What the connections of a story write their frames in.
#[derive(Clone, Debug)]
enum Formats {
    One(Format),
    /// One and the other in turn: of a story that is told once, so that both are in it.
    InTurn(Arc<AtomicUsize>),
}

/// The closed choice of stacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Standalone,
    Cluster,
    Url,
}

impl Stack {
    /// The standalone that the stories running at the same time in this process share.
    pub fn standalone() -> Self {
        static SHARED: Mutex<Weak<OwnStandalone>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let standalone = shared.upgrade().unwrap_or_else(|| Arc::new(OwnStandalone::start(&[])));
        *shared = Arc::downgrade(&standalone);
        Self { _alive: Some(Arc::clone(&standalone)), ..standalone.stack().clone() }
    }

    /// The running cluster, when there is one.
    pub fn cluster() -> Option<Self> {
        let line = given(CLUSTER)?;
        let ready: Ready = line.parse().unwrap_or_else(|e| panic!("{CLUSTER}: {e}"));
        Some(Self::of_cluster(&ready))
    }

    /// The server at a URL, when one is given.
    pub fn url() -> Option<Self> {
        // A URL is an extra that nothing requires: whoever wants it sets it.
        match std::env::var(URL).ok().filter(|url| !url.is_empty()) {
            Some(url) => Some(Self {
                kind: Kind::Url,
                gateways: Arc::new([url]),
                formats: Formats::One(Format::Json),
                _alive: None,
            }),
            None => {
                eprintln!("skipped: {URL} is not set");
                None
            }
        }
    }

    pub(crate) fn of_standalone(url: String) -> Self {
        Self { kind: Kind::Standalone, gateways: Arc::new([url]), formats: Formats::One(Format::Json), _alive: None }
    }

    pub(crate) fn of_cluster(ready: &Ready) -> Self {
        Self {
            kind: Kind::Cluster,
            gateways: ready.gateways.clone().into(),
            formats: Formats::One(Format::Json),
            _alive: None,
        }
    }

    /// The same stack for a story whose connections speak this format.
    pub fn speaking(&self, format: Format) -> Self {
        Self { formats: Formats::One(format), ..self.clone() }
    }

    /// The same stack for a story whose connections speak the formats in turn.
    pub(crate) fn speaking_in_turn(self) -> Self {
        Self { formats: Formats::InTurn(Arc::default()), ..self }
    }

    /// What the next connection of this story writes its frames in.
    pub fn format(&self) -> Format {
        match &self.formats {
            Formats::One(format) => *format,
            Formats::InTurn(turn) if turn.fetch_add(1, Ordering::Relaxed) % 2 == 1 => Format::Proto,
            Formats::InTurn(_) => Format::Json,
        }
    }

    /// The base URL of gateway 0, 1, 2…; a stack with fewer uses those it has in turn.
    pub fn gateway(&self, number: usize) -> &str {
        &self.gateways[number % self.gateways.len()]
    }

    /// A raw socket at a gateway that asks for the format of this story.
    pub async fn raw(&self, gateway: usize, headers: &[(&'static str, &str)]) -> Result<Raw, u16> {
        let headers = [headers, &[("sec-websocket-protocol", self.format().protocol())]].concat();
        Raw::opens(self.gateway(gateway), &headers).await
    }

    /// A raw socket that has said a good `hello`.
    pub async fn welcomed(&self, gateway: usize, token: &str) -> Raw {
        let mut raw = self.raw(gateway, &[]).await.expect("a handshake");
        raw.is_welcomed(token).await;
        raw
    }

    /// All gateways.
    pub fn gateways(&self) -> &[String] {
        &self.gateways
    }

    /// Whether this is several processes.
    pub fn is_cluster(&self) -> bool {
        self.kind == Kind::Cluster
    }

    /// REST at a gateway, without a token.
    pub fn api(&self, gateway: usize) -> Api {
        Api::new(self.gateway(gateway)).expect("a REST client")
    }

    /// Registers a user whose name begins with `name`; the rest is random, so that stories share a stack without meeting.
    pub async fn user(&self, name: &str) -> Person {
        let suffix = Uuid::new_v4().simple().to_string();
        let username = format!("{name}-{}", &suffix[..12]);
        Person::registers(self, &username).await
    }
}

/// A variable without which stories are skipped, or fail when they are required.
pub(crate) fn given(name: &str) -> Option<String> {
    match std::env::var(name).ok().filter(|value| !value.is_empty()) {
        Some(value) => Some(value),
        None if std::env::var(REQUIRED).is_ok_and(|value| value == "1") => {
            panic!("{REQUIRED}=1, but {name} is not set")
        }
        None => {
            eprintln!("skipped: {name} is not set");
            None
        }
    }
}
