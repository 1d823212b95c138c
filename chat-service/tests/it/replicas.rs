//! Several replicas on one database, and rooms whose lock somebody else holds. Only PostgreSQL has either.

use std::{
    cell::Cell,
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::future;
use parlance_proto::chat::{self, SendItem, messages_client::MessagesClient};
use service_kit::db::Db;
use tonic::Code;

use crate::{
    Service,
    blocks::{block, open, unblock},
    chat_world::{eventually, failed, stream},
    postgres_stories,
};

postgres_stories! {
    one_send_to_two_replicas_is_one_message
    two_replicas_fill_one_room_without_gaps
    a_stuck_room_holds_up_no_other
    many_stuck_rooms_hold_up_no_other
    a_room_that_is_stuck_too_long_says_so_and_stores_the_repeat_once
    cursors_and_sends_do_not_get_in_each_others_way
    halving_a_batch_keeps_the_order_of_a_room_that_is_missed
    no_send_is_accepted_after_a_block
    a_block_waits_for_a_send_that_is_judged_already
}

/// Rooms that are not stuck answer within this time.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn one_send_to_two_replicas_is_one_message(service: &Service) {
    let other = service.another().await;
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    for n in 0..20 {
        let item = maja.send(&room, &format!("{n:02}"));
        let (here, there) =
            tokio::join!(stream(&service.client, vec![item.clone()]), stream(&other.client, vec![item.clone()]));
        let (here, there) = (here[0].clone().unwrap(), there[0].clone().unwrap());
        assert_eq!((&here.id, here.seq, here.rev, here.at), (&there.id, there.seq, there.rev, there.at));
        assert!(here.duplicate ^ there.duplicate, "{here:?} {there:?}");
    }
    let stored = service.stored(&room).await;
    assert_eq!(stored.len(), 20);
    let view = service.view(&maja, &room).await;
    assert_eq!(view.seq, 20);
    other.stop().await;
}

async fn two_replicas_fill_one_room_without_gaps(service: &Service) {
    let other = service.another().await;
    let crowd = service.crowd(6).await;
    let room = service.group(&crowd[0], &crowd[1..]).await;
    let before = service.view(&crowd[0], &room).await;
    // Many small streams, so that both replicas reach for the room again and again.
    let hammer = crowd.iter().enumerate().map(|(place, person)| {
        let client = if place % 2 == 0 { &service.client } else { &other.client };
        let room = &room;
        async move {
            for round in 0..10 {
                let items = (0..5).map(|n| person.send(room, &format!("{:02}", round * 5 + n))).collect();
                assert!(stream(client, items).await.iter().all(Result::is_ok));
            }
        }
    });
    future::join_all(hammer).await;

    let stored = service.stored(&room).await;
    assert_eq!(stored.len(), 300);
    assert!(stored.iter().zip(1..).all(|((seq, ..), expected)| *seq == expected));
    for person in &crowd {
        let own = stored.iter().filter(|(_, sender, _)| *sender == person.id).map(|(_, _, text)| text);
        assert!(own.is_sorted(), "the order of one sender was not kept");
    }
    let after = service.view(&crowd[0], &room).await;
    assert_eq!((after.seq, after.rev), (300, before.rev + 300));
    other.stop().await;
}

async fn a_stuck_room_holds_up_no_other(service: &Service) {
    let [maja, noor] = service.people().await;
    let stuck = service.group(&maja, []).await;
    let free = service.group(&noor, []).await;
    let hold = service.holds(&[&stuck]).await;

    let held = stream(&service.client, (0..10).map(|n| maja.send(&stuck, &n.to_string())).collect());
    let meanwhile = async {
        for n in 0..20 {
            let began = Instant::now();
            let answer = stream(&service.client, vec![noor.send(&free, &n.to_string())]).await.remove(0);
            assert!(answer.is_ok(), "{answer:?}");
            assert!(began.elapsed() < AT_ONCE, "waited {:?} for a free room", began.elapsed());
        }
        assert!(service.stored(&stuck).await.is_empty());
        hold.release().await;
    };
    let (answers, ()) = tokio::join!(held, meanwhile);
    let seqs: Vec<i64> = answers.into_iter().map(|answer| answer.unwrap().seq).collect();
    assert_eq!(seqs, (1..=10).collect::<Vec<_>>());
}

