//! `cargo xtask test`: everything that has to pass, cheapest first, the same at the desk and in CI.

mod step;

use std::path::Path;

use tokio::process::Command;

use crate::cluster::ChildCluster;
use crate::packages::{self, Package};
use crate::services::{self, Instances, Service, Tether};
use crate::workspace::{cargo, target};

use step::{Steps, say};

/// Set for tests: what cannot run for want of a service fails instead of passing by.
const REQUIRED: (&str, &str) = ("PARLANCE_TEST_REQUIRED", "1");

pub(crate) async fn run() -> anyhow::Result<()> {
    // Asked for before cargo may replace the file, after which the answer would be its old, deleted self.
    let xtask = std::env::current_exe()?;
    let mut steps = Steps::begin()?;
    let result = gate(&mut steps, &xtask).await;
    steps.summary()?;
    result
}

async fn gate(steps: &mut Steps, xtask: &Path) -> anyhow::Result<()> {
    steps.command("format", &mut cargo("fmt --all -- --check")).await?;
    steps.command("clippy", &mut cargo("clippy --workspace --all-targets -- -D warnings")).await?;
    let mut doc = cargo("doc --workspace --no-deps --document-private-items");
    steps.command("documentation", doc.env("RUSTDOCFLAGS", "-D warnings")).await?;
    on_services(steps).await?;
    // By the same selection as the tests, so that the dependencies are not compiled once more.
    steps.command("build of the binaries", &mut cargo("build --workspace --exclude e2e --bins")).await?;
    // What README.md starts. From nothing it takes longer than all the stories, which would be waited for within their time.
    steps.command("release build", &mut cargo("build --release --bin parlance")).await?;
    on_cluster(steps, xtask).await
}

/// The tests of every package but those that need a cluster, contract suites on every backend.
async fn on_services(steps: &mut Steps) -> anyhow::Result<()> {
    let dir = target().join("test").join("services");
    let result = on_services_in(&dir, steps).await;
    let stopped = services::erase(&dir).await;
    result.and(stopped)
}

async fn on_services_in(dir: &Path, steps: &mut Steps) -> anyhow::Result<()> {
    use Package::{AioSmtpd, Clamd, HaProxy, OpenSsl, Pip, Postgres, RabbitMq, Redis};
    let wanted = [Postgres, Redis, RabbitMq, HaProxy, AioSmtpd, Clamd, Pip, OpenSsl];
    let up = async {
        // All at once, as the lists of packages take longer than the packages.
        packages::ensure_installed(&wanted).await?;
        services::erase(dir).await?;
        let mut instances = Instances::open(dir).await?;
        let tether = Tether::tie(dir, instances.run())?;
        instances.up(&Service::ALL).await?;
        anyhow::Ok((Service::ALL.map(|service| (service.variable(), instances.url(service))), tether))
    };
    let (urls, _tether) = steps.work("services", up).await?;
    let mut test = cargo("test --workspace --exclude e2e --exclude loadtest");
    test.envs([REQUIRED]).envs(urls.into_iter().filter_map(|(variable, url)| Some((variable, url?))));
    steps.command("tests", &mut test).await
}

/// The stories and the load generator, on a cluster with services of its own.
async fn on_cluster(steps: &mut Steps, xtask: &Path) -> anyhow::Result<()> {
    let dir = target().join("test").join("cluster");
    let mut cluster = ChildCluster::spawn(xtask, &dir, ["--chat", "2", "--no-build"], &[])?;
    let result = stories(&mut cluster, steps, xtask).await;
    if result.is_err() {
        say(cluster.logs())?;
    }
    let stopped = cluster.stop().await;
    result.and(stopped)
}

async fn stories(cluster: &mut ChildCluster, steps: &mut Steps, xtask: &Path) -> anyhow::Result<()> {
    steps.work("cluster", cluster.ready()).await?;
    let mut test: Command = cargo("test -p e2e -p loadtest");
    test.envs([REQUIRED, ("PARLANCE_TEST_CLUSTER", &cluster.line)]).env("PARLANCE_TEST_XTASK", xtask);
    steps.command("stories", &mut test).await
}
