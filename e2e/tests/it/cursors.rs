//! Read and delivered cursors, and the arithmetic of unread.

use e2e::{Device, Person, Stack};
use parlance_client::wire::Me;
use parlance_client::{Code, Event, RoomId};

use super::is_refused;

stories!(
    unread_is_the_rooms_seq_minus_ones_own,
    reading_is_told_to_both_sides,
    a_cursor_never_moves_back,
    ones_own_send_reads,
    own_settings_reach_the_other_device,
);

async fn me(person: &Person, room: RoomId) -> Me {
    person.api_at(1).room(room).await.unwrap().me
}

async fn sees_me(device: &Device, room: RoomId, judge: impl Fn(&Me) -> bool) -> Me {
    device
        .sees("own state", |event| match event {
            Event::Me(e) if e.room == room && judge(&e.me) => Some(e.me.clone()),
            _ => None,
        })
        .await
}

async fn unread_is_the_rooms_seq_minus_ones_own(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let desk = alice.on(0).await;
    let sent = desk.sends_all(room, (0..5).map(|n| n.to_string())).await;
    assert_eq!((me(&bob, room).await.read_seq, me(&bob, room).await.unread), (0, 5));

    bob.api.read(room, 3).await.unwrap();
    assert_eq!((me(&bob, room).await.read_seq, me(&bob, room).await.unread), (3, 2));
    desk.connection.delete(room, sent[4].seq).await.unwrap();
    assert_eq!(me(&bob, room).await.unread, 2, "deleted messages count");
    is_refused(bob.api.read(room, 6).await, Code::Unprocessable);
    is_refused(bob.api.delivered(room, 6).await, Code::Unprocessable);
}

async fn reading_is_told_to_both_sides(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, phone, tablet) = (alice.on(0).await, bob.on(1).await, bob.on(0).await);
    desk.sends_all(room, (0..3).map(|n| n.to_string())).await;
    phone.has_texts(room, 3).await;

    phone.connection.delivered(room, 3).await.unwrap();
    desk.sees("delivered", |event| {
        matches!(event, Event::Receipt(e) if e.user == bob.id() && e.delivered_seq == Some(3)).then_some(())
    })
    .await;
    phone.connection.read(room, 2).await.unwrap();
    desk.sees("read", |event| {
        matches!(event, Event::Receipt(e) if e.user == bob.id() && e.read_seq == Some(2)).then_some(())
    })
    .await;
    let own = sees_me(&tablet, room, |me| me.read_seq == 2).await;
    assert_eq!(own.unread, 1, "the badge of the other device");
    assert_eq!(own.rev, me(&bob, room).await.rev);
}

async fn a_cursor_never_moves_back(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    alice.on(0).await.sends_all(room, (0..3).map(|n| n.to_string())).await;
    let phone = bob.on(1).await;

    phone.connection.read(room, 3).await.unwrap();
    let after = me(&bob, room).await;
    phone.connection.read(room, 1).await.unwrap();
    bob.api.read(room, 3).await.unwrap();

    assert_eq!(me(&bob, room).await, after, "neither the cursor nor me.rev moved");
    let members = alice.api.members(room, None).await.unwrap().items;
    let bobs = members.iter().find(|member| member.user.id == bob.id()).unwrap();
    assert_eq!((bobs.read_seq, bobs.delivered_seq), (Some(3), Some(3)), "read implies delivered");
}

async fn ones_own_send_reads(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);
    desk.sends_all(room, (0..3).map(|n| n.to_string())).await;
    bobs.has_texts(room, 3).await;

    let sent = bobs.sends(room, "I saw that").await;

    let state = me(&bob, room).await;
    assert_eq!((state.read_seq, state.unread), (sent.seq, 0));
    assert_eq!(me(&alice, room).await.unread, 1);
}

async fn own_settings_reach_the_other_device(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let tablet = alice.on(1).await;
    let settings = parlance_client::api::OwnSettings {
        notify: Some("none".into()),
        favourite: Some(true),
        draft: Some("Dear Bob".into()),
    };

    let answered = alice.api.patch_own(room, &settings).await.unwrap();

    let told = sees_me(&tablet, room, |me| me.favourite).await;
    assert_eq!(told, answered);
    assert_eq!((told.notify.as_str(), told.draft.as_deref()), ("none", Some("Dear Bob")));
    assert!(!me(&bob, room).await.favourite, "it is nobody else's");
    let nothing = alice.api.patch_own(room, &Default::default()).await.unwrap();
    assert_eq!(nothing, answered, "absent fields stay");
}