async fn many_stuck_rooms_hold_up_no_other(service: &Service) {
    let [maja, noor] = service.people().await;
    let mut stuck = Vec::new();
    for _ in 0..40 {
        stuck.push(service.group(&maja, []).await);
    }
    let free = service.group(&noor, []).await;
    let hold = service.holds(&stuck.iter().collect::<Vec<_>>()).await;

    let held = stream(&service.client, stuck.iter().map(|room| maja.send(room, "stuck")).collect());
    let meanwhile = async {
        // As many as may wait at once.
        hold.is_waited_for_by(4, service).await;
        for _ in 0..20 {
            let began = Instant::now();
            service.says(&noor, &free, "free").await;
            assert!(began.elapsed() < AT_ONCE, "waited {:?} for a free room", began.elapsed());
        }
        hold.release().await;
    };
    let (answers, ()) = tokio::join!(held, meanwhile);
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
}

async fn a_room_that_is_stuck_too_long_says_so_and_stores_the_repeat_once(service: &Service) {
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    let hold = service.holds(&[&room]).await;
    let items: Vec<SendItem> = (0..3).map(|n| maja.send(&room, &n.to_string())).collect();
    let answers = stream(&service.client, items.clone()).await;
    for answer in &answers {
        failed(answer, Code::Unavailable);
    }
    hold.release().await;

    let sent: Vec<_> = stream(&service.client, items.clone()).await.into_iter().map(Result::unwrap).collect();
    assert!(sent.iter().zip(1..).all(|(sent, seq)| sent.seq == seq && !sent.duplicate), "{sent:?}");
    assert!(stream(&service.client, items).await.iter().all(|answer| answer.as_ref().unwrap().duplicate));
    assert_eq!(service.stored(&room).await.len(), 3);
}

async fn cursors_and_sends_do_not_get_in_each_others_way(service: &Service) {
    let crowd = service.crowd(8).await;
    let mut rooms = Vec::new();
    for _ in 0..16 {
        rooms.push(service.group(&crowd[0], &crowd[1..]).await);
    }
    let seed = rooms.iter().map(|room| crowd[0].send(room, "seed")).collect();
    assert!(stream(&service.client, seed).await.iter().all(Result::is_ok));
    let sends = crowd.iter().map(|person| {
        let rooms = &rooms;
        async move {
            let mut ids = HashSet::new();
            for round in 0..12 {
                let items = rooms.iter().map(|room| person.send(room, &round.to_string())).collect();
                for answer in stream(&service.client, items).await {
                    ids.insert(answer.expect("a send failed beside a cursor").id);
                }
            }
            assert_eq!(ids.len(), 12 * rooms.len());
        }
    });
    let marks =
        crowd.iter().flat_map(|person| rooms.iter().map(move |room| (person, room))).map(|(person, room)| async {
            for delivered in 0..8 {
                let kind =
                    if delivered % 2 == 0 { chat::mark_request::Kind::Unread } else { chat::mark_request::Kind::Read };
                let request =
                    chat::MarkRequest { actor: person.actor.clone(), room: room.clone(), kind: kind.into(), seq: 1 };
                MessagesClient::new(service.client.clone()).mark(request).await.expect("a cursor failed beside a send");
            }
        });
    tokio::join!(future::join_all(sends), future::join_all(marks));
}

