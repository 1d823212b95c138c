//! The calls about messages, and the stream of sends.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use parlance_proto::{chat, chat::messages_server, v1};
use service_kit::{
    clock,
    fault::Fault,
    id::{ClientId, FileId, RoomId, UserId},
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    App,
    accounts::detached,
    actor::Actor,
    changes,
    commit::{self, Accepted, Item, Reply},
    error::Result,
    messages::{
        self, MessageRow,
        history::{self, Window},
    },
    receipts::Mark,
};

/// Sends of one stream that are not answered yet. The stream is not read further above that.
const OUTSTANDING: usize = 16_384;
/// Answers that travel together.
const ANSWERS: usize = 256;

/// Answers `parlance.chat.v1.Messages`.
pub(crate) struct Messages(Arc<App>);

impl Messages {
    pub(crate) fn new(app: Arc<App>) -> Self {
        Self(app)
    }
}

fn item(item: chat::SendItem, reply: Reply) -> Result<Item, (Fault, Reply)> {
    let read = || {
        let files = item.attachments.iter().map(|file| FileId::from_wire(file, "attachments"));
        Ok::<_, Fault>((
            RoomId::from_wire(&item.room, "room")?,
            UserId::from_wire(&item.sender, "sender")?,
            ClientId::from_wire(&item.client_id, "client_id")?,
            messages::mentions::from_wire(&item.mentions, item.mentions_all)?,
            files.collect::<Result<Vec<_>, _>>()?,
        ))
    };
    let (room, sender, client_id, mentions, attachments) = match read() {
        Ok(ids) => ids,
        Err(fault) => return Err((fault, reply)),
    };
    let (text, reply_to, meta, unbuilt, traceparent) =
        (item.text, item.reply_to, item.meta, item.unbuilt, item.traceparent);
    let item =
        Item { room, sender, client_id, text, reply_to, meta, mentions, attachments, unbuilt, traceparent, reply };
    match commit::check_form(&item) {
        Ok(()) => Ok(item),
        Err(fault) => Err((fault, item.reply)),
    }
}

fn answer(id: u64, result: Result<Accepted, Fault>) -> chat::SendAnswer {
    let result = match result {
        Ok(accepted) => chat::send_answer::Result::Sent(chat::Sent {
            id: accepted.id.to_wire(),
            seq: accepted.seq,
            rev: accepted.rev,
            at: accepted.at,
            duplicate: accepted.duplicate,
        }),
        Err(fault) => chat::send_answer::Result::Failure(chat::Failure {
            code: fault.kind.code().into(),
            retry_after_ms: fault.retry_after_ms(),
            message: fault.message,
        }),
    };
    chat::SendAnswer { id, result: Some(result) }
}

type Answers = Pin<Box<dyn Stream<Item = Result<chat::SendAnswers, Status>> + Send>>;

#[tonic::async_trait]
impl messages_server::Messages for Messages {
    type StreamStream = Answers;

