//! What changed in a room since a rev: an index range over the present state, for a client that catches up and for a
//! gateway that repairs.

use std::{collections::HashMap, sync::Arc};

use parlance_proto::{event::RoomEvent, event::room_event, v1};
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{RoomId, UserId},
    on_tx,
};
use uuid::Uuid;

use crate::{
    App,
    accounts::{UserRow, user_columns},
    actor::Actor,
    error::Result,
    messages::{MessageRow, message_columns},
    rooms::{self, MemberRow, RoomRow, room_columns},
};

/// More changed rows than this are not caught up with: the client starts the room anew.
pub(crate) const MOST: usize = 500;
/// Rows of one answer when the caller does not say.
const DEFAULT: i64 = 200;
/// Rows of one step of a gateway's repair.
const REPAIR_STEP: i64 = 500;

/// A room and the rev that somebody holds of it.
pub(crate) type Since = (RoomId, i64);

/// What changed in one room after one rev, not yet for anybody in particular.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    messages: Vec<MessageRow>,
    members: Vec<(MemberRow, UserRow)>,
}

/// One changed thing.
enum Row<'a> {
    Message(&'a MessageRow),
    Member(&'a MemberRow, &'a UserRow),
    Info,
}

impl Row<'_> {
    fn rev(&self, room: &RoomRow) -> i64 {
        match self {
            Self::Message(message) => message.rev,
            Self::Member(member, _) => member.rev,
            Self::Info => room.info_rev,
        }
    }
}

impl Rows {
    /// The rows after `from_rev` in the order of their revs, without messages up to `visible_from_seq`.
    fn ordered(&self, room: &RoomRow, from_rev: i64, visible_from_seq: i64) -> Vec<Row<'_>> {
        let messages = self.messages.iter().filter(|message| message.seq > visible_from_seq).map(Row::Message);
        let members = self.members.iter().map(|(member, user)| Row::Member(member, user));
        let info = (room.info_rev > from_rev).then_some(Row::Info);
        let mut rows: Vec<Row> = messages.chain(members).chain(info).collect();
        rows.sort_by_key(|row| row.rev(room));
        rows
    }

    /// How many rows there are, whoever asks.
    pub(crate) fn len(&self) -> usize {
        self.messages.len() + self.members.len()
    }
}

/// The changes of a room for one of its members. `limit` counts rows of all kinds.
pub(crate) fn assemble(
    room: &RoomRow,
    joined_rev: i64,
    visible_from_seq: i64,
    from_rev: i64,
    rows: &Rows,
    limit: usize,
) -> v1::Changes {
    // A rev from before the membership, or one that the room never had, proves nothing.
    if from_rev > room.rev || joined_rev > from_rev {
        return truncated(room.id, from_rev, room.rev);
    }
    let mut ordered = rows.ordered(room, from_rev, visible_from_seq);
    // Where more was read than is given there may be still more, even when this member may not see all of it.
    if ordered.len() > MOST || rows.messages.len() > MOST || rows.members.len() > MOST {
        return truncated(room.id, from_rev, room.rev);
    }
    let more = ordered.len() > limit;
    ordered.truncate(limit);
    let rev = if more { ordered.last().map_or(from_rev, |row| row.rev(room)) } else { room.rev };
    let mut changes = v1::Changes { room: room.id.to_wire(), from_rev, rev, more, ..v1::Changes::default() };
    for row in ordered {
        match row {
            Row::Message(message) => changes.messages.push(message.clone().into_wire()),
            Row::Member(member, user) if member.present => changes.members.push(member.to_wire(user)),
            Row::Member(member, _) => changes.removed.push(member.user_id.to_wire()),
            Row::Info => changes.info = Some(room.to_wire()),
        }
    }
    changes
}

/// What is said when nothing less can be proven: start this room anew at `rev`.
pub(crate) fn truncated(room: RoomId, from_rev: i64, rev: i64) -> v1::Changes {
    v1::Changes { room: room.to_wire(), from_rev, rev, truncated: true, ..v1::Changes::default() }
}

