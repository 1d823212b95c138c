//! The store on Redis: a single primary, or one that a proxy or sentinel name leads to.
//!
//! Each script touches the keys of one hash tag, so that the layout would hold on a Redis Cluster; what spans several
//! is pipelined in an order in which stopping anywhere is safe. Every pipeline loads the scripts that it uses, which
//! costs a digest of their text and saves the case that a restarted Redis does not know them.

mod clearing;
mod entries;
mod link;
mod script;
mod seen;
mod users;

use std::sync::Arc;

use service_kit::id::{BootId, Topic, UserId};
use uuid::Uuid;

use self::{
    link::{Batch, LONG, Link, SHORT, take},
    script::{BURY, LEASES, LEAVE, RENEW, SAID, SCHEDULE},
    users::Verb,
};
use super::{Dead, Located, Renewal, Standing, Timing};
use crate::{
    error::Error,
    presence::{Chosen, Known, State, Status, Transition, millis},
};

/// Beyond `Timing::resay`: a check that comes at the very millisecond would find nothing old enough.
const RESAY_SLACK_MS: i64 = 100;

/// The store on Redis: cheap to clone.
#[derive(Clone)]
pub struct Redis {
    link: Link,
    keys: Arc<Keys>,
    timing: Timing,
}

/// Names of keys. Braces are hash tags.
struct Keys {
    leases: String,
    numbers: String,
    clearing: String,
    cleared: String,
    epoch: String,
    due: String,
    claimed: String,
    unstored: String,
    taken: String,
    prefix: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        Self {
            leases: format!("{prefix}{{lease}}:expiry"),
            numbers: format!("{prefix}{{lease}}:number"),
            clearing: format!("{prefix}{{lease}}:clearing"),
            cleared: format!("{prefix}{{lease}}:cleared"),
            epoch: format!("{prefix}{{lease}}:epoch"),
            due: format!("{prefix}{{grace}}:due"),
            claimed: format!("{prefix}{{grace}}:claimed"),
            unstored: format!("{prefix}{{seen}}:unstored"),
            taken: format!("{prefix}{{seen}}:taken"),
            prefix: prefix.to_owned(),
        }
    }

    fn topic(&self, topic: Topic) -> String {
        format!("{}t:{{{topic}}}", self.prefix)
    }

    fn user(&self, user: UserId) -> String {
        format!("{}u:{{{user}}}", self.prefix)
    }

    fn entries(&self, boot: BootId) -> String {
        format!("{}g:{{{boot}}}", self.prefix)
    }

    fn marker(&self, boot: BootId) -> String {
        format!("{}cleared:{{{boot}}}", self.prefix)
    }
}

impl Redis {
    /// Opens the store without waiting for Redis.
    ///
    /// # Errors
    /// When the URL cannot be used, or the prefix would break the hash tags.
    pub(super) fn open(url: &str, prefix: &str, timing: Timing) -> anyhow::Result<Self> {
        anyhow::ensure!(!prefix.contains(['{', '}']), "the prefix of Redis keys may not contain braces");
        Ok(Self { link: Link::open(url)?, keys: Arc::new(Keys::new(prefix)), timing })
    }

    pub(super) async fn renew(&self, boot: BootId, number: u64) -> Result<Renewal, Error> {
        let Keys { leases, numbers, clearing, cleared, epoch, .. } = &*self.keys;
        let mut batch = Batch::default();
        batch.call(&RENEW, &[leases, numbers, clearing, cleared, epoch], |args| {
            args.arg(boot.0.as_bytes()).arg(number);
            args.arg(millis(self.timing.lease)).arg(millis(self.timing.remember)).arg(random());
        });
        batch.command("zcard", |args| {
            args.arg(self.keys.entries(boot));
        });
        let mut answers = self.link.run(batch, SHORT).await?.into_iter();
        let (standing, epoch, gateways): (String, String, u64) = take(answers.next(), "renew")?;
        let standing = match standing.as_str() {
            "alive" => Standing::Alive,
            "expired" => Standing::Expired,
            "cleared" => Standing::Cleared,
            _ => return Err(Error::Unexpected("renew")),
        };
        Ok(Renewal { standing, entries: take(answers.next(), "zcard")?, epoch, gateways })
    }

    pub(super) async fn lookup(&self, topics: &[Topic]) -> Result<Located, Error> {
        let mut batch = Batch::default();
        batch.call(&LEASES, &[&self.keys.leases, &self.keys.epoch], |args| {
            args.arg(random()).arg(millis(self.timing.unknown));
        });
        for topic in topics {
            batch.command("hkeys", |args| {
                args.arg(self.keys.topic(*topic));
            });
        }
        let mut answers = self.link.run(batch, SHORT).await?.into_iter();
        let leases: Vec<redis::Value> = take(answers.next(), "leases")?;
        let mut leases = leases.into_iter();
        let unknown = take::<i64>(leases.next(), "leases")? == 1;
        let alive = leases.map(|boot| boot_id(take(Some(boot), "leases")?)).collect::<Result<Vec<_>, _>>()?;
        let served = answers.map(|boots| {
            let boots: Vec<Vec<u8>> = take(Some(boots), "hkeys")?;
            let boots = boots.into_iter().map(boot_id).collect::<Result<Vec<_>, _>>()?;
            Ok(boots.into_iter().filter(|boot| alive.contains(boot)).collect())
        });
        Ok(Located { unknown, served: served.collect::<Result<_, Error>>()? })
    }

