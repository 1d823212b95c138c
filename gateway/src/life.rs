//! One life of a gateway: a boot id with its inbox, its directory entries, its connections and its background tasks.
//!
//! A gateway that others have declared dead (it was paused, or cut off) ends that life, closes its connections, and begins
//! another under a new boot id.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use service_kit::{
    admin::Readiness,
    bus::{Bus, Parcel, To},
    clock,
    id::{BootId, RoomId, UserId},
    tasks::Tasks,
};
use tokio::sync::Notify;

use crate::{
    attach,
    conn::Conn,
    directory::{self, Directory, Standing},
    fanout,
    frame::{Close, HEARTBEAT_MS},
    hub::{Hub, SharedRoom, lock, room::After},
    presence, repair,
    services::Services,
    uplink::Uplink,
};

/// How often connections are looked after: expiry of tokens, heartbeats of one in [`BEATS`] of them.
const TICK: Duration = Duration::from_secs(1);
/// Ticks of a heartbeat.
const BEATS: u64 = HEARTBEAT_MS / 1000;
/// How often rooms without members here are looked for, in ticks.
const FORGET_TICKS: u64 = 5;
/// How often the gateway publishes to its own inbox.
const PROBE: Duration = Duration::from_millis(500);
/// How long no probe may come back before revocations are asked for instead.
const DEAF_MS: i64 = 1_000;
/// How long an early event waits for the one before it.
const EARLY: Duration = Duration::from_millis(100);
/// How long the entries of a new registration may take before heads are compared anyway.
const SETTLE: Duration = Duration::from_secs(5);
/// What the clients of a life that is over are asked to wait, in milliseconds.
const RESTART_MS: u64 = 1_000;

/// What all lives of a gateway share.
pub(crate) struct Shared {
    pub(crate) services: Services,
    pub(crate) bus: Bus,
    pub(crate) uplink: Arc<Uplink>,
    pub(crate) readiness: Readiness,
    /// Connections of one user; the oldest gives way to one more.
    pub(crate) most_connections: usize,
    pub(crate) numbers: AtomicU64,
}

/// One life.
pub(crate) struct Life {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hub: Hub,
    pub(crate) directory: Directory,
    pub(crate) tasks: Tasks,
    boot: BootId,
    /// A comparison of heads is wanted.
    compare: Notify,
    /// When a probe last came back, milliseconds since the epoch.
    probed_at: AtomicI64,
    /// Neither events nor heads are to be had: nothing is delivered, since a removal could be missed.
    blind: AtomicBool,
    over: AtomicBool,
}

impl Life {
    /// Begins a life: its inbox receives before anything is attached.
    pub(crate) async fn begin(shared: Arc<Shared>, tasks: Tasks) -> anyhow::Result<Arc<Self>> {
        let boot = BootId::generate();
        let inbox = shared.bus.inbox(boot).await?;
        let directory = Directory::new(boot, shared.services.directory.clone(), shared.services.sync.clone());
        let life = Arc::new(Self {
            shared,
            hub: Hub::default(),
            directory,
            tasks,
            boot,
            compare: Notify::new(),
            probed_at: AtomicI64::new(clock::now_ms()),
            blind: AtomicBool::new(false),
            over: AtomicBool::new(false),
        });
        tracing::info!(gateway.boot = %boot, "a gateway's life begins");
        life.tasks.spawn_until_stop(fanout::run(Arc::clone(&life), inbox));
        life.tasks.spawn_until_stop(repair::run(Arc::clone(&life)));
        life.tasks.spawn_until_stop(Arc::clone(&life).register());
        life.tasks.spawn_until_stop(Arc::clone(&life).probe());
        life.tasks.spawn_until_stop(Arc::clone(&life).look_after());
        Ok(life)
    }