    async fn stream(&self, request: Request<Streaming<chat::Sends>>) -> Result<Response<Answers>, Status> {
        let mut sends = request.into_inner();
        let (replies, mut answered) = mpsc::channel::<(u64, Result<Accepted, Fault>)>(OUTSTANDING);
        let (out, answers) = mpsc::channel(8);
        let free = Arc::new(Semaphore::new(OUTSTANDING));
        let (app, room) = (Arc::clone(&self.0), Arc::clone(&free));
        self.0.tasks.spawn_until_stop(async move {
            while let Some(Ok(batch)) = sends.next().await {
                for send in batch.items {
                    // As many places as answers can be waiting: a worker never has to wait for a stream.
                    let Ok(place) = room.acquire().await else { return };
                    place.forget();
                    let reply = Reply::Stream(send.id, replies.clone());
                    match item(send, reply) {
                        Ok(item) => app.committer.push(item),
                        Err((fault, reply)) => reply.refuse(fault),
                    }
                }
            }
        });
        self.0.tasks.spawn_until_stop(async move {
            let mut batch = Vec::with_capacity(ANSWERS);
            while answered.recv_many(&mut batch, ANSWERS).await > 0 {
                free.add_permits(batch.len());
                let items = batch.drain(..).map(|(id, result)| answer(id, result)).collect();
                if out.send(Ok(chat::SendAnswers { items })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn post(&self, request: Request<chat::PostRequest>) -> Result<Response<chat::PostReply>, Status> {
        let call = request.into_inner();
        let (reply, answered) = oneshot::channel();
        let send = call.item.ok_or_else(|| Fault::bad_request("item: is missing"))?;
        let mut item = item(send, Reply::Call(reply)).map_err(|(fault, _)| fault)?;
        let actor = Actor::standing(&self.0, call.actor).await?;
        item.sender = actor.user;
        let (room, is_whole) = (item.room, item.attachments.is_empty());
        let fresh = MessageRow {
            room_id: room,
            seq: 0,
            rev: 0,
            id: service_kit::id::MessageId::generate(),
            client_id: item.client_id,
            sender: item.sender,
            kind: messages::KIND_TEXT,
            text: item.text.clone(),
            reply_to: item.reply_to,
            meta: item.meta.clone(),
            at: clock::now_ms(),
            edited_at: None,
            deleted_at: None,
            attachments: None,
            mentions: item.mentions.clone(),
        };
        self.0.committer.push(item);
        let accepted = answered.await.map_err(|_| commit::stopped())??;
        let duplicate = accepted.duplicate;
        let message = if duplicate || !is_whole {
            messages::stored(&self.0, room, accepted.seq).await?
        } else {
            MessageRow { seq: accepted.seq, rev: accepted.rev, id: accepted.id, at: accepted.at, ..fresh }
        };
        Ok(Response::new(chat::PostReply { message: Some(message.into_wire()), duplicate }))
    }

    async fn history(&self, request: Request<chat::HistoryRequest>) -> Result<Response<chat::HistoryReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let window = match (call.before, call.after, call.around) {
            (None, None, None) => Window::Newest,
            (Some(seq), None, None) => Window::Before(seq),
            (None, Some(seq), None) => Window::After(seq),
            (None, None, Some(seq)) => Window::Around(seq),
            _ => return Err(Fault::bad_request("before: only one of before, after and around may be given").into()),
        };
        let history = history::read(&self.0, actor, room, window, call.limit).await?;
        Ok(Response::new(chat::HistoryReply {
            items: history.items.into_iter().map(MessageRow::into_wire).collect(),
            has_more: history.has_more,
            rev: history.rev,
        }))
    }

    async fn get(&self, request: Request<chat::MessageRequest>) -> Result<Response<v1::Message>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let message = messages::get(&self.0, actor, room, call.seq).await?.into_wire();
        if let Some(user) = call.pushes_of
            && UserId::from_wire(&user, "user")? != actor.user
        {
            return Err(Fault::forbidden("only an operator may ask of another user").into());
        }
        Ok(Response::new(message))
    }

    async fn some(&self, request: Request<chat::SomeRequest>) -> Result<Response<chat::SomeReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let place = |place: &chat::MessagePlace| Ok((RoomId::from_wire(&place.room, "room")?, place.seq));
        let places = call.places.iter().map(place).collect::<Result<Vec<_>, Fault>>()?;
        let items = messages::some(&self.0, actor, &places).await?.into_iter().map(MessageRow::into_wire).collect();
        Ok(Response::new(chat::SomeReply { items }))
    }

    async fn edit(&self, request: Request<chat::EditRequest>) -> Result<Response<v1::Message>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let app = Arc::clone(&self.0);
        let message =
            detached(&self.0, async move { messages::edit(&app, actor, room, call.seq, call.text).await }).await?;
        Ok(Response::new(message.into_wire()))
    }

    async fn delete(&self, request: Request<chat::MessageRequest>) -> Result<Response<chat::DeleteReply>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let app = Arc::clone(&self.0);
        let rev = detached(&self.0, async move { messages::delete(&app, actor, room, call.seq).await }).await?;
        Ok(Response::new(chat::DeleteReply { rev }))
    }

    async fn mark(&self, request: Request<chat::MarkRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor.clone()).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        let mark = match call.kind() {
            chat::mark_request::Kind::Read => Mark::Read(call.seq),
            chat::mark_request::Kind::Delivered => Mark::Delivered(call.seq),
            chat::mark_request::Kind::Unread => Mark::Unread(call.seq),
            chat::mark_request::Kind::Unspecified => return Err(Fault::bad_request("kind: is missing").into()),
        };
        self.0.cursors.mark(room, actor.user, mark).await?;
        Ok(Response::new(chat::Empty {}))
    }

    async fn changes(&self, request: Request<chat::ChangesRequest>) -> Result<Response<v1::Changes>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        Ok(Response::new(changes::changes(&self.0, actor, room, call.after_rev, call.limit).await?))
    }

    async fn unbuilt(&self, request: Request<chat::MessageRequest>) -> Result<Response<chat::Empty>, Status> {
        let call = request.into_inner();
        let actor = Actor::standing(&self.0, call.actor).await?;
        let room = RoomId::from_wire(&call.room, "room")?;
        if call.seq == 0 {
            // About the room as such: only membership is asked for.
            crate::rooms::list::get(&self.0, actor.user, room).await?;
        } else {
            messages::get(&self.0, actor, room, call.seq).await?;
        }
        Err(Fault::unprocessable("this is not built yet").into())
    }
}
