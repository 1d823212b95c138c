//! A room's name, topic and settings, its end, and a member's own settings in it.

use std::sync::Arc;

use parlance_proto::event::MeChanged;
use service_kit::{
    db::Tx,
    fault::Fault,
    id::{FileId, RoomId},
    on_tx,
};

use crate::{
    App,
    actor::Actor,
    error::Result,
    files::attach::{self, AVATAR, OPEN_AVATAR},
    messages::mentions::count_mentions,
    outbox::Announcement,
    rooms::{self, Kind, MemberRow, Role, RoomRow, create, member_columns},
};

/// Longest pause of slow mode: a day, in seconds.
const MAX_SLOW_MODE_S: i64 = 86_400;
/// Longest draft, in characters.
const MAX_DRAFT: usize = 8_000;

/// What is to change of a room; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Patch {
    pub(crate) name: Option<String>,
    pub(crate) topic: Option<String>,
    /// A picture, or none.
    pub(crate) avatar: Option<Option<FileId>>,
    pub(crate) history_joined: Option<bool>,
    pub(crate) announcement: Option<bool>,
    pub(crate) slow_mode_s: Option<i64>,
    /// Something of the contract that is not built yet was given.
    pub(crate) unbuilt: Option<&'static str>,
}

/// What is to change of one's own settings; what is absent stays.
#[derive(Debug, Default)]
pub(crate) struct Mine {
    /// 0 lifts it.
    pub(crate) muted_until: Option<i64>,
    /// 1 all, 2 mentions, 3 none.
    pub(crate) notify: Option<i16>,
    pub(crate) favourite: Option<bool>,
    /// Empty removes it.
    pub(crate) draft: Option<String>,
}

/// Changes a room; all of it takes one rev, and what is already so takes none.
pub(crate) async fn patch(app: &Arc<App>, actor: Actor, room: RoomId, patch: Patch) -> Result<()> {
    patch.name.as_deref().map_or(Ok(()), create::check_name)?;
    patch.topic.as_deref().map_or(Ok(()), create::check_topic)?;
    if patch.slow_mode_s.is_some_and(|pause| !(0..=MAX_SLOW_MODE_S).contains(&pause)) {
        return Err(Fault::bad_request(format!("settings.slow_mode_s: must be 0 to {MAX_SLOW_MODE_S}")).into());
    }
    let mut tx = app.db.begin().await?;
    let mut row = rooms::lock(&mut tx, room).await?;
    let own = rooms::present(&mut tx, room, actor.user).await?;
    if own.role() < Role::Admin {
        return Err(Fault::forbidden("only admins and the owner change the room").into());
    }
    row.refuse_archived()?;
    if let Some(what) = patch.unbuilt {
        return Err(Fault::unprocessable(format!("{what} is not built yet")).into());
    }
    let before = row.clone();
    if let Some(avatar) = patch.avatar {
        let seq = if row.kind() == Kind::Channel { OPEN_AVATAR } else { AVATAR };
        attach::change_avatar(&mut tx, actor.user, (room.0, seq), avatar).await?;
        row.avatar = avatar.map(|file| file.0);
    }
    apply(&mut row, patch);
    if same(&before, &row) {
        // The file it has is held as before.
        return Ok(());
    }
    row.info_rev = row.next_rev();
    announce(app, tx, &row).await
}

fn apply(row: &mut RoomRow, patch: Patch) {
    if let Some(name) = patch.name {
        row.name = Some(name);
    }
    if let Some(topic) = patch.topic {
        row.topic = Some(topic).filter(|topic| !topic.is_empty());
    }
    row.history_joined = patch.history_joined.unwrap_or(row.history_joined);
    row.announcement = patch.announcement.unwrap_or(row.announcement);
    row.slow_mode_s = patch.slow_mode_s.unwrap_or(row.slow_mode_s);
}

fn same(before: &RoomRow, after: &RoomRow) -> bool {
    before.name == after.name
        && before.topic == after.topic
        && before.avatar == after.avatar
        && before.history_joined == after.history_joined
        && before.announcement == after.announcement
        && before.slow_mode_s == after.slow_mode_s
}

