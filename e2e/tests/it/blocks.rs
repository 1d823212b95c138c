//! Blocks: no messages in the direct room, no presence; groups stay as they are.

use std::fmt::Display;

use e2e::{Device, Person, Stack, eventually};
use parlance_client::{Code, Draft, Event, RoomId, UserId};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::is_refused;

stories!(
    the_blocked_one_is_heard_in_groups_alone,
    the_blocked_one_does_not_see_the_presence,
    neither_sees_the_other_type_or_read_in_the_direct_room,
);

/// PUT or DELETE of a block, on the gateway that the blocked one is not on.
async fn sets(
    person: &Person,
    method: Method,
    user: impl Display,
) -> Result<(StatusCode, Value), parlance_client::Error> {
    person.api_at(1).call(method, &format!("/v1/me/blocks/{user}"), None).await
}

async fn the_blocked_one_is_heard_in_groups_alone(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (direct, group) = (alice.direct_with(&bob).await, alice.makes_a_group("both", &[&bob]).await.id);
    let (desk, bobs) = (alice.on(1).await, bob.on(0).await);
    let before = bobs.sends(direct, "before").await;

    for _ in 0..2 {
        assert_eq!(sets(&alice, Method::PUT, bob.id()).await.unwrap().0, StatusCode::NO_CONTENT);
    }
    let blocked = alice.api.call(Method::GET, "/v1/me/blocks", None).await.unwrap().1;
    assert_eq!((&blocked["items"][0]["id"], &blocked["next_cursor"]), (&json!(bob.id()), &Value::Null));
    is_refused(bobs.connection.send(direct, &Draft::text("hello?")).await, Code::Forbidden);
    is_refused(bob.api.post_message(direct, &Draft::text("hello?")).await, Code::Forbidden);
    is_refused(bobs.connection.edit(direct, before.seq, "hello?").await, Code::Forbidden);
    desk.sends(direct, "not you").await;
    bobs.receives("not you").await;
    bobs.sends(group, "to everybody").await;
    desk.receives("to everybody").await;

    for _ in 0..2 {
        assert_eq!(sets(&alice, Method::DELETE, bob.id()).await.unwrap().0, StatusCode::NO_CONTENT);
    }
    bobs.sends(direct, "thank you").await;
    desk.receives("thank you").await;

    is_refused(sets(&alice, Method::PUT, alice.id()).await, Code::Unprocessable);
    is_refused(sets(&alice, Method::PUT, Uuid::now_v7()).await, Code::NotFound);
    let carol = stack.user("carol").await;
    sets(&carol, Method::PUT, bob.id()).await.unwrap();
    let direct = bob.api.call(Method::POST, "/v1/direct", Some(json!({ "user": carol.id() }))).await;
    is_refused(direct, Code::Forbidden);
}

async fn the_blocked_one_does_not_see_the_presence(stack: &Stack) {
    let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
    bob.makes_a_group("present", &[&alice, &carol]).await;
    let (desk, bobs, carols) = (alice.on(1).await, bob.on(0).await, carol.on(1).await);
    let sees = async |viewer: &Device, user: UserId| {
        let watched = viewer.connection.watch(&[user], &[]).await.unwrap().presence;
        watched.into_iter().next().map(|presence| presence.state)
    };
    let online = Some("online".to_owned());
    eventually("alice online", async || (sees(&bobs, alice.id()).await == online).then_some(())).await;
    sees(&bobs, carol.id()).await;

    // Bob watches her all the time, and from now on hears nothing of her.
    sets(&alice, Method::PUT, bob.id()).await.unwrap();
    assert_eq!(sees(&bobs, alice.id()).await, None);
    desk.connection.status("dnd").await.unwrap();
    carols.connection.status("away").await.unwrap();
    bobs.sees("carol away", |event| said(event, carol.id(), "away").then_some(())).await;
    assert!(!bobs.heard().iter().any(|event| said(event, alice.id(), "dnd")), "he is blocked");
    assert!(bob.api.presence(&[alice.id()]).await.unwrap().is_empty());
    assert_eq!(sees(&desk, bob.id()).await, online, "the other way nothing changes");

    sets(&alice, Method::DELETE, bob.id()).await.unwrap();
    eventually("alice is shown again", async || {
        (sees(&bobs, alice.id()).await.as_deref() == Some("dnd")).then_some(())
    })
    .await;
}

