//! Takes pushes when they are due, decides whether each is still wanted, and sends those that are.
//!
//! One loop claims; each push that goes out is a task of its own, bounded in all and by origin; one more writes down
//! what became of them. A push whose writing-down is lost is sent again, and replaces itself at its receiver by its topic.

use std::{collections::HashMap, ops::Range, sync::Arc, time::Duration};

use anyhow::Context as _;
use parlance_proto::{
    presence::{StatesReply, StatesRequest, presence_client::PresenceClient},
    v1,
};
use rand::Rng as _;
use service_kit::{
    bus::{Bus, Depth},
    clock,
    db::Db,
    id::UserId,
    rpc::Client,
    tasks::Tasks,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use url::{Position, Url};
use uuid::Uuid;

use crate::{
    App, GROUP,
    attempt::{self, Tried, in_future},
    dead_letters,
    decide::{self, Due, Look, Outcome},
    digest,
    jobs::{self, Update},
    notifications,
    origins::{Entry, Origin, Origins},
    payload,
    sweep::sweep,
};

/// Pushes that are on their way, or wait for their turn, at once.
const TOGETHER: usize = 1024;
/// Rows that are claimed at once.
const CLAIMED: usize = 128;
/// How often it is looked for what is due when nothing announces itself: rows of other replicas, claims that ran out.
const POLL: Duration = Duration::from_secs(1);
/// How long after a failure of the database or of presence-service it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long presence-service may take when a push is due.
pub(crate) const ASKING: Duration = Duration::from_secs(3);
/// Longest wait between two tries.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// How much of the longest wait that may be, at random.
const SHARE: Range<f64> = 0.5..1.0;
/// Tries of a push: enough to outlast an hour of its provider's absence.
const TRIES: i16 = 14;
/// Looks at what was sent, whether it was read elsewhere: over half an hour.
const LOOKS: i16 = 3;
/// Outcomes that are written together.
const WRITTEN: usize = 256;
/// How often the metrics are renewed, and old outcomes deleted.
const EVERY: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(3600));

/// What sends.
pub(crate) struct Deliverer {
    app: Arc<App>,
    origins: Origins,
    slots: Arc<Semaphore>,
    done: mpsc::Sender<Update>,
    tasks: Tasks,
}

/// Starts claiming, sending, writing down and sweeping on `tasks`.
pub(crate) fn start(app: &Arc<App>, bus: &Bus, tasks: &Tasks) {
    let (done, updates) = mpsc::channel(2 * TOGETHER);
    let deliverer = Arc::new(Deliverer {
        app: Arc::clone(app),
        origins: Origins::new(app.rate),
        slots: Arc::new(Semaphore::new(TOGETHER)),
        done,
        tasks: tasks.clone(),
    });
    tasks.spawn_until_stop(write_all(Arc::clone(app), updates));
    tasks.spawn_until_stop(deliverer.run());
    tasks.spawn_until_stop(keep(Arc::clone(app), bus.clone()));
}

