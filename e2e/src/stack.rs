//! Where a story runs: standalone in this process, a running cluster, or a URL.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use parlance_client::Api;
use uuid::Uuid;

use crate::cluster::Ready;
use crate::in_process::OwnStandalone;
use crate::person::Person;

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
    /// The shared standalone stops when the last story on it has ended.
    _alive: Option<Arc<OwnStandalone>>,
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
            Some(url) => Some(Self { kind: Kind::Url, gateways: Arc::new([url]), _alive: None }),
            None => {
                eprintln!("skipped: {URL} is not set");
                None
            }
        }
    }

    pub(crate) fn of_standalone(url: String) -> Self {
        Self { kind: Kind::Standalone, gateways: Arc::new([url]), _alive: None }
    }

    pub(crate) fn of_cluster(ready: &Ready) -> Self {
        Self { kind: Kind::Cluster, gateways: ready.gateways.clone().into(), _alive: None }
    }

    /// The base URL of gateway 0, 1, 2…; a stack with fewer uses those it has in turn.
    pub fn gateway(&self, number: usize) -> &str {
        &self.gateways[number % self.gateways.len()]
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
