//! The statements of a batch on SQLite, which has one writer: every room is ours once the transaction has begun.

use service_kit::id::RoomId;
use sqlx::{Sqlite, Transaction};

use super::{
    Item,
    decide::{Plan, RoomState, Rooms, State},
};

/// Reads the rooms, all of which are ours.
pub(super) async fn rooms(tx: &mut Transaction<'_, Sqlite>, rooms: &[RoomId]) -> sqlx::Result<Rooms> {
    let mut found: Vec<RoomState> = Vec::with_capacity(rooms.len());
    for room in rooms {
        let row =
            sqlx::query_as("select id, seq, rev, archived, announcement, slow_mode_s, kind from rooms where id = $1");
        found.extend(row.bind(room).fetch_optional(&mut **tx).await?);
    }
    Ok(Rooms::new(found, []))
}

/// Reads what every item is judged by.
pub(super) async fn read(tx: &mut Transaction<'_, Sqlite>, items: &[Item]) -> sqlx::Result<Vec<State>> {
    let mut states = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        states.push(
            sqlx::query_as(
                "select k.ord, m.present, m.role, m.visible_from_seq, m.muted_until, m.sent_at, m.blocked,
                     d.id as d_id, d.seq as d_seq, d.rev as d_rev, d.at as d_at
                 from (select $1 as room, $2 as sender, $3 as client_id, $4 as ord) as k
                 left join members m on m.room_id = k.room and m.user_id = k.sender
                 left join messages d on d.room_id = k.room and d.sender = k.sender and d.client_id = k.client_id",
            )
            .bind(item.room)
            .bind(item.sender)
            .bind(item.client_id)
            .bind(i64::try_from(place).unwrap_or_default() + 1)
            .fetch_one(&mut **tx)
            .await?,
        );
    }
    Ok(states)
}

/// Moves rooms and senders' cursors; messages and the outbox row are written by the statements that everybody uses.
pub(super) async fn write(tx: &mut Transaction<'_, Sqlite>, plan: &Plan) -> sqlx::Result<()> {
    for (room, moved) in &plan.rooms {
        sqlx::query("update rooms set seq = $2, rev = $3, active_at = $4 where id = $1")
            .bind(room)
            .bind(moved.seq)
            .bind(moved.rev)
            .bind(moved.at)
            .execute(&mut **tx)
            .await?;
    }
    for ((room, sender), moved) in &plan.senders {
        sqlx::query(
            "update members set read_seq = max(read_seq, $3), delivered_seq = max(delivered_seq, $3), sent_at = $4
             where room_id = $1 and user_id = $2",
        )
        .bind(room)
        .bind(sender)
        .bind(moved.seq)
        .bind(moved.at)
        .execute(&mut **tx)
        .await?;
    }
    Ok(())
}
