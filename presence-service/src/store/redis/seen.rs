//! When users were last seen, on its way to whoever stores it: noted when it was said, taken by one, then forgotten here.

use service_kit::id::UserId;
use uuid::Uuid;

use super::{
    Redis,
    link::{Batch, SHORT, take},
    script::{CLAIM, FINISH},
};
use crate::{
    error::Error,
    presence::{Seen, Transition, millis},
    store::BATCH,
};

impl Redis {
    /// Notes who went offline among those of whom it was said.
    pub(super) fn note_seen(&self, batch: &mut Batch, transitions: &[Transition]) {
        let gone: Vec<_> = transitions.iter().filter_map(|it| Some((it.status.last_seen?, it.user))).collect();
        if !gone.is_empty() {
            batch.command("zadd", |args| {
                args.arg(&self.keys.unstored);
                for (at, user) in gone {
                    args.arg(at).arg(user.0.as_bytes());
                }
            });
            // With nobody to take them they stay no longer than what they point at.
            batch.command("pexpire", |args| {
                args.arg(&self.keys.unstored).arg(millis(self.timing.keep));
            });
        }
    }

    pub(in crate::store) async fn take_seen(&self) -> Result<Vec<Seen>, Error> {
        let mut batch = Batch::default();
        batch.call(&CLAIM, &[&self.keys.unstored, &self.keys.taken], |args| {
            args.arg(BATCH).arg(millis(self.timing.claim));
        });
        let users: Vec<Vec<u8>> = take(self.link.run(batch, SHORT).await?.pop(), "claim")?;
        let users: Vec<UserId> = users.iter().filter_map(|user| Uuid::from_slice(user).ok().map(UserId)).collect();
        let mut batch = Batch::default();
        for user in &users {
            // Whatever the state is by now: this stays from the last time that it was offline.
            batch.command("hget", |args| {
                args.arg(self.keys.user(*user)).arg("seen");
            });
        }
        let (mut seen, mut forgotten) = (Vec::new(), Vec::new());
        for (user, answer) in users.into_iter().zip(self.link.run(batch, SHORT).await?) {
            match take::<Option<i64>>(Some(answer), "hget")? {
                Some(at) => seen.push(Seen { user, at }),
                None => forgotten.push(user),
            }
        }
        self.seen_stored(forgotten.into_iter()).await?;
        Ok(seen)
    }

    pub(in crate::store) async fn seen_stored(&self, users: impl Iterator<Item = UserId>) -> Result<(), Error> {
        let users: Vec<UserId> = users.collect();
        if users.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::default();
        batch.call(&FINISH, &[&self.keys.unstored, &self.keys.taken], |args| {
            for user in &users {
                args.arg(user.0.as_bytes()).arg(0);
            }
        });
        self.link.run(batch, SHORT).await.map(drop)
    }
}
