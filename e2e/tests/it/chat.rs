//! People chat, through one gateway or two.

use e2e::Stack;
use futures_util::future::{join, join_all};
use parlance_client::{Code, Draft};

stories!(
    two_people_chat_in_a_direct_room,
    a_client_id_is_stored_once,
    two_hundred_messages_arrive_everywhere_in_one_order,
    a_send_of_a_connection_keeps_its_place,
);

async fn two_people_chat_in_a_direct_room(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, phone, bobs) = (alice.on(0).await, alice.on(1).await, bob.on(1).await);

    let first = desk.sends(room, "hi bob").await;
    assert_eq!(first.seq, 1, "a direct room has no system notices");
    let heard = bobs.receives("hi bob").await;
    assert_eq!((heard.seq, heard.rev, heard.id, heard.at), (first.seq, first.rev, first.id, first.at));
    assert_eq!((heard.sender, heard.client_id), (Some(alice.id()), Some(first.client_id)));

    let second = bobs.sends(room, "hi alice").await;
    assert_eq!(second.seq, 2);
    let order = vec![(1, "hi bob".to_owned()), (2, "hi alice".to_owned())];
    for device in [&desk, &phone, &bobs] {
        assert_eq!(device.has_texts(room, 2).await, order);
    }
}

async fn a_client_id_is_stored_once(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (here, there, bobs) = (alice.on(0).await, alice.on(1).await, bob.on(1).await);
    let draft = Draft::text("only once");

    let (one, two) = join(here.sends_draft(room, &draft), there.sends_draft(room, &draft)).await;
    let three = alice.api_at(1).post_message(room, &draft).await.unwrap();

    assert_eq!((one.id, one.seq, one.at), (two.id, two.seq, two.at));
    assert_eq!((one.id, one.seq, one.at), (three.body.id, three.body.seq, three.body.at));
    assert_ne!(one.duplicate, two.duplicate, "one of them was the first");
    assert!(!three.created, "a repeat answers 200");

    // Whatever else a repeat says, it answers what is stored.
    let other = Draft { text: "something else".into(), ..draft };
    let four = here.sends_draft(room, &other).await;
    assert!(four.duplicate && four.id == one.id);

    here.sends(room, "next").await;
    bobs.receives("next").await;
    assert_eq!(bobs.texts(room), [(1, "only once".to_owned()), (2, "next".to_owned())]);
}

async fn two_hundred_messages_arrive_everywhere_in_one_order(stack: &Stack) {
    let people = join_all((0..10).map(|n| async move { stack.user(&format!("m{n}")).await })).await;
    let others: Vec<_> = people.iter().skip(1).collect();
    let room = people[0].makes_a_group("ten", &others).await.id;
    let devices = join_all(people.iter().enumerate().map(|(n, person)| person.on(n))).await;

    let sending =
        devices.iter().enumerate().map(|(n, device)| device.sends_all(room, (0..20).map(move |i| format!("{n}.{i}"))));
    let sent: Vec<_> = join_all(sending).await.into_iter().flatten().collect();
    assert_eq!(sent.len(), 200);

    let first = devices[0].has_texts(room, 200).await;
    let seqs: Vec<_> = first.iter().map(|(seq, _)| *seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "gapless and ascending: {seqs:?}");
    for device in &devices {
        assert_eq!(device.has_texts(room, 200).await, first);
    }
    for sent in &sent {
        assert!(seqs.contains(&sent.seq), "{} was acknowledged", sent.seq);
    }
}

async fn a_send_of_a_connection_keeps_its_place(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, bobs) = (alice.on(0).await, bob.on(1).await);

    let sent = desk.sends_all(room, (0..100).map(|n| n.to_string())).await;

    let seqs: Vec<_> = sent.iter().map(|sent| sent.seq).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
    let texts: Vec<_> = bobs.has_texts(room, 100).await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
    let stranger = stack.user("eve").await.on(0).await;
    super::is_refused(stranger.connection.send(room, &Draft::text("let me in")).await, Code::NotFound);
}