async fn halving_a_batch_keeps_the_order_of_a_room_that_is_missed(service: &Service) {
    let maja = &service.crowd(1).await[0];
    let mut rooms = Vec::new();
    for _ in 0..4 {
        rooms.push(service.group(maja, []).await);
    }
    let [plugged, slow, missed, bad] = rooms.as_slice() else { unreachable!() };
    for sql in [
        "create sequence tries",
        "create function trouble() returns trigger language plpgsql as $$ begin
             if new.text = 'plug' then perform pg_advisory_xact_lock_shared(1); end if;
             -- A sequence does not go back with its transaction: the first try passes, the second waits.
             if new.text = 'slow' and nextval('tries') > 1 then perform pg_advisory_xact_lock_shared(2); end if;
             if new.text = 'poison' then raise exception 'poison'; end if;
             return new;
         end $$",
        "create trigger trouble before insert on messages for each row execute function trouble()",
    ] {
        service.changes(sql).await;
    }

    // While the worker is at the plug, a batch gathers that fails as a whole, then is halved: the first half misses the
    // room and then waits, and meanwhile the room becomes free for the second half.
    let hold = service.holds(&[missed]).await;
    let (plug, gate) = (service.closes_gate(1).await, service.closes_gate(2).await);
    let mut plugged = Box::pin(stream(&service.client, vec![maja.send(plugged, "plug")]));
    tokio::select! {
        _ = &mut plugged => panic!("the gate was not closed"),
        () = plug.is_waited_for_by(1, service) => {}
    }
    let texts = [(slow, "slow"), (missed, "1"), (missed, "2"), (bad, "poison")];
    let mut batch = Box::pin(stream(&service.client, texts.map(|(room, text)| maja.send(room, text)).into()));
    tokio::select! {
        biased;
        _ = &mut batch => panic!("the worker was free"),
        () = service.hears() => {}
    }
    plug.release().await;
    // Slow is at its second try: the batch has failed, and this is its first half, which has missed the room.
    gate.is_waited_for_by(1, service).await;
    hold.release().await;
    gate.release().await;
    let (_, answers) = tokio::join!(plugged, batch);
    failed(&answers[3], Code::Internal);
    let seqs: Vec<i64> = answers[1..3].iter().map(|answer| answer.as_ref().unwrap().seq).collect();
    assert_eq!(seqs, [1, 2], "the later message overtook the earlier one");
}

async fn no_send_is_accepted_after_a_block(service: &Service) {
    let other = service.another().await;
    let [maja, noor] = service.people().await;
    let room = open(service, &maja, &noor).await.unwrap();
    let Db::Postgres(pool) = &service.db else { unreachable!() };
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    for _ in 0..5 {
        // The block waits for the room, and sends to both replicas for the room as well.
        let hold = service.holds(&[&room]).await;
        let sends = || (0..5).map(|n| noor.send(&room, &n.to_string())).collect();
        let blocks = async {
            block(service, &maja, &noor).await;
            let seq = service.view(&maja, &room).await.seq;
            let (here, there) = tokio::join!(stream(&service.client, sends()), stream(&other.client, sends()));
            for answer in here.iter().chain(&there) {
                failed(answer, Code::PermissionDenied);
            }
            seq
        };
        let releases = async {
            let waits = async || {
                let count: i64 = sqlx::query_scalar(waiting).fetch_one(pool).await.unwrap();
                (count > 0).then_some(())
            };
            eventually("somebody who waits for the room", waits).await;
            hold.release().await;
        };
        let (here, there) = (stream(&service.client, sends()), stream(&other.client, sends()));
        let (here, there, seq, ()) = tokio::join!(here, there, blocks, releases);
        for sent in here.into_iter().chain(there).filter_map(Result::ok) {
            assert!(sent.seq <= seq, "{sent:?} was stored after the block, at {seq}");
        }
        assert_eq!(service.view(&maja, &room).await.seq, seq);
        unblock(service, &maja, &noor).await;
    }
    other.stop().await;
}

async fn a_block_waits_for_a_send_that_is_judged_already(service: &Service) {
    let [maja, noor] = service.people().await;
    let room = open(service, &maja, &noor).await.unwrap();
    let Db::Postgres(pool) = &service.db else { unreachable!() };
    let waiting =
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let waits = async |least: i64| sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() >= least;
    // What reads messages goes on, what writes them waits: the send is judged, and not stored.
    let mut hold = pool.begin().await.unwrap();
    sqlx::query("lock table messages in share mode").execute(&mut *hold).await.unwrap();
    let blocked = Cell::new(false);
    let blocks = async {
        eventually("the send that waits", async || waits(1).await.then_some(())).await;
        block(service, &maja, &noor).await;
        blocked.set(true);
        service.view(&maja, &room).await.seq
    };
    let releases = async {
        eventually("the block", async || (blocked.get() || waits(2).await).then_some(())).await;
        hold.commit().await.unwrap();
    };
    let (sent, seq, ()) =
        tokio::join!(stream(&service.client, vec![noor.send(&room, "just in time")]), blocks, releases);
    assert_eq!(seq, sent[0].as_ref().unwrap().seq, "stored after the block was answered");
    let late = stream(&service.client, vec![noor.send(&room, "too late")]).await;
    failed(&late[0], Code::PermissionDenied);
}
