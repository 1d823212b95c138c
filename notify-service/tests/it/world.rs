//! Chat-service, presence-service and notify-service on one database and one bus, with people in it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use bytes::Bytes;
use notify_service::{Config, Timing, Vapid};
use parlance_proto::{
    chat::{
        self, SendItem, accounts_client::AccountsClient, messages_client::MessagesClient, rooms_client::RoomsClient,
    },
    notify::{self, notify_client::NotifyClient},
    presence::{self, directory_client::DirectoryClient, presence_client::PresenceClient},
    v1,
};
use service_kit::{
    admin::Readiness,
    auth::Signer,
    bus::Bus,
    db::Db,
    id::{BootId, ClientId, SessionId, UserId},
    on_tx,
    rpc::{self, Client},
    tasks::Tasks,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use uuid::Uuid;

use crate::{
    PATIENCE,
    receiver::{self, Receiver},
};

/// Stamps stories, `async fn(&World)` in the same file, as tests on both engines.
macro_rules! stories {
    ($($story:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let world = crate::world::World::begin(crate::world::Database::sqlite()).await;
                Box::pin(super::$story(&world)).await;
                world.end().await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let Some(database) = crate::world::Database::postgres().await else { return };
                let world = crate::world::World::begin(database).await;
                Box::pin(super::$story(&world)).await;
                world.end().await;
            })*
        }
    };
}
pub(crate) use stories;

/// A database of its own for one story; left behind when the story fails.
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres { server: String, name: String },
}

impl Database {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(std::env::temp_dir().join(format!("parlance-test-{}.db", Uuid::new_v4().simple())))
    }

    /// None, and the story is not told, without a server; unless this run must not leave anything out.
    #[allow(clippy::disallowed_methods, reason = "where the tests' servers are is no setting of Parlance")]
    pub(crate) async fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("PARLANCE_TEST_POSTGRES_URL") else {
            let required = std::env::var("PARLANCE_TEST_REQUIRED").is_ok_and(|required| required == "1");
            assert!(!required, "PARLANCE_TEST_POSTGRES_URL is not set, and PARLANCE_TEST_REQUIRED is");
            return None;
        };
        let name = format!("parlance_test_{}", Uuid::new_v4().simple());
        on_server(&server, format!("create database {name}")).await;
        Some(Self::Postgres { server, name })
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres { server, name } => {
                let mut url = url::Url::parse(server).unwrap();
                url.set_path(name);
                url.into()
            }
        }
    }

    pub(crate) async fn drop(self) {
        match self {
            Self::Sqlite(file) => {
                for suffix in ["", "-wal", "-shm"] {
                    // Whether SQLite has left the other two depends on who closed last.
                    let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
                }
            }
            Self::Postgres { server, name } => on_server(&server, format!("drop database {name} with (force)")).await,
        }
    }
}

async fn on_server(server: &str, sql: String) {
    let mut connection = PgConnection::connect(server).await.unwrap();
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
}

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    pub(crate) session: SessionId,
}

impl Person {
    pub(crate) fn actor(&self) -> Option<chat::Actor> {
        Some(chat::Actor { user: self.id.to_wire(), session: self.session.to_wire() })
    }
}

/// The three services.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) bus: Bus,
    pub(crate) chat: Client,
    pub(crate) presence: Client,
    pub(crate) notify: NotifyClient<Client>,
    pub(crate) config: Config,
    tasks: Tasks,
    bus_tasks: Tasks,
    database: Database,
}

impl World {
    pub(crate) async fn begin(database: Database) -> Self {
        Self::begin_with(database, config()).await
    }

