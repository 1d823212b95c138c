//! What a message makes of the devices of its room's members.

use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use notify_service::{Config, Timing, news::News, notifications::tell::Teller, plan::Planner};
use parlance_proto::{
    chat,
    notify::{
        GetSettingsRequest, ListDevicesRequest, Platform, Privacy, PutSettingsRequest, QuietHours,
        RegisterDeviceRequest, Settings, TestDeviceRequest,
    },
    presence::presence_client::PresenceClient,
    v1,
};
use service_kit::{clock, db::Db, id::RoomId, on_db, on_tx};
use tonic::Code;
use uuid::Uuid;

use crate::{
    PATIENCE,
    receiver::{Mood, Receiver},
    world::{Database, Person, World, config, stories},
};

stories! {
    a_message_reaches_the_devices_of_who_is_away
    a_dead_endpoint_goes_and_a_refusal_is_final
    a_provider_that_fails_is_tried_again
    one_that_hangs_or_cuts_delays_nobody_else
    what_is_told_twice_is_pushed_once
    what_another_had_claimed_and_lost_is_pushed
    two_replicas_share_the_work
    a_device_ends_with_its_session
    a_webhook_is_signed_with_the_secret_that_was_told_once
    what_was_sent_is_withdrawn_when_it_is_read_elsewhere
    quiet_hours_and_privacy_are_kept_and_hold
    a_test_push_comes_at_once_or_says_why_not
}

async fn devices(world: &World, person: &Person) -> usize {
    let request = ListDevicesRequest { user: person.id.to_wire() };
    world.notify.clone().list_devices(request).await.unwrap().into_inner().items.len()
}

async fn a_message_reaches_the_devices_of_who_is_away(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    let team = world.group(&maja, "team", &[&bob, &carol]).await;
    let direct = world.direct(&maja, &bob).await;
    for (person, path) in [(&maja, "maja"), (&bob, "phone"), (&bob, "laptop")] {
        world.subscribes(person, &receiver, path).await;
    }

    let first = world.says(&maja, &team, "hello").await;
    let (phone, laptop) = (receiver.has("phone", 1).await, receiver.has("laptop", 1).await);
    let payload = &phone[0].payload;
    let text = |name: &str| payload[name].as_str().unwrap().to_owned();
    let id = |bytes: &[u8]| Uuid::from_slice(bytes).unwrap().to_string();
    assert_eq!(text("kind"), "message");
    assert_eq!((text("id"), text("room"), text("sender")), (id(&first.id), id(&team), maja.id.0.to_string()));
    assert_eq!((text("room_name"), text("sender_name")), ("team".into(), "Maja".into()));
    assert_eq!((text("title"), text("body")), ("team".into(), "Maja: hello".into()));
    assert_eq!((payload["seq"].as_i64(), payload["at"].as_i64()), (Some(first.seq), Some(first.at)));
    assert_eq!((&laptop[0].payload["id"], &laptop[0].topic), (&payload["id"], &phone[0].topic));
    let badge = payload["badge"].as_i64().unwrap();
    assert!(payload["unread"].as_i64().unwrap() >= 1 && badge >= 1, "{payload}");

    world.says(&maja, &team, "again").await;
    world.says(&maja, &direct, "psst").await;
    let phone = receiver.has("phone", 3).await;
    let of = |body: &str| phone.iter().find(|push| push.payload["body"] == body).expect("it came").clone();
    assert_eq!(of("Maja: again").topic, phone[0].topic, "one room is one topic");
    assert_ne!(of("psst").topic, phone[0].topic);
    assert_eq!((&of("psst").payload["title"], &of("psst").payload["unread"]), (&"Maja".into(), &1.into()));
    assert!(of("psst").payload["badge"].as_i64().unwrap() > badge, "it counts all rooms");

    let why = world.why(&first, &bob).await;
    assert!(why.len() == 2 && why.iter().all(|(is, because, _)| is == "sent" && because == "delivered"), "{why:?}");
    assert!(world.why(&first, &maja).await.is_empty(), "nobody is pushed what they wrote");
    assert!(world.why(&first, &carol).await.is_empty(), "she has no device");
    assert!(receiver.pushes("maja").is_empty());
}

