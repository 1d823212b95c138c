//! What users are told of inside the program, and the push of an invitation.

use std::time::{Duration, Instant};

use bytes::Bytes;
use notify_service::{news::News, notifications::tell::Teller, plan::Planner};
use parlance_proto::{
    chat::{self, SendItem},
    notify,
    presence::presence_client::PresenceClient,
    v1,
};
use service_kit::{id::ClientId, on_db};
use uuid::Uuid;

use crate::{
    PATIENCE,
    receiver::Receiver,
    world::{Person, World, absent_presence, stories},
};

stories! {
    a_mention_of_all_tells_those_who_want_to_hear
    an_answer_with_a_mention_is_told_once
    what_is_missed_in_a_direct_room_is_told_until_it_is_read
    who_is_there_or_wants_no_news_misses_nothing
    only_who_is_known_to_be_there_is_not_looked_at
    an_invitation_is_pushed_and_explained
    what_is_told_twice_is_in_the_list_once
}

const MENTION: v1::NotificationKind = v1::NotificationKind::Mention;
const REPLY: v1::NotificationKind = v1::NotificationKind::Reply;
const INVITATION: v1::NotificationKind = v1::NotificationKind::Invitation;
const DIRECT: v1::NotificationKind = v1::NotificationKind::Direct;

async fn list(world: &World, person: &Person) -> notify::NotificationList {
    let request =
        notify::ListNotificationsRequest { user: person.id.to_wire(), ..notify::ListNotificationsRequest::default() };
    world.notify.clone().list_notifications(request).await.unwrap().into_inner()
}

