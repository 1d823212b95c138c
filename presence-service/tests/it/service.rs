//! The service as its callers see it: over gRPC, with a bus.

use std::time::Duration;

use parlance_proto::{
    event,
    presence::{
        ChooseRequest, LookupRequest, Op, RenewRequest, Seen, StatesReply, StatesRequest, TakeSeenRequest,
        UpdateRequest, directory_client::DirectoryClient, op::Kind, presence_client::PresenceClient,
        renew_reply::Standing,
    },
    v1::PresenceState,
};
use presence_service::{Config, PREFIX};
use prost::Message as _;
use service_kit::{
    admin::Readiness,
    bus::{Arrival, Bus, Inbox},
    id::{BootId, Topic, UserId},
    rpc::{self, Client},
    tasks::Tasks,
};

/// How long a story waits for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(10);

struct Service {
    directory: DirectoryClient<Client>,
    presence: PresenceClient<Client>,
    bus: Bus,
    readiness: Readiness,
    tasks: Tasks,
}

impl Service {
    async fn starts(redis_url: &str, prefix: &str) -> Self {
        let (tasks, readiness) = (Tasks::new(), Readiness::new());
        let bus = Bus::connect("memory:", "test", &tasks).await.unwrap();
        let config =
            Config { redis_url: redis_url.to_owned(), grace: Duration::from_millis(200), prefix: prefix.to_owned() };
        let routes = presence_service::start(config, bus.clone(), readiness.clone(), &tasks).await.unwrap();
        let client = rpc::in_process(routes, &tasks);
        let (directory, presence) = (DirectoryClient::new(client.clone()), PresenceClient::new(client));
        Self { directory, presence, bus, readiness, tasks }
    }

    async fn update(&mut self, boot: BootId, op: Op) {
        let request = UpdateRequest { boot: boot.to_wire(), ops: vec![op], sweep_below: 0 };
        self.directory.update(request).await.unwrap();
    }
}

async fn hears(inbox: &mut Inbox) -> parlance_proto::v1::Presence {
    loop {
        let arrival = tokio::time::timeout(PATIENCE, inbox.next()).await.unwrap();
        if let Some(Arrival::Parcel(parcel)) = arrival {
            let parcel = event::Parcel::decode(parcel.body).unwrap();
            let event = event::Event::decode(parcel.events[0].as_ref()).unwrap();
            match event.kind {
                Some(event::event::Kind::Presence(presence)) => return presence,
                other => panic!("{other:?}"),
            }
        }
    }
}

