//! Stories of chat-service, each told twice: on SQLite in every run, on PostgreSQL when
//! `PARLANCE_TEST_POSTGRES_URL` names a server on which databases may be made.
#![allow(clippy::unwrap_used, reason = "tests")]

mod accounts;
mod attachments;
mod blocks;
mod chat_world;
mod choices;
mod commit;
mod costs;
mod cursors;
mod directory;
mod files;
mod hello;
mod last_seen;
mod mentions;
mod outbox;
mod people_in_rooms;
mod proxy;
mod repair;
mod replicas;
mod rooms;

use std::{collections::VecDeque, path::PathBuf, time::Duration};

use bytes::Bytes;
use chat_service::Config;
use parlance_proto::{
    chat::{self, accounts_client::AccountsClient},
    event::{Event, Parcel, UserEvent, event},
    v1::User,
};
use prost::Message;
use service_kit::{
    admin::Readiness,
    auth::Signer,
    bus::{Arrival, Bus, Inbox},
    db::{Db, Tx},
    id::{BootId, UserId},
    on_tx,
    rpc::{self, Client},
    tasks::Tasks,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::sync::Mutex;
use tonic::{Code, Response, Status, service::Routes};
use uuid::Uuid;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(10);
/// Nobody listens there: without the directory, events go to every inbox.
const NO_PRESENCE: &str = "http://127.0.0.1:1";
/// A good password.
const PASSWORD: &str = "correct horse battery";

/// Stamps stories, `async fn(&Service)` in the same file, as tests on both engines.
macro_rules! stories {
    ($($story:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let service = crate::Service::start(crate::Database::sqlite()).await;
                super::$story(&service).await;
                service.stop().await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let Some(database) = crate::Database::postgres().await else { return };
                let service = crate::Service::start(database).await;
                super::$story(&service).await;
                service.stop().await;
            })*
        }
    };
}
use stories;

/// Stamps stories that only PostgreSQL can tell: several replicas, locks of rows.
macro_rules! postgres_stories {
    ($($story:ident)*) => {
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let Some(database) = crate::Database::postgres().await else { return };
                let service = crate::Service::start(database).await;
                super::$story(&service).await;
                service.stop().await;
            })*
        }
    };
}
use postgres_stories;

/// A database of its own for one story; left behind when the story fails.
enum Database {
    Sqlite(PathBuf),
    Postgres { server: String, name: String },
}

impl Database {
    fn sqlite() -> Self {
        Self::Sqlite(std::env::temp_dir().join(format!("parlance-test-{}.db", Uuid::new_v4().simple())))
    }

    /// None, and the story is not told, without a server; unless this run must not leave anything out.
    #[allow(clippy::disallowed_methods, reason = "where the tests' servers are is no setting of Parlance")]
    async fn postgres() -> Option<Self> {
        let Ok(server) = std::env::var("PARLANCE_TEST_POSTGRES_URL") else {
            let required = std::env::var("PARLANCE_TEST_REQUIRED").is_ok_and(|required| required == "1");
            assert!(!required, "PARLANCE_TEST_POSTGRES_URL is not set, and PARLANCE_TEST_REQUIRED is");
            return None;
        };
        let name = format!("parlance_test_{}", Uuid::new_v4().simple());
        on_server(&server, format!("create database {name}")).await;
        Some(Self::Postgres { server, name })
    }

    fn url(&self) -> String {
        match self {
            Self::Sqlite(file) => format!("sqlite:{}", file.display()),
            Self::Postgres { server, name } => {
                let (address, options) = server.split_once('?').map_or((server.as_str(), None), |(a, o)| (a, Some(o)));
                let path =
                    address.find("://").and_then(|start| address[start + 3..].find('/').map(|at| start + 3 + at));
                let root = &address[..path.unwrap_or(address.len())];
                format!("{root}/{name}{}", options.map(|options| format!("?{options}")).unwrap_or_default())
            }
        }
    }