    pub(crate) async fn begin_with(database: Database, config: Config) -> Self {
        let (tasks, bus_tasks) = (Tasks::new(), Tasks::new());
        let bus = Bus::connect("memory:", "test", &bus_tasks).await.unwrap();
        let db = Db::connect(&database.url()).await.unwrap();
        let presence = presence_service::Config {
            redis_url: "memory:".to_owned(),
            grace: Duration::from_millis(300),
            prefix: String::new(),
        };
        let routes = presence_service::start(presence, bus.clone(), Readiness::new(), &tasks).await.unwrap();
        let presence = rpc::in_process(routes, &tasks);
        let notify = notify_on(&config, &db, &bus, &presence, &tasks).await;
        let chat = chat_service::Config {
            database_url: String::new(),
            signing_key: Signer::generate_pem().unwrap(),
            access_ttl_s: 600,
            files: chat_service::files::Limits { user_bytes: 1000, total_bytes: 1000, unattached_ms: 60_000 },
            hold_publish: None,
        };
        let (on, near) = (db.clone(), presence.clone());
        let routes = chat_service::start_on(chat, on, bus.clone(), near, Readiness::new(), &tasks).await.unwrap();
        let chat = rpc::in_process(routes, &tasks);
        Self { db, bus, chat, presence, notify, config, tasks, bus_tasks, database }
    }

    pub(crate) async fn end(self) {
        drop((self.chat, self.notify, self.presence));
        assert!(self.tasks.shutdown(PATIENCE).await, "something does not stop");
        self.bus_tasks.shutdown(PATIENCE).await;
        self.db.close().await;
        self.database.drop().await;
    }

