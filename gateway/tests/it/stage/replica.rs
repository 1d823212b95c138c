//! A replica of chat-service as the uplink sees it: it notes what is sent to it, and answers at once or when told.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use parlance_proto::{
    chat::{
        self,
        messages_server::{Messages, MessagesServer},
        send_answer,
    },
    v1,
};
use service_kit::{id::MessageId, tasks::Tasks};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming, service::RoutesBuilder};

use super::gates::{Gates, until};

type Answers = mpsc::Sender<Result<chat::SendAnswers, Status>>;

/// The double.
pub(crate) struct Replica {
    pub(crate) gates: Gates,
    tasks: Tasks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    got: Vec<chat::SendItem>,
    answered: HashSet<u64>,
    silent: bool,
    answers: Option<Answers>,
}

impl Replica {
    pub(crate) fn new(tasks: &Tasks) -> Arc<Self> {
        Arc::new(Self { gates: Gates::default(), tasks: tasks.clone(), state: Mutex::default() })
    }

    pub(crate) fn serve(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(MessagesServer::new(Double(Arc::clone(self))));
    }

    /// Everything that was sent to it, in order.
    pub(crate) fn got(&self) -> Vec<chat::SendItem> {
        self.lock().got.clone()
    }

    /// Waits until so many sends have come in all.
    pub(crate) async fn has_got(&self, count: usize) {
        until(&format!("{count} sends"), || self.lock().got.len() >= count).await;
    }

    /// Answers nothing until [`Replica::answer_all`].
    pub(crate) fn be_silent(&self) {
        self.lock().silent = true;
    }

    /// Answers what waits, and from now on at once.
    pub(crate) fn answer_all(&self) {
        let mut state = self.lock();
        state.silent = false;
        state.answer();
    }

    /// Its stream breaks and it takes no new one.
    pub(crate) fn go_away(&self) {
        self.gates.fail("stream", Code::Unavailable);
        if let Some(answers) = self.lock().answers.take() {
            drop(answers.try_send(Err(Status::unavailable("told to break"))));
        }
    }

    /// It takes streams again.
    pub(crate) fn come_back(&self) {
        self.gates.recover("stream");
    }

    pub(crate) async fn has_stream(&self) {
        until("a stream", || self.lock().answers.is_some()).await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl State {
    fn answer(&mut self) {
        let (false, Some(answers)) = (self.silent, &self.answers) else { return };
        let mut items = Vec::new();
        for (place, item) in self.got.iter().enumerate() {
            if self.answered.insert(item.id) {
                let number = i64::try_from(place).unwrap_or_default() + 1;
                let id = MessageId::generate().to_wire();
                let sent = chat::Sent { id, seq: number, rev: number, at: 1, duplicate: false };
                items.push(chat::SendAnswer { id: item.id, result: Some(send_answer::Result::Sent(sent)) });
            }
        }
        if !items.is_empty() {
            answers.try_send(Ok(chat::SendAnswers { items })).expect("room for answers");
        }
    }
}

struct Double(Arc<Replica>);

async fn listen(replica: Arc<Replica>, mut sends: Streaming<chat::Sends>, answers: Answers) {
    loop {
        let sends = tokio::select! {
            sends = sends.message() => sends,
            () = answers.closed() => return,
        };
        let Ok(Some(sends)) = sends else { return };
        let mut state = replica.lock();
        state.got.extend(sends.items);
        state.answer();
    }
}

macro_rules! not_played {
    ($($name:ident: $request:ty => $reply:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Messages for Double {
            type StreamStream = ReceiverStream<Result<chat::SendAnswers, Status>>;

            async fn stream(
                &self,
                request: Request<Streaming<chat::Sends>>,
            ) -> Result<Response<Self::StreamStream>, Status> {
                self.0.gates.pass("stream").await?;
                let (answers, outgoing) = mpsc::channel(4_096);
                self.0.lock().answers = Some(answers.clone());
                drop(self.0.tasks.spawn(listen(Arc::clone(&self.0), request.into_inner(), answers)));
                Ok(Response::new(ReceiverStream::new(outgoing)))
            }

            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$reply>, Status> {
                Err(Status::unimplemented("not in this play"))
            })*
        }
    };
}

not_played! {
    post: chat::PostRequest => chat::PostReply,
    history: chat::HistoryRequest => chat::HistoryReply,
    get: chat::MessageRequest => v1::Message,
    some: chat::SomeRequest => chat::SomeReply,
    edit: chat::EditRequest => v1::Message,
    delete: chat::MessageRequest => chat::DeleteReply,
    mark: chat::MarkRequest => chat::Empty,
    changes: chat::ChangesRequest => v1::Changes,
    unbuilt: chat::MessageRequest => chat::Empty,
}
