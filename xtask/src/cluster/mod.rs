//! `cargo xtask cluster`: a whole installation on this machine, of real processes behind a real load balancer.

mod balancer;
mod child;
mod database;
mod fleet;
mod plan;
mod ready_line;
mod signing_key;

use std::fs;
use std::io::{self, Write};
use std::path::{PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use tokio::time::sleep;

use crate::interrupt::Interrupt;
use crate::packages::{self, Package};
use crate::services::{self, Instances, Service, Tether};
use crate::{log, workspace};

pub(crate) use child::ChildCluster;
use database::Database;
use fleet::Fleet;
use plan::{Backends, Plan, Planned, local};
use ready_line::ReadyLine;

const REAP_EVERY: Duration = Duration::from_millis(50);

#[derive(Args)]
pub(crate) struct Options {
    /// How many gateways
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    gateways: u8,
    /// How many chat-services
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    chat: u8,
    /// Run the optimised binaries
    #[arg(long)]
    release: bool,
    /// Take the binaries as they are
    #[arg(long)]
    no_build: bool,
    /// Take them from here instead of the target folder, without building
    #[arg(long)]
    bin_dir: Option<PathBuf>,
    /// Where logs, data and keys go [default: target/cluster]
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Prints the ready line, then keeps everything running until a signal.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut interrupt = Interrupt::listen()?;
    let mut cluster = Cluster::new(&options)?;
    let started = tokio::select! {
        started = cluster.start(&options) => started,
        () = interrupt.wait() => Err(anyhow!("interrupted")),
    };
    match &started {
        Ok(()) => tokio::select! {
            () = cluster.watch() => {}
            () = interrupt.wait() => {}
        },
        // Said before the clean-up, which takes its time.
        Err(error) => log::progress(format_args!("{error:#}")),
    }
    log::progress("stopping; a second signal kills");
    tokio::select! {
        stopped = cluster.stop() => stopped?,
        () = interrupt.wait() => cluster.kill(),
    }
    log::progress("everything has ended");
    started.map_err(|_| anyhow!("the cluster did not start"))
}

/// Filled as things start, so that whatever has started can be stopped at any time.
struct Cluster {
    dir: PathBuf,
    fleet: Fleet,
    instances: Option<Instances>,
    tether: Option<Tether>,
    database: Option<Database>,
}

impl Cluster {
    fn new(options: &Options) -> anyhow::Result<Self> {
        let dir = absolute(options.dir.clone().unwrap_or_else(|| workspace::target().join("cluster")))?;
        let built = workspace::target().join(if options.release { "release" } else { "debug" });
        let programs = absolute(options.bin_dir.clone().unwrap_or(built))?;
        let fleet = Fleet::new(dir.clone(), programs);
        Ok(Self { dir, fleet, instances: None, tether: None, database: None })
    }

    async fn start(&mut self, options: &Options) -> anyhow::Result<()> {
        packages::ensure_installed(&[Package::HaProxy]).await?;
        if !options.no_build && options.bin_dir.is_none() {
            build(options.release).await?;
        }
        self.clean()?;
        let backends = self.start_backends().await?;
        signing_key::write(&self.dir.join("signing-key.pem"), signing_key::ED25519)?;
        signing_key::write(&self.dir.join("vapid-key.pem"), signing_key::P256)?;

        let plan = Plan::new(options.gateways.into(), options.chat.into(), &self.dir, &backends)?;
        let file = self.dir.join("haproxy.cfg");
        fs::write(&file, balancer::configuration(plan.balancer_port, &plan.servers())?)?;
        let haproxy = Package::HaProxy.program().context("haproxy is not installed")?;
        self.fleet.start(&plan.services).await?;
        self.fleet.start(&plan.gateways).await?;
        self.fleet.start_balancer(&haproxy, &file, plan.balancer_port).await?;

        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{}", self.ready_line(&plan, backends))?;
        Ok(stdout.flush()?)
    }

    /// The logs are this run's only.
    fn clean(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let folders = [self.dir.clone(), self.dir.join("services")];
        for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Data services without yesterday's messages, and an empty database.
    async fn start_backends(&mut self) -> anyhow::Result<Backends> {
        let dir = self.dir.join("services");
        services::erase(&dir).await?;
        let instances = self.instances.insert(Instances::open(&dir).await?);
        self.tether = Some(Tether::tie(&dir, instances.run())?);
        instances.up(&Service::ALL).await?;
        let url = |service| instances.url(service).context("a service has no address");
        let (postgres, redis, amqp) = (url(Service::Postgres)?, url(Service::Redis)?, url(Service::Amqp)?);
        // From here on tests may restart them: the folder must not stay locked.
        self.instances = None;
        let database = self.database.insert(Database::create(&postgres).await?);
        Ok(Backends { postgres: database.url(), redis, amqp })
    }

    fn ready_line(&self, plan: &Plan, backends: Backends) -> ReadyLine {
        let programs = ["gateway", "chat-service", "presence-service", "notify-service", "haproxy"];
        ReadyLine {
            balancer: local(plan.balancer_port),
            gateways: plan.gateways.iter().map(Planned::url).collect(),
            admin: plan.gateways.iter().map(Planned::admin_url).collect(),
            postgres: backends.postgres,
            redis: backends.redis,
            amqp: backends.amqp,
            pids: programs.iter().flat_map(|program| self.fleet.pids(program)).collect(),
        }
    }

    async fn watch(&mut self) {
        loop {
            self.fleet.reap();
            sleep(REAP_EVERY).await;
        }
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.instances = None;
        self.fleet.stop().await;
        if let Some(database) = self.database.take()
            && Service::Postgres.replacement().is_some()
        {
            database.drop().await;
        }
        services::erase(&self.dir.join("services")).await?;
        if let Some(tether) = self.tether.take() {
            tether.release().await;
        }
        Ok(())
    }

    /// The watcher of the services finds them dead and deletes their data.
    fn kill(&mut self) {
        self.fleet.kill();
        if let Err(error) = services::kill(&self.dir.join("services")) {
            log::progress(format_args!("cannot kill the services: {error:#}"));
        }
    }
}

async fn build(release: bool) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo("build -p gateway -p chat-service -p presence-service -p notify-service");
    if release {
        cargo.arg("--release");
    }
    // Stdout is for the ready line.
    let status = cargo.stdout(io::stderr()).kill_on_drop(true).status().await.context("cannot start cargo")?;
    ensure!(status.success(), "the binaries cannot be built");
    Ok(())
}