/// With a delay in which a story can do something.
async fn slowly(database: Database) -> World {
    let timing = Timing { delay: Duration::from_secs(2), ..config().timing };
    World::begin_with(database, Config { timing, ..config() }).await
}

mod slow {
    use crate::world::Database;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sqlite() {
        Box::pin(super::who_is_online_has_read_or_wants_none_gets_none(Database::sqlite())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn postgres() {
        let Some(database) = Database::postgres().await else { return };
        Box::pin(super::who_is_online_has_read_or_wants_none_gets_none(database)).await;
    }
}

async fn who_is_online_has_read_or_wants_none_gets_none(database: Database) {
    let world = slowly(database).await;
    let receiver = Receiver::start().await;
    let mut people = Vec::new();
    for name in ["Maja", "Online", "Reader", "Muted", "Nothing", "Mentions", "Away", "Hidden", "Left"] {
        people.push(world.person(name).await);
    }
    let [maja, online, reader, muted, nothing, mentions, away, hidden, left] = &people[..] else { unreachable!() };
    let room = world.group(maja, "team", &people[1..].iter().collect::<Vec<_>>()).await;
    for person in &people[1..] {
        world.subscribes(person, &receiver, &person.id.0.simple().to_string()).await;
    }
    let mine = |person: &Person| chat::PatchMineRequest {
        actor: person.actor(),
        room: room.clone(),
        ..chat::PatchMineRequest::default()
    };
    let notify = |level: v1::Notify| Some(level.into());
    for request in [
        chat::PatchMineRequest { muted_until: Some(i64::MAX), ..mine(muted) },
        chat::PatchMineRequest { notify: notify(v1::Notify::None), ..mine(nothing) },
        chat::PatchMineRequest { notify: notify(v1::Notify::Mentions), ..mine(mentions) },
    ] {
        world.rooms().patch_mine(request).await.unwrap();
    }
    world.comes_online(online).await;
    world.comes_invisibly(hidden).await;

    let message = world.says(maja, &room, "hello").await;
    world.reads(reader, &room, message.seq).await;
    let request = chat::MemberRequest { actor: maja.actor(), room: room.clone(), user: left.id.to_wire() };
    world.rooms().remove_member(request).await.unwrap();
    for (person, outcome, reason) in [
        (online, "skipped", "online"),
        (hidden, "skipped", "online"),
        (reader, "cancelled", "read_elsewhere"),
        (muted, "skipped", "muted"),
        (nothing, "skipped", "level"),
        (mentions, "skipped", "level"),
        (away, "sent", "delivered"),
        (left, "cancelled", "level"),
    ] {
        world.decides(&message, person, outcome, reason).await;
    }
    let path = |person: &Person| receiver.pushes(&person.id.0.simple().to_string()).len();
    assert_eq!(path(away), 1);
    let unwanted = [online, hidden, reader, muted, nothing, mentions, left];
    assert!(unwanted.iter().all(|person| path(person) == 0), "nothing else was sent");
    world.end().await;
}

async fn a_dead_endpoint_goes_and_a_refusal_is_final(world: &World) {
    let receiver = Receiver::start().await;
    let maja = world.person("Maja").await;
    for (status, outcome, reason, left) in [
        (404, "failed", "token_dead", 0),
        (410, "failed", "token_dead", 0),
        (400, "dead_lettered", "provider_error", 1),
    ] {
        let bob = world.person("Bob").await;
        let room = world.direct(&maja, &bob).await;
        let path = format!("p{status}");
        world.subscribes(&bob, &receiver, &path).await;
        receiver.answers(&path, &[Mood::Status(status)]);
        let message = world.says(&maja, &room, "hi").await;
        let detail = world.decides(&message, &bob, outcome, reason).await;
        assert_eq!(detail, format!("answered {status}"));
        assert_eq!(devices(world, &bob).await, left, "{status}");
        assert_eq!(receiver.pushes(&path).len(), 1, "it is not tried again");
    }
}

async fn a_provider_that_fails_is_tried_again(world: &World) {
    let receiver = Receiver::start().await;
    let maja = world.person("Maja").await;
    for (path, mood, wait) in [("failing", Mood::Status(500), 0), ("busy", Mood::Wait(1), 1)] {
        let bob = world.person("Bob").await;
        let room = world.direct(&maja, &bob).await;
        world.subscribes(&bob, &receiver, path).await;
        receiver.answers(path, &[mood, Mood::Status(201)]);
        let message = world.says(&maja, &room, "hi").await;
        world.decides(&message, &bob, "failed", "provider_error").await;
        world.decides(&message, &bob, "sent", "delivered").await;
        let tries = receiver.pushes(path);
        assert_eq!((tries.len(), &tries[0].payload), (2, &tries[1].payload));
        assert!(tries[1].at - tries[0].at >= Duration::from_secs(wait), "{path}: sooner than it was asked for");
    }
}

async fn one_that_hangs_or_cuts_delays_nobody_else(world: &World) {
    let (good, hanging) = (Receiver::start().await, Receiver::start().await);
    let cutting = good.that_cuts().await;
    let (maja, bob, carol, dave) = (
        world.person("Maja").await,
        world.person("Bob").await,
        world.person("Carol").await,
        world.person("Dave").await,
    );
    let room = world.group(&maja, "team", &[&bob, &carol, &dave]).await;
    hanging.answers("bob", &[Mood::Hang]);
    for (person, receiver, path) in [(&bob, &hanging, "bob"), (&carol, &cutting, "carol"), (&dave, &good, "dave")] {
        world.subscribes(person, receiver, path).await;
    }
    let mut messages = Vec::new();
    for number in 0..60 {
        messages.push(world.says(&maja, &room, &number.to_string()).await);
    }
    // More are due for the one that hangs than may be on their way to it, and it takes all of its time.
    good.has("dave", 60).await;
    let hung = world.decides(&messages[0], &bob, "failed", "provider_error").await;
    // Looked at late, it says already what became of the second try.
    let waits = "the provider has failed; waiting";
    assert!(["no answer in time", waits].contains(&hung.as_str()), "{hung}");
    let cut = world.decides(&messages[0], &carol, "failed", "provider_error").await;
    assert!(["the connection broke", "could not connect", waits].contains(&cut.as_str()), "{cut}");
}

async fn what_is_told_twice_is_pushed_once(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    world.subscribes(&bob, &receiver, "bob").await;
    let message = world.says(&maja, &room, "once").await;
    world.decides(&message, &bob, "sent", "delivered").await;
    let planner =
        Planner::new(world.db.clone(), Duration::ZERO, Teller::silent(), PresenceClient::new(world.presence.clone()));
    let news = News::Message { message, direct: true };
    assert_eq!(planner.plan(&[news.clone(), news]).await.unwrap(), 0, "it is there, and decided");
    let next = world.says(&maja, &room, "next").await;
    world.decides(&next, &bob, "sent", "delivered").await;
    assert_eq!(receiver.pushes("bob").len(), 2);
}

async fn what_another_had_claimed_and_lost_is_pushed(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    let device = world.subscribes(&bob, &receiver, "bob").await;
    receiver.answers("bob", &[Mood::Status(201)]);
    let message = world.says(&maja, &room, "lost").await;
    world.decides(&message, &bob, "sent", "delivered").await;
    // As a replica leaves it that died before it had written anything down, a lease ago.
    let mut tx = world.db.begin().await.unwrap();
    on_tx!(&mut tx, c => sqlx::query("update pushes set claim = $1, due_at = 1, outcome = null where device_id = $2")
        .bind(Uuid::now_v7())
        .bind(Uuid::from_slice(&device).unwrap())
        .execute(c)
        .await
        .map(|_| ()))
    .unwrap();
    tx.commit().await.unwrap();
    receiver.has("bob", 2).await;
    world.decides(&message, &bob, "sent", "delivered").await;
}

async fn two_replicas_share_the_work(world: &World) {
    let _other = world.another().await;
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    world.subscribes(&bob, &receiver, "bob").await;
    let mut last = None;
    for number in 0..100 {
        last = Some(world.says(&maja, &room, &number.to_string()).await);
    }
    receiver.has("bob", 100).await;
    world.decides(&last.unwrap(), &bob, "sent", "delivered").await;
    tokio::time::timeout(PATIENCE, async {
        while undecided(&world.db, &room).await > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let mut seqs: Vec<_> = receiver.pushes("bob").iter().map(|push| push.payload["seq"].as_i64().unwrap()).collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=100).collect::<Vec<_>>(), "each exactly once");
}

async fn undecided(db: &Db, room: &[u8]) -> i64 {
    let count: (i64,) = on_db!(db, pool => sqlx::query_as(
        "select count(*) from pushes where room_id = $1 and coalesce(outcome, 0) <> 1",
    )
    .bind(RoomId::from_wire(room, "room").unwrap())
    .fetch_one(pool)
    .await)
    .unwrap();
    count.0
}

async fn a_device_ends_with_its_session(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    world.subscribes(&bob, &receiver, "bob").await;
    let mut accounts = chat::accounts_client::AccountsClient::new(world.chat.clone());
    accounts.logout(bob.actor().unwrap()).await.unwrap();
    let message = world.says(&maja, &room, "not for whoever has the phone now").await;
    world.decides(&message, &bob, "cancelled", "no_device").await;
    assert_eq!((devices(world, &bob).await, receiver.pushes("bob").len()), (0, 0));
}

async fn a_webhook_is_signed_with_the_secret_that_was_told_once(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    let request = RegisterDeviceRequest {
        user: bob.id.to_wire(),
        session: bob.session.to_wire(),
        platform: Platform::Webhook.into(),
        target: format!("{}hooks/bob", receiver.url),
        ..RegisterDeviceRequest::default()
    };
    let registered = world.registers(request.clone()).await;
    let again = world.registers(request).await;
    assert!(registered.added && !again.added && again.secret.is_none(), "told once");
    let secret = registered.secret.unwrap();
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();

    let message = world.says(&maja, &room, "hello").await;
    world.decides(&message, &bob, "sent", "delivered").await;
    let hooks = receiver.hooks();
    assert_eq!(hooks.len(), 2, "it was tried again");
    for (headers, body) in &hooks {
        let header = |name: &str| headers[name].to_str().unwrap();
        let signed = [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), body].concat();
        let signature = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed, &signature).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&payload["body"], &payload["kind"]), (&"hello".into(), &"message".into()));
    }
    assert_eq!(hooks[0].0["webhook-id"], hooks[1].0["webhook-id"], "receivers know a repeated one by it");
}