impl Deliverer {
    async fn run(self: Arc<Self>) {
        loop {
            let worked = async {
                self.wait().await?;
                self.step().await
            };
            if let Err(error) = worked.await {
                tracing::warn!(error = format!("{error:#}"), "pushes wait; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Until a push may be due.
    async fn wait(&self) -> anyhow::Result<()> {
        let now = clock::now_ms();
        let due = jobs::next_due(&self.app.db).await?;
        let wait = due.map_or(POLL, |due| Duration::from_millis((due - now).try_into().unwrap_or(0)).min(POLL));
        if !wait.is_zero() {
            let _ = tokio::time::timeout(wait, self.app.planner.planned()).await;
        }
        Ok(())
    }

    /// Claims what is due and has it sent, or not.
    async fn step(self: &Arc<Self>) -> anyhow::Result<()> {
        // Only what can be sent at once is claimed; the rest is left to other replicas.
        let first = Arc::clone(&self.slots).acquire_owned().await?;
        let more = self.slots.available_permits().min(CLAIMED - 1);
        let mut slots = vec![first];
        slots.extend((0..more).map_while(|_| Arc::clone(&self.slots).try_acquire_owned().ok()));
        let claim = Uuid::now_v7();
        let mut claimed = jobs::claim(&self.app.db, claim, i64::try_from(slots.len())?).await?;
        jobs::update(&self.app.db, &digest::put_off(&mut claimed, claim, self.app.timing.email_delay)).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        let online = match online(&self.app.presence, claimed.iter().map(Due::user), ASKING).await {
            Ok(online) => online,
            Err(error) => {
                // Nobody is offline only because presence-service does not say. It is asked again.
                let back =
                    claimed.iter().map(|due| Update { due_at: Some(in_future(PAUSE)), ..Update::of(due, claim) });
                jobs::update(&self.app.db, &back.collect::<Vec<_>>()).await?;
                return Err(error);
            }
        };
        let (sent, open): (Vec<Due>, Vec<Due>) = claimed.into_iter().partition(Due::is_sent);
        let (mut ended, mut wanted) = sort(open, claim, &online);
        wanted.extend(self.look_again(sent, claim, &mut ended));
        jobs::update(&self.app.db, &ended).await?;
        for first in digest::first_of_each(&mut wanted) {
            let Some(slot) = slots.pop() else { break };
            self.send_mail(&first, claim, &online, slot).await?;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        let badges = jobs::badges(&self.app.db, claim).await?;
        for due in wanted {
            let badge = badges.get(&due.user()).copied().unwrap_or_default();
            let Some(slot) = slots.pop() else { break };
            self.send(vec![due], claim, badge, slot).await;
        }
        Ok(())
    }

    /// Sends one mail with all that waits beside this row and is still wanted.
    async fn send_mail(
        self: &Arc<Self>,
        first: &Due,
        claim: Uuid,
        online: &HashMap<UserId, bool>,
        slot: OwnedSemaphorePermit,
    ) -> anyhow::Result<()> {
        let (rows, own) = digest::gather(&self.app.db, first, claim).await?;
        let (ended, wanted) = sort(rows, own, online);
        jobs::update(&self.app.db, &ended).await?;
        if !wanted.is_empty() {
            self.send(wanted, own, 0, slot).await;
        }
        Ok(())
    }

    /// Of what was sent: the pushes that take it back, one for each room of a device. The rest goes to `ended`, but for
    /// those that such a push takes along.
    fn look_again(&self, sent: Vec<Due>, claim: Uuid, ended: &mut Vec<Update>) -> Vec<Due> {
        let mut withdrawn: HashMap<(Uuid, Uuid), Due> = HashMap::new();
        for due in sent {
            match decide::look(&due) {
                Look::Withdraw => {
                    withdrawn.insert((due.room_id, due.device_id), due);
                }
                Look::Later if due.attempts + 1 < LOOKS => ended.push(self.looks_later(&due, claim)),
                Look::Later | Look::Over => ended.push(Update::of(&due, claim)),
            }
        }
        withdrawn.into_values().collect()
    }

    fn looks_later(&self, due: &Due, claim: Uuid) -> Update {
        let attempts = due.attempts + 1;
        let wait = self.app.timing.look.saturating_mul(10_u32.saturating_pow(attempts.unsigned_abs().into()));
        Update { due_at: Some(in_future(wait)), attempts, ..Update::of(due, claim) }
    }

    /// Sends one push, which is one row, or the rows of one mail, in a task of its own, or puts it back when its origin is busy.
    async fn send(self: &Arc<Self>, push: Vec<Due>, claim: Uuid, badge: i64, slot: OwnedSemaphorePermit) {
        let url = match attempt::destination(&self.app, &push[0]) {
            Ok(url) => url,
            Err(tried) => return self.note_all(&push, |due| self.judge(due, claim, tried.clone())).await,
        };
        // Scheme, host and port: no target holds a user.
        let origin = self.origins.get(&url[..Position::BeforePath]);
        match origin.enter(clock::now_ms()) {
            Entry::Open(place) => {
                let this = Arc::clone(self);
                self.tasks.spawn_until_stop(async move {
                    let turn = match origin.turn().await {
                        Ok(turn) => turn,
                        Err(until) => return this.note_all(&push, |due| this.wait_for_origin(due, claim, until)).await,
                    };
                    let tried = this.try_once(&push, &url, &origin, badge).await;
                    drop((turn, place, slot));
                    this.note_all(&push, |due| this.judge(due, claim, tried.clone())).await;
                });
            }
            Entry::Full(again) => {
                self.note_all(&push, |due| Update { due_at: Some(again), ..Update::of(due, claim) }).await;
            }
            Entry::Closed(until) => self.note_all(&push, |due| self.wait_for_origin(due, claim, until)).await,
        }
    }

    fn wait_for_origin(&self, due: &Due, claim: Uuid, until: i64) -> Update {
        if due.is_sent() {
            return self.looks_later(due, claim);
        }
        // It counts as a try, so that many that wait for a provider do not all come back every few seconds. Only a push
        // that was really tried is ever given up.
        let attempts = (due.attempts + 1).min(TRIES - 2);
        let again = until.max(in_future(self.backoff(due.attempts)));
        let closed = (Outcome::Failed, "provider_error", Some("the provider has failed; waiting".to_owned()));
        Update { due_at: Some(again), attempts, outcome: Some(closed), ..Update::of(due, claim) }
    }

    async fn try_once(&self, push: &[Due], url: &Url, origin: &Origin, badge: i64) -> Tried {
        let tried = match (push, &self.app.email) {
            ([due], _) if !digest::is_mail(due) => {
                let withdrawn = due.is_sent();
                let payload =
                    if withdrawn { payload::of_withdrawal(due, badge) } else { payload::of_message(due, badge) };
                attempt::send(&self.app, due, url, payload).await
            }
            (mail, Some(email)) => email.send(mail).await,
            (_, None) => Tried::Off,
        };
        match &tried {
            Tried::Later(_, wait) => origin.failed(*wait),
            _ => origin.worked(),
        }
        tried
    }

    /// What a try to take back a push makes of its row.
    fn judge_withdrawal(&self, due: &Due, claim: Uuid, tried: &Tried) -> Update {
        match tried {
            Tried::Accepted(_) => {
                let outcome = Some((Outcome::Withdrawn, "read_elsewhere", None));
                Update { outcome, withdrawn_up_to: due.read_seq, ..Update::of(due, claim) }
            }
            Tried::Later(..) | Tried::NotNow(..) if due.attempts + 1 < LOOKS => self.looks_later(due, claim),
            Tried::Later(..) | Tried::NotNow(..) | Tried::Off | Tried::Refused(_) => Update::of(due, claim),
            Tried::Gone(_) => Update { drop_device: true, ..Update::of(due, claim) },
        }
    }

    /// What a try makes of its row.
    fn judge(&self, due: &Due, claim: Uuid, tried: Tried) -> Update {
        if due.is_sent() {
            return self.judge_withdrawal(due, claim, &tried);
        }
        let mut update = Update { attempts: due.attempts.saturating_add(1), ..Update::of(due, claim) };
        let (outcome, reason, detail) = match tried {
            // A mail cannot be taken back: nobody looks at it again.
            Tried::Accepted(said) if digest::is_mail(due) => (Outcome::Sent, "delivered", said),
            Tried::Accepted(said) => {
                (update.due_at, update.attempts) = (Some(in_future(self.app.timing.look)), 0);
                (Outcome::Sent, "delivered", said)
            }
            Tried::Gone(said) => {
                update.drop_device = true;
                (Outcome::Failed, "token_dead", said)
            }
            Tried::Later(said, wait) | Tried::NotNow(said, wait) if update.attempts < TRIES => {
                update.due_at = Some(in_future(self.backoff(due.attempts).max(wait.unwrap_or_default())));
                (Outcome::Failed, "provider_error", said)
            }
            Tried::Later(said, _) | Tried::NotNow(said, _) => {
                (Outcome::DeadLettered, "provider_error", format!("{said}; given up"))
            }
            Tried::Off => (Outcome::Skipped, "provider_off", "the platform is not configured".to_owned()),
            Tried::Refused(said) => (Outcome::DeadLettered, "provider_error", said),
        };
        if outcome == Outcome::DeadLettered {
            tracing::warn!(device = %due.device_id, detail, "a push was given up");
        }
        update.outcome = Some((outcome, reason, Some(detail)));
        update
    }

    /// How long after so many failed tries the next one is: growing, and never the same for all.
    fn backoff(&self, attempts: i16) -> Duration {
        longest_wait(self.app.timing.retry, attempts).mul_f64(rand::rng().random_range(SHARE))
    }

    async fn note_all(&self, push: &[Due], update: impl Fn(&Due) -> Update) {
        for due in push {
            self.note(update(due)).await;
        }
    }

    async fn note(&self, update: Update) {
        // It fails only when the service ends; then the claim runs out.
        let _ = self.done.send(update).await;
    }
}

/// Who of these users has a live session, be it that nobody else may know. presence-service may take so long.
pub(crate) async fn online(
    presence: &PresenceClient<Client>,
    users: impl Iterator<Item = UserId>,
    patience: Duration,
) -> anyhow::Result<HashMap<UserId, bool>> {
    let mut users: Vec<UserId> = users.collect();
    users.sort_unstable();
    users.dedup();
    let request = StatesRequest { users: users.iter().map(|user| user.to_wire()).collect() };
    let mut presence = presence.clone();
    let answer = tokio::time::timeout(patience, presence.states(request)).await;
    let StatesReply { items, present } = answer.context("presence-service does not answer")??.into_inner();
    if present.len() == users.len() {
        return Ok(users.into_iter().zip(present).collect());
    }
    // A presence-service of the version before does not tell: the invisible are pushed to until it is replaced.
    let states = items.iter().map(|item| item.state() != v1::PresenceState::Offline);
    Ok(users.into_iter().zip(states).collect())
}

/// The longest wait after so many failed tries, when it may be `first` after none.
fn longest_wait(first: Duration, attempts: i16) -> Duration {
    first.saturating_mul(1 << attempts.clamp(0, 20)).min(LONGEST)
}

/// Those that are not sent, with the reason, and those that are.
fn sort(claimed: Vec<Due>, claim: Uuid, online: &HashMap<UserId, bool>) -> (Vec<Update>, Vec<Due>) {
    let now = clock::now_ms();
    let (mut ended, mut wanted) = (Vec::new(), Vec::new());
    for due in claimed {
        let online = online.get(&due.user()).copied().unwrap_or_default();
        match decide::decide(&due, online, now) {
            None => wanted.push(due),
            Some(verdict) => {
                let outcome = (verdict.outcome, verdict.reason, verdict.detail.map(str::to_owned));
                let drop_device = due.is_orphan();
                ended.push(Update { outcome: Some(outcome), drop_device, ..Update::of(&due, claim) });
            }
        }
    }
    ended.iter().for_each(count);
    (ended, wanted)
}

fn count(update: &Update) {
    if let Some((outcome, reason, _)) = &update.outcome {
        metrics::counter!("notify_pushes_total", "outcome" => outcome.word(), "reason" => *reason).increment(1);
    }
}

/// Writes down what became of pushes, many at a time.
async fn write_all(app: Arc<App>, mut updates: mpsc::Receiver<Update>) {
    let mut batch = Vec::with_capacity(WRITTEN);
    while updates.recv_many(&mut batch, WRITTEN).await > 0 {
        batch.iter().for_each(count);
        while let Err(error) = jobs::update(&app.db, &batch).await {
            tracing::warn!(error = %error, "what became of pushes could not be written; trying again");
            tokio::time::sleep(PAUSE).await;
        }
        batch.clear();
    }
}

/// Keeps the metrics of the queue true, and deletes outcomes whose time is over.
async fn keep(app: Arc<App>, bus: Bus) {
    let (mut measures, mut sweeps) = (tokio::time::interval(EVERY.0), tokio::time::interval(EVERY.1));
    loop {
        let kept = tokio::select! {
            _ = measures.tick() => measure(&app.db, &bus).await,
            _ = sweeps.tick() => sweep_all(&app.db).await.map_err(Into::into),
        };
        if let Err(error) = kept {
            tracing::warn!(error = format!("{error:#}"), "the pushes could not be counted or swept");
        }
    }
}

async fn sweep_all(db: &Db) -> sqlx::Result<()> {
    sweep(db, jobs::SWEEP, jobs::KEPT).await?;
    sweep(db, notifications::SWEEP, notifications::KEPT).await
}

#[allow(clippy::cast_precision_loss, reason = "gauges")]
async fn measure(db: &Db, bus: &Bus) -> anyhow::Result<()> {
    let (waiting, late_ms) = jobs::backlog(db).await?;
    metrics::gauge!("notify_pushes_waiting").set(waiting as f64);
    metrics::gauge!("notify_pushes_late_seconds").set(late_ms as f64 / 1000.0);
    metrics::gauge!("notify_pushes_dead").set(dead_letters::count(db).await? as f64);
    if bus.is_ready() {
        let Depth { waiting, dead } = bus.depth(GROUP).await?;
        metrics::gauge!("notify_batches_waiting").set(waiting as f64);
        metrics::gauge!("notify_batches_dead").set(dead as f64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timing;

    #[test]
    fn the_tries_of_a_push_outlast_an_hour_without_its_provider() {
        let first = Timing::default().retry;
        // However the dice fall, and though no try takes any time.
        let least: Duration = (0..TRIES - 1).map(|attempts| longest_wait(first, attempts).mul_f64(SHARE.start)).sum();
        assert!(least > Duration::from_secs(3600), "{least:?}");
        // And no longer than outcomes stay, so that one is always there to be seen.
        let most: Duration = (0..TRIES - 1).map(|attempts| longest_wait(first, attempts)).sum();
        assert!(most < jobs::KEPT, "{most:?}");
    }
}
