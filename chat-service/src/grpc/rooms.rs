//! The calls about rooms and members.

use std::sync::Arc;

use parlance_proto::{chat, chat::rooms_server, v1};
use service_kit::{
    fault::Fault,
    id::{RoomId, UserId},
};
use tonic::{Request, Response, Status};

use super::files::avatar;
use crate::{
    App,
    accounts::detached,
    actor::Actor,
    error::Result,
    page::Page,
    rooms::{
        Kind, Role,
        create::{self, NewRoom},
        list,
        members::{self, Put},
        settings::{self, Mine, Patch},
    },
};

/// Answers `parlance.chat.v1.Rooms`.
pub(crate) struct Rooms(Arc<App>);

impl Rooms {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self(app)
    }

    /// A change of a room that goes on to its end even when the caller goes away, then the room as the actor sees it.
    async fn change<F>(&self, actor: Actor, room: RoomId, work: F) -> Result<Response<v1::Room>, Status>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        detached(&self.0, work).await?;
        Ok(Response::new(list::get(&self.0, actor.user, room).await?))
    }
}

fn users(ids: &[impl AsRef<[u8]>], field: &str) -> Result<Vec<UserId>, Fault> {
    ids.iter().map(|id| UserId::from_wire(id.as_ref(), field)).collect()
}

#[tonic::async_trait]
impl rooms_server::Rooms for Rooms {
    async fn create(&self, request: Request<chat::CreateRoomRequest>) -> Result<Response<v1::Room>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let kind = match v1::RoomKind::try_from(call.kind) {
            Ok(v1::RoomKind::Group) => Kind::Group,
            Ok(v1::RoomKind::Channel) => Kind::Channel,
            _ => return Err(Fault::bad_request("kind: is neither group nor channel").into()),
        };
        let new = NewRoom {
            kind,
            name: call.name,
            topic: call.topic,
            members: users(&call.members, "members")?,
            idempotency_key: call.idempotency_key,
        };
        let app = Arc::clone(&self.0);
        let room = detached(&self.0, async move { create::create(&app, actor, new).await }).await?;
        Ok(Response::new(list::get(&self.0, actor.user, room).await?))
    }

    async fn open_direct(
        &self,
        request: Request<chat::OpenDirectRequest>,
    ) -> Result<Response<chat::OpenedRoom>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let peer = UserId::from_wire(&call.user, "user")?;
        let app = Arc::clone(&self.0);
        let (room, created) = detached(&self.0, async move { create::open_direct(&app, actor, peer).await }).await?;
        let room = list::get(&self.0, actor.user, room).await?;
        Ok(Response::new(chat::OpenedRoom { room: Some(room), created }))
    }

    async fn list(&self, request: Request<chat::ListRoomsRequest>) -> Result<Response<chat::RoomList>, Status> {
        let call = request.into_inner();
        let page = Page::from_wire(call.page)?;
        let actor = Actor::standing(&self.0, call.actor).await?;
        let (items, next_cursor) = if call.public {
            list::public(&self.0, call.query, &page).await?
        } else {
            list::mine(&self.0, actor.user, &page).await?
        };
        Ok(Response::new(chat::RoomList { items, next_cursor }))
    }

    async fn get(&self, request: Request<chat::RoomRequest>) -> Result<Response<v1::Room>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        Ok(Response::new(list::get(&self.0, actor.user, room).await?))
    }

    async fn patch(&self, request: Request<chat::PatchRoomRequest>) -> Result<Response<v1::Room>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let unbuilt = call.retention_days.filter(|days| *days != 0).map(|_| "settings.retention_days");
        let patch = Patch {
            name: call.name,
            topic: call.topic,
            avatar: avatar(call.avatar.as_ref())?,
            history_joined: call.history_joined,
            announcement: call.announcement,
            slow_mode_s: call.slow_mode_s,
            unbuilt,
        };
        let app = Arc::clone(&self.0);
        self.change(actor, room, async move { settings::patch(&app, actor, room, patch).await }).await
    }

    async fn archive(&self, request: Request<chat::RoomRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let app = Arc::clone(&self.0);
        detached(&self.0, async move { settings::archive(&app, actor, room).await }).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn join(&self, request: Request<chat::RoomRequest>) -> Result<Response<v1::Room>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let app = Arc::clone(&self.0);
        self.change(actor, room, async move { members::join(&app, actor, room).await }).await
    }

    async fn leave(&self, request: Request<chat::RoomRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let app = Arc::clone(&self.0);
        detached(&self.0, async move { members::leave(&app, actor, room).await }).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn transfer(&self, request: Request<chat::MemberRequest>) -> Result<Response<v1::Room>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let user = UserId::from_wire(&call.user, "user")?;
        let app = Arc::clone(&self.0);
        self.change(actor, room, async move { members::transfer(&app, actor, room, user).await }).await
    }

    async fn list_members(
        &self,
        request: Request<chat::ListMembersRequest>,
    ) -> Result<Response<chat::MemberList>, Status> {
        let call = request.into_inner();
        let page = Page::from_wire(call.page)?;
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let (items, next_cursor) = list::members(&self.0, actor, room, &page).await?;
        Ok(Response::new(chat::MemberList { items, next_cursor }))
    }

    async fn put_member(
        &self,
        request: Request<chat::PutMemberRequest>,
    ) -> Result<Response<chat::PutMemberReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let user = UserId::from_wire(&call.user, "user")?;
        let put = Put { role: call.role.map(Role::from_wire).transpose()?, muted_until: call.muted_until };
        let app = Arc::clone(&self.0);
        let (member, profile, added) =
            detached(&self.0, async move { members::put(&app, actor, room, user, put).await }).await?;
        Ok(Response::new(chat::PutMemberReply { member: Some(member.to_wire(&profile)), added }))
    }

    async fn remove_member(&self, request: Request<chat::MemberRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let user = UserId::from_wire(&call.user, "user")?;
        let app = Arc::clone(&self.0);
        detached(&self.0, async move { members::remove(&app, actor, room, user).await }).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn patch_mine(&self, request: Request<chat::PatchMineRequest>) -> Result<Response<v1::Me>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let notify = match call.notify.map(v1::Notify::try_from) {
            None => None,
            Some(Ok(v1::Notify::All)) => Some(1),
            Some(Ok(v1::Notify::Mentions)) => Some(2),
            Some(Ok(v1::Notify::None)) => Some(3),
            Some(_) => return Err(Fault::bad_request("notify: is none of all, mentions, none").into()),
        };
        let mine = Mine { muted_until: call.muted_until, notify, favourite: call.favourite, draft: call.draft };
        let app = Arc::clone(&self.0);
        let me = detached(&self.0, async move { settings::patch_mine(&app, actor, room, mine).await }).await?;
        Ok(Response::new(me))
    }
}
