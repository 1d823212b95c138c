//! The connection to Redis: pipelines with a deadline each, and a way out of connections that have gone silent.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use redis::{
    Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};

use super::script::Script;
use crate::error::Error;

/// What a call waits for.
pub(super) const SHORT: Duration = Duration::from_millis(500);
/// What a batch of many entries waits for.
pub(super) const LONG: Duration = Duration::from_secs(2);
/// How long a connection may take, and the wait between attempts.
const CONNECT: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(200);
/// Attempts of one round; each further call begins another one.
const RETRIES: usize = 3;
/// Calls on one connection that wait for an answer; more wait for their turn, each under its own deadline.
const IN_FLIGHT: usize = 256;
/// Probes in a row without an answer after which the connection is given up: the crate keeps one whose peer has
/// vanished without a word until the kernel notices, which takes a quarter of an hour.
const SILENT_PROBES: u32 = 3;

/// A connection that comes back by itself: cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    client: Arc<redis::Client>,
    // Replaced on silence, cloned on use; never held across an await.
    manager: Arc<Mutex<ConnectionManager>>,
    silent: Arc<AtomicU32>,
}

/// Commands for one round trip.
#[derive(Default)]
pub(super) struct Batch {
    pipeline: Pipeline,
    /// Whether the answer to each is of interest: not those of loading a script.
    wanted: Vec<bool>,
    loaded: Vec<&'static Script>,
}

impl Batch {
    /// Adds a command.
    pub(super) fn command(&mut self, name: &str, args: impl FnOnce(&mut Cmd)) {
        let mut command = redis::cmd(name);
        args(&mut command);
        self.push(command, true);
    }

    /// Adds a script, loaded before its first use.
    pub(super) fn call(&mut self, script: &'static Script, keys: &[&String], args: impl FnOnce(&mut Cmd)) {
        if !self.loaded.iter().any(|loaded| std::ptr::eq(*loaded, script)) {
            let mut load = redis::cmd("script");
            load.arg("load").arg(&script.text);
            self.push(load, false);
            self.loaded.push(script);
        }
        let mut command = redis::cmd("evalsha");
        command.arg(&script.digest).arg(keys.len());
        for key in keys {
            command.arg(key.as_str());
        }
        args(&mut command);
        self.push(command, true);
    }

    fn push(&mut self, command: Cmd, wanted: bool) {
        self.pipeline.add_command(command);
        self.wanted.push(wanted);
    }
}

impl Link {
    /// Prepares a connection to the server that `url` names, and makes it with the first call.
    pub(super) fn open(url: &str) -> anyhow::Result<Self> {
        // The error of the crate does not repeat the URL, which may carry a password.
        // Without it the crate leaves small writes to Nagle's algorithm, which waits for the answer to the one before.
        let tcp = TcpSettings::default().set_nodelay(true);
        let client = redis::Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?;
        let manager = Arc::new(Mutex::new(connect(&client)?));
        Ok(Self { client: Arc::new(client), manager, silent: Arc::default() })
    }

    /// Sends a batch and returns the answers in its order. An error of a single command stands in its place.
    ///
    /// # Errors
    /// When the connection fails or `deadline` passes; then any part of it may have been done, or be done later.
    pub(super) async fn run(&self, batch: Batch, deadline: Duration) -> Result<Vec<Value>, Error> {
        let Batch { pipeline, wanted, .. } = batch;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        metrics::counter!("redis_round_trips_total").increment(1);
        let mut manager = self.manager.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answers = manager.req_packed_commands(&pipeline, 0, wanted.len());
        let answers = tokio::time::timeout(deadline, answers).await.map_err(|_| Error::TooLate)??;
        if answers.len() != wanted.len() {
            return Err(Error::Unexpected("a pipeline"));
        }
        Ok(answers.into_iter().zip(wanted).filter_map(|(answer, wanted)| wanted.then_some(answer)).collect())
    }

    /// Asks which run of the server this is.
    pub(super) async fn probe(&self) -> Result<String, Error> {
        let mut batch = Batch::default();
        batch.command("info", |args| {
            args.arg("server");
        });
        let answers = self.run(batch, SHORT).await;
        if answers.is_ok() {
            self.silent.store(0, Ordering::Relaxed);
        } else if self.silent.fetch_add(1, Ordering::Relaxed) + 1 >= SILENT_PROBES {
            self.silent.store(0, Ordering::Relaxed);
            *self.manager.lock().unwrap_or_else(PoisonError::into_inner) = connect(&self.client)?;
        }
        let info: String = take(answers?.pop(), "info")?;
        let run = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        Ok(run.ok_or(Error::Unexpected("info"))?.trim().to_owned())
    }
}

/// Reads one answer.
///
/// # Errors
/// When it is an error, missing, or of another shape.
pub(super) fn take<T: FromRedisValue>(answer: Option<Value>, to: &'static str) -> Result<T, Error> {
    let answer = answer.ok_or(Error::Unexpected(to))?.extract_error()?;
    redis::from_redis_value(answer).map_err(|_| Error::Unexpected(to))
}

fn connect(client: &redis::Client) -> Result<ConnectionManager, redis::RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(CONNECT))
        // Each call has its own, shorter one.
        .set_response_timeout(Some(LONG))
        .set_min_delay(RETRY)
        .set_max_delay(CONNECT)
        .set_number_of_retries(RETRIES)
        .set_concurrency_limit(IN_FLIGHT);
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}
