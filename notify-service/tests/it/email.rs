//! E-mail, against a server that is none of ours: `smtp_sink.py` on aiosmtpd.

use std::{
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use notify_service::{Config, EmailConfig, Timing};
use parlance_proto::notify::{self, ListDevicesRequest, Platform, RegisterDeviceRequest};
use serde_json::{Value, json};
use service_kit::tasks::Tasks;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tonic::Code;

use crate::{
    PATIENCE,
    pem::Pem,
    world::{Database, Person, World, config},
};

const SINK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/smtp_sink.py");
/// How long mail waits here for more of its room.
const DELAY: Duration = Duration::from_millis(2_000);

/// Who is told of how many messages by two replicas.
const REPLICA_PEOPLE: usize = 40;
const REPLICA_MESSAGES: usize = 4;

/// The server, and what it has taken.
struct Sink {
    url: String,
    mails: Arc<Mutex<Vec<Value>>>,
    tasks: Tasks,
    _server: Child,
}

impl Sink {
    /// None, and the story is not told, where no Python has aiosmtpd; unless this run must not leave anything out.
    async fn start() -> Option<Self> {
        Self::start_with("", "").await
    }

    /// One with TLS: `wrapped` from the first byte on, or `starttls`, by this certificate and key.
    #[allow(clippy::disallowed_methods, reason = "whether a test may be left out is no setting of Parlance")]
    async fn start_with(tls: &str, pem: &str) -> Option<Self> {
        let mut python = None;
        for candidate in ["python3", "/usr/bin/python3"] {
            let mut probe = Command::new(candidate);
            probe.args(["-c", "import aiosmtpd"]).stderr(Stdio::null());
            if probe.status().await.is_ok_and(|status| status.success()) {
                python = Some(candidate);
                break;
            }
        }
        let Some(python) = python else {
            let required = std::env::var("PARLANCE_TEST_REQUIRED").is_ok_and(|required| required == "1");
            assert!(!required, "no Python with aiosmtpd (Debian: python3-aiosmtpd), and PARLANCE_TEST_REQUIRED is set");
            return None;
        };
        let mut server = Command::new(python)
            .arg(SINK)
            .env("SINK_TLS", tls)
            .env("SINK_PEM", pem)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let port = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let (mails, tasks) = (Arc::new(Mutex::new(Vec::new())), Tasks::new());
        let taken = Arc::clone(&mails);
        tasks.spawn_until_stop(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                taken.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        let scheme = if tls == "wrapped" { "smtps" } else { "smtp" };
        Some(Self { url: format!("{scheme}://parlance:secret@127.0.0.1:{port}"), mails, tasks, _server: server })
    }

    /// What came for an address.
    fn mails(&self, address: &str) -> Vec<Value> {
        let mails = self.mails.lock().unwrap();
        mails.iter().filter(|mail| mail["to"] == json!([address])).cloned().collect()
    }

    /// Waits for so many.
    async fn has(&self, address: &str, number: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let mails = self.mails(address);
            if mails.len() >= number {
                return mails;
            }
            assert!(began.elapsed() < PATIENCE, "only {} of {number} for {address}", mails.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn told(database: Database, delay: Duration, story: impl AsyncFnOnce(&World, &Sink)) {
    let Some(sink) = Sink::start().await else { return database.drop().await };
    let email = EmailConfig { url: sink.url.clone(), from: "Parlance <chat@parlance.example>".to_owned() };
    let timing = Timing { email_delay: delay, ..config().timing };
    let world = World::begin_with(database, Config { email: Some(email), timing, ..config() }).await;
    Box::pin(story(&world, &sink)).await;
    world.end().await;
    sink.tasks.stop();
}

macro_rules! stories {
    ($($story:ident, $delay:expr;)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                super::told(crate::world::Database::sqlite(), $delay, super::$story).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let Some(database) = crate::world::Database::postgres().await else { return };
                super::told(database, $delay, super::$story).await;
            })*
        }
    };
}

stories! {
    one_mail_tells_of_all_that_waits_of_a_room, super::DELAY;
    each_answer_of_the_server_means_its_own, std::time::Duration::ZERO;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_send_one_mail_of_a_room() {
    let Some(database) = Database::postgres().await else { return };
    told(database, DELAY, async |world, sink| {
        world.another().await;
        let maja = world.person("Maja").await;
        let mut people = Vec::new();
        for number in 0..REPLICA_PEOPLE {
            people.push(world.person(&format!("Person {number}")).await);
        }
        let team = world.group(&maja, "team", &people.iter().collect::<Vec<_>>()).await;
        for (number, person) in people.iter().enumerate() {
            world.registers(device(person, &format!("p{number}@example.org"))).await;
        }
        // Due a few milliseconds apart: when one replica has claimed the first, the other finds the next.
        let mut said = Vec::new();
        for number in 0..REPLICA_MESSAGES {
            said.push(world.says(&maja, &team, &format!("text {number}")).await);
        }
        for message in &said {
            for person in &people {
                world.decides(message, person, "sent", "delivered").await;
            }
        }
        for number in 0..REPLICA_PEOPLE {
            let mails = sink.has(&format!("p{number}@example.org"), 1).await;
            let subjects: Vec<_> = mails.iter().map(|mail| mail["subject"].clone()).collect();
            assert_eq!(subjects, [format!("team: {REPLICA_MESSAGES} new messages")], "person {number}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_goes_by_tls_or_not_at_all() {
    let Some((pem, stranger)) = Pem::make().await.zip(Pem::make().await) else { return };
    const DISTRUSTED: &str = "the server's certificate is not trusted";
    const NO_STARTTLS: &str = "the server offers no STARTTLS";
    for (tls, query, roots, refusal) in [
        ("wrapped", "", pem.certificate(), None),
        ("starttls", "?tls=required", pem.certificate(), None),
        ("wrapped", "", stranger.certificate(), Some(DISTRUSTED)),
        ("wrapped", "", "", Some(DISTRUSTED)),
        ("starttls", "?tls=required", stranger.certificate(), Some(DISTRUSTED)),
        ("starttls", "?tls=required", "", Some(DISTRUSTED)),
        ("", "?tls=required", pem.certificate(), Some(NO_STARTTLS)),
        ("", "?tls=required", "", Some(NO_STARTTLS)),
    ] {
        let Some(sink) = Sink::start_with(tls, pem.text()).await else { return };
        let email = EmailConfig { url: format!("{}{query}", sink.url), from: "chat@parlance.example".to_owned() };
        let config = Config { email: Some(email), roots: roots.to_owned(), ..config() };
        let world = World::begin_with(Database::sqlite(), config).await;
        let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
        world.registers(device(&bob, "bob@example.org")).await;
        let room = world.direct(&maja, &bob).await;
        let message = world.says(&maja, &room, "hello").await;
        match refusal {
            None => {
                world.decides(&message, &bob, "sent", "delivered").await;
                assert_eq!(sink.has("bob@example.org", 1).await.len(), 1, "{tls}");
            }
            Some(refusal) => {
                assert_eq!(world.decides(&message, &bob, "failed", "provider_error").await, refusal, "{tls}{query}");
                assert!(sink.mails("bob@example.org").is_empty(), "nothing in the clear: {tls}{query}");
            }
        }
        world.end().await;
        sink.tasks.stop();
    }
}

fn device(person: &Person, address: &str) -> RegisterDeviceRequest {
    RegisterDeviceRequest {
        user: person.id.to_wire(),
        session: person.session.to_wire(),
        platform: Platform::Email.into(),
        target: address.to_owned(),
        ..RegisterDeviceRequest::default()
    }
}

async fn one_mail_tells_of_all_that_waits_of_a_room(world: &World, sink: &Sink) {
    let (maja, olga, bob) = (world.person("Maja").await, world.person("Olga").await, world.person("Bob").await);
    let (team, other) = (world.group(&maja, "team", &[&olga, &bob]).await, world.group(&maja, "other", &[&bob]).await);
    let refused = world.notify.clone().register_device(device(&bob, "no address")).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(world.registers(device(&bob, "bob@example.org")).await.added);
    let said = [
        world.says(&maja, &team, "Dinner at 8? Здравствуйте 👋\n.\nand a line of its own").await,
        world.says(&olga, &team, "yes").await,
        world.says(&maja, &team, "good").await,
    ];
    let read = world.says(&maja, &other, "read elsewhere").await;
    world.reads(&bob, &other, read.seq).await;

    let mail = sink.has("bob@example.org", 1).await.remove(0);
    for message in &said {
        assert_eq!(world.decides(message, &bob, "sent", "delivered").await, "answered 250");
    }
    assert_eq!((&mail["from"], &mail["subject"]), (&"chat@parlance.example".into(), &"team: 3 new messages".into()));
    let text = mail["text"].as_str().unwrap().replace("\r\n", "\n");
    let lines = ["Maja: Dinner at 8? Здравствуйте 👋\n.\nand a line of its own\n", "Olga: yes\n", "Maja: good\n"];
    let places: Vec<_> =
        lines.iter().map(|line| text.find(line).unwrap_or_else(|| panic!("{line} in {text}"))).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(mail["headers"].as_array().unwrap().contains(&json!(["auto-submitted", "auto-generated"])));

    world.decides(&read, &bob, "cancelled", "read_elsewhere").await;
    let next = world.says(&olga, &team, "and again").await;
    world.decides(&next, &bob, "sent", "delivered").await;
    let mails = sink.has("bob@example.org", 2).await;
    assert_eq!((mails.len(), &mails[1]["subject"]), (2, &"team: 1 new message".into()));
    assert!(!mails[1]["text"].as_str().unwrap().contains("good"), "each is told once");

    let settings = notify::Settings { privacy: notify::Privacy::None.into(), quiet_hours: None };
    let request = notify::PutSettingsRequest { user: bob.id.to_wire(), settings: Some(settings) };
    world.notify.clone().put_settings(request).await.unwrap();
    let direct = world.direct(&maja, &bob).await;
    let secret = world.says(&maja, &direct, "a secret").await;
    world.decides(&secret, &bob, "sent", "delivered").await;
    let mail = sink.has("bob@example.org", 3).await.remove(2);
    assert!(!mail.to_string().contains("secret") && !mail.to_string().contains("Maja"), "{mail}");
}

async fn each_answer_of_the_server_means_its_own(world: &World, sink: &Sink) {
    let eve = world.person("Eve\r\nBcc: everybody@example.org").await;
    let mut people = Vec::new();
    for mood in ["fine", "unknown", "full", "busy", "hang", "cut"] {
        let person = world.person(mood).await;
        let address = format!("{mood}@example.org");
        let device = world.registers(device(&person, &address)).await.device.unwrap();
        people.push((person, address, device));
    }
    let mut messages = Vec::new();
    for (person, ..) in &people {
        let room = world.direct(&eve, person).await;
        messages.push(world.says(&eve, &room, "hello").await);
    }
    let decides = async |which: usize, outcome: &str, reason: &str| {
        world.decides(&messages[which], &people[which].0, outcome, reason).await
    };
    decides(0, "sent", "delivered").await;
    assert_eq!(decides(1, "failed", "token_dead").await, "answered 550 5.1.1");
    assert_eq!(decides(2, "dead_lettered", "provider_error").await, "answered 552");
    for (which, (_, address, _)) in people.iter().enumerate().skip(3) {
        decides(which, "sent", "delivered").await;
        assert_eq!(sink.has(address, 1).await.len(), 1, "{address}");
    }
    for (which, devices) in [(0, 1), (1, 0), (2, 1)] {
        let request = ListDevicesRequest { user: people[which].0.id.to_wire() };
        let items = world.notify.clone().list_devices(request).await.unwrap().into_inner().items;
        assert_eq!(items.len(), devices, "{}", people[which].1);
    }
    let mail = sink.has("fine@example.org", 1).await.remove(0);
    let headers = mail["headers"].as_array().unwrap();
    assert!(!headers.iter().any(|header| header[0] == "bcc"), "{headers:?}");

    let (fine, address, device) = &people[0];
    let request = notify::TestDeviceRequest { user: fine.id.to_wire(), device: device.id.clone() };
    world.notify.clone().test_device(request).await.unwrap();
    assert!(sink.has(address, 2).await[1]["text"].as_str().unwrap().contains("This is a test."));
}
