//! Rooms and messages that note what they were asked and answer always the same: to see what becomes of a REST call.

use std::sync::{Arc, Mutex};

use parlance_proto::{
    chat::{
        self,
        messages_server::{Messages, MessagesServer},
        rooms_server::{Rooms, RoomsServer},
    },
    v1,
};
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};

/// The last call: its name and what it carried.
#[derive(Clone, Default)]
pub(crate) struct Noted(Arc<Mutex<String>>);

impl Noted {
    pub(crate) fn last(&self) -> String {
        self.0.lock().expect("not poisoned").clone()
    }

    fn note(&self, name: &str, request: &impl std::fmt::Debug) {
        *self.0.lock().expect("not poisoned") = format!("{name} {request:?}");
    }

    pub(crate) fn serve(&self, routes: &mut RoutesBuilder) {
        routes.add_service(RoomsServer::new(self.clone())).add_service(MessagesServer::new(self.clone()));
    }
}

/// A user, or room, that is there already, or may not be known of, by the last digit of its id.
fn ends_with(id: &[u8], digit: u8) -> bool {
    id.last() == Some(&digit)
}

macro_rules! notes {
    ($service:ident; $($name:ident: $request:ty => $reply:ty = $answer:expr;)*) => {
        #[tonic::async_trait]
        impl $service for Noted {
            $(async fn $name(&self, request: Request<$request>) -> Result<Response<$reply>, Status> {
                let request = request.into_inner();
                self.note(stringify!($name), &request);
                let answer: fn(&$request) -> Result<$reply, Status> = $answer;
                answer(&request).map(Response::new)
            })*
        }
    };
}

notes! { Rooms;
    create: chat::CreateRoomRequest => v1::Room = |_| Ok(v1::Room::default());
    open_direct: chat::OpenDirectRequest => chat::OpenedRoom =
        |request| Ok(chat::OpenedRoom { room: Some(v1::Room::default()), created: !ends_with(&request.user, 1) });
    list: chat::ListRoomsRequest => chat::RoomList =
        |_| Ok(chat::RoomList { items: vec![v1::Room::default()], next_cursor: Some("next".to_owned()) });
    get: chat::RoomRequest => v1::Room = |_| Ok(v1::Room::default());
    patch: chat::PatchRoomRequest => v1::Room = |_| Ok(v1::Room::default());
    archive: chat::RoomRequest => chat::Empty = |_| Ok(chat::Empty {});
    join: chat::RoomRequest => v1::Room = |_| Ok(v1::Room::default());
    leave: chat::RoomRequest => chat::Empty = |_| Ok(chat::Empty {});
    transfer: chat::MemberRequest => v1::Room = |_| Ok(v1::Room::default());
    list_members: chat::ListMembersRequest => chat::MemberList = |_| Ok(chat::MemberList::default());
    put_member: chat::PutMemberRequest => chat::PutMemberReply =
        |request| Ok(chat::PutMemberReply { member: Some(v1::Member::default()), added: !ends_with(&request.user, 1) });
    remove_member: chat::MemberRequest => chat::Empty = |_| Ok(chat::Empty {});
    patch_mine: chat::PatchMineRequest => v1::Me = |_| Ok(v1::Me::default());
}

type Nothing = tokio_stream::Empty<Result<chat::SendAnswers, Status>>;

#[tonic::async_trait]
impl Messages for Noted {
    type StreamStream = Nothing;

    async fn stream(&self, _: Request<Streaming<chat::Sends>>) -> Result<Response<Nothing>, Status> {
        Err(Status::unavailable("not here"))
    }

    async fn post(&self, request: Request<chat::PostRequest>) -> Result<Response<chat::PostReply>, Status> {
        let request = request.into_inner();
        self.note("post", &request);
        let duplicate = request.item.is_some_and(|item| ends_with(&item.client_id, 1));
        Ok(Response::new(chat::PostReply { message: Some(v1::Message::default()), duplicate }))
    }

    async fn history(&self, request: Request<chat::HistoryRequest>) -> Result<Response<chat::HistoryReply>, Status> {
        self.note("history", &request.into_inner());
        Ok(Response::new(chat::HistoryReply::default()))
    }

    async fn get(&self, request: Request<chat::MessageRequest>) -> Result<Response<v1::Message>, Status> {
        self.note("get", &request.into_inner());
        Ok(Response::new(v1::Message::default()))
    }

    async fn some(&self, request: Request<chat::SomeRequest>) -> Result<Response<chat::SomeReply>, Status> {
        self.note("some", &request.into_inner());
        Ok(Response::new(chat::SomeReply::default()))
    }

    async fn edit(&self, request: Request<chat::EditRequest>) -> Result<Response<v1::Message>, Status> {
        self.note("edit", &request.into_inner());
        Ok(Response::new(v1::Message::default()))
    }

    async fn delete(&self, request: Request<chat::MessageRequest>) -> Result<Response<chat::DeleteReply>, Status> {
        self.note("delete", &request.into_inner());
        Ok(Response::new(chat::DeleteReply::default()))
    }

    async fn mark(&self, request: Request<chat::MarkRequest>) -> Result<Response<chat::Empty>, Status> {
        let request = request.into_inner();
        self.note(request.kind().as_str_name(), &request.seq);
        Ok(Response::new(chat::Empty {}))
    }

    async fn changes(&self, request: Request<chat::ChangesRequest>) -> Result<Response<v1::Changes>, Status> {
        self.note("changes", &request.into_inner());
        Ok(Response::new(v1::Changes::default()))
    }

    async fn unbuilt(&self, request: Request<chat::MessageRequest>) -> Result<Response<chat::Empty>, Status> {
        let request = request.into_inner();
        self.note("unbuilt", &request.seq);
        if ends_with(&request.room, 9) {
            return Err(Status::not_found("there is no such room"));
        }
        Ok(Response::new(chat::Empty {}))
    }
}
