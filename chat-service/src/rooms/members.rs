//! Who is in a room: joining, leaving, adding, removing, roles, transfer of ownership.

use std::sync::Arc;

use parlance_proto::event::{room_event, user_event};
use serde_json::json;
use service_kit::{
    clock,
    db::Tx,
    fault::Fault,
    id::{ClientId, MessageId, RoomId, UserId},
    on_tx,
};

use crate::{
    App,
    accounts::UserRow,
    actor::Actor,
    error::Result,
    messages::{self, MessageRow},
    outbox::Announcement,
    rooms::{self, Kind, MemberRow, Role, RoomRow, create},
};

/// Most members of one room.
const MAX_MEMBERS: i64 = 100_000;

/// What a member is to become.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) role: Option<Role>,
    /// Until when the member may not write; 0 lifts it.
    pub(crate) muted_until: Option<i64>,
}

/// A transaction that holds a room, and what it will tell.
struct Change {
    tx: Tx,
    room: RoomRow,
    announcement: Announcement,
}

impl Change {
    async fn begin(app: &App, room: RoomId) -> Result<Self> {
        let mut tx = app.db.begin().await?;
        let room = rooms::lock(&mut tx, room).await?;
        Ok(Self { tx, room, announcement: Announcement::new() })
    }

    async fn finish(mut self, app: &App) -> Result<()> {
        rooms::save(&mut self.tx, &self.room).await?;
        let stored = app.outbox.store(&mut self.tx, self.announcement).await?;
        self.tx.commit().await?;
        app.outbox.publish(stored);
        Ok(())
    }

    /// Lets somebody in: the member's rev first, then the notice, which counts as read. Who was muted stays so, unless
    /// `muted_until` says otherwise: leaving and joining again is no way around it. `by` is who adds them.
    async fn admit(
        &mut self,
        user: &UserRow,
        role: Role,
        muted_until: Option<i64>,
        by: Option<UserId>,
        text: String,
    ) -> Result<MemberRow> {
        self.room.refuse_archived()?;
        if self.room.member_count >= MAX_MEMBERS {
            return Err(Fault::unprocessable(format!("the room has {MAX_MEMBERS} members and takes no more")).into());
        }
        let earlier = rooms::membership(&mut self.tx, self.room.id, user.id).await?;
        let rev = self.room.next_rev();
        let me_rev = earlier.as_ref().map_or(0, |earlier| earlier.me_rev + 1);
        let mut member = create::newcomer(&self.room, user.id, role, rev, me_rev);
        member.muted_until = muted_until.or(earlier.and_then(|earlier| earlier.muted_until)).filter(|until| *until > 0);
        self.room.member_count += 1;
        self.announcement.room(self.room.id, member.changed_event(&self.room, user));
        member.read_seq = self.notice(user.id, "joined", text).await?;
        member.delivered_seq = member.read_seq;
        rooms::save_member(&mut self.tx, &member).await?;
        create::add_to_own_rooms(&mut self.tx, self.room.id, user.id).await?;
        let by = by.map(|by| (by, member.read_seq));
        rooms::tell_joined(&mut self.tx, &mut self.announcement, user.id, self.room.id, by).await?;
        Ok(member)
    }

    /// Ends a membership; what comes after its rev is not for that user, the notice included.
    async fn dismiss(&mut self, mut member: MemberRow, by: UserId, text: String) -> Result<()> {
        member.rev = self.room.next_rev();
        member.present = false;
        member.draft = None;
        self.room.member_count -= 1;
        rooms::save_member(&mut self.tx, &member).await?;
        on_tx!(&mut self.tx, c => sqlx::query("delete from user_rooms where user_id = $1 and room_id = $2")
            .bind(member.user_id)
            .bind(self.room.id)
            .execute(c)
            .await
            .map(|_| ()))?;
        self.announcement.room(self.room.id, member.removed_event(&self.room));
        self.notice(by, "left", text).await?;
        let left = user_event::Kind::Left(self.room.id.to_wire());
        rooms::tell_user(&mut self.tx, &mut self.announcement, member.user_id, left).await
    }

    /// Changes a membership that goes on.
    async fn alter(&mut self, member: &mut MemberRow, user: &UserRow) -> Result<()> {
        member.rev = self.room.next_rev();
        rooms::save_member(&mut self.tx, member).await?;
        self.announcement.room(self.room.id, member.changed_event(&self.room, user));
        Ok(())
    }

    /// Writes a system notice and gives its seq.
    async fn notice(&mut self, sender: UserId, event: &str, text: String) -> Result<i64> {
        self.room.seq += 1;
        let rev = self.room.next_rev();
        let now = clock::now_ms();
        self.room.active_at = now;
        let message = MessageRow {
            room_id: self.room.id,
            seq: self.room.seq,
            rev,
            id: MessageId::generate(),
            client_id: ClientId::generate(),
            sender,
            kind: messages::KIND_SYSTEM,
            text,
            reply_to: None,
            meta: Some(json!({"notice": event, "user": sender}).to_string()),
            at: now,
            edited_at: None,
            deleted_at: None,
            attachments: None,
            mentions: None,
        };
        messages::insert(&mut self.tx, &message).await?;
        let event = self.room.event(rev, room_event::Kind::Message(message.into_wire()));
        self.announcement.room(self.room.id, event);
        Ok(self.room.seq)
    }
}

