//! The life of a process: settings, telemetry, admin port, work, a signal, an orderly end.

use std::{io::Write, process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::{
    admin::{self, Readiness},
    env::{self, EXIT_USAGE, Settings},
    rpc,
    tasks::Tasks,
    telemetry,
};

/// How much longer than its grace a stopping process is left before it is ended hard.
const LAST: Duration = Duration::from_secs(2);

/// What a running process has at hand.
#[derive(Clone)]
pub struct Process {
    /// The settings, already checked.
    pub settings: Settings,
    /// The background tasks of the process.
    pub tasks: Tasks,
    /// What `/readyz` says.
    pub readiness: Readiness,
    terminated: CancellationToken,
}

impl Process {
    /// Resolves when the process was asked to end (SIGTERM, SIGINT). It is unready by then.
    pub async fn terminated(&self) {
        self.terminated.cancelled().await;
    }

    /// Serves gRPC on `PARLANCE_GRPC_LISTEN` until the process is asked to end; calls that run then may finish.
    ///
    /// # Errors
    /// When the address cannot be had, or the transport fails.
    pub async fn serve_rpc(&self, routes: Routes) -> anyhow::Result<()> {
        let address = env::address(&self.settings, "PARLANCE_GRPC_LISTEN")?;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("PARLANCE_GRPC_LISTEN: cannot listen on {address}"))?;
        let serving = Tasks::new();
        let stop = serving.clone();
        let process = self.clone();
        self.tasks.spawn(async move {
            process.terminated().await;
            stop.stop();
        });
        rpc::serve(listener, routes, &serving).await
    }
}

/// Runs a process from its settings to its end. `configure` understands the settings, before any port is opened;
/// `work` serves until [`Process::terminated`], then finishes what it began.
pub fn run<C, W>(
    name: &'static str,
    configure: fn(&Settings) -> anyhow::Result<C>,
    work: impl FnOnce(C, Process) -> W,
) -> ExitCode
where
    W: Future<Output = anyhow::Result<()>>,
{
    let settings = match Settings::from_process() {
        Ok(settings) => settings,
        Err(error) => return misused(name, &error),
    };
    if settings.help {
        say(&mut std::io::stdout(), &env::help(name));
        return ExitCode::SUCCESS;
    }
    let config = match configure(&settings) {
        Ok(config) => config,
        Err(error) => return misused(name, &format!("{error:#}")),
    };
    if settings.check_only {
        say(&mut std::io::stdout(), &format!("{name}: the settings are good"));
        return ExitCode::SUCCESS;
    }
    finish(name, || live(name, settings, |process| work(config, process)))
}

/// The arguments after `admin`, when the program was started to answer an operator and not to serve.
#[must_use]
pub fn asked() -> Option<Vec<String>> {
    let mut args = std::env::args().skip(1);
    (args.next()? == "admin").then(|| args.collect())
}

/// Answers an operator, and ends: reads `args` and the environment as settings, without a port, a signal or a log.
pub fn once<C, W>(
    name: &'static str,
    args: Vec<String>,
    configure: fn(&Settings) -> anyhow::Result<C>,
    work: impl FnOnce(C) -> W,
) -> ExitCode
where
    W: Future<Output = anyhow::Result<()>>,
{
    let settings = match Settings::with_arguments(args) {
        Ok(settings) => settings,
        Err(error) => return misused(name, &error),
    };
    let config = match configure(&settings) {
        Ok(config) => config,
        Err(error) => return misused(name, &format!("{error:#}")),
    };
    finish(name, || work(config))
}

/// Says what is wrong with how the program was called, and gives the exit code for it.
pub fn misused(name: &str, problem: &dyn std::fmt::Display) -> ExitCode {
    say(std::io::stderr(), &format!("{name}: {problem}"));
    ExitCode::from(EXIT_USAGE)
}

fn finish<W>(name: &str, work: impl FnOnce() -> W) -> ExitCode
where
    W: Future<Output = anyhow::Result<()>>,
{
    // aws-lc is the one provider of TLS; a second installation is refused and harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ended = Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| runtime.block_on(work()));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &format!("{name}: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn live<W>(name: &'static str, settings: Settings, work: impl FnOnce(Process) -> W) -> anyhow::Result<()>
where
    W: Future<Output = anyhow::Result<()>>,
{
    let telemetry = telemetry::start(name, &settings)?;
    let grace = env::millis(&settings, "PARLANCE_SHUTDOWN_GRACE_MS")?;
    let address = env::address(&settings, "PARLANCE_ADMIN_LISTEN")?;
    let admin = TcpListener::bind(address)
        .await
        .with_context(|| format!("PARLANCE_ADMIN_LISTEN: cannot listen on {address}"))?;
    let process =
        Process { settings, tasks: Tasks::new(), readiness: Readiness::new(), terminated: CancellationToken::new() };
    // Not ready before `work` says so: until then some part of it is missing.
    process.readiness.set("start", false);
    let admin_tasks = Tasks::new();
    let (readiness, stop) = (process.readiness.clone(), admin_tasks.clone());
    admin_tasks.spawn(async move { admin::serve(admin, name, readiness, &stop).await });
    watch_signals(&process, grace)?;
    let worked = work(process.clone()).await;
    if worked.is_ok() {
        tracing::info!("stopping");
    }
    process.tasks.shutdown(grace).await;
    admin_tasks.shutdown(LAST).await;
    drop(telemetry);
    worked
}

/// Turns the first signal into an orderly end, and the second, or the end of the grace, into a hard one.
fn watch_signals(process: &Process, grace: Duration) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (readiness, terminated) = (process.readiness.clone(), process.terminated.clone());
    process.tasks.child().spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("asked to stop");
        readiness.drain();
        terminated.cancel();
        tokio::select! {
            _ = terminate.recv() => {},
            _ = interrupt.recv() => {},
            () = tokio::time::sleep(grace + LAST) => {},
        }
        tracing::warn!("ended without waiting any longer");
        std::process::exit(1);
    });
    Ok(())
}

/// Writes a line for whoever started the program. A closed terminal is no reason to fail.
pub fn say(mut out: impl Write, line: &str) {
    let _ = writeln!(out, "{line}");
}