    async fn drop(self) {
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

/// What a story may want different from the usual.
#[derive(Default)]
struct Setup {
    /// Another bus than one inside the process.
    bus_url: Option<&'static str>,
    /// A directory; without one, events go to every inbox.
    presence: Option<Routes>,
    /// While this file exists nothing is published.
    hold: Option<PathBuf>,
    /// Where the database is reached, if not directly.
    database_url: Option<String>,
}

/// One process of chat-service.
struct Replica {
    client: Client,
    tasks: Tasks,
}

impl Replica {
    async fn start(database_url: String, bus: Bus, setup: Setup) -> Self {
        let tasks = Tasks::new();
        let config = Config {
            database_url,
            signing_key: Signer::generate_pem().unwrap(),
            access_ttl_s: 600,
            files: chat_service::files::Limits { user_bytes: 1000, total_bytes: 2000, unattached_ms: 86_400_000 },
            hold_publish: setup.hold,
        };
        let presence = match setup.presence {
            Some(routes) => rpc::in_process(routes, &tasks),
            None => rpc::connect(NO_PRESENCE).unwrap(),
        };
        let routes = chat_service::start(config, bus, presence, Readiness::new(), &tasks).await.unwrap();
        Self { client: rpc::in_process(routes, &tasks), tasks }
    }

    async fn stop(self) {
        drop(self.client);
        assert!(self.tasks.shutdown(PATIENCE).await, "something does not stop");
    }
}

/// A running chat-service, and a gateway that hears of everything.
struct Service {
    client: Client,
    gateway: Mutex<Gateway>,
    database: Database,
    /// The way to the database behind the service's back.
    db: Db,
    bus: Bus,
    /// Of the bus, which outlives the replicas.
    tasks: Tasks,
    replica: Replica,
}

impl Service {
    async fn start(database: Database) -> Self {
        Self::set_up(database, Setup::default()).await
    }

    async fn set_up(database: Database, setup: Setup) -> Self {
        let tasks = Tasks::new();
        let bus = Bus::connect(setup.bus_url.unwrap_or("memory:"), "chat-service", &tasks).await.unwrap();
        // An inbox on a bus that never gets ready would be waited for.
        let heard =
            if setup.bus_url.is_some() { Bus::connect("memory:", "", &tasks).await.unwrap() } else { bus.clone() };
        let inbox = heard.inbox(BootId::generate()).await.unwrap();
        let gateway = Mutex::new(Gateway { inbox, unread: VecDeque::new() });
        let url = setup.database_url.clone().unwrap_or_else(|| database.url());
        let replica = Replica::start(url, bus.clone(), setup).await;
        let db = Db::connect(&database.url()).await.unwrap();
        Self { client: replica.client.clone(), gateway, database, db, bus, tasks, replica }
    }

    /// Another process on the same database and the same bus.
    async fn another(&self) -> Replica {
        Replica::start(self.database.url(), self.bus.clone(), Setup::default()).await
    }

    async fn stop(self) {
        self.ends().await.drop().await;
    }

    /// Stops everything but the database.
    async fn ends(self) -> Database {
        drop(self.client);
        self.replica.stop().await;
        assert!(self.tasks.shutdown(PATIENCE).await, "something of the bus does not stop");
        self.db.close().await;
        self.database
    }

    fn accounts(&self) -> AccountsClient<Client> {
        AccountsClient::new(self.client.clone())
    }

    /// A transaction behind the service's back, on connections of its own.
    async fn begins(&self) -> (Db, Tx) {
        let db = Db::connect(&self.database.url()).await.unwrap();
        let tx = db.begin().await.unwrap();
        (db, tx)
    }

    /// Changes rows behind the service's back, as time would. Gives how many.
    async fn changes(&self, sql: &'static str) -> u64 {
        let mut tx = self.db.begin().await.unwrap();
        let rows = on_tx!(&mut tx, c => sqlx::query(sql).execute(c).await.unwrap().rows_affected());
        tx.commit().await.unwrap();
        rows
    }

    /// Somebody who registers under this name with [`PASSWORD`].
    async fn registers(&self, username: &str) -> Person {
        let request = chat::RegisterRequest {
            username: username.to_owned(),
            password: PASSWORD.to_owned(),
            ..Default::default()
        };
        Person::from(self.accounts().register(request).await.unwrap().into_inner())
    }

    /// The next event of this user's own affairs.
    async fn user_event(&self, user: UserId) -> UserEvent {
        self.event(|kind| match kind {
            event::Kind::User(event) if event.user == user.to_wire() => Some(event),
            _ => None,
        })
        .await
    }

    /// The next event that `wanted` takes; those before it are dropped.
    async fn event<T>(&self, wanted: impl Fn(event::Kind) -> Option<T>) -> T {
        let mut gateway = self.gateway.lock().await;
        let search = async {
            loop {
                if let Some(found) = wanted(gateway.next().await) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, search).await.expect("the event does not come")
    }
}

/// The reading end of an inbox.
struct Gateway {
    inbox: Inbox,
    unread: VecDeque<Bytes>,
}

impl Gateway {
    async fn next(&mut self) -> event::Kind {
        loop {
            if let Some(event) = self.unread.pop_front() {
                return Event::decode(event).unwrap().kind.unwrap();
            }
            if let Arrival::Parcel(parcel) = self.inbox.next().await.expect("the bus has stopped") {
                self.unread.extend(Parcel::decode(parcel.body).unwrap().events);
            }
        }
    }
}

/// A user in one session.
#[derive(Clone, Debug)]
struct Person {
    user: User,
    id: UserId,
    actor: Option<chat::Actor>,
    tokens: chat::Tokens,
}

impl From<chat::Grant> for Person {
    fn from(grant: chat::Grant) -> Self {
        let user = grant.user.unwrap();
        Self {
            id: UserId::from_wire(&user.id, "user").unwrap(),
            actor: Some(chat::Actor { user: user.id.clone(), session: grant.session }),
            tokens: grant.tokens.unwrap(),
            user,
        }
    }
}

impl Person {
    fn actor(&self) -> chat::Actor {
        self.actor.clone().unwrap()
    }
}

/// Expects a call to be refused like this; gives the text.
#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<Response<T>, Status>, code: Code) -> String {
    let status = answer.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    status.message().to_owned()
}
