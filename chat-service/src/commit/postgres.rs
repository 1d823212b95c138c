//! The statements of a batch on PostgreSQL: begin, lock, read, write, commit, whatever the size of the batch.

use service_kit::id::RoomId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{
    Item,
    decide::{Plan, RoomState, Rooms, State},
};
use crate::{
    files::attach::{FoundRow, Known, found_columns, is_shown_to},
    messages::{MessageRow, mentions},
    outbox,
};

/// What every item is judged by: `$with` goes before, `$columns` and `$join` add to it.
macro_rules! read_items {
    ([$($with:tt)*], $columns:literal, $join:literal) => {
        concat!(
            $($with)*
            "select k.ord, m.present, m.role, m.visible_from_seq, m.muted_until, m.sent_at, m.blocked,
                 d.id as d_id, d.seq as d_seq, d.rev as d_rev, d.at as d_at", $columns, "
             from unnest($1::uuid[], $2::uuid[], $3::uuid[]) with ordinality as k(room, sender, client_id, ord)
             left join members m on m.room_id = k.room and m.user_id = k.sender
             left join messages d on d.room_id = k.room and d.sender = k.sender and d.client_id = k.client_id", $join, "
             order by k.ord"
        )
    };
}

/// How long a room that was missed twice is waited for.
const LOCK_WAIT: &str = "set local lock_timeout = '3s'";

/// Locks those of the rooms that nobody else holds, and gives them as they stand under the lock; a stuck room stalls no
/// other one.
pub(super) async fn lock(tx: &mut Transaction<'_, Postgres>, rooms: &[RoomId]) -> sqlx::Result<Rooms> {
    let ids: Vec<Uuid> = rooms.iter().map(|room| room.0).collect();
    // What is locked is read anew once the lock is there: the newest version of the row, not that of the snapshot.
    let locked: Vec<RoomState> = sqlx::query_as(
        "select id, seq, rev, archived, announcement, slow_mode_s, kind from rooms where id = any($1)
         order by id for no key update skip locked",
    )
    .bind(&ids)
    .fetch_all(&mut **tx)
    .await?;
    if locked.len() == rooms.len() {
        return Ok(Rooms::new(locked, []));
    }
    let existing: Vec<(RoomId,)> =
        sqlx::query_as("select id from rooms where id = any($1)").bind(ids).fetch_all(&mut **tx).await?;
    let mut rooms = Rooms::new(locked, existing.into_iter().map(|(room,)| room));
    rooms.missed.retain(|room| !rooms.locked.contains_key(room));
    Ok(rooms)
}

/// Waits for one room, but not for ever.
pub(super) async fn wait_for(tx: &mut Transaction<'_, Postgres>, room: RoomId) -> sqlx::Result<Rooms> {
    sqlx::query(LOCK_WAIT).execute(&mut **tx).await?;
    let locked: Option<RoomState> = sqlx::query_as(
        "select id, seq, rev, archived, announcement, slow_mode_s, kind from rooms where id = $1 for no key update",
    )
    .bind(room)
    .fetch_optional(&mut **tx)
    .await?;
    Ok(Rooms::new(locked.into_iter().collect(), []))
}

/// Reads what every item is judged by, in a statement after the lock: an earlier snapshot may be stale.
pub(super) async fn read(tx: &mut Transaction<'_, Postgres>, items: &[Item]) -> sqlx::Result<Vec<State>> {
    let rooms: Vec<Uuid> = items.iter().map(|item| item.room.0).collect();
    let senders: Vec<Uuid> = items.iter().map(|item| item.sender.0).collect();
    let client_ids: Vec<Uuid> = items.iter().map(|item| item.client_id.0).collect();
    sqlx::query_as(read_items!([], "", "")).bind(rooms).bind(senders).bind(client_ids).fetch_all(&mut **tx).await
}

/// An item's state, with a file that it names.
#[derive(sqlx::FromRow)]
struct StateWithFile {
    #[sqlx(flatten)]
    state: State,
    #[sqlx(flatten)]
    file: FoundRow,
}

/// Reads the same and the files that the items name, as [`crate::files::attach::known`] does: what attaches takes no trip more.
pub(super) async fn read_with_files(
    tx: &mut Transaction<'_, Postgres>,
    items: &[Item],
) -> sqlx::Result<(Vec<State>, Known)> {
    let named = || {
        let numbered = (1_i64..).zip(items);
        numbered.flat_map(|(ord, item)| item.attachments.iter().map(move |file| (ord, item.sender.0, file.0)))
    };
    let rows: Vec<StateWithFile> = sqlx::query_as(READ_WITH_FILES)
        .bind(items.iter().map(|item| item.room.0).collect::<Vec<Uuid>>())
        .bind(items.iter().map(|item| item.sender.0).collect::<Vec<Uuid>>())
        .bind(items.iter().map(|item| item.client_id.0).collect::<Vec<Uuid>>())
        .bind(named().map(|(ord, ..)| ord).collect::<Vec<i64>>())
        .bind(named().map(|(_, sender, _)| sender).collect::<Vec<Uuid>>())
        .bind(named().map(|(.., file)| file).collect::<Vec<Uuid>>())
        .fetch_all(&mut **tx)
        .await?;
    let (mut states, mut known): (Vec<State>, Known) = (Vec::with_capacity(items.len()), Known::new());
    // A row for each file of an item, and one for an item without any.
    for StateWithFile { state, file } in rows {
        if states.last().is_none_or(|last| last.ord != state.ord) {
            states.push(state);
        }
        let sender = items.get(states.len() - 1).map(|item| item.sender);
        known.extend(sender.zip(file.into_file()).map(|(sender, file)| ((sender, file.id), file)));
    }
    Ok((states, known))
}