async fn a_test_push_comes_at_once_or_says_why_not(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let device = world.subscribes(&bob, &receiver, "bob").await;
    let test = |person: &Person| TestDeviceRequest { user: person.id.to_wire(), device: device.clone() };
    world.notify.clone().test_device(test(&bob)).await.unwrap();
    assert_eq!(receiver.pushes("bob")[0].payload["title"], "Parlance");
    let strange = world.notify.clone().test_device(test(&maja)).await.unwrap_err();
    assert_eq!(strange.code(), Code::NotFound, "another's");
    receiver.answers("bob", &[Mood::Status(500)]);
    let refused = world.notify.clone().test_device(test(&bob)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("answered 500"), "{}", refused.message());
}

async fn what_was_sent_is_withdrawn_when_it_is_read_elsewhere(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let (room, other) = (world.direct(&maja, &bob).await, world.group(&maja, "team", &[&bob]).await);
    world.subscribes(&bob, &receiver, "bob").await;
    let first = world.says(&maja, &room, "one").await;
    let second = world.says(&maja, &room, "two").await;
    let unread = world.says(&maja, &other, "three").await;
    let messages = receiver.has("bob", 3).await;
    let of_room = messages.iter().find(|push| push.payload["body"] == "one").unwrap();
    for message in [&first, &second, &unread] {
        world.decides(message, &bob, "sent", "delivered").await;
    }

    world.reads(&bob, &room, second.seq).await;
    world.decides(&first, &bob, "withdrawn", "read_elsewhere").await;
    world.decides(&second, &bob, "withdrawn", "read_elsewhere").await;
    let pushes = receiver.pushes("bob");
    let withdrawn: Vec<_> = pushes.iter().filter(|push| push.payload["kind"] == "withdraw").collect();
    assert!((1..=2).contains(&withdrawn.len()), "one takes the others along, unless both were on their way");
    assert!(withdrawn.iter().all(|push| push.topic == of_room.topic), "it replaces what waits at the push service");
    let payload = &withdrawn[0].payload;
    assert_eq!((payload["seq"].as_i64(), &payload["room"]), (Some(second.seq), &of_room.payload["room"]));
    assert_eq!(payload["unread"], 0);
    assert_eq!(world.why(&unread, &bob).await[0].0, "sent", "another room's stays");
}