/// Waits until exactly these are listed, the newest first.
async fn is_told(world: &World, person: &Person, expected: &[(v1::NotificationKind, i64)]) {
    let began = Instant::now();
    loop {
        let told: Vec<_> = list(world, person).await.items.iter().map(|item| (item.kind(), item.seq)).collect();
        if told == expected {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not {expected:?}, but {told:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn posts(world: &World, sender: &Person, room: &Bytes, item: SendItem) -> v1::Message {
    let client_id = ClientId(Uuid::new_v4()).to_wire();
    let item = SendItem { room: room.clone(), sender: sender.id.to_wire(), client_id, text: "hi".to_owned(), ..item };
    let request = chat::PostRequest { actor: sender.actor(), item: Some(item) };
    world.messages().post(request).await.unwrap().into_inner().message.unwrap()
}

async fn sets_level(world: &World, person: &Person, room: &Bytes, level: v1::Notify) {
    let (actor, room, notify) = (person.actor(), room.clone(), Some(level.into()));
    let request = chat::PatchMineRequest { actor, room, notify, ..chat::PatchMineRequest::default() };
    world.rooms().patch_mine(request).await.unwrap();
}

async fn blocks(world: &World, person: &Person, other: &Person) {
    let request = chat::BlockRequest { actor: person.actor(), user: other.id.to_wire() };
    world.accounts().block(request).await.unwrap();
}

async fn a_mention_of_all_tells_those_who_want_to_hear(world: &World) {
    let maja = world.person("Maja").await;
    let (bob, carol, dave) = (world.person("Bob").await, world.person("Carol").await, world.person("Dave").await);
    let room = world.group(&maja, "team", &[&bob, &carol, &dave]).await;
    sets_level(world, &bob, &room, v1::Notify::Mentions).await;
    sets_level(world, &carol, &room, v1::Notify::None).await;
    is_told(world, &dave, &[(INVITATION, 0)]).await;
    blocks(world, &dave, &maja).await;
    let all = posts(world, &maja, &room, SendItem { mentions_all: true, ..SendItem::default() }).await;
    is_told(world, &bob, &[(MENTION, all.seq), (INVITATION, 0)]).await;
    is_told(world, &carol, &[(INVITATION, 0)]).await;
    is_told(world, &dave, &[]).await;
    assert_eq!(list(world, &maja).await.items, []);
    assert_eq!(list(world, &bob).await.unread, 2);
}

async fn an_answer_with_a_mention_is_told_once(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.group(&maja, "team", &[&bob]).await;
    let asked = world.says(&bob, &room, "a question").await;
    let answer = SendItem { mentions: vec![bob.id.to_wire()], reply_to: Some(asked.seq), ..SendItem::default() };
    let answer = posts(world, &maja, &room, answer).await;
    is_told(world, &bob, &[(REPLY, answer.seq), (INVITATION, 0)]).await;
    let own = posts(world, &bob, &room, SendItem { reply_to: Some(asked.seq), ..SendItem::default() }).await;
    let after = posts(world, &maja, &room, SendItem { mentions_all: true, ..SendItem::default() }).await;
    is_told(world, &bob, &[(MENTION, after.seq), (REPLY, answer.seq), (INVITATION, 0)]).await;
    assert!(own.seq < after.seq, "an answer to oneself was not told");
}

async fn what_is_missed_in_a_direct_room_is_told_until_it_is_read(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    let first = world.says(&maja, &room, "one").await;
    is_told(world, &bob, &[(DIRECT, first.seq)]).await;
    let second = world.says(&maja, &room, "two").await;
    world.reads(&bob, &room, second.seq).await;
    let third = world.says(&maja, &room, "three").await;
    is_told(world, &bob, &[(DIRECT, third.seq), (DIRECT, first.seq)]).await;
    assert_eq!(list(world, &bob).await.unread, 1);

    // Marked as read here, and not in the room: what comes next is told, and nothing twice.
    let up_to = list(world, &bob).await.items[0].id.clone();
    let request = notify::ReadNotificationsRequest { user: bob.id.to_wire(), up_to };
    world.notify.clone().read_notifications(request).await.unwrap();
    assert_eq!(list(world, &bob).await.unread, 0);
    let fourth = world.says(&maja, &room, "four").await;
    is_told(world, &bob, &[(DIRECT, fourth.seq), (DIRECT, third.seq), (DIRECT, first.seq)]).await;
    assert_eq!(list(world, &maja).await.items, []);
}

async fn who_is_there_or_wants_no_news_misses_nothing(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let (carol, dave) = (world.person("Carol").await, world.person("Dave").await);
    world.comes_online(&bob).await;
    let with_bob = world.direct(&maja, &bob).await;
    let with_carol = world.direct(&maja, &carol).await;
    sets_level(world, &carol, &with_carol, v1::Notify::None).await;
    world.says(&maja, &with_bob, "to bob").await;
    world.says(&maja, &with_carol, "to carol").await;
    // Looks come in order: whoever is looked at later has been told.
    let with_dave = world.direct(&maja, &dave).await;
    let told = world.says(&maja, &with_dave, "to dave").await;
    is_told(world, &dave, &[(DIRECT, told.seq)]).await;
    assert_eq!((list(world, &bob).await.items, list(world, &carol).await.items), (vec![], vec![]));
}

async fn only_who_is_known_to_be_there_is_not_looked_at(world: &World) {
    const LATER: Duration = Duration::from_secs(60);
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.direct(&maja, &bob).await;
    world.comes_online(&bob).await;
    let news = [News::Message { message: world.says(&maja, &room, "hello").await, direct: true }];
    let looks = async |presence: PresenceClient<_>| {
        let planner = Planner::new(world.db.clone(), LATER, Teller::silent(), presence);
        planner.plan(&news).await.unwrap();
        let (looks,): (i64,) =
            on_db!(&world.db, pool => sqlx::query_as("select count(*) from missed").fetch_one(pool).await).unwrap();
        looks
    };
    assert_eq!(looks(PresenceClient::new(world.presence.clone())).await, 0, "he sees it");
    assert_eq!(looks(absent_presence()).await, 1, "nobody says so");
}

async fn an_invitation_is_pushed_and_explained(world: &World) {
    let receiver = Receiver::start().await;
    let (maja, bob, carol) = (world.person("Maja").await, world.person("Bob").await, world.person("Carol").await);
    world.subscribes(&bob, &receiver, "bob").await;
    world.subscribes(&carol, &receiver, "carol").await;
    blocks(world, &carol, &maja).await;
    let room = world.group(&maja, "team", &[]).await;
    for person in [&carol, &bob] {
        let request = chat::PutMemberRequest {
            actor: maja.actor(),
            room: room.clone(),
            user: person.id.to_wire(),
            ..chat::PutMemberRequest::default()
        };
        world.rooms().put_member(request).await.unwrap();
    }
    is_told(world, &bob, &[(INVITATION, 2)]).await;
    let notice = v1::Message { room: room.clone(), seq: 2, ..v1::Message::default() };
    world.decides(&notice, &bob, "sent", "delivered").await;
    let [push] = &receiver.pushes("bob")[..] else { panic!("one push") };
    let body = &push.payload;
    assert_eq!(
        (&body["kind"], &body["title"], &body["body"]),
        (&"invitation".into(), &"team".into(), &"Maja added you".into())
    );
    assert_eq!(body["sender"], maja.id.0.to_string());
    assert!(receiver.pushes("carol").is_empty() && list(world, &carol).await.items.is_empty());

    // It is taken back when what comes after it is read.
    let next = world.says(&maja, &room, "welcome").await;
    world.reads(&bob, &room, next.seq).await;
    world.decides(&notice, &bob, "withdrawn", "read_elsewhere").await;
}

async fn what_is_told_twice_is_in_the_list_once(world: &World) {
    let (maja, bob) = (world.person("Maja").await, world.person("Bob").await);
    let room = world.group(&maja, "team", &[&bob]).await;
    let all = posts(world, &maja, &room, SendItem { mentions_all: true, ..SendItem::default() }).await;
    is_told(world, &bob, &[(MENTION, all.seq), (INVITATION, 0)]).await;
    let planner =
        Planner::new(world.db.clone(), Duration::ZERO, Teller::silent(), PresenceClient::new(world.presence.clone()));
    planner.plan(&[News::Message { message: all.clone(), direct: false }]).await.unwrap();
    is_told(world, &bob, &[(MENTION, all.seq), (INVITATION, 0)]).await;
}