    /// Somebody new, by this display name, without the price of a password.
    pub(crate) async fn person(&self, name: &str) -> Person {
        let person = Person { id: UserId::generate(), session: SessionId::generate() };
        let username = format!("u{}", person.id.0.simple().to_string().split_off(12));
        let mut tx = self.db.begin().await.unwrap();
        on_tx!(&mut tx, c => sqlx::query(
            "insert into users (id, username, display_name, name_folded, bot, rev, created_at, show_receipts, show_presence)
             values ($1, $2, $3, $3, false, 1, 1, true, true)",
        )
        .bind(person.id)
        .bind(username)
        .bind(name)
        .execute(c)
        .await
        .map(|_| ()))
        .unwrap();
        on_tx!(&mut tx, c => sqlx::query(
            "insert into sessions (id, user_id, created_at, last_used_at) values ($1, $2, 1, 1)",
        )
        .bind(person.session)
        .bind(person.id)
        .execute(c)
        .await
        .map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        person
    }

    pub(crate) fn accounts(&self) -> AccountsClient<Client> {
        AccountsClient::new(self.chat.clone())
    }

    pub(crate) fn rooms(&self) -> RoomsClient<Client> {
        RoomsClient::new(self.chat.clone())
    }

    pub(crate) fn messages(&self) -> MessagesClient<Client> {
        MessagesClient::new(self.chat.clone())
    }

    pub(crate) async fn direct(&self, one: &Person, other: &Person) -> Bytes {
        let request = chat::OpenDirectRequest { actor: one.actor(), user: other.id.to_wire() };
        self.rooms().open_direct(request).await.unwrap().into_inner().room.unwrap().id
    }

    pub(crate) async fn group(&self, owner: &Person, name: &str, members: &[&Person]) -> Bytes {
        let request = chat::CreateRoomRequest {
            actor: owner.actor(),
            kind: v1::RoomKind::Group.into(),
            name: name.to_owned(),
            members: members.iter().map(|member| member.id.to_wire()).collect(),
            ..chat::CreateRoomRequest::default()
        };
        self.rooms().create(request).await.unwrap().into_inner().id
    }

    pub(crate) async fn says(&self, sender: &Person, room: &Bytes, text: &str) -> v1::Message {
        let item = SendItem {
            room: room.clone(),
            sender: sender.id.to_wire(),
            client_id: ClientId(Uuid::new_v4()).to_wire(),
            text: text.to_owned(),
            ..SendItem::default()
        };
        let request = chat::PostRequest { actor: sender.actor(), item: Some(item) };
        self.messages().post(request).await.unwrap().into_inner().message.unwrap()
    }

    pub(crate) async fn reads(&self, reader: &Person, room: &Bytes, seq: i64) {
        let request = chat::MarkRequest {
            actor: reader.actor(),
            room: room.clone(),
            seq,
            kind: chat::mark_request::Kind::Read.into(),
        };
        self.messages().mark(request).await.unwrap();
    }

    /// From now on this user has a live session.
    pub(crate) async fn comes_online(&self, person: &Person) {
        self.comes(person, v1::PresenceState::Online).await;
    }

    /// The same of a user who has chosen to be invisible: everybody is told that they are offline.
    pub(crate) async fn comes_invisibly(&self, person: &Person) {
        self.comes(person, v1::PresenceState::Invisible).await;
        let request = presence::StatesRequest { users: vec![person.id.to_wire()] };
        let reply = PresenceClient::new(self.presence.clone()).states(request).await.unwrap().into_inner();
        assert_eq!(reply.items[0].state(), v1::PresenceState::Offline);
    }

    async fn comes(&self, person: &Person, choice: v1::PresenceState) {
        let op = presence::Op {
            kind: presence::op::Kind::Session.into(),
            number: 1,
            user: person.id.to_wire(),
            connection: 1,
            choice: choice.into(),
            choice_version: 1,
            ..presence::Op::default()
        };
        let request =
            presence::UpdateRequest { boot: BootId::generate().to_wire(), ops: vec![op], ..Default::default() };
        DirectoryClient::new(self.presence.clone()).update(request).await.unwrap();
    }

    /// Has this subscription of the receiver registered; gives the device's id.
    pub(crate) async fn subscribes(&self, person: &Person, receiver: &Receiver, path: &str) -> Bytes {
        let request = notify::RegisterDeviceRequest {
            user: person.id.to_wire(),
            session: person.session.to_wire(),
            platform: notify::Platform::Webpush.into(),
            name: None,
            target: format!("{}{path}", receiver.url),
            p256dh: receiver.public().into(),
            auth: receiver::AUTH.to_vec().into(),
            ..notify::RegisterDeviceRequest::default()
        };
        self.registers(request).await.device.unwrap().id
    }

    /// What was decided on the pushes of a message to a user: outcome, reason, detail.
    pub(crate) async fn why(&self, message: &v1::Message, person: &Person) -> Vec<(String, String, String)> {
        let request = notify::WhyRequest {
            room: message.room.clone(),
            seq: message.seq,
            user: person.id.to_wire(),
            at: message.at,
        };
        let decisions = self.notify.clone().why(request).await.unwrap().into_inner().decisions;
        decisions.into_iter().map(|it| (it.outcome, it.reason, it.detail.unwrap_or_default())).collect()
    }

    /// Waits until exactly this was decided on the one push of a message to a user; gives the detail.
    pub(crate) async fn decides(&self, message: &v1::Message, person: &Person, outcome: &str, reason: &str) -> String {
        let began = Instant::now();
        loop {
            let why = self.why(message, person).await;
            if let [(is, because, detail)] = why.as_slice()
                && (is.as_str(), because.as_str()) == (outcome, reason)
            {
                return detail.clone();
            }
            assert!(began.elapsed() < PATIENCE, "not {outcome}, {reason}, but {why:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// One more notify-service on the same database and bus.
    pub(crate) async fn another(&self) -> NotifyClient<Client> {
        notify_on(&self.config, &self.db, &self.bus, &self.presence, &self.tasks).await
    }

    pub(crate) async fn registers(&self, request: notify::RegisterDeviceRequest) -> notify::RegisteredDevice {
        self.notify.clone().register_device(request).await.unwrap().into_inner()
    }
}

/// What stories run with: pushes may go to this machine.
pub(crate) fn config() -> Config {
    let timing = Timing {
        delay: Duration::from_millis(50),
        email_delay: Duration::ZERO,
        retry: Duration::from_millis(200),
        timeout: Duration::from_millis(1_500),
        look: Duration::from_millis(300),
    };
    Config { timing, vapid_key: Vapid::generate_pem().unwrap(), private_targets: true, ..Config::default() }
}

/// A presence-service that does not answer.
pub(crate) fn absent_presence() -> PresenceClient<Client> {
    PresenceClient::new(rpc::connect("http://127.0.0.1:1").unwrap())
}

/// One notify-service.
pub(crate) async fn notify_on(
    config: &Config,
    db: &Db,
    bus: &Bus,
    presence: &Client,
    tasks: &Tasks,
) -> NotifyClient<Client> {
    let (config, db, bus, presence) = (config.clone(), db.clone(), bus.clone(), presence.clone());
    let routes = notify_service::start(config, db, bus, presence, Readiness::new(), tasks).await.unwrap();
    NotifyClient::new(rpc::in_process(routes, tasks))
}
