//! A device that was away gets exactly what it missed, through any gateway.

use e2e::Stack;
use parlance_client::frame::Range;
use parlance_client::wire::Seq;

stories!(
    a_resume_brings_exactly_what_was_missed,
    a_resume_with_nothing_missed_brings_nothing,
    a_resume_after_five_thousand_is_truncated,
    another_generation_is_truncated,
    own_state_that_moved_is_told,
    rooms_that_were_left_are_told,
);

async fn a_resume_brings_exactly_what_was_missed(stack: &Stack) {
    let (alice, bob, dave) = (stack.user("alice").await, stack.user("bob").await, stack.user("dave").await);
    let room = alice.makes_a_group("resume", &[&bob]).await.id;
    let (desk, bobs) = (alice.on(0).await, bob.on(0).await);
    let old = desk.sends_all(room, (0..10).map(|n| format!("old {n}"))).await;
    bobs.has_texts(room, 10).await;
    let held = bobs.drops_off();

    desk.sends_all(room, (0..30).map(|n| format!("new {n}"))).await;
    for sent in &old[..3] {
        desk.connection.edit(room, sent.seq, &format!("edited {}", sent.seq)).await.unwrap();
    }
    for sent in &old[3..5] {
        desk.connection.delete(room, sent.seq).await.unwrap();
    }
    alice.api.put_member(room, dave.id(), None).await.unwrap();

    let back = bob.resumes(1, &held).await;
    let [changes] = &back.welcome.changes[..] else { panic!("one room moved: {:?}", back.welcome.changes) };
    let now = alice.api.room(room).await.unwrap();
    assert_eq!((changes.room, changes.rev), (room, now.rev));
    assert!(!changes.more && !changes.truncated);
    assert!(changes.messages.iter().all(|m| m.rev > changes.from_rev && m.rev <= changes.rev));
    assert!(changes.messages.is_sorted_by_key(|m| m.rev));

    let texts: Vec<_> = changes.messages.iter().filter(|m| m.kind == "text").collect();
    assert_eq!(texts.iter().filter(|m| m.text.starts_with("new ")).count(), 30);
    assert_eq!(texts.iter().filter(|m| m.text.starts_with("edited ") && m.edited_at.is_some()).count(), 3);
    assert_eq!(texts.iter().filter(|m| m.text.is_empty() && m.deleted_at.is_some()).count(), 2);
    assert_eq!(texts.len(), 35);
    assert_eq!(changes.members.iter().map(|m| m.user.id).collect::<Vec<_>>(), [dave.id()]);
    assert!(changes.removed.is_empty());

    desk.sends(room, "welcome back").await;
    back.receives("welcome back").await;
    assert_eq!(back.texts(room).len(), 1, "after welcome come exactly the events above what it gave");
}

async fn a_resume_with_nothing_missed_brings_nothing(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let bobs = bob.on(0).await;
    alice.on(0).await.sends(room, "hi").await;
    bobs.receives("hi").await;

    let back = bob.resumes(1, &bobs.drops_off()).await;

    assert!(back.welcome.changes.is_empty(), "{:?}", back.welcome.changes);
    assert!(back.welcome.rooms.is_empty(), "{:?}", back.welcome.rooms);
    assert!(back.welcome.left.is_empty() && back.welcome.next_cursor.is_none());
}

async fn a_resume_after_five_thousand_is_truncated(stack: &Stack) {
    const MISSED: usize = 5_000;
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(0).await);
    desk.sends(room, "before").await;
    let before = bobs.receives("before").await.seq;
    let held = bobs.drops_off();
    for hundred in 0..MISSED / 100 {
        desk.sends_all(room, (0..100).map(|n| format!("{hundred}.{n}"))).await;
    }

    let back = bob.resumes(1, &held).await;
    let [changes] = &back.welcome.changes[..] else { panic!("{:?}", back.welcome.changes) };
    assert!(changes.truncated && changes.messages.is_empty() && changes.members.is_empty());
    assert_eq!(changes.rev, alice.api.room(room).await.unwrap().rev);

    let mut missed: Vec<Seq> = Vec::new();
    let mut range = Range { limit: Some(200), ..Range::default() };
    loop {
        let page = bob.api_at(1).history(room, range).await.unwrap();
        let seqs: Vec<_> = page.items.iter().map(|m| m.seq).filter(|seq| *seq > before).collect();
        range.before = seqs.first().copied();
        let at_the_end = seqs.len() < page.items.len() || !page.has_more;
        missed.splice(0..0, seqs);
        if at_the_end {
            break;
        }
    }
    assert_eq!(missed, (before + 1..=before + MISSED as Seq).collect::<Vec<_>>());
    assert_eq!(back.welcome.rooms[0].me.unread, MISSED as u64 + 1);
}

async fn another_generation_is_truncated(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let bobs = bob.on(0).await;
    alice.on(0).await.sends(room, "hi").await;
    bobs.receives("hi").await;
    let mut held = bobs.drops_off();
    held.generation = "a backup ago".into();

    let back = bob.resumes(1, &held).await;

    assert_ne!(back.welcome.generation, held.generation);
    let [changes] = &back.welcome.changes[..] else { panic!("{:?}", back.welcome.changes) };
    assert!(changes.truncated && changes.room == room);
}

async fn own_state_that_moved_is_told(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let bobs = bob.on(0).await;
    alice.on(0).await.sends(room, "hi").await;
    bobs.receives("hi").await;
    let held = bobs.drops_off();
    bob.api.read(room, 1).await.unwrap();

    let back = bob.resumes(1, &held).await;

    assert!(back.welcome.changes.is_empty(), "the room itself did not move");
    let [item] = &back.welcome.rooms[..] else { panic!("{:?}", back.welcome.rooms) };
    assert_eq!((item.id, item.me.read_seq, item.me.unread), (room, 1, 0));
}

async fn rooms_that_were_left_are_told(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("short", &[&bob]).await.id;
    let held = bob.on(0).await.drops_off();
    alice.api.remove_member(room, bob.id()).await.unwrap();

    let back = bob.resumes(1, &held).await;

    assert_eq!(back.welcome.left, [room]);
    assert!(back.welcome.rooms.is_empty() && back.welcome.changes.is_empty());
}