/// Archives a room: it can be read and left, and nothing else in it changes any more.
pub(crate) async fn archive(app: &Arc<App>, actor: Actor, room: RoomId) -> Result<()> {
    let mut tx = app.db.begin().await?;
    let mut row = rooms::lock(&mut tx, room).await?;
    let own = rooms::present(&mut tx, room, actor.user).await?;
    if row.kind() == Kind::Direct {
        return Err(Fault::unprocessable("a direct room is not archived").into());
    }
    if own.role() != Role::Owner {
        return Err(Fault::forbidden("only the owner archives the room").into());
    }
    if row.archived {
        return Ok(());
    }
    row.archived = true;
    row.info_rev = row.next_rev();
    announce(app, tx, &row).await
}

async fn announce(app: &App, mut tx: service_kit::db::Tx, row: &RoomRow) -> Result<()> {
    rooms::save(&mut tx, row).await?;
    let mut announcement = Announcement::new();
    announcement.room(row.id, row.info_event());
    let stored = app.outbox.store(&mut tx, announcement).await?;
    tx.commit().await?;
    app.outbox.publish(stored);
    Ok(())
}

/// Changes one's own settings in a room and tells one's own devices.
pub(crate) async fn patch_mine(
    app: &Arc<App>,
    actor: Actor,
    room: RoomId,
    mine: Mine,
) -> Result<parlance_proto::v1::Me> {
    if mine.draft.as_deref().is_some_and(|draft| draft.chars().count() > MAX_DRAFT || draft.contains('\0')) {
        return Err(Fault::bad_request(format!("draft: must have at most {MAX_DRAFT} characters")).into());
    }
    let mut tx = app.db.begin().await?;
    let before = own_row(&mut tx, actor, room).await?;
    let mut row = before.clone();
    if let Some(until) = mine.muted_until {
        row.me_muted_until = Some(until).filter(|until| *until > 0);
    }
    row.notify = mine.notify.unwrap_or(row.notify);
    row.favourite = mine.favourite.unwrap_or(row.favourite);
    if let Some(draft) = mine.draft {
        row.draft = Some(draft).filter(|draft| !draft.is_empty());
    }
    let own = |row: &MemberRow| (row.me_muted_until, row.notify, row.favourite, row.draft.clone());
    let changed = own(&before) != own(&row);
    row.me_rev += i64::from(changed);
    let (seq, mentions): (i64, i64) = on_tx!(&mut tx, c => sqlx::query_as(concat!(
        "update members set me_muted_until = $3, notify = $4, favourite = $5, draft = $6, me_rev = $7
         where room_id = $1 and user_id = $2
         returning (select seq from rooms where id = $1), ", count_mentions!("members")
    ))
    .bind(room)
    .bind(actor.user)
    .bind(row.me_muted_until)
    .bind(row.notify)
    .bind(row.favourite)
    .bind(&row.draft)
    .bind(row.me_rev)
    .fetch_one(c)
    .await)?;
    tx.commit().await?;
    let me = row.to_me(seq, mentions);
    if changed {
        let mut announcement = Announcement::new();
        announcement.me(actor.user, MeChanged { room: room.to_wire(), me: Some(me.clone()) });
        app.outbox.publish_droppable(announcement);
    }
    Ok(me)
}

/// One's own membership, locked, so that two devices change it one after the other.
async fn own_row(tx: &mut Tx, actor: Actor, room: RoomId) -> Result<MemberRow> {
    let row: Option<MemberRow> = match tx {
        Tx::Postgres(tx) => {
            sqlx::query_as(concat!(
                "select ",
                member_columns!(),
                " from members where room_id = $1 and user_id = $2 and present for no key update"
            ))
            .bind(room)
            .bind(actor.user)
            .fetch_optional(&mut **tx)
            .await?
        }
        Tx::Sqlite(_) => rooms::membership(tx, room, actor.user).await?.filter(|member| member.present),
    };
    row.ok_or_else(rooms::no_such_room)
}