const READ_WITH_FILES: &str = read_items!(
    [
        "with named as (
             select k.ord as item, ",
        found_columns!(),
        "
             from unnest($4::bigint[], $5::uuid[], $6::uuid[]) as k(ord, sender, file)
             join files on files.id = k.file
             where files.state <> 4 and (files.owner = k.sender or ",
        is_shown_to!("k.sender"),
        ")
             order by files.id for no key update of files
         ) ",
    ],
    ", n.*",
    " left join named n on n.item = k.ord"
);

/// Writes the whole batch in one statement: messages, rooms, senders' cursors, files that they hold, the outbox row, and
/// away with the rows that are published.
pub(super) async fn write(
    tx: &mut Transaction<'_, Postgres>,
    plan: &Plan,
    row: &outbox::Row,
    published: &[Uuid],
) -> sqlx::Result<()> {
    let column = |value: fn(&MessageRow) -> i64| plan.inserts.iter().map(value).collect::<Vec<i64>>();
    let ids = |value: fn(&MessageRow) -> Uuid| plan.inserts.iter().map(value).collect::<Vec<Uuid>>();
    let rooms: Vec<_> = plan.rooms.iter().collect();
    let mentions: Vec<_> = plan.inserts.iter().flat_map(mentions::rows).collect();
    // In the order in which cursors lock them.
    let mut senders: Vec<_> = plan.senders.iter().collect();
    senders.sort_by_key(|(key, _)| **key);
    sqlx::query(WRITE)
        .bind(ids(|message| message.room_id.0))
        .bind(column(|message| message.seq))
        .bind(column(|message| message.rev))
        .bind(ids(|message| message.id.0))
        .bind(ids(|message| message.client_id.0))
        .bind(ids(|message| message.sender.0))
        .bind(plan.inserts.iter().map(|message| message.text.as_str()).collect::<Vec<&str>>())
        .bind(plan.inserts.iter().map(|message| message.reply_to).collect::<Vec<Option<i64>>>())
        .bind(plan.inserts.iter().map(|message| message.meta.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(column(|message| message.at))
        .bind(rooms.iter().map(|(room, _)| room.0).collect::<Vec<Uuid>>())
        .bind(rooms.iter().map(|(_, moved)| moved.seq).collect::<Vec<i64>>())
        .bind(rooms.iter().map(|(_, moved)| moved.rev).collect::<Vec<i64>>())
        .bind(rooms.iter().map(|(_, moved)| moved.at).collect::<Vec<i64>>())
        .bind(senders.iter().map(|((room, _), _)| room.0).collect::<Vec<Uuid>>())
        .bind(senders.iter().map(|((_, sender), _)| sender.0).collect::<Vec<Uuid>>())
        .bind(senders.iter().map(|(_, moved)| moved.seq).collect::<Vec<i64>>())
        .bind(senders.iter().map(|(_, moved)| moved.at).collect::<Vec<i64>>())
        .bind(published)
        .bind(row.id)
        .bind(outbox::CLAIM_MS)
        .bind(&row.encoded)
        .bind(plan.inserts.iter().map(|message| message.attachments.as_deref()).collect::<Vec<Option<&[u8]>>>())
        .bind(plan.refs.iter().map(|(file, ..)| file.0).collect::<Vec<Uuid>>())
        .bind(plan.refs.iter().map(|(_, room, _)| room.0).collect::<Vec<Uuid>>())
        .bind(plan.refs.iter().map(|(.., seq)| *seq).collect::<Vec<i64>>())
        .bind(plan.inserts.iter().map(|message| message.mentions.as_deref()).collect::<Vec<Option<&[u8]>>>())
        .bind(mentions.iter().map(|row| row.room.0).collect::<Vec<Uuid>>())
        .bind(mentions.iter().map(|row| row.target).collect::<Vec<Uuid>>())
        .bind(mentions.iter().map(|row| row.seq).collect::<Vec<i64>>())
        .bind(mentions.iter().map(|row| row.sender.0).collect::<Vec<Uuid>>())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

const WRITE: &str = "with new_messages as (
    insert into messages (room_id, seq, rev, id, client_id, sender, kind, text, reply_to, meta, at, attachments, mentions)
    select room, seq, rev, id, client_id, sender, 1, body, reply_to, meta, at, attachments, mentions
    from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::bigint[],
        $9::text[], $10::bigint[], $23::bytea[], $27::bytea[])
        as n(room, seq, rev, id, client_id, sender, body, reply_to, meta, at, attachments, mentions)
), new_mentions as (
    insert into mentions (room_id, target, seq, sender)
    select room, target, seq, sender
    from unnest($28::uuid[], $29::uuid[], $30::bigint[], $31::uuid[]) as n(room, target, seq, sender)
), moved_rooms as (
    update rooms r set seq = n.seq, rev = n.rev, active_at = n.at
    from unnest($11::uuid[], $12::bigint[], $13::bigint[], $14::bigint[]) as n(id, seq, rev, at)
    where r.id = n.id
), own_cursors as (
    update members m
    set read_seq = greatest(m.read_seq, n.seq), delivered_seq = greatest(m.delivered_seq, n.seq), sent_at = n.at
    from unnest($15::uuid[], $16::uuid[], $17::bigint[], $18::bigint[]) as n(room, sender, seq, at)
    where m.room_id = n.room and m.user_id = n.sender
), new_refs as (
    insert into file_refs (file_id, room_id, seq)
    select file, room, seq from unnest($24::uuid[], $25::uuid[], $26::bigint[]) as n(file, room, seq)
), held_files as (
    update files set expires_at = null where id = any($24)
), published as (
    delete from outbox where id = any($19)
)
insert into outbox (id, claimed_until, batch)
values ($20, (extract(epoch from clock_timestamp()) * 1000)::bigint + $21, $22)";
