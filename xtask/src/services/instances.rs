//! The instances under one folder: started, found again, stopped, erased, by one command at a time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf, absolute};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::process::{Signal, stop_all};
use crate::{log, packages, probe};

use super::service::Service;
use super::state::State;
use super::{amqp, postgres, redis};

/// Another command may be starting all three from nothing.
const LOCK_PATIENCE: Duration = Duration::from_secs(180);
const START_PATIENCE: Duration = Duration::from_secs(60);
/// RabbitMQ needs one to three seconds for an orderly end; after this they are killed.
const STOP_GRACE: Duration = Duration::from_secs(8);
const LOG_LINES: usize = 30;

/// Holds the folder's lock as long as it lives.
pub(crate) struct Instances {
    dir: PathBuf,
    state: State,
    _lock: File,
}

impl Instances {
    pub(crate) async fn open(dir: &Path) -> anyhow::Result<Self> {
        let dir = absolute(dir)?;
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let lock = lock(&dir.join("lock")).await?;
        let state = State::load(dir.join("state"))?;
        Ok(Self { dir, state, _lock: lock })
    }

    /// The name of the run that these instances belong to; new after each erasure.
    pub(crate) fn run(&self) -> &str {
        self.state.run()
    }

    /// Where tests find the service, if it is up or replaced.
    pub(crate) fn url(&self, service: Service) -> Option<String> {
        service.replacement().or_else(|| self.state.url(service))
    }

    /// Starts what is wanted, neither replaced by the caller nor up already, and waits until all of it answers.
    pub(crate) async fn up(&mut self, wanted: &[Service]) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        for service in wanted {
            if service.replacement().is_some() {
                log::progress(format_args!("{} is given by {}", service.name(), service.variable()));
            } else if self.state.process(service.name()).is_some() {
                log::progress(format_args!("{} is already up", service.name()));
            } else {
                missing.push(*service);
            }
        }
        let packages: Vec<_> = missing.iter().map(|service| service.package()).collect();
        packages::ensure_installed(&packages).await?;
        // RabbitMQ boots the longest: the others start in its shadow.
        missing.sort_by_key(|service| *service != Service::Amqp);
        for service in &missing {
            self.start(*service).await.with_context(|| format!("cannot start {}", service.name()))?;
        }
        for service in missing {
            self.ready(service).await?;
            log::progress(format_args!("{} is up", service.name()));
        }
        Ok(())
    }

    /// Stops what of the wanted was started here, each in its orderly way, within seconds.
    pub(crate) async fn down(&mut self, wanted: &[Service]) -> anyhow::Result<()> {
        let running = |service: &Service| Some((self.state.process(service.name())?, service.stop_signal()));
        let running: Vec<_> = wanted.iter().filter_map(running).collect();
        stop_all(&running, STOP_GRACE).await;
        for service in wanted {
            self.state.forget_process(service.name())?;
        }
        // Last, as RabbitMQ signs off there.
        if wanted.contains(&Service::Amqp) {
            let epmd = self.state.process(amqp::EPMD).map(|process| (process, Signal::TERM));
            stop_all(epmd.as_slice(), STOP_GRACE).await;
            self.state.forget_process(amqp::EPMD)?;
        }
        Ok(())
    }

    /// Deletes the data and forgets the ports of instances that are down; the logs stay.
    pub(crate) fn erase(&mut self) -> anyhow::Result<()> {
        for folder in [Some(self.dir.join(amqp::FOLDER)), self.state.folder(postgres::FOLDER)].into_iter().flatten() {
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot delete {}", folder.display()))?;
            }
        }
        let state = self.dir.join("state");
        if state.exists() {
            fs::remove_file(&state)?;
        }
        self.state = State::load(state)?;
        Ok(())
    }

    async fn start(&mut self, service: Service) -> anyhow::Result<()> {
        let log = self.log(service);
        let process = match service {
            Service::Postgres => postgres::start(&self.dir, &mut self.state, &log).await?,
            Service::Redis => redis::start(&self.dir, &mut self.state, &log)?,
            Service::Amqp => amqp::start(&self.dir, &mut self.state, &log).await?,
        };
        self.state.keep_process(service.name(), process)
    }

    async fn ready(&mut self, service: Service) -> anyhow::Result<()> {
        let port = self.state.port(service.name())?;
        let alive = || self.state.process(service.name()).is_some();
        let settled = async || !alive() || service.answers(port).await;
        let outcome = probe::until(Instant::now() + START_PATIENCE, service.name(), settled).await;
        let tail = || log::tail(&self.log(service), LOG_LINES);
        outcome.with_context(tail)?;
        ensure!(alive(), "{} ended while it started\n{}", service.name(), tail());
        Ok(())
    }

    fn log(&self, service: Service) -> PathBuf {
        self.dir.join(format!("{}.log", service.name()))
    }
}

async fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(Duration::from_millis(50)).await,
            Err(TryLockError::WouldBlock) => {
                bail!("another command keeps {} locked", path.display())
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
    }
}
