//! What stories about rooms are told with: people, rooms, sends on a stream, what workers hear, and waiting.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parlance_proto::{
    chat::{
        self, SendItem, Sends, Sent, messages_client::MessagesClient, rooms_client::RoomsClient, send_answer,
        sync_client::SyncClient,
    },
    event::{Addressed, Batch, Batches, Event, RoomEvent, event, room_event},
    v1,
};
use prost::Message;
use service_kit::{
    bus::{Bus, Consumer},
    db::{Db, Tx},
    id::{ClientId, RoomId, SessionId, UserId},
    on_db, on_tx,
    rpc::Client,
};
use tonic::{Code, Status};

use crate::{PATIENCE, Person, Service};

/// The id of a room as calls carry it.
pub(crate) type Room = Bytes;
/// What a send came to.
pub(crate) type Answer = Result<Sent, chat::Failure>;

/// Looks again until there is something to see.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Service {
    pub(crate) fn rooms(&self) -> RoomsClient<Client> {
        RoomsClient::new(self.client.clone())
    }

    pub(crate) fn messages(&self) -> MessagesClient<Client> {
        MessagesClient::new(self.client.clone())
    }

    pub(crate) fn sync(&self) -> SyncClient<Client> {
        SyncClient::new(self.client.clone())
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Users with a session each, without the price of a password.
    pub(crate) async fn crowd(&self, count: usize) -> Vec<Person> {
        let mut tx = self.db.begin().await.unwrap();
        let mut crowd = Vec::with_capacity(count);
        for _ in 0..count {
            let (id, session) = (UserId::generate(), SessionId::generate());
            let name = format!("u{}", id.0.simple().to_string().split_off(12));
            on_tx!(&mut tx, c => sqlx::query(
                "insert into users (id, username, display_name, name_folded, bot, rev, created_at, show_receipts,
                     show_presence)
                 values ($1, $2, $2, $2, false, 1, 1, true, true)",
            )
            .bind(id)
            .bind(&name)
            .execute(c)
            .await
            .map(|_| ()))
            .unwrap();
            on_tx!(&mut tx, c => sqlx::query(
                "insert into sessions (id, user_id, created_at, last_used_at) values ($1, $2, 1, 1)",
            )
            .bind(session)
            .bind(id)
            .execute(c)
            .await
            .map(|_| ()))
            .unwrap();
            let user = v1::User { id: id.to_wire(), username: name, ..v1::User::default() };
            let actor = Some(chat::Actor { user: id.to_wire(), session: session.to_wire() });
            crowd.push(Person { user, id, actor, tokens: chat::Tokens::default() });
        }
        tx.commit().await.unwrap();
        crowd
    }

    pub(crate) async fn people<const N: usize>(&self) -> [Person; N] {
        self.crowd(N).await.try_into().unwrap()
    }

    /// A new room of its owner and these members.
    pub(crate) async fn room_of<'a>(
        &self,
        kind: v1::RoomKind,
        owner: &Person,
        members: impl IntoIterator<Item = &'a Person>,
    ) -> Room {
        let request = chat::CreateRoomRequest {
            actor: owner.actor.clone(),
            kind: kind.into(),
            name: "a room".to_owned(),
            members: members.into_iter().map(Person::wire).collect(),
            ..Default::default()
        };
        self.rooms().create(request).await.unwrap().into_inner().id
    }

    pub(crate) async fn group<'a>(&self, owner: &Person, members: impl IntoIterator<Item = &'a Person>) -> Room {
        self.room_of(v1::RoomKind::Group, owner, members).await
    }

    pub(crate) async fn channel<'a>(&self, owner: &Person, members: impl IntoIterator<Item = &'a Person>) -> Room {
        self.room_of(v1::RoomKind::Channel, owner, members).await
    }

    /// The room as this member sees it.
    pub(crate) async fn view(&self, person: &Person, room: &Room) -> v1::Room {
        self.rooms().get(person.on(room)).await.unwrap().into_inner()
    }

    /// Somebody says something, by a call of its own.
    pub(crate) async fn says(&self, person: &Person, room: &Room, text: &str) -> v1::Message {
        let reply = self.messages().post(person.post(person.send(room, text))).await.unwrap().into_inner();
        reply.message.unwrap()
    }

    pub(crate) async fn history(&self, person: &Person, room: &Room) -> Vec<v1::Message> {
        let request =
            chat::HistoryRequest { actor: person.actor.clone(), room: room.clone(), limit: 200, ..Default::default() };
        self.messages().history(request).await.unwrap().into_inner().items
    }

    /// Everything that a room holds, straight from the table: (seq, sender, text).
    pub(crate) async fn stored(&self, room: &Room) -> Vec<(i64, UserId, String)> {
        let room = RoomId::from_wire(room, "room").unwrap();
        on_db!(&self.db, pool => sqlx::query_as("select seq, sender, text from messages where room_id = $1 order by seq")
            .bind(room)
            .fetch_all(pool)
            .await)
        .unwrap()
    }

    /// One number out of the database.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        let (count,): (i64,) = on_db!(&self.db, pool => sqlx::query_as(sql).fetch_one(pool).await).unwrap();
        count
    }

    /// Keeps everybody from changing this room, and on SQLite anything, until [`Hold::release`].
    pub(crate) async fn holds(&self, rooms: &[&Room]) -> Hold {
        let (db, mut tx) = self.begins().await;
        let mut pid = None;
        if let Tx::Postgres(tx) = &mut tx {
            pid = Some(sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut **tx).await.unwrap());
            for room in rooms {
                let room = RoomId::from_wire(room, "room").unwrap();
                sqlx::query("select id from rooms where id = $1 for update")
                    .bind(room)
                    .execute(&mut **tx)
                    .await
                    .unwrap();
            }
        }
        Hold { db, tx, pid }
    }

    /// Closes a gate of this number, which triggers of a story can wait at; only on PostgreSQL.
    pub(crate) async fn closes_gate(&self, number: i64) -> Hold {
        let mut hold = self.holds(&[]).await;
        if let Tx::Postgres(tx) = &mut hold.tx {
            sqlx::query("select pg_advisory_xact_lock($1)").bind(number).execute(&mut **tx).await.unwrap();
        }
        hold
    }

    /// Waits until what was sent before has been heard: calls on one connection are heard in their order, and after so many
    /// answered ones whatever came before them has been begun.
    pub(crate) async fn hears(&self) {
        for _ in 0..20 {
            self.sync().heads(chat::HeadsRequest::default()).await.unwrap();
        }
    }

    /// Makes a call and goes away as soon as it waits for what is held.
    pub(crate) async fn gives_up<T>(&self, hold: &Hold, call: impl Future<Output = T>) {
        tokio::select! {
            _ = call => panic!("the room was not held"),
            () = hold.is_waited_for_by(1, self) => {}
        }
    }

    /// Listens to what workers are told, from now on.
    pub(crate) async fn worker(&self) -> Worker {
        Worker::on(&self.bus).await
    }

    /// The next event of a room that `wanted` takes.
    pub(crate) async fn room_event<T>(&self, room: &Room, wanted: impl Fn(&RoomEvent) -> Option<T>) -> T {
        self.event(|kind| match kind {
            event::Kind::Room(event) if event.room == *room => wanted(&event),
            _ => None,
        })
        .await
    }

    /// Waits until this text is announced in the room; gives the message.
    pub(crate) async fn announced(&self, room: &Room, text: &str) -> v1::Message {
        self.room_event(room, |event| match &event.kind {
            Some(room_event::Kind::Message(message)) if message.text == text => Some(message.clone()),
            _ => None,
        })
        .await
    }
}