/// The changes of one room for a member who asks.
pub(crate) async fn changes(
    app: &Arc<App>,
    actor: Actor,
    room: RoomId,
    after_rev: i64,
    limit: i64,
) -> Result<v1::Changes> {
    let most = i64::try_from(MOST).unwrap_or(i64::MAX);
    let limit = match limit {
        0 => DEFAULT,
        limit if (1..=most).contains(&limit) => limit,
        _ => return Err(Fault::bad_request(format!("limit: must be 1 to {MOST}")).into()),
    };
    let mut tx = app.db.snapshot().await?;
    let member = rooms::present(&mut tx, room, actor.user).await?;
    let row = room_row(&mut tx, room).await?;
    let since = (room, after_rev);
    let rows = read(&mut tx, &[since], most + 1).await?.remove(&since).unwrap_or_default();
    let limit = usize::try_from(limit).unwrap_or(MOST);
    Ok(assemble(&row, member.joined_rev, member.visible_from_seq, after_rev, &rows, limit))
}

/// One step of a gateway's repair: events after a rev, chained, the room's rev, and whether there is more.
pub(crate) async fn repair(app: &Arc<App>, room: RoomId, after_rev: i64) -> Result<(Vec<RoomEvent>, i64, bool)> {
    let mut tx = app.db.snapshot().await?;
    let row = room_row(&mut tx, room).await?;
    let since = (room, after_rev);
    let rows = read(&mut tx, &[since], REPAIR_STEP + 1).await?.remove(&since).unwrap_or_default();
    let step = usize::try_from(REPAIR_STEP).unwrap_or(MOST);
    let mut ordered = rows.ordered(&row, after_rev, 0);
    let more = ordered.len() > step;
    ordered.truncate(step);
    let mut events = Vec::with_capacity(ordered.len());
    let mut held = after_rev;
    for changed in ordered {
        let mut event = match changed {
            Row::Message(message) => row.event(message.rev, room_event::Kind::Message(message.clone().into_wire())),
            Row::Member(member, user) if member.present => member.changed_event(&row, user),
            Row::Member(member, _) => member.removed_event(&row),
            Row::Info => row.event(row.info_rev, room_event::Kind::Info(row.to_wire())),
        };
        if event.rev != held + 1 {
            event.prev = held;
        }
        held = event.rev;
        events.push(event);
    }
    Ok((events, row.rev, more))
}

async fn room_row(tx: &mut Tx, room: RoomId) -> Result<RoomRow> {
    let row: Option<RoomRow> = on_tx!(tx, c => sqlx::query_as(concat!(
        "select ", room_columns!(), " from rooms where id = $1"
    ))
    .bind(room)
    .fetch_optional(c)
    .await)?;
    row.ok_or_else(rooms::no_such_room)
}

/// A changed membership with its user.
#[derive(sqlx::FromRow)]
struct ChangedMember {
    from_rev: i64,
    #[sqlx(flatten)]
    member: MemberRow,
    #[sqlx(flatten)]
    user: UserRow,
}

/// A changed message.
#[derive(sqlx::FromRow)]
struct ChangedMessage {
    from_rev: i64,
    #[sqlx(flatten)]
    message: MessageRow,
}

/// Reads the changed rows of distinct (room, rev) pairs, at most `limit` of each kind for each pair: two statements on
/// PostgreSQL, however many pairs.
pub(crate) async fn read(tx: &mut Tx, since: &[Since], limit: i64) -> Result<HashMap<Since, Rows>> {
    let mut rows: HashMap<Since, Rows> = HashMap::new();
    if since.is_empty() {
        return Ok(rows);
    }
    let (messages, members) = match tx {
        Tx::Postgres(tx) => {
            let rooms: Vec<Uuid> = since.iter().map(|(room, _)| room.0).collect();
            let revs: Vec<i64> = since.iter().map(|(_, rev)| *rev).collect();
            let messages: Vec<ChangedMessage> =
                sqlx::query_as(MESSAGES_POSTGRES).bind(&rooms).bind(&revs).bind(limit).fetch_all(&mut **tx).await?;
            let members: Vec<ChangedMember> =
                sqlx::query_as(MEMBERS_POSTGRES).bind(rooms).bind(revs).bind(limit).fetch_all(&mut **tx).await?;
            (messages, members)
        }
        Tx::Sqlite(tx) => {
            let (mut messages, mut members) = (Vec::new(), Vec::new());
            for (room, rev) in since {
                messages.extend(
                    sqlx::query_as::<_, ChangedMessage>(MESSAGES_SQLITE)
                        .bind(room)
                        .bind(rev)
                        .bind(limit)
                        .fetch_all(&mut **tx)
                        .await?,
                );
                members.extend(
                    sqlx::query_as::<_, ChangedMember>(MEMBERS_SQLITE)
                        .bind(room)
                        .bind(rev)
                        .bind(limit)
                        .fetch_all(&mut **tx)
                        .await?,
                );
            }
            (messages, members)
        }
    };
    for row in messages {
        rows.entry((row.message.room_id, row.from_rev)).or_default().messages.push(row.message);
    }
    for row in members {
        rows.entry((row.member.room_id, row.from_rev)).or_default().members.push((row.member, row.user));
    }
    Ok(rows)
}

