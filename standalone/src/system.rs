//! The four services, started in the order in which they need each other and stopped in the reverse one.

use std::time::Duration;

use anyhow::Context as _;
use gateway::Upstreams;
use service_kit::{admin::Readiness, bus::Bus, db::Db, rpc, tasks::Tasks};
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Config, data::Data};

/// What each group of tasks is left at least, also when the clients have used up the grace. Four times this stays below
/// the two seconds after which `service_kit::program` ends a process hard.
pub(crate) const LAST: Duration = Duration::from_millis(400);

/// Everything but the admin port, serving.
pub struct System {
    /// Where clients connect: `http://`, and the address really bound.
    pub url: String,
    gateway: JoinHandle<()>,
    drain: CancellationToken,
    groups: Groups,
    grace: Duration,
    // Last: the next process may have the folder when nothing here uses it any more.
    _data: Data,
}

/// The tasks, in the order in which they stop.
#[derive(Default)]
struct Groups {
    /// Needs all the others.
    gateway: Tasks,
    /// Tells presence and, by the bus, the notifier: what it says last is still heard.
    chat: Tasks,
    /// presence-service and notify-service.
    rest: Tasks,
    bus: Tasks,
}

/// Takes the data folder and the public port, starts the services, and serves.
///
/// # Errors
/// When another process has the folder or the port, or a service cannot start; whatever had started is stopped then.
pub async fn launch(config: Config, readiness: Readiness) -> anyhow::Result<System> {
    let data = Data::open(&config.data)?;
    let address = config.listen;
    let listener =
        TcpListener::bind(address).await.with_context(|| format!("PARLANCE_LISTEN: cannot listen on {address}"))?;
    let url = format!("http://{}", listener.local_addr()?);
    let (groups, grace) = (Groups::default(), config.grace);
    let gateway = match compose(config, &data, readiness, &groups).await {
        Ok(gateway) => gateway,
        Err(error) => {
            groups.stop(Instant::now() + grace).await;
            return Err(error);
        }
    };
    let drain = CancellationToken::new();
    let gateway = groups.gateway.spawn(gateway.serve(listener, drain.clone().cancelled_owned()));
    Ok(System { url, gateway, drain, groups, grace, _data: data })
}

/// Starts the services and connects them by pipes.
async fn compose(
    mut config: Config,
    data: &Data,
    readiness: Readiness,
    groups: &Groups,
) -> anyhow::Result<gateway::Gateway> {
    if config.chat.signing_key.is_empty() {
        config.chat.signing_key = data.signing_key()?;
    }
    if config.notify.vapid_key.is_empty() {
        config.notify.vapid_key = data.vapid_key()?;
    }
    // One for both: SQLite has one writer at a time, and its queue is fair only within a pool.
    let db = Db::connect(&config.chat.database_url).await?;
    let bus = Bus::connect(&config.amqp_url, "parlance", &groups.bus).await.context("PARLANCE_AMQP_URL")?;
    let routes = presence_service::start(config.presence, bus.clone(), readiness.clone(), &groups.rest).await?;
    let presence = rpc::in_process(routes, &groups.rest);
    // Before chat-service, which begins with what its outbox still holds: on `memory:` an event that no worker waits
    // for counts as delivered.
    let routes = notify_service::start(
        config.notify,
        db.clone(),
        bus.clone(),
        presence.clone(),
        readiness.clone(),
        &groups.rest,
    )
    .await?;
    let notify = rpc::in_process(routes, &groups.rest);
    let routes =
        chat_service::start_on(config.chat, db, bus.clone(), presence.clone(), readiness.clone(), &groups.chat).await?;
    let chat = rpc::in_process(routes, &groups.chat);
    let upstreams = Upstreams { chat: chat.clone(), chat_replicas: vec![chat], presence, notify };
    gateway::start(config.gateway, upstreams, bus, readiness, &groups.gateway).await
}

impl System {
    /// Serves until `stop` resolves, then stops as [`System::stop`] does.
    ///
    /// # Errors
    /// When the gateway ends by itself, or panics while it stops.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = stop => self.stop().await,
            served = &mut self.gateway => {
                self.groups.stop(Instant::now() + self.grace).await;
                served?;
                anyhow::bail!("the gateway ended by itself")
            }
        }
    }

    /// Moves the clients away, then stops the services, then the bus, within the grace of the settings (and
    /// 1.6 s when the clients needed all of it).
    ///
    /// # Errors
    /// When the gateway has panicked.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + self.grace;
        self.drain.cancel();
        let served = tokio::time::timeout_at(deadline, &mut self.gateway).await;
        // Only what never finishes its request is still there, and has had its time.
        self.gateway.abort();
        self.groups.stop(deadline).await;
        match served {
            Ok(served) => Ok(served?),
            Err(_) => {
                tracing::warn!("clients were still connected at the end of the grace");
                Ok(())
            }
        }
    }
}

impl Groups {
    async fn stop(&self, deadline: Instant) {
        for (name, tasks) in
            [("gateway", &self.gateway), ("chat", &self.chat), ("presence and notify", &self.rest), ("bus", &self.bus)]
        {
            let left = deadline.saturating_duration_since(Instant::now()).max(LAST);
            if !tasks.shutdown(left).await {
                tracing::warn!(tasks = name, "tasks were still running when their time was over");
            }
        }
    }
}
