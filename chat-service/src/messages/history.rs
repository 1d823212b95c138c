//! Pages of a room's history, as a member may see it.

use std::sync::Arc;

use service_kit::{db::Tx, fault::Fault, id::RoomId, on_tx};

use super::{MessageRow, message_columns};
use crate::{App, actor::Actor, error::Result, rooms};

/// Messages of a page when the caller does not say, and at most.
const PAGE: (i64, i64) = (50, 200);

/// Which part of a history is asked for; the given seq is excluded, but for `Around`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Newest,
    Before(i64),
    After(i64),
    Around(i64),
}

/// A page of a history, ascending.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) items: Vec<MessageRow>,
    /// Whether there is more in the direction asked; for `Around` towards older ones.
    pub(crate) has_more: bool,
    /// The room's rev in the same snapshot.
    pub(crate) rev: i64,
}

/// A page of a room's history, as its member may see it.
pub(crate) async fn read(app: &Arc<App>, actor: Actor, room: RoomId, window: Window, limit: i64) -> Result<Page> {
    let limit = match limit {
        0 => PAGE.0,
        limit if (1..=PAGE.1).contains(&limit) => limit,
        _ => return Err(Fault::bad_request(format!("limit: must be 1 to {}", PAGE.1)).into()),
    };
    let mut tx = app.db.snapshot().await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let (rev,): (i64,) = on_tx!(&mut tx, c => sqlx::query_as("select rev from rooms where id = $1")
        .bind(room)
        .fetch_one(c)
        .await)?;
    let from = member.visible_from_seq;
    let (items, has_more) = match window {
        Window::Newest => older(&mut tx, room, from, i64::MAX, limit).await?,
        Window::Before(seq) => older(&mut tx, room, from, seq, limit).await?,
        Window::After(seq) => newer(&mut tx, room, from.max(seq), limit).await?,
        Window::Around(seq) => around(&mut tx, room, from, seq, limit).await?,
    };
    Ok(Page { items, has_more, rev })
}

/// Up to `limit` messages above `from` and below `seq`, and whether there are older ones.
async fn older(tx: &mut Tx, room: RoomId, from: i64, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let mut rows: Vec<MessageRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq > $2 and seq < $3
         order by seq desc limit $4"
    ))
    .bind(room)
    .bind(from)
    .bind(seq)
    .bind(limit + 1)
    .fetch_all(c)
    .await)?;
    let more = cut(&mut rows, limit);
    rows.reverse();
    Ok((rows, more))
}

/// Up to `limit` messages above `seq`, and whether there are newer ones.
async fn newer(tx: &mut Tx, room: RoomId, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let mut rows: Vec<MessageRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", message_columns!(), " from messages where room_id = $1 and seq > $2 order by seq limit $3"
    ))
    .bind(room)
    .bind(seq)
    .bind(limit + 1)
    .fetch_all(c)
    .await)?;
    let more = cut(&mut rows, limit);
    Ok((rows, more))
}

/// `limit` messages in all, `seq` among them, as evenly on both sides as there are.
async fn around(tx: &mut Tx, room: RoomId, from: i64, seq: i64, limit: i64) -> Result<(Vec<MessageRow>, bool)> {
    let (below, _) = older(tx, room, from, seq, limit).await?;
    let (above, _) = newer(tx, room, from.max(seq - 1), limit).await?;
    let (take_below, take_above) = share(below.len(), above.len(), usize::try_from(limit).unwrap_or(0));
    let has_more = match below.get(below.len().wrapping_sub(take_below)) {
        Some(first) => exists_below(tx, room, from, first.seq).await?,
        None => !below.is_empty() || exists_below(tx, room, from, seq).await?,
    };
    let items = below.iter().skip(below.len() - take_below).chain(above.iter().take(take_above));
    Ok((items.cloned().collect(), has_more))
}

async fn exists_below(tx: &mut Tx, room: RoomId, from: i64, seq: i64) -> Result<bool> {
    Ok(!older(tx, room, from, seq, 1).await?.0.is_empty())
}

/// How many of `below` and of `above` (which begins with the one in the middle) make `limit`. What one side does not
/// have the other gets.
fn share(below: usize, above: usize, limit: usize) -> (usize, usize) {
    // The one in the middle counts to neither half.
    let half_below = (limit.saturating_sub(1)) / 2;
    let take_above = above.min(limit - half_below.min(below));
    let take_below = below.min(limit - take_above);
    (take_below, take_above)
}

fn cut(rows: &mut Vec<MessageRow>, limit: i64) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    more
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_window_is_shared_evenly_and_filled_from_the_longer_side() {
        // (older ones, the middle one and newer ones, limit) -> taken
        for (below, above, limit, expected) in [
            (10, 10, 5, (2, 3)),
            (10, 10, 4, (1, 3)),
            (0, 10, 5, (0, 5)),
            (10, 1, 5, (4, 1)),
            (1, 2, 10, (1, 2)),
            (10, 10, 1, (0, 1)),
        ] {
            assert_eq!(share(below, above, limit), expected, "{below} {above} {limit}");
        }
    }
}