async fn neither_sees_the_other_type_or_read_in_the_direct_room(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let (direct, group) = (alice.direct_with(&bob).await, alice.makes_a_group("both", &[&bob]).await.id);
    let (desk, bobs) = (alice.on(1).await, bob.on(0).await);
    let ends = [(&desk, alice.id(), &bobs), (&bobs, bob.id(), &desk)];
    for (end, ..) in ends {
        for room in [direct, group] {
            end.sends_all(room, (0..3).map(|n| n.to_string())).await;
        }
    }
    for (person, room) in [(&alice, direct), (&alice, group), (&bob, direct), (&bob, group)] {
        let path = format!("/v1/rooms/{room}/unread");
        person.api.call(Method::PUT, &path, Some(json!({ "seq": 1 }))).await.unwrap();
    }
    let shows = async |room: RoomId, seq: u64| {
        for (end, user, other) in ends {
            let count = |events: &[Event]| events.iter().filter(|event| types(event, room, user)).count();
            let before = count(&other.heard());
            end.connection.typing(room, true).await.unwrap();
            other.knows("typing", |events| (count(events) > before).then_some(())).await;
            end.connection.read(room, seq).await.unwrap();
            other.sees("a receipt", |event| (reads(event, room, user) == Some(seq)).then_some(())).await;
        }
    };
    let cursors = async |person: &Person, other: UserId| {
        let (_, list) = person.api.call(Method::GET, &format!("/v1/rooms/{direct}/members"), None).await.unwrap();
        let members = list["items"].as_array().unwrap().clone();
        members.into_iter().find(|member| member["user"]["id"] == json!(other)).unwrap()["read_seq"].clone()
    };
    shows(direct, 1).await;
    assert_eq!(cursors(&alice, bob.id()).await, 1);

    sets(&alice, Method::PUT, bob.id()).await.unwrap();
    let before = [desk.heard().len(), bobs.heard().len()];
    for (end, ..) in ends {
        end.connection.typing(direct, true).await.expect("nobody learns of the block by this");
        end.connection.read(direct, 2).await.unwrap();
    }
    // What comes later by the same ways.
    shows(group, 2).await;
    for ((_, user, other), before) in ends.into_iter().zip([before[1], before[0]]) {
        let heard = other.heard();
        let leaks: Vec<_> = heard[before..]
            .iter()
            .filter(|event| types(event, direct, user) || reads(event, direct, user).is_some())
            .collect();
        assert!(leaks.is_empty(), "{leaks:?}");
    }
    assert_eq!(cursors(&alice, bob.id()).await, Value::Null);
    assert_eq!(cursors(&bob, alice.id()).await, Value::Null);
    assert_eq!(cursors(&bob, bob.id()).await, 2, "one's own is there");

    sets(&alice, Method::DELETE, bob.id()).await.unwrap();
    shows(direct, 3).await;
}

fn types(event: &Event, room: RoomId, user: UserId) -> bool {
    matches!(event, Event::Typing(e) if e.room == room && e.user == user && e.on)
}

/// Up to where this event says that the user has read.
fn reads(event: &Event, room: RoomId, user: UserId) -> Option<u64> {
    match event {
        Event::Receipt(e) if e.room == room && e.user == user => e.read_seq,
        _ => None,
    }
}

fn said(event: &Event, user: UserId, state: &str) -> bool {
    matches!(event, Event::Presence(p) if p.user == user && p.state == state)
}