async fn quiet_hours_and_privacy_are_kept_and_hold(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    let room = world.group(&maja, "team", &[&bob, &carol]).await;
    world.subscribes(&bob, &receiver, "bob").await;
    world.subscribes(&carol, &receiver, "carol").await;
    let put = async |person: &Person, settings: &Settings| {
        let request = PutSettingsRequest { user: person.id.to_wire(), settings: Some(settings.clone()) };
        world.notify.clone().put_settings(request).await
    };
    let minute = u32::try_from(clock::now_ms() / 60_000 % 1440).unwrap();
    let hours = QuietHours { from: (minute + 1380) % 1440, to: (minute + 60) % 1440, time_zone: "UTC".to_owned() };
    let quiet = Settings { privacy: Privacy::Full.into(), quiet_hours: Some(hours.clone()) };
    put(&bob, &quiet).await.unwrap();
    put(&carol, &Settings { privacy: Privacy::None.into(), quiet_hours: None }).await.unwrap();
    let nowhere = Settings { quiet_hours: Some(QuietHours { time_zone: "Nowhere".to_owned(), ..hours }), ..quiet };
    let refused = put(&bob, &nowhere).await.unwrap_err();
    assert!(refused.message().starts_with("quiet_hours.time_zone: "), "{refused}");
    let kept = world.notify.clone().get_settings(GetSettingsRequest { user: bob.id.to_wire() }).await.unwrap();
    assert_eq!(kept.into_inner().quiet_hours.unwrap().time_zone, "UTC");

    let message = world.says(&maja, &room, "secret").await;
    world.decides(&message, &bob, "skipped", "quiet_hours").await;
    world.decides(&message, &carol, "sent", "delivered").await;
    let payload = &receiver.pushes("carol")[0].payload;
    assert!(!payload.to_string().contains("secret") && !payload.to_string().contains("Maja"), "{payload}");
    assert!(receiver.pushes("bob").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_provider_goes_out_at_its_rate() {
    const RATE: u32 = 40;
    const PUSHES: usize = 60;
    let world = World::begin_with(Database::sqlite(), Config { rate: RATE, ..config() }).await;
    let (maja, receiver) = (world.person("Maja").await, Receiver::start().await);
    let mut people = Vec::new();
    for _ in 0..PUSHES {
        people.push(world.person("member").await);
    }
    let room = world.group(&maja, "all", &people.iter().collect::<Vec<_>>()).await;
    for (number, person) in people.iter().enumerate() {
        world.subscribes(person, &receiver, &format!("of-{number}")).await;
    }
    let began = Instant::now();
    world.says(&maja, &room, "hello").await;
    for number in 0..PUSHES {
        receiver.has(&format!("of-{number}"), 1).await;
    }
    // A quarter of a second's may go at once, the others one after the other.
    let least = Duration::from_secs_f64(PUSHES as f64 / f64::from(RATE) - 0.25);
    assert!(began.elapsed() >= least, "all in {:?}", began.elapsed());
    world.end().await;
}