/// Joins a channel; who is in the room already stays so.
pub(crate) async fn join(app: &Arc<App>, actor: Actor, room: RoomId) -> Result<()> {
    let mut change = Change::begin(app, room).await?;
    let present = rooms::membership(&mut change.tx, room, actor.user).await?.is_some_and(|member| member.present);
    if present {
        return Ok(());
    }
    if change.room.kind() != Kind::Channel {
        return Err(rooms::no_such_room());
    }
    let user = rooms::user(&mut change.tx, actor.user).await?;
    let text = format!("{} joined", user.display_name);
    change.admit(&user, Role::Member, None, None, text).await?;
    change.finish(app).await
}

/// Leaves a room.
pub(crate) async fn leave(app: &Arc<App>, actor: Actor, room: RoomId) -> Result<()> {
    let mut change = Change::begin(app, room).await?;
    let member = rooms::present(&mut change.tx, room, actor.user).await?;
    refuse_direct(&change.room)?;
    if member.role() == Role::Owner {
        return Err(Fault::unprocessable("the owner leaves only after a transfer of the room").into());
    }
    let user = rooms::user(&mut change.tx, actor.user).await?;
    change.dismiss(member, actor.user, format!("{} left", user.display_name)).await?;
    change.finish(app).await
}

/// Adds a member or changes one; tells whether it added.
pub(crate) async fn put(
    app: &Arc<App>,
    actor: Actor,
    room: RoomId,
    user: UserId,
    put: Put,
) -> Result<(MemberRow, UserRow, bool)> {
    let mut change = Change::begin(app, room).await?;
    let own = rooms::present(&mut change.tx, room, actor.user).await?;
    refuse_direct(&change.room)?;
    if own.role() < Role::Admin {
        return Err(Fault::forbidden("only admins and the owner add members and change them").into());
    }
    if put.role == Some(Role::Owner) {
        return Err(Fault::unprocessable("role: a room gets another owner only by a transfer").into());
    }
    if put.role.is_some_and(|role| role >= own.role()) {
        return Err(Fault::forbidden("role: must be below your own").into());
    }
    let target = rooms::membership(&mut change.tx, room, user).await?.filter(|member| member.present);
    let profile = rooms::user(&mut change.tx, user).await?;
    let Some(mut member) = target else {
        let text = format!("{} was added", profile.display_name);
        let role = put.role.unwrap_or(Role::Member);
        let member = change.admit(&profile, role, put.muted_until, Some(actor.user), text).await?;
        change.finish(app).await?;
        return Ok((member, profile, true));
    };
    if member.role() >= own.role() {
        return Err(Fault::forbidden("this member's role is not below your own").into());
    }
    let role = put.role.map_or(member.role, |role| role as i16);
    let muted_until = put.muted_until.map_or(member.muted_until, |until| Some(until).filter(|until| *until > 0));
    if (role, muted_until) != (member.role, member.muted_until) {
        change.room.refuse_archived()?;
        (member.role, member.muted_until) = (role, muted_until);
        change.alter(&mut member, &profile).await?;
        change.finish(app).await?;
    }
    Ok((member, profile, false))
}

/// Removes a member; removing oneself is leaving.
pub(crate) async fn remove(app: &Arc<App>, actor: Actor, room: RoomId, user: UserId) -> Result<()> {
    if user == actor.user {
        return leave(app, actor, room).await;
    }
    let mut change = Change::begin(app, room).await?;
    let own = rooms::present(&mut change.tx, room, actor.user).await?;
    refuse_direct(&change.room)?;
    if own.role() < Role::Admin {
        return Err(Fault::forbidden("only admins and the owner remove members").into());
    }
    let member = rooms::membership(&mut change.tx, room, user).await?.filter(|member| member.present);
    let member = member.ok_or_else(|| Fault::not_found("this user is not in the room"))?;
    if member.role() >= own.role() {
        return Err(Fault::forbidden("this member's role is not below your own").into());
    }
    let profile = rooms::user(&mut change.tx, user).await?;
    change.dismiss(member, user, format!("{} was removed", profile.display_name)).await?;
    change.finish(app).await
}

/// Hands the room over; the old owner becomes an admin.
pub(crate) async fn transfer(app: &Arc<App>, actor: Actor, room: RoomId, user: UserId) -> Result<()> {
    let mut change = Change::begin(app, room).await?;
    let mut own = rooms::present(&mut change.tx, room, actor.user).await?;
    refuse_direct(&change.room)?;
    if own.role() != Role::Owner {
        return Err(Fault::forbidden("only the owner transfers the room").into());
    }
    if user == actor.user {
        return Ok(());
    }
    change.room.refuse_archived()?;
    let heir = rooms::membership(&mut change.tx, room, user).await?.filter(|member| member.present);
    let mut heir = heir.ok_or_else(|| Fault::unprocessable("user: is not in the room"))?;
    let (old, new) = (rooms::user(&mut change.tx, actor.user).await?, rooms::user(&mut change.tx, user).await?);
    own.role = Role::Admin as i16;
    heir.role = Role::Owner as i16;
    change.alter(&mut own, &old).await?;
    change.alter(&mut heir, &new).await?;
    change.finish(app).await
}

fn refuse_direct(room: &RoomRow) -> Result<()> {
    if room.kind() == Kind::Direct {
        return Err(Fault::unprocessable("the members of a direct room never change").into());
    }
    Ok(())
}
