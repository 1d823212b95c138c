//! Lists: one's own rooms, channels to join, members of a room.

use std::sync::Arc;

use parlance_proto::v1;
use service_kit::{
    fault::Fault,
    id::{RoomId, UserId},
    on_db, on_tx,
};

use crate::{
    App,
    accounts::{UserRow, blocks::blocked_direct, user_columns},
    actor::Actor,
    error::Result,
    page::{self, Page},
    rooms::{
        self, MemberRow, RoomRow, room_columns,
        view::{self, RoomView, select_views},
    },
};

/// Longest search text, in characters.
const MAX_QUERY: usize = 64;

/// A place in a list that is ordered by the latest activity.
#[derive(Clone, Copy, Debug)]
struct Place {
    active_at: i64,
    room: RoomId,
}

impl Place {
    /// Reads the place that a page comes after; a page without one begins at the newest.
    fn of(page: &Page) -> Result<Self> {
        let Some(text) = &page.after else { return Ok(Self { active_at: i64::MAX, room: RoomId(uuid::Uuid::max()) }) };
        let (at, room) = text.split_once(' ').ok_or_else(page::not_a_cursor)?;
        Ok(Self {
            active_at: at.parse().map_err(|_| page::not_a_cursor())?,
            room: room.parse().map_err(|_| page::not_a_cursor())?,
        })
    }
}

/// The text of the cursor behind a room in such a list.
pub(crate) fn place(room: &RoomRow) -> String {
    format!("{} {}", room.active_at, room.id)
}

/// The user's own rooms, newest activity first.
pub(crate) async fn mine(app: &App, user: UserId, page: &Page) -> Result<(Vec<v1::Room>, Option<String>)> {
    let after = Place::of(page)?;
    let mut rows: Vec<RoomView> = on_db!(&app.db, pool => sqlx::query_as(select_views!(
        "user_rooms k",
        "where k.user_id = $1 and (r.active_at < $2 or (r.active_at = $2 and r.id < $3))
         order by r.active_at desc, r.id desc limit $4"
    ))
    .bind(user)
    .bind(after.active_at)
    .bind(after.room)
    .bind(page.limit + 1)
    .fetch_all(pool)
    .await)?;
    let next = page.cut(&mut rows, |row| place(&row.room));
    Ok((rows.iter().map(RoomView::to_wire).collect(), next))
}

/// Channels that anyone may join, newest first; `query` is a part of the name.
pub(crate) async fn public(app: &App, query: Option<String>, page: &Page) -> Result<(Vec<v1::Room>, Option<String>)> {
    let query = query.unwrap_or_default().to_lowercase();
    if query.chars().count() > MAX_QUERY || query.contains('\0') {
        return Err(Fault::bad_request(format!("query: must have at most {MAX_QUERY} characters")).into());
    }
    let pattern = format!("%{}%", query.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    let after = page.after::<RoomId>()?.unwrap_or(RoomId(uuid::Uuid::max()));
    let mut rows: Vec<RoomRow> = on_db!(&app.db, pool => sqlx::query_as(concat!(
        "select ", room_columns!(), " from rooms
         where kind = 3 and not archived and name_folded like $1 escape '\\' and id < $2
         order by id desc limit $3"
    ))
    .bind(pattern)
    .bind(after)
    .bind(page.limit + 1)
    .fetch_all(pool)
    .await)?;
    let next = page.cut(&mut rows, |row| row.id.to_string());
    Ok((rows.iter().map(RoomRow::to_wire).collect(), next))
}

/// One room as the actor sees it.
pub(crate) async fn get(app: &Arc<App>, user: UserId, room: RoomId) -> Result<v1::Room> {
    let mut tx = app.db.snapshot().await?;
    Ok(view::read_one(&mut tx, user, room).await?.to_wire())
}

/// A membership with the user whose it is.
#[derive(Debug, sqlx::FromRow)]
struct MemberAndUser {
    #[sqlx(flatten)]
    member: MemberRow,
    #[sqlx(flatten)]
    user: UserRow,
    show_receipts: bool,
}

/// The members of a room in the order of their ids. Cursors are shown in rooms of up to 100 members, unless the
/// member does not show receipts, or one of a direct room blocks the other.
pub(crate) async fn members(
    app: &Arc<App>,
    actor: Actor,
    room: RoomId,
    page: &Page,
) -> Result<(Vec<v1::Member>, Option<String>)> {
    let after = page.after::<UserId>()?.unwrap_or(UserId(uuid::Uuid::nil()));
    let mut tx = app.db.snapshot().await?;
    rooms::present(&mut tx, room, actor.user).await?;
    let mut rows: Vec<MemberAndUser> = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "select m.room_id, m.user_id, m.present, m.role, m.joined_at, m.rev, m.joined_rev, m.visible_from_seq, m.read_seq,
             m.delivered_seq, m.muted_until, m.me_rev, m.me_muted_until, m.notify, m.favourite, m.draft, ",
        user_columns!(), ", users.show_receipts and not (r.kind = 1 and ", blocked_direct!("r.id"), ") as show_receipts
         from members m join users on users.id = m.user_id join rooms r on r.id = m.room_id
         where m.room_id = $1 and m.present and m.user_id > $2
         order by m.user_id limit $3"
    ))
    .bind(room)
    .bind(after)
    .bind(page.limit + 1)
    .fetch_all(c)
    .await)?;
    let (count,): (i64,) = on_tx!(&mut tx, c => sqlx::query_as("select member_count from rooms where id = $1")
        .bind(room)
        .fetch_one(c)
        .await)?;
    let next = page.cut(&mut rows, |row| row.member.user_id.to_string());
    let small = count <= crate::receipts::MOST_MEMBERS;
    let items = rows.iter().map(|row| {
        let shown = small && (row.show_receipts || row.member.user_id == actor.user);
        v1::Member {
            read_seq: shown.then_some(row.member.read_seq),
            delivered_seq: shown.then_some(row.member.delivered_seq),
            ..row.member.to_wire(&row.user)
        }
    });
    Ok((items.collect(), next))
}