const MESSAGES_POSTGRES: &str = concat!(
    "select k.rev as from_rev, c.* from unnest($1::uuid[], $2::bigint[]) as k(room, rev)
     cross join lateral (
         select ",
    message_columns!(),
    " from messages
         where messages.room_id = k.room and messages.rev > k.rev order by messages.rev limit $3
     ) c"
);
const MESSAGES_SQLITE: &str = concat!(
    "select $2 as from_rev, ",
    message_columns!(),
    " from messages where room_id = $1 and rev > $2 order by rev limit $3"
);
const MEMBERS_POSTGRES: &str = concat!(
    "select k.rev as from_rev, m.*, ",
    user_columns!(),
    "
     from unnest($1::uuid[], $2::bigint[]) as k(room, rev)
     cross join lateral (
         select ",
    rooms::member_columns!(),
    " from members
         where members.room_id = k.room and members.rev > k.rev order by members.rev limit $3
     ) m
     join users on users.id = m.user_id"
);
const MEMBERS_SQLITE: &str = concat!(
    "select $2 as from_rev, m.room_id, m.user_id, m.present, m.role, m.joined_at, m.rev, m.joined_rev,
         m.visible_from_seq, m.read_seq, m.delivered_seq, m.muted_until, m.me_rev, m.me_muted_until, m.notify, m.favourite,
         m.draft, ", user_columns!(), "
     from members m join users on users.id = m.user_id
     where m.room_id = $1 and m.rev > $2 order by m.rev limit $3"
);

/// The revs of rooms and users as they are now, in the order asked; 0 for what does not exist.
pub(crate) async fn heads(app: &App, room_ids: &[RoomId], user_ids: &[UserId]) -> Result<(Vec<i64>, Vec<i64>)> {
    let mut tx = app.db.snapshot().await?;
    let rooms: HashMap<Uuid, i64> = revs(&mut tx, Heads::Rooms, room_ids.iter().map(|id| id.0).collect()).await?;
    let users: HashMap<Uuid, i64> = revs(&mut tx, Heads::Users, user_ids.iter().map(|id| id.0).collect()).await?;
    let of = |revs: &HashMap<Uuid, i64>, id: Uuid| revs.get(&id).copied().unwrap_or_default();
    Ok((room_ids.iter().map(|id| of(&rooms, id.0)).collect(), user_ids.iter().map(|id| of(&users, id.0)).collect()))
}

/// The own revs of users; without those who do not exist.
pub(crate) async fn user_heads(tx: &mut Tx, users: &[UserId]) -> Result<HashMap<UserId, i64>> {
    let revs = revs(tx, Heads::Users, users.iter().map(|user| user.0).collect()).await?;
    Ok(revs.into_iter().map(|(user, rev)| (UserId(user), rev)).collect())
}

#[derive(Clone, Copy)]
enum Heads {
    Rooms,
    Users,
}

async fn revs(tx: &mut Tx, heads: Heads, ids: Vec<Uuid>) -> Result<HashMap<Uuid, i64>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<(Uuid, i64)> = match tx {
        Tx::Postgres(tx) => {
            let sql = match heads {
                Heads::Rooms => "select id, rev from rooms where id = any($1)",
                Heads::Users => "select id, rev from users where id = any($1)",
            };
            sqlx::query_as(sql).bind(ids).fetch_all(&mut **tx).await?
        }
        Tx::Sqlite(tx) => {
            let sql = match heads {
                Heads::Rooms => "select id, rev from rooms where id = $1",
                Heads::Users => "select id, rev from users where id = $1",
            };
            let mut rows = Vec::with_capacity(ids.len());
            for id in ids {
                rows.extend(sqlx::query_as::<_, (Uuid, i64)>(sql).bind(id).fetch_optional(&mut **tx).await?);
            }
            rows
        }
    };
    Ok(rows.into_iter().collect())
}
