//! The programs that do not come from cargo, and Debian's packages that bring them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

use crate::{environment, log};

/// Where Debian asks whether a freshly installed service may start.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// What can be asked for, each one Debian package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Package {
    Postgres,
    Redis,
    RabbitMq,
    HaProxy,
    AioSmtpd,
    Clamd,
    /// Installs the object stores of the stories, which Debian has in no version that will do.
    Pip,
    OpenSsl,
}

impl Package {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgresql",
            Self::Redis => "redis-server",
            Self::RabbitMq => "rabbitmq-server",
            Self::HaProxy => "haproxy",
            Self::AioSmtpd => "python3-aiosmtpd",
            Self::Clamd => "clamav-daemon",
            Self::Pip => "python3-pip",
            Self::OpenSsl => "openssl",
        }
    }

    /// The program by which we know that the package is there.
    pub(crate) fn program(self) -> Option<PathBuf> {
        match self {
            Self::Postgres => postgres_programs().map(|folder| folder.join("postgres")),
            Self::Redis => find("redis-server"),
            // The one on the path insists on the system's own user; this one runs for anybody.
            Self::RabbitMq => existing("/usr/lib/rabbitmq/bin/rabbitmq-server").or_else(|| find("rabbitmq-server")),
            Self::HaProxy => find("haproxy"),
            Self::AioSmtpd => find("aiosmtpd"),
            Self::Clamd => find("clamd"),
            Self::Pip => find("pip3"),
            Self::OpenSsl => find("openssl"),
        }
    }
}

/// The folder with `initdb`, `postgres` and `psql`; Debian keeps the first two off the path.
pub(crate) fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = versions.map(|version| version.path().join("bin"));
    let newest = folders.filter(|bin| bin.join("initdb").exists() && bin.join("psql").exists()).max();
    newest.or_else(|| Some(find("initdb")?.parent()?.to_path_buf()))
}

/// Installs what is missing if we may, else says in one line what to install.
pub(crate) async fn ensure_installed(wanted: &[Package]) -> anyhow::Result<()> {
    let missing: Vec<_> = wanted.iter().filter(|package| package.program().is_none()).map(|p| p.name()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root() || find("apt-get").is_none() {
        bail!("please install: {} (on Debian: apt-get install --no-install-recommends {0})", missing.join(" "));
    }
    log::progress(format_args!("installing {}", missing.join(" ")));
    let _policy = NoServiceStarts::begin()?;
    apt_get(&["update"]).await?;
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(missing);
    apt_get(&install).await
}

/// Whether we may install, and must hand PostgreSQL to another user.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

async fn apt_get(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        // Another run on this machine may be installing just now.
        .args(["-o", "DPkg::Lock::Timeout=300", "-q"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .await
        .context("cannot start apt-get")?;
    ensure!(status.success(), "apt-get {} failed ({status})", arguments.join(" "));
    Ok(())
}

/// Keeps Debian from starting the system's own instances; removed again when dropped.
struct NoServiceStarts {
    ours: bool,
}

impl NoServiceStarts {
    fn begin() -> anyhow::Result<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o755).open(POLICY)?;
        let policy = Self { ours: true };
        file.write_all(b"#!/bin/sh\nexit 101\n")?;
        Ok(policy)
    }
}

impl Drop for NoServiceStarts {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(POLICY);
        }
    }
}

/// The program on the path, or where Debian puts what only administrators run.
fn find(program: &str) -> Option<PathBuf> {
    let path = environment::variable("PATH").map(OsString::from).unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|path| is_executable(path))
}

fn existing(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
