//! Takes over the rows whose maker has not published them in time, and deletes those that no transaction took along.

use std::{sync::Arc, time::Duration};

use parlance_proto::event::Batch;
use prost::Message;
use service_kit::on_tx;
use uuid::Uuid;

use super::{CLAIM_MS, Outbox, WAITING, Waiting, delete, kib};
use crate::error::Result;

/// How often rows with an expired claim are looked for, and published ones are deleted at the latest.
const SWEEP: Duration = Duration::from_secs(1);
/// Rows that one sweep takes.
const SWEEP_ROWS: i64 = 64;

impl Outbox {
    /// Sweeps until the process stops.
    pub(super) async fn sweep_all(self) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            loop {
                match self.sweep().await {
                    // A backlog goes at once, as long as the publisher keeps up.
                    Ok(SWEEP_ROWS) if self.0.waiting.capacity() > WAITING / 2 => {}
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(error = %error, "the outbox could not be swept; trying again");
                        break;
                    }
                }
            }
        }
    }

    /// Deletes what is published and no transaction has taken along, then takes over rows whose claim has run out.
    /// Tells how many.
    async fn sweep(&self) -> Result<i64> {
        let rows = self.take_published();
        if !rows.is_empty()
            && let Err(error) = self.delete(&rows).await
        {
            self.give_back(rows);
            return Err(error);
        }
        if !self.0.bus.is_ready() {
            return Ok(0);
        }
        let mut tx = self.0.db.begin().await?;
        let sql = if tx.is_postgres() { CLAIM_POSTGRES } else { CLAIM_SQLITE };
        let taken: Vec<(Vec<u8>,)> =
            on_tx!(&mut tx, c => sqlx::query_as(sql).bind(CLAIM_MS).bind(SWEEP_ROWS).fetch_all(c).await)?;
        tx.commit().await?;
        let rows = i64::try_from(taken.len()).unwrap_or(SWEEP_ROWS);
        for (encoded,) in taken {
            metrics::counter!("outbox_swept_total").increment(1);
            match Batch::decode(encoded.as_slice()) {
                Ok(batch) => {
                    let Ok(room) = Arc::clone(&self.0.room).acquire_many_owned(kib(&batch)).await else {
                        return Ok(0);
                    };
                    if self.0.waiting.send(Waiting { batch, room }).await.is_err() {
                        return Ok(0);
                    }
                }
                Err(error) => tracing::error!(error = %error, "an outbox row cannot be read; it stays"),
            }
        }
        Ok(rows)
    }

    async fn delete(&self, rows: &[Uuid]) -> Result<()> {
        let mut tx = self.0.db.begin().await?;
        delete(&mut tx, rows).await?;
        tx.commit().await?;
        Ok(())
    }
}

const CLAIM_POSTGRES: &str = "update outbox
    set claimed_until = (extract(epoch from clock_timestamp()) * 1000)::bigint + $1
    where id in (
        select id from outbox where claimed_until < (extract(epoch from clock_timestamp()) * 1000)::bigint
        order by id limit $2 for update skip locked
    )
    returning batch";
const CLAIM_SQLITE: &str = "update outbox
    set claimed_until = cast(unixepoch('subsec') * 1000 as integer) + $1
    where id in (
        select id from outbox where claimed_until < cast(unixepoch('subsec') * 1000 as integer) order by id limit $2
    )
    returning batch";