/// A transaction of somebody else that holds rooms.
pub(crate) struct Hold {
    db: Db,
    tx: Tx,
    /// Of the PostgreSQL process that has it.
    pid: Option<i32>,
}

impl Hold {
    /// Waits until so many transactions wait for what this one has. SQLite does not tell: there it waits until what was
    /// sent before has been heard.
    pub(crate) async fn is_waited_for_by(&self, count: i64, service: &Service) {
        let (Some(pid), Db::Postgres(pool)) = (self.pid, &service.db) else { return service.hears().await };
        eventually("somebody who waits", async || {
            let waiting: i64 =
                sqlx::query_scalar("select count(*) from pg_stat_activity where $1 = any(pg_blocking_pids(pid))")
                    .bind(pid)
                    .fetch_one(pool)
                    .await
                    .unwrap();
            (waiting >= count).then_some(())
        })
        .await;
    }

    pub(crate) async fn release(self) {
        self.tx.commit().await.unwrap();
        self.db.close().await;
    }
}

/// A consumer of announcements, each by itself.
pub(crate) struct Worker {
    consumer: Consumer,
    /// Those that came with the last one.
    waiting: VecDeque<Batch>,
}

impl Worker {
    pub(crate) async fn on(bus: &Bus) -> Self {
        Self { consumer: bus.consume("stories").await.unwrap(), waiting: VecDeque::new() }
    }