    pub(super) async fn leave(&self, boot: BootId) -> Result<Dead, Error> {
        let Keys { leases, numbers, clearing, .. } = &*self.keys;
        let mut batch = Batch::default();
        batch.call(&LEAVE, &[leases, numbers, clearing], |args| {
            args.arg(boot.0.as_bytes());
        });
        let last_sign = take(self.link.run(batch, SHORT).await?.pop(), "leave")?;
        Ok(Dead { boot, last_sign, cleared: false })
    }

    pub(super) async fn bury(&self) -> Result<Vec<Dead>, Error> {
        let Keys { leases, numbers, clearing, cleared, .. } = &*self.keys;
        let mut batch = Batch::default();
        batch.call(&BURY, &[leases, numbers, clearing, cleared], |args| {
            args.arg(millis(self.timing.lease));
        });
        let all: Vec<(Vec<u8>, String, i64)> = take(self.link.run(batch, SHORT).await?.pop(), "bury")?;
        all.into_iter()
            .map(|(boot, at, cleared)| {
                Ok(Dead { boot: boot_id(boot)?, last_sign: instant(&at, "bury")?, cleared: cleared == 1 })
            })
            .collect()
    }

    pub(super) async fn states(&self, users: &[UserId]) -> Result<Vec<Known>, Error> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut batch = Batch::default();
        for user in users {
            batch.command("hmget", |args| {
                args.arg(self.keys.user(*user)).arg("state").arg("version").arg("seen").arg("hidden");
            });
        }
        let answers = self.link.run(batch, SHORT).await?;
        answers
            .into_iter()
            .map(|answer| {
                let (state, version, seen, hidden): (Option<String>, Option<i64>, Option<i64>, Option<i64>) =
                    take(Some(answer), "hmget")?;
                let status = status(state.as_deref().unwrap_or("offline"), version.unwrap_or(0), seen)?;
                Ok(Known { status, present: status.state != State::Offline || hidden.is_some() })
            })
            .collect()
    }

    pub(super) async fn choose(&self, user: UserId, chosen: Chosen) -> Result<Option<Transition>, Error> {
        let clearing = self.clearing().await?;
        let mut batch = Batch::default();
        self.step(&mut batch, user, &Verb::Choose(chosen), &clearing);
        let settled = self.settled(user, self.link.run(batch, SHORT).await?.pop())?;
        Ok(settled.transition)
    }

    pub(super) async fn said(&self, transitions: &[Transition]) -> Result<(), Error> {
        let mut batch = Batch::default();
        // First: what is not reached here is said again, and noted then.
        self.note_seen(&mut batch, transitions);
        for transition in transitions {
            batch.call(&SAID, &[&self.keys.user(transition.user)], |args| {
                args.arg(transition.status.version);
            });
        }
        self.link.run(batch, LONG).await.map(drop)
    }

    pub(super) async fn unsaid(&self, transitions: &[Transition]) -> Result<(), Error> {
        let users: Vec<UserId> = transitions.iter().map(|transition| transition.user).collect();
        let mut batch = Batch::default();
        self.schedule(&mut batch, millis(self.timing.resay) + RESAY_SLACK_MS, &users);
        self.link.run(batch, SHORT).await.map(drop)
    }

    pub(super) async fn probe(&self) -> Result<String, Error> {
        self.link.probe().await
    }

    fn schedule(&self, batch: &mut Batch, delay_ms: i64, users: &[UserId]) {
        if !users.is_empty() {
            batch.call(&SCHEDULE, &[&self.keys.due], |args| {
                args.arg(delay_ms);
                for user in users {
                    args.arg(user.0.as_bytes());
                }
            });
        }
    }
}

/// The random part of an epoch.
fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

fn boot_id(bytes: Vec<u8>) -> Result<BootId, Error> {
    Uuid::from_slice(&bytes).map(BootId).map_err(|_| Error::Unexpected("boot"))
}

#[allow(clippy::cast_possible_truncation, reason = "milliseconds stay below 2^53, which a double holds exactly")]
fn instant(score: &str, to: &'static str) -> Result<i64, Error> {
    score.parse::<f64>().map(|at| at as i64).map_err(|_| Error::Unexpected(to))
}

fn status(state: &str, version: i64, seen: Option<i64>) -> Result<Status, Error> {
    let state = State::parse(state).ok_or(Error::Unexpected("state"))?;
    let last_seen = seen.filter(|seen| state == State::Offline && *seen > 0);
    Ok(Status { state, last_seen, version })
}
