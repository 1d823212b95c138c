//! Deletes rows whose time is over, a few at a time.

use std::time::Duration;

use service_kit::{clock, db::Db, on_tx};

/// Rows that are deleted at once.
const SWEPT: i64 = 1000;

/// Has `delete` executed with the end of their time ($1) and a bound ($2) until it finds none.
///
/// # Errors
/// When the database does not do it.
pub(crate) async fn sweep(db: &Db, delete: &'static str, kept: Duration) -> sqlx::Result<()> {
    let until = clock::now_ms() - i64::try_from(kept.as_millis()).unwrap_or_default();
    loop {
        let mut tx = db.begin().await?;
        let swept = on_tx!(&mut tx, c => sqlx::query(delete)
            .bind(until)
            .bind(SWEPT)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        tx.commit().await?;
        if swept == 0 {
            return Ok(());
        }
    }
}
