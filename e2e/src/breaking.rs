//! What a story does to its cluster: signals to its processes, the services under it taken down and brought up.

use std::path::{Path, PathBuf};

use parlance_client::UserId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::cluster::{OwnCluster, STARTING};
use crate::patience::{eventually, within};

/// What a process can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// End in order.
    Term,
    /// End at once.
    Kill,
    /// Stand still, with every socket open.
    Stop,
    /// Go on.
    Continue,
}

impl Signal {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Term => "-TERM",
            Self::Kill => "-KILL",
            Self::Stop => "-STOP",
            Self::Continue => "-CONT",
        }
    }
}

impl OwnCluster {
    /// Signals one replica (0, 1, …) of a service.
    pub async fn signals(&self, signal: Signal, service: &str, replica: usize) {
        self.tells(signal, self.pid(service, replica)).await;
    }

    /// Kills one replica (0, 1, …) of a service with SIGKILL.
    pub async fn kills(&self, service: &str, replica: usize) {
        self.signals(Signal::Kill, service, replica).await;
    }

    /// Waits until one replica has ended, and says how: `exit status: 0`.
    pub async fn end_of(&self, service: &str, replica: usize) -> String {
        let mark = format!("({}) has ended: ", self.pid(service, replica));
        eventually("end of the process", async || {
            let said = self.said.lock().expect("no panic while it is held");
            said.iter().find_map(|line| line.split_once(&mark).map(|(_, end)| end.to_owned()))
        })
        .await
    }

    /// The status that `/readyz` of a gateway answers with; none when nobody answers.
    pub async fn readyz(&self, gateway: usize) -> Option<u16> {
        let answer = reqwest::get(format!("{}/readyz", self.ready.admin[gateway])).await;
        answer.ok().map(|answer| answer.status().as_u16())
    }

    /// What the admin port of a gateway answers.
    pub async fn asks_admin(&self, gateway: usize, path: &str) -> String {
        let asking = reqwest::get(format!("{}{path}", self.ready.admin[gateway]));
        let answer = within("answer of the admin port", asking).await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Signals `postgres`, `redis` or `amqp`.
    pub async fn signals_service(&self, signal: Signal, service: &str) {
        let pid = self.fact("process", service).split(' ').next().and_then(|pid| pid.parse().ok());
        self.tells(signal, pid.expect("a pid")).await;
    }

    /// Stops `postgres`, `redis` or `amqp` in its orderly way.
    pub async fn takes_down(&self, service: &str) {
        self.services("down", service).await;
    }

    /// Starts it again on its port, with its data (Redis keeps none).
    pub async fn brings_up(&self, service: &str) {
        self.services("up", service).await;
    }

    /// Stops RabbitMQ and starts it again.
    pub async fn restarts_the_broker(&self) {
        self.services("restart", "amqp").await;
    }

    /// Every queue, exchange and binding of the broker, sorted.
    pub async fn broker_objects(&self) -> Vec<String> {
        let mut objects = Vec::new();
        for list in [
            &["list_queues", "name"][..],
            &["list_exchanges", "name", "type"],
            &["list_bindings", "source_name", "destination_name", "routing_key"],
        ] {
            let home = self.folder().join("rabbitmq");
            // Debian's own in the path insists on another user.
            let debians = "/usr/lib/rabbitmq/bin/rabbitmqctl";
            let program = if Path::new(debians).exists() { debians } else { "rabbitmqctl" };
            let mut command = Command::new(program);
            command
                .args(["--node", "parlance@localhost", "--quiet"])
                .args(list)
                .env("HOME", &home)
                .env("ERL_EPMD_PORT", self.fact("port", "epmd"))
                .env("RABBITMQ_CONF_ENV_FILE", home.join("rabbitmq-env.conf"));
            let output = within("answer of rabbitmqctl", command.output()).await.expect("rabbitmqctl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let rows = String::from_utf8(output.stdout).expect("UTF-8");
            objects.extend(rows.lines().map(|row| format!("{}: {row}", list[0])));
        }
        objects.sort();
        objects
    }

    /// Empties Redis.
    pub async fn empties_redis(&self) {
        let answer = self.asks_redis(&["FLUSHALL"]).await;
        assert!(answer.contains("+OK"), "{answer}");
    }

    /// Waits until chat-service has stored when this user was last seen: presence-service has told it and has nothing
    /// left to hand out.
    pub async fn has_stored_last_seen(&self, user: UserId) {
        let said = format!("HMGET p:u:{{{user}}} state unsaid");
        eventually("storing of when somebody was last seen", async || {
            let left = ["ZCARD p:{seen}:unstored", "ZCARD p:{seen}:taken"];
            let answer = self.asks_redis(&[&said, left[0], left[1]]).await;
            answer.ends_with("offline\r\n$-1\r\n:0\r\n:0\r\n+OK\r\n").then_some(())
        })
        .await;
    }

    /// Commands spoken by hand, and the answers as they come: a client library would not make it any truer.
    async fn asks_redis(&self, commands: &[&str]) -> String {
        let address = self.ready.redis.trim_start_matches("redis://");
        let (login, address) = address.rsplit_once('@').map_or((None, address), |(login, host)| (Some(login), host));
        let address = address.split('/').next().expect("split has a first part");
        let mut socket = TcpStream::connect(address).await.expect("redis listens");
        let auth = login.and_then(|login| login.split_once(':')).map(|(_, password)| format!("AUTH {password}\r\n"));
        let commands = format!("{}{}\r\nQUIT\r\n", auth.unwrap_or_default(), commands.join("\r\n"));
        socket.write_all(commands.as_bytes()).await.expect("redis reads");
        let mut answer = String::new();
        within("answer of redis", socket.read_to_string(&mut answer)).await.expect("redis answers");
        assert!(!answer.contains("-ERR"), "{answer}");
        answer
    }

    /// The process of one replica (0, 1, …) of a service.
    pub fn pid(&self, service: &str, replica: usize) -> u32 {
        let mut pids = self.ready.pids.iter().filter(|(name, _)| name == service);
        let (_, pid) =
            pids.nth(replica).unwrap_or_else(|| panic!("no {service} number {replica} in {:?}", self.ready.pids));
        *pid
    }

    async fn tells(&self, signal: Signal, pid: u32) {
        let told = Command::new("kill").args([signal.flag(), &pid.to_string()]).status().await.expect("kill runs");
        assert!(told.success(), "process {pid} was gone already");
        let mut paused = self.paused.lock().expect("no panic while it is held");
        match signal {
            Signal::Stop => paused.push(pid),
            _ => paused.retain(|other| *other != pid),
        }
    }

    async fn services(&self, verb: &str, service: &str) {
        let command = Command::new(&self.xtask).args(["services", verb, service, "--dir"]).arg(self.folder()).status();
        let done = tokio::time::timeout(STARTING, command).await.expect("xtask is done in time").expect("xtask runs");
        assert!(done.success(), "`services {verb} {service}` failed");
    }

    fn folder(&self) -> PathBuf {
        self.dir.join("services")
    }

    /// What xtask remembers of its services: `<kind> <name> <value>`, one fact per line.
    fn fact(&self, kind: &str, name: &str) -> String {
        let facts = std::fs::read_to_string(self.folder().join("state")).expect("the services' state");
        let begin = format!("{kind} {name} ");
        let fact = facts.lines().find_map(|line| line.strip_prefix(&begin));
        fact.unwrap_or_else(|| panic!("no `{begin}` in the services' state")).to_owned()
    }
}