    /// Lives until it is told that it is dead.
    pub(crate) async fn live(self: &Arc<Self>) {
        let mut ticks = tokio::time::interval(directory::RENEW);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                // It leaves by itself, with the process: there is no life after this one.
                () = self.tasks.stopping() => std::future::pending().await,
            }
            match self.directory.renew().await {
                Standing::Alive => self.shared.readiness.note("directory", true),
                Standing::Unknown => {
                    self.shared.readiness.note("directory", false);
                    tracing::warn!("the lease in the directory could not be renewed");
                }
                Standing::Registered => {
                    let life = Arc::clone(self);
                    self.tasks.spawn_until_stop(async move {
                        life.directory.settled(SETTLE).await;
                        life.want_compare();
                    });
                }
                Standing::Cleared => return,
            }
        }
    }

    /// A number for a connection, unique in this process.
    pub(crate) fn next_number(&self) -> u64 {
        self.shared.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Closes every connection: their clients resume elsewhere, or here in the next life.
    pub(crate) fn close_all(&self) {
        self.over.store(true, Ordering::SeqCst);
        for conn in self.hub.all() {
            conn.close(Close::Restarting(RESTART_MS));
        }
    }

    /// Whoever comes when the connections have been closed has to go as well.
    pub(crate) fn refuse_when_over(&self, conn: &Conn) {
        if self.over.load(Ordering::SeqCst) {
            conn.close(Close::Restarting(RESTART_MS));
        }
    }

    /// Has the heads of everything compared soon, and what is behind repaired.
    pub(crate) fn want_compare(&self) {
        self.compare.notify_one();
    }

    pub(crate) async fn compare_wanted(&self) {
        self.compare.notified().await;
    }

    /// A probe came back: the inbox works.
    pub(crate) fn probed(&self) {
        self.probed_at.store(clock::now_ms(), Ordering::Relaxed);
        if self.blind.swap(false, Ordering::Relaxed) {
            self.want_compare();
        }
    }

    /// Whether nothing may be delivered.
    pub(crate) fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Relaxed)
    }

    /// Sees to what a change of a room has asked for.
    pub(crate) fn follow_up(self: &Arc<Self>, room: RoomId, after: After) {
        for user in after.joined {
            self.join(user, room);
        }
        for user in after.left {
            self.ask_again(user);
        }
        if after.gap {
            self.repair_early(room);
        }
    }

    /// Asks again who may follow this user's presence, and whom this user may follow.
    pub(crate) fn ask_again(self: &Arc<Self>, user: UserId) {
        let life = Arc::clone(self);
        self.tasks.spawn_until_stop(async move { presence::ask_again(&life, user).await });
    }

    /// Attaches the connections of a user who has joined a room.
    pub(crate) fn join(self: &Arc<Self>, user: UserId, room: RoomId) {
        if !self.hub.conns(user).is_empty() {
            let life = Arc::clone(self);
            self.tasks.spawn_until_stop(async move { attach::join(&life, user, room).await });
        }
    }

    /// Gives an early event its time, then repairs the room if the event before it has not come.
    fn repair_early(self: &Arc<Self>, id: RoomId) {
        let Some(room) = self.hub.find(id) else { return };
        if !lock(&room).begin_repair() {
            return;
        }
        let life = Arc::clone(self);
        self.tasks.spawn_until_stop(async move {
            tokio::time::sleep(EARLY).await;
            if lock(&room).has_gap() {
                metrics::counter!("repairs_total", "why" => "gap").increment(1);
                repair::room(&life, &room, id).await;
            }
            life.end_repair(&room, id);
        });
    }

    /// Ends a repair, and begins another when an early event came too late for this one.
    pub(crate) fn end_repair(self: &Arc<Self>, room: &SharedRoom, id: RoomId) {
        let again = lock(room).end_repair();
        if again {
            self.repair_early(id);
        }
    }

    /// Leaves topics that nobody here wants any more. The directory first: who comes meanwhile attaches anew, and waits
    /// until every publisher knows.
    fn forget_idle(self: &Arc<Self>) {
        for topic in self.hub.idle() {
            self.directory.detach(topic);
            if self.hub.forget(topic) {
                continue;
            }
            // Somebody came between the two, and took the entry for granted: what it missed is compared afterwards.
            let life = Arc::clone(self);
            self.tasks.spawn_until_stop(async move {
                life.directory.attach([topic]).await;
                life.want_compare();
            });
        }
    }

    async fn register(self: Arc<Self>) {
        let life = Arc::clone(&self);
        self.directory.run(move || life.want_compare()).await;
    }

    /// Publishes to its own inbox. When nothing comes back, it asks for the heads of its users instead: a revocation must
    /// not be missed. When that fails too, it stops delivering.
    async fn probe(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(PROBE);
        let mut asked_at = 0;
        loop {
            ticks.tick().await;
            drop(self.shared.bus.publish(To::Gateway(self.boot), Parcel::default()));
            let now = clock::now_ms();
            if now - self.probed_at.load(Ordering::Relaxed) <= DEAF_MS || now - asked_at < DEAF_MS {
                continue;
            }
            asked_at = now;
            let asked = repair::users(&self).await;
            if self.blind.swap(asked.is_err(), Ordering::Relaxed) && asked.is_ok() {
                self.want_compare();
            }
        }
    }

    /// Heartbeats, tokens that expire, rooms that nobody is in any more.
    async fn look_after(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        let mut tick = 0_u64;
        loop {
            ticks.tick().await;
            tick += 1;
            let now = clock::now_ms();
            for conn in self.hub.all() {
                look_at(&conn, now, tick);
            }
            // A broker that is away is away for every gateway: taking all of them out would end what still works. One that
            // is there and gives this gateway nothing is this gateway's own trouble.
            let (connected, deaf) =
                (self.shared.bus.is_ready(), now - self.probed_at.load(Ordering::Relaxed) > DEAF_MS);
            self.shared.readiness.note("bus", connected);
            self.shared.readiness.set("inbox", !(connected && deaf));
            if tick.is_multiple_of(FORGET_TICKS) {
                self.forget_idle();
            }
        }
    }
}

/// Closes a connection whose time is over or whose peer has been silent for two heartbeats; pings it in its turn.
fn look_at(conn: &Conn, now: i64, tick: u64) {
    let silent = i64::try_from(2 * HEARTBEAT_MS).unwrap_or(i64::MAX);
    if conn.expires_at() * 1000 <= now {
        conn.close(Close::TokenExpired);
    } else if now - conn.heard_at() > silent {
        conn.close(Close::Away);
    } else if conn.number % BEATS == tick % BEATS {
        conn.ping();
    }
}

#[cfg(test)]
#[path = "life_tests.rs"]
mod tests;