    pub(crate) async fn next(&mut self) -> Batch {
        while self.waiting.is_empty() {
            let next = tokio::time::timeout(PATIENCE, self.consumer.next());
            let work = next.await.expect("no announcement comes").unwrap();
            self.waiting.extend(Batches::decode(work.body.clone()).unwrap().batches);
            work.ack().await;
        }
        self.waiting.pop_front().unwrap()
    }

    /// The announcements until this many messages of people were heard of.
    pub(crate) async fn until(&mut self, count: usize) -> Vec<Batch> {
        let (mut batches, mut heard) = (Vec::new(), 0);
        while heard < count {
            let batch = self.next().await;
            let texts = texts(&batch).len();
            if texts > 0 {
                heard += texts;
                batches.push(batch);
            }
        }
        batches
    }
}

/// What people wrote, of one announcement.
pub(crate) fn texts(batch: &Batch) -> Vec<v1::Message> {
    let events = batch.events.iter().filter_map(|Addressed { event, .. }| Event::decode(event.clone()).unwrap().kind);
    events
        .filter_map(|kind| match kind {
            event::Kind::Room(RoomEvent { kind: Some(room_event::Kind::Message(message)), .. })
                if message.kind == i32::from(v1::MessageKind::Text) =>
            {
                Some(message)
            }
            _ => None,
        })
        .collect()
}

impl Person {
    pub(crate) fn wire(&self) -> Bytes {
        self.id.to_wire()
    }

    pub(crate) fn on(&self, room: &Room) -> chat::RoomRequest {
        chat::RoomRequest { actor: self.actor.clone(), room: room.clone() }
    }

    /// About another member of a room.
    pub(crate) fn about(&self, room: &Room, other: &Self) -> chat::MemberRequest {
        chat::MemberRequest { actor: self.actor.clone(), room: room.clone(), user: other.wire() }
    }

    pub(crate) fn puts(&self, room: &Room, other: &Self) -> chat::PutMemberRequest {
        let chat::MemberRequest { actor, room, user } = self.about(room, other);
        chat::PutMemberRequest { actor, room, user, ..Default::default() }
    }

    pub(crate) fn patch(&self, room: &Room) -> chat::PatchRoomRequest {
        chat::PatchRoomRequest { actor: self.actor.clone(), room: room.clone(), ..Default::default() }
    }

    pub(crate) fn edit(&self, room: &Room, seq: i64, text: &str) -> chat::EditRequest {
        chat::EditRequest { actor: self.actor.clone(), room: room.clone(), seq, text: text.to_owned() }
    }

    pub(crate) fn message(&self, room: &Room, seq: i64) -> chat::MessageRequest {
        chat::MessageRequest { actor: self.actor.clone(), room: room.clone(), seq, pushes_of: None }
    }

    /// A message that was never sent before.
    pub(crate) fn send(&self, room: &Room, text: &str) -> SendItem {
        SendItem {
            room: room.clone(),
            sender: self.wire(),
            client_id: ClientId::generate().to_wire(),
            text: text.to_owned(),
            ..SendItem::default()
        }
    }

    pub(crate) fn post(&self, item: SendItem) -> chat::PostRequest {
        chat::PostRequest { actor: self.actor.clone(), item: Some(item) }
    }
}

/// Puts all of this on one stream at once and waits for every answer; in the order of the items.
pub(crate) async fn stream(client: &Client, items: Vec<SendItem>) -> Vec<Answer> {
    let count = items.len();
    let items = items.into_iter().zip(1..).map(|(item, id)| SendItem { id, ..item }).collect();
    let sends = tokio_stream::iter([Sends { items }]);
    let mut answers = MessagesClient::new(client.clone()).stream(sends).await.unwrap().into_inner();
    let mut by_id: HashMap<u64, Answer> = HashMap::new();
    let all = async {
        while let Some(batch) = answers.message().await.unwrap() {
            for answer in batch.items {
                let result = match answer.result.unwrap() {
                    send_answer::Result::Sent(sent) => Ok(sent),
                    send_answer::Result::Failure(failure) => Err(failure),
                };
                assert!(by_id.insert(answer.id, result).is_none(), "answered twice");
            }
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("answers are missing");
    assert_eq!(by_id.len(), count, "the stream ended before every answer");
    (1..).take(count).map(|id| by_id.remove(&id).unwrap()).collect()
}

/// Expects a send to be refused like this.
#[track_caller]
pub(crate) fn failed(answer: &Answer, code: Code) -> &chat::Failure {
    let failure = answer.as_ref().unwrap_err();
    assert_eq!(Code::from(failure.code), code, "{failure:?}");
    failure
}

/// The time to wait that a refusal names.
pub(crate) fn retry_after(status: &Status) -> Option<i64> {
    status.metadata().get("retry-after-ms")?.to_str().ok()?.parse().ok()
}
