//! A real gateway on a real port, between doubles of the services and real sockets.

pub(crate) mod accounts;
pub(crate) mod chat;
pub(crate) mod directory;
pub(crate) mod gates;
pub(crate) mod replica;
pub(crate) mod socket;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use gateway::{Config, Upstreams};
use parlance_proto::event::{Event, MeChanged, Parcel, RoomEvent, UserEvent, event, user_event};
use prost::Message as _;
use serde_json::{Value, json};
use service_kit::{
    admin::Readiness,
    auth::Signer,
    bus::{self, Bus, To},
    clock,
    id::{BootId, RoomId},
    rpc,
    tasks::Tasks,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};
use tonic::service::Routes;

use self::{
    accounts::Keys,
    chat::{Chat, Person},
    directory::Directory,
    gates::until,
    replica::Replica,
    socket::Socket,
};

/// Everything of one story.
pub(crate) struct Stage {
    pub(crate) chat: Arc<Chat>,
    pub(crate) replicas: Vec<Arc<Replica>>,
    pub(crate) directory: Arc<Directory>,
    pub(crate) bus: Bus,
    /// Stopping these silences the bus.
    pub(crate) bus_tasks: Tasks,
    pub(crate) address: SocketAddr,
    pub(crate) readiness: Readiness,
    signer: Signer,
    tasks: Tasks,
    fences: AtomicI64,
    stop: Option<oneshot::Sender<()>>,
    served: Option<JoinHandle<()>>,
}

fn routes(add: impl FnOnce(&mut tonic::service::RoutesBuilder)) -> Routes {
    let mut routes = Routes::builder();
    add(&mut routes);
    routes.routes()
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::with_replicas(1).await
    }

    /// With so many replicas of chat-service, none of which takes a stream when `count` is 0 but the one there is.
    pub(crate) async fn with_replicas(count: usize) -> Self {
        let (tasks, bus_tasks) = (Tasks::new(), Tasks::new());
        let signer = Signer::from_pem(&Signer::generate_pem().expect("a key")).expect("a key");
        let chat = Chat::new(Keys::of(&signer));
        let directory = Arc::new(Directory::default());
        let replicas: Vec<_> = (0..count).map(|_| Replica::new(&tasks)).collect();
        let upstreams = Upstreams {
            chat: rpc::in_process(routes(|routes| chat.serve(routes)), &tasks),
            chat_replicas: replicas
                .iter()
                .map(|replica| rpc::in_process(routes(|routes| replica.serve(routes)), &tasks))
                .collect(),
            presence: rpc::in_process(routes(|routes| directory.serve(routes)), &tasks),
            notify: rpc::connect("http://127.0.0.1:9").expect("a URL"),
        };
        let bus = Bus::connect("memory:", "stage", &bus_tasks).await.expect("a bus");
        let config = Config {
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            rate_limits: false,
            most_connections: 10,
            grace: Duration::from_secs(4),
            files: gateway::files::Config {
                place: None,
                signed_urls: false,
                max_bytes: 1 << 20,
                max_pixels: 1_000_000,
                strip_exif: false,
                types: Vec::new(),
                sweep: Duration::from_secs(60),
                clamd: None,
                scan_ms: None,
            },
        };
        let readiness = Readiness::new();
        let gateway =
            gateway::start(config, upstreams, bus.clone(), readiness.clone(), &tasks).await.expect("a gateway");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tasks.spawn(async move { gateway.serve(listener, async move { drop(stopped.await) }).await });
        until("a first renewal", || !directory.boots().is_empty()).await;
        Self {
            chat,
            replicas,
            directory,
            bus,
            bus_tasks,
            address,
            readiness,
            signer,
            tasks,
            fences: AtomicI64::new(0),
            stop: Some(stop),
            served: Some(served),
        }
    }

    /// A token of this person, valid for so many seconds.
    pub(crate) fn token(&self, person: Person, ttl_s: i64) -> String {
        self.signer.sign(person.user, person.session, clock::now_ms(), ttl_s).expect("a token")
    }

    /// Somebody comes and says hello, and has no answer yet.
    pub(crate) async fn comes(&self, person: Person) -> Socket {
        self.comes_holding(person, json!({})).await
    }

    /// The same, of somebody who holds these rooms.
    pub(crate) async fn comes_holding(&self, person: Person, rooms: Value) -> Socket {
        let mut socket = Socket::open(self.address).await;
        socket.person = Some(person);
        socket.ask("hello", json!({"token": self.token(person, 600), "rooms": rooms})).await;
        socket
    }

    /// Somebody comes and is welcome.
    pub(crate) async fn enters(&self, person: Person) -> Socket {
        let mut socket = self.comes(person).await;
        assert_eq!(socket.told(1).await, ["welcome"]);
        socket
    }

    /// The boot id of the gateway's present life.
    pub(crate) fn boot(&self) -> BootId {
        *self.directory.boots().last().expect("a boot")
    }

    /// Puts events into the gateway's inbox.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Event>) {
        let events = events.into_iter().map(|event| event.encode_to_vec().into()).collect();
        let body = Parcel { events }.encode_to_vec().into();
        drop(self.bus.publish(To::Gateway(self.boot()), bus::Parcel { body, traceparent: None }));
    }

    /// Loses a parcel on its way to the gateway, and has the next one tell.
    pub(crate) fn lose(&self) {
        self.bus.lose(To::Gateway(self.boot()));
    }

    /// Retells what reaches a client until the gateway has worked off everything published before this call.
    pub(crate) async fn told(&self, socket: &mut Socket) -> Vec<String> {
        let fence = self.fences.fetch_add(1, Ordering::Relaxed) + 1_000_000;
        let person = socket.person.expect("somebody's socket");
        self.publish([of_me(person, RoomId::generate(), fence)]);
        socket.told_until(|frame| frame["event"]["me"]["rev"] == fence).await
    }

    /// The process is told to end.
    pub(crate) fn stop(&mut self) {
        let _ = self.stop.take().expect("not stopped yet").send(());
    }

    /// Waits until the gateway has ended.
    pub(crate) async fn ended(&mut self) {
        let served = self.served.take().expect("not waited for yet");
        served.await.expect("a clean end");
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.tasks.stop();
        self.bus_tasks.stop();
    }
}

/// An event of a room, as it is published.
pub(crate) fn of_room(event: RoomEvent) -> Event {
    Event { kind: Some(event::Kind::Room(event)) }
}

/// An event of a user's own affairs.
pub(crate) fn of_user(person: Person, rev: i64, kind: user_event::Kind) -> Event {
    let event = UserEvent { user: person.user.to_wire(), rev, kind: Some(kind), ..UserEvent::default() };
    Event { kind: Some(event::Kind::User(event)) }
}

/// The user's own state in a room has this rev now.
pub(crate) fn of_me(person: Person, room: RoomId, rev: i64) -> Event {
    let me = parlance_proto::v1::Me { rev, ..Default::default() };
    of_user(person, 0, user_event::Kind::Me(MeChanged { room: room.to_wire(), me: Some(me) }))
}