async fn a_watcher_hears_of_a_user(mut service: Service) {
    let (watching, other, user) = (BootId::generate(), BootId::generate(), UserId::generate());
    let mut inbox = service.bus.inbox(watching).await.unwrap();
    let renew = RenewRequest { boot: watching.to_wire(), number: 1 };
    let reply = service.directory.renew(renew.clone()).await.unwrap().into_inner();
    assert_eq!(reply.standing(), Standing::Expired);
    let topic = Topic::Presence(user).to_wire();
    let attach = Op { kind: Kind::Attach.into(), number: 1, topic: topic.clone(), ..Op::default() };
    service.update(watching, attach).await;
    let session = Op { kind: Kind::Session.into(), number: 1, user: user.to_wire(), connection: 7, ..Op::default() };
    service.update(other, session).await;
    let online = hears(&mut inbox).await;
    assert_eq!((online.state(), online.user.as_ref()), (PresenceState::Online, user.to_wire().as_ref()));

    let request = LookupRequest { topics: vec![topic] };
    let located = service.directory.lookup(request).await.unwrap().into_inner();
    assert_eq!(located.boots, [watching.to_wire()]);
    assert_eq!(located.served[0].boots, [0]);

    let request = ChooseRequest { user: user.to_wire(), state: PresenceState::Dnd.into(), version: 1 };
    service.presence.choose(request).await.unwrap();
    let dnd = hears(&mut inbox).await;
    assert_eq!(dnd.state(), PresenceState::Dnd);
    assert!(dnd.version > online.version);
    let both = StatesRequest { users: vec![UserId::generate().to_wire(), user.to_wire()] };
    let StatesReply { items, present } = service.presence.states(both.clone()).await.unwrap().into_inner();
    assert_eq!((items[0].state(), items[0].version, items[0].last_seen), (PresenceState::Offline, 0, None));
    assert_eq!((&items[1], present), (&dnd, vec![false, true]));

    let request = ChooseRequest { user: user.to_wire(), state: PresenceState::Invisible.into(), version: 2 };
    service.presence.choose(request).await.unwrap();
    let gone = hears(&mut inbox).await;
    let StatesReply { items, present } = service.presence.states(both).await.unwrap().into_inner();
    assert_eq!((&items[1], present), (&gone, vec![false, true]), "offline to others, and there");
    let seen = Seen { user: user.to_wire(), at: gone.last_seen.unwrap() };
    let list = tokio::time::timeout(PATIENCE, async {
        loop {
            // It is noted just after it was told.
            let list = service.presence.take_seen(TakeSeenRequest {}).await.unwrap().into_inner();
            if !list.items.is_empty() {
                return list;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let list = list.await.unwrap();
    assert_eq!((&list.items[..], list.more), (&[seen][..], false));
    service.presence.seen_stored(list).await.unwrap();
    assert!(service.presence.take_seen(TakeSeenRequest {}).await.unwrap().into_inner().items.is_empty());

    let request = ChooseRequest { user: user.to_wire(), state: PresenceState::Away.into(), version: 3 };
    assert_eq!(service.presence.choose(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    let request = ChooseRequest { user: user.to_wire(), state: PresenceState::Dnd.into(), version: -1 };
    assert_eq!(service.presence.choose(request).await.unwrap_err().code(), tonic::Code::InvalidArgument);
    assert!(service.readiness.is_ready());
    assert!(service.tasks.shutdown(Duration::from_secs(5)).await, "nothing keeps it");
}

#[tokio::test]
async fn a_watcher_hears_of_a_user_in_memory() {
    a_watcher_hears_of_a_user(Service::starts("memory:", PREFIX).await).await;
}

#[tokio::test]
async fn a_watcher_hears_of_a_user_on_redis() {
    if let Some(url) = crate::world::redis_url() {
        a_watcher_hears_of_a_user(Service::starts(&url, &format!("test-{}:", UserId::generate())).await).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_away_at_the_start_is_waited_for() {
    let mut service = Service::starts("redis://127.0.0.1:1/", PREFIX).await;
    assert!(!service.readiness.is_ready());
    let request = LookupRequest { topics: vec![Topic::User(UserId::generate()).to_wire()] };
    assert!(service.directory.lookup(request).await.unwrap().into_inner().unknown);
    let request = StatesRequest { users: vec![UserId::generate().to_wire()] };
    assert_eq!(service.presence.states(request).await.unwrap_err().code(), tonic::Code::Unavailable);
    assert!(service.tasks.shutdown(Duration::from_secs(5)).await, "nothing keeps it");
}

#[tokio::test]
async fn a_wrong_url_is_refused_without_repeating_it() {
    let tasks = Tasks::new();
    let bus = Bus::connect("memory:", "test", &tasks).await.unwrap();
    let config = Config { redis_url: "http://secret@x".to_owned(), grace: Duration::ZERO, prefix: PREFIX.to_owned() };
    let error = presence_service::start(config, bus, Readiness::new(), &tasks).await.unwrap_err();
    assert!(!format!("{error:#}").contains("secret"), "{error:#}");
}

#[test]
fn the_program_refuses_backends_inside_its_own_process() {
    let (amqp, redis) = ("amqp://localhost", "redis://localhost");
    let cases = [(amqp, redis, ""), ("memory:", redis, "PARLANCE_AMQP_URL"), (amqp, "memory:", "PARLANCE_REDIS_URL")];
    for (amqp, redis, wrong) in cases {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_presence-service"));
        let program = program.arg("--check-config").env("PARLANCE_AMQP_URL", amqp).env("PARLANCE_REDIS_URL", redis);
        let ended = program.output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(if wrong.is_empty() { 0 } else { 64 }), "{said}");
        assert!(said.contains(wrong), "{said}");
    }
}
