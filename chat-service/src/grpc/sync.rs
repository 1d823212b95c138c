//! The calls that gateways serve and repair with.

use std::sync::Arc;

use parlance_proto::{chat, chat::sync_server};
use service_kit::id::{RoomId, SessionId, UserId};
use tonic::{Request, Response, Status};

use crate::{App, accounts::choice, actor::Actor, changes, error::Result, gateways, hello::Hello};

/// Answers `parlance.chat.v1.Sync`.
pub(crate) struct Sync(Arc<App>);

impl Sync {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

#[tonic::async_trait]
impl sync_server::Sync for Sync {
    async fn hello(&self, request: Request<chat::HelloRequest>) -> Result<Response<chat::HelloReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::from_wire(call.actor)?;
        let rooms = call
            .rooms
            .iter()
            .map(|held| Ok((RoomId::from_wire(&held.room, "rooms")?, held.rev, held.me_rev)))
            .collect::<Result<Vec<_>>>()?;
        let hello = Hello { actor, generation: call.generation, rooms };
        Ok(Response::new(self.0.hellos.ask(hello).await?))
    }

    async fn memberships(&self, request: Request<chat::Actor>) -> Result<Response<chat::MembershipList>, Status> {
        let actor = Actor::from_wire(Some(request.into_inner()))?;
        Ok(Response::new(self.0.memberships.ask(actor.user).await?))
    }

    async fn read_room(&self, request: Request<chat::RoomRequest>) -> Result<Response<chat::ReadRoomReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::from_wire(call.actor)?;
        let room = RoomId::from_wire(&call.room, "room")?;
        Ok(Response::new(gateways::read_room(&self.0, actor.user, room).await?))
    }

    async fn typing(&self, request: Request<chat::RoomRequest>) -> Result<Response<chat::TypingReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::from_wire(call.actor)?;
        let room = RoomId::from_wire(&call.room, "room")?;
        Ok(Response::new(chat::TypingReply { shown: gateways::typing(&self.0, actor, room).await? }))
    }

    async fn heads(&self, request: Request<chat::HeadsRequest>) -> Result<Response<chat::HeadsReply>, Status> {
        let call = request.into_inner();
        let rooms = call.rooms.iter().map(|id| RoomId::from_wire(id, "rooms")).collect::<Result<Vec<_>, _>>()?;
        let users = call.users.iter().map(|id| UserId::from_wire(id, "users")).collect::<Result<Vec<_>, _>>()?;
        let (rooms, users) = changes::heads(&self.0, &rooms, &users).await?;
        Ok(Response::new(chat::HeadsReply { rooms, users }))
    }

    async fn repair(&self, request: Request<chat::RepairRequest>) -> Result<Response<chat::RepairReply>, Status> {
        let call = request.into_inner();
        let room = RoomId::from_wire(&call.room, "room")?;
        let (events, rev, more) = changes::repair(&self.0, room, call.after_rev).await?;
        Ok(Response::new(chat::RepairReply { events, rev, more }))
    }

    async fn standing(&self, request: Request<chat::StandingRequest>) -> Result<Response<chat::StandingReply>, Status> {
        let call = request.into_inner();
        let user = UserId::from_wire(&call.user, "user")?;
        let sessions =
            call.sessions.iter().map(|id| SessionId::from_wire(id, "sessions")).collect::<Result<Vec<_>, _>>()?;
        Ok(Response::new(gateways::standing(&self.0, user, &sessions).await?))
    }

    async fn watchable(
        &self,
        request: Request<chat::WatchableRequest>,
    ) -> Result<Response<chat::WatchableReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::from_wire(call.actor)?;
        let users = call.users.iter().map(|id| UserId::from_wire(id, "users")).collect::<Result<Vec<_>, _>>()?;
        let allowed = gateways::watchable(&self.0, actor, users).await?;
        let (users, last_seen) =
            allowed.into_iter().map(|(user, last_seen)| (user.to_wire(), last_seen.unwrap_or(0))).unzip();
        Ok(Response::new(chat::WatchableReply { users, last_seen }))
    }

    async fn choices(&self, request: Request<chat::ChoicesRequest>) -> Result<Response<chat::ChoicesReply>, Status> {
        let call = request.into_inner();
        let users = call.users.iter().map(|id| UserId::from_wire(id, "users")).collect::<Result<Vec<_>, _>>()?;
        let choices = choice::read(&self.0, &users).await?;
        let items = choices.into_iter().map(|choice| choice.map(choice::Choice::to_wire).unwrap_or_default()).collect();
        Ok(Response::new(chat::ChoicesReply { items }))
    }
}
