//! A room as one of its members sees it: with their own state, the last message and, in a direct room, the other user.

use parlance_proto::v1;
use service_kit::{
    db::Tx,
    id::{ClientId, MessageId, RoomId, UserId},
};
use uuid::Uuid;

use crate::{
    accounts::UserRow,
    error::Result,
    messages::MessageRow,
    rooms::{MemberRow, RoomRow},
};

/// What every reading of rooms begins with. `$1` is the reader. The room's columns keep their names, the others have a
/// prefix: `m_` the reader's membership, `l_` the last message, `p_` the peer.
macro_rules! select_views {
    ($from:literal, $rest:literal) => {
        concat!(
            "select r.id, r.kind, r.name, r.topic, r.avatar, r.created_at, r.active_at, r.first_seq, r.seq, r.rev,
                r.info_rev, r.member_count, r.archived, r.history_joined, r.announcement, r.slow_mode_s, r.retention_days,
                m.user_id as m_user_id, m.role as m_role, m.joined_at as m_joined_at, m.rev as m_rev,
                m.joined_rev as m_joined_rev, m.visible_from_seq as m_visible_from_seq, m.read_seq as m_read_seq,
                m.delivered_seq as m_delivered_seq, m.muted_until as m_muted_until, m.me_rev as m_me_rev,
                m.me_muted_until as m_me_muted_until, m.notify as m_notify, m.favourite as m_favourite,
                m.draft as m_draft, ", $crate::messages::mentions::count_mentions!("m"), " as m_mentions,
                l.seq as l_seq, l.rev as l_rev, l.id as l_id, l.client_id as l_client_id, l.sender as l_sender,
                l.kind as l_kind, l.text as l_text, l.reply_to as l_reply_to, l.meta as l_meta, l.at as l_at,
                l.edited_at as l_edited_at, l.deleted_at as l_deleted_at, l.attachments as l_attachments,
                l.mentions as l_mentions,
                p.id as p_id, p.username as p_username, p.display_name as p_display_name, p.avatar as p_avatar,
                p.bot as p_bot, p.created_at as p_created_at
             from ", $from, "
             join rooms r on r.id = k.room_id
             join members m on m.room_id = r.id and m.user_id = k.user_id and m.present
             left join messages l on l.room_id = r.id and l.seq = r.seq and l.seq > m.visible_from_seq
             left join members pm on r.kind = 1 and pm.room_id = r.id and pm.user_id <> m.user_id
             left join users p on p.id = pm.user_id ",
            $rest
        )
    };
}
pub(crate) use select_views;

/// A room and what depends on its reader.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct RoomView {
    #[sqlx(flatten)]
    pub(crate) room: RoomRow,
    m_user_id: UserId,
    m_role: i16,
    m_joined_at: i64,
    m_rev: i64,
    m_joined_rev: i64,
    m_visible_from_seq: i64,
    m_read_seq: i64,
    m_delivered_seq: i64,
    m_muted_until: Option<i64>,
    m_me_rev: i64,
    m_me_muted_until: Option<i64>,
    m_notify: i16,
    m_favourite: bool,
    m_draft: Option<String>,
    m_mentions: i64,
    l_seq: Option<i64>,
    l_rev: Option<i64>,
    l_id: Option<MessageId>,
    l_client_id: Option<ClientId>,
    l_sender: Option<UserId>,
    l_kind: Option<i16>,
    l_text: Option<String>,
    l_reply_to: Option<i64>,
    l_meta: Option<String>,
    l_attachments: Option<Vec<u8>>,
    l_at: Option<i64>,
    l_edited_at: Option<i64>,
    l_deleted_at: Option<i64>,
    l_mentions: Option<Vec<u8>>,
    p_id: Option<UserId>,
    p_username: Option<String>,
    p_display_name: Option<String>,
    p_avatar: Option<Uuid>,
    p_bot: Option<bool>,
    p_created_at: Option<i64>,
}

impl RoomView {
    /// The reader's membership.
    pub(crate) fn member(&self) -> MemberRow {
        MemberRow {
            room_id: self.room.id,
            user_id: self.m_user_id,
            present: true,
            role: self.m_role,
            joined_at: self.m_joined_at,
            rev: self.m_rev,
            joined_rev: self.m_joined_rev,
            visible_from_seq: self.m_visible_from_seq,
            read_seq: self.m_read_seq,
            delivered_seq: self.m_delivered_seq,
            muted_until: self.m_muted_until,
            me_rev: self.m_me_rev,
            me_muted_until: self.m_me_muted_until,
            notify: self.m_notify,
            favourite: self.m_favourite,
            draft: self.m_draft.clone(),
        }
    }

    fn last_message(&self) -> Option<MessageRow> {
        Some(MessageRow {
            room_id: self.room.id,
            seq: self.l_seq?,
            rev: self.l_rev?,
            id: self.l_id?,
            client_id: self.l_client_id?,
            sender: self.l_sender?,
            kind: self.l_kind?,
            text: self.l_text.clone()?,
            reply_to: self.l_reply_to,
            meta: self.l_meta.clone(),
            at: self.l_at?,
            edited_at: self.l_edited_at,
            deleted_at: self.l_deleted_at,
            attachments: self.l_attachments.clone(),
            mentions: self.l_mentions.clone(),
        })
    }

    fn peer(&self) -> Option<UserRow> {
        Some(UserRow {
            id: self.p_id?,
            username: self.p_username.clone()?,
            display_name: self.p_display_name.clone()?,
            avatar: self.p_avatar,
            bot: self.p_bot?,
            created_at: self.p_created_at?,
        })
    }

    /// The Room object of the contract, for this reader.
    pub(crate) fn to_wire(&self) -> v1::Room {
        v1::Room {
            me: Some(self.member().to_me(self.room.seq, self.m_mentions)),
            last_message: self.last_message().map(MessageRow::into_wire),
            peer: self.peer().map(UserRow::into_wire),
            ..self.room.to_wire()
        }
    }
}

/// The rooms of these (reader, room) pairs, in any order; a pair whose reader is not in the room gives nothing.
pub(crate) async fn read(tx: &mut Tx, pairs: &[(UserId, RoomId)]) -> Result<Vec<RoomView>> {
    if pairs.is_empty() {
        return Ok(Vec::new());
    }
    match tx {
        Tx::Postgres(tx) => {
            let users: Vec<Uuid> = pairs.iter().map(|(user, _)| user.0).collect();
            let rooms: Vec<Uuid> = pairs.iter().map(|(_, room)| room.0).collect();
            Ok(sqlx::query_as(select_views!("unnest($1::uuid[], $2::uuid[]) as k(user_id, room_id)", ""))
                .bind(users)
                .bind(rooms)
                .fetch_all(&mut **tx)
                .await?)
        }
        Tx::Sqlite(tx) => {
            let mut views = Vec::with_capacity(pairs.len());
            for (user, room) in pairs {
                views.extend(
                    sqlx::query_as::<_, RoomView>(select_views!("(select $1 as user_id, $2 as room_id) as k", ""))
                        .bind(user)
                        .bind(room)
                        .fetch_optional(&mut **tx)
                        .await?,
                );
            }
            Ok(views)
        }
    }
}

/// One room as this user sees it.
///
/// # Errors
/// `not_found` when the user is not in it.
pub(crate) async fn read_one(tx: &mut Tx, user: UserId, room: RoomId) -> Result<RoomView> {
    read(tx, &[(user, room)]).await?.pop().ok_or_else(super::no_such_room)
}
