//! What a batch costs, counted: publishes to inboxes, look-ups of the directory, round trips to the database.

use futures_util::future;
use parlance_proto::chat::{self, SendItem};
use service_kit::{id::BootId, tasks::Tasks};

use crate::{
    Database, PATIENCE, Service, Setup,
    attachments::ready,
    chat_world::{Room, stream, texts},
    directory::{Counter, Double, Mood},
    proxy::Proxy,
};

mod sqlite {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_is_published_once_for_each_gateway() {
        super::a_batch_is_published_once_for_each_gateway(crate::Database::sqlite()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_the_directory_a_batch_is_published_once_to_all() {
        super::without_the_directory_a_batch_is_published_once_to_all(crate::Database::sqlite()).await;
    }
}

mod postgres {
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_is_published_once_for_each_gateway() {
        let Some(database) = crate::Database::postgres().await else { return };
        super::a_batch_is_published_once_for_each_gateway(database).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn without_the_directory_a_batch_is_published_once_to_all() {
        let Some(database) = crate::Database::postgres().await else { return };
        super::without_the_directory_a_batch_is_published_once_to_all(database).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_takes_at_most_six_round_trips() {
        let Some(database) = crate::Database::postgres().await else { return };
        super::a_batch_takes_at_most_six_round_trips(database).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_hundred_who_connect_at_once_cost_a_few_reads() {
        let Some(database) = crate::Database::postgres().await else { return };
        super::a_hundred_who_connect_at_once_cost_a_few_reads(database).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_batch_reads_no_rows_but_its_own_though_planned_while_the_tables_were_small() {
        let Some(database) = crate::Database::postgres().await else { return };
        super::a_batch_reads_no_rows_but_its_own(database).await;
    }
}

/// A service with a directory double, and a switch that keeps it from publishing.
async fn with_directory(database: Database) -> (Service, Double, std::path::PathBuf) {
    let directory = Double::default();
    let hold = std::env::temp_dir().join(format!("parlance-hold-{}", uuid::Uuid::new_v4().simple()));
    let setup = Setup { presence: Some(directory.routes()), hold: Some(hold.clone()), ..Setup::default() };
    (Service::set_up(database, setup).await, directory, hold)
}

/// Sends these so that their announcements are published together: what is held back gathers.
async fn sends_together(service: &Service, hold: &std::path::Path, items: Vec<SendItem>) {
    std::fs::write(hold, "").unwrap();
    assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
    std::fs::remove_file(hold).unwrap();
}

async fn a_batch_is_published_once_for_each_gateway(database: Database) {
    let (service, directory, hold) = with_directory(database).await;
    let [maja] = service.people().await;
    let mut worker = service.worker().await;
    let rooms: [Room; 4] = [
        service.group(&maja, []).await,
        service.group(&maja, []).await,
        service.group(&maja, []).await,
        service.group(&maja, []).await,
    ];
    let mut gateways = Vec::new();
    for _ in 0..5 {
        gateways.push(Counter::on(&service.bus).await);
    }
    let boots: Vec<BootId> = gateways.iter().map(|gateway| gateway.boot).collect();
    // Two gateways serve nothing of it; the last room is at nobody's.
    directory.serves(&rooms[0], &boots[..1]);
    directory.serves(&rooms[1], &boots[..2]);
    directory.serves(&rooms[2], &boots[1..3]);
    let end = service.group(&maja, []).await;
    directory.serves(&end, &boots);
    // That the rooms were made is told before the counting begins.
    for _ in 0..5 {
        worker.next().await;
    }
    directory.lookups();
    let items: Vec<SendItem> = (0..100).map(|n| maja.send(&rooms[n % 4], &n.to_string())).collect();
    sends_together(&service, &hold, items).await;
    let announcements = worker.until(100).await;
    let lookups = directory.lookups();
    // The first announcement may have been taken before the others had come.
    assert!(lookups.len() <= 2, "{lookups:?} for {} announcements", announcements.len());

    service.says(&maja, &end, "that is all").await;
    let (mut parcels, mut events) = (0, Vec::new());
    for gateway in &mut gateways {
        let got = gateway.parcels("that is all").await;
        parcels += got.len();
        events.push(got.iter().sum::<usize>());
    }
    assert_eq!(parcels, lookups.iter().sum::<usize>(), "one publish for each gateway of each look-up");
    assert_eq!(lookups.last(), Some(&3), "three of five gateways serve these rooms");
    assert_eq!(events, [50, 50, 25, 0, 0]);
    service.stop().await;
}

async fn without_the_directory_a_batch_is_published_once_to_all(database: Database) {
    let (service, directory, hold) = with_directory(database).await;
    let [maja] = service.people().await;
    let mut worker = service.worker().await;
    let room = service.group(&maja, []).await;
    // That the room was made is told before the counting begins.
    worker.next().await;
    for mood in [Mood::Fails, Mood::SaysUnknown] {
        let mut gateways = [Counter::on(&service.bus).await, Counter::on(&service.bus).await];
        let boots: Vec<BootId> = gateways.iter().map(|gateway| gateway.boot).collect();
        directory.serves(&room, &boots);
        directory.is(mood);
        directory.lookups();
        let items = (0..100).map(|n| maja.send(&room, &n.to_string())).collect();
        sends_together(&service, &hold, items).await;
        worker.until(100).await;
        let lookups = directory.lookups();
        assert!(lookups.len() <= 2, "{lookups:?}");

        directory.is(Mood::Answers);
        let end = format!("after {mood:?}");
        service.says(&maja, &room, &end).await;
        worker.until(1).await;
        for gateway in &mut gateways {
            let parcels = gateway.parcels(&end).await;
            assert_eq!((parcels.len(), parcels.iter().sum::<usize>()), (lookups.len(), 100), "{mood:?}");
        }
    }
    service.stop().await;
}

async fn a_batch_takes_at_most_six_round_trips(database: Database) {
    /// Parameters of this size hold some dozens of messages.
    const LARGE: usize = 4 * 1024;
    let tasks = Tasks::new();
    let (proxy, through) = Proxy::start(&database.url(), &tasks).await;
    let service = Service::set_up(database, Setup { database_url: Some(through), ..Setup::default() }).await;
    let [maja] = service.people().await;
    let mut rooms = Vec::new();
    for _ in 0..10 {
        rooms.push(service.group(&maja, []).await);
    }
    let files = vec![ready(&service, &maja).await, ready(&service, &maja).await];
    let mut worker = service.worker().await;
    let (mut warm, mut most) = (Vec::new(), 0);
    for round in 0..40 {
        // One room or ten; now and then a room that is held, and so waited for in a transaction of its own.
        let rooms = if round % 2 == 0 { &rooms[..1] } else { &rooms[..] };
        let mut items: Vec<SendItem> =
            (0..100).map(|n| maja.send(&rooms[n % rooms.len()], "what a batch consists of")).collect();
        if round % 3 == 0 {
            items[7].attachments = files.clone();
        }
        if round % 4 == 0 {
            let hold = service.holds(&[&rooms[0]]).await;
            let (answers, ()) = tokio::join!(stream(&service.client, items), async {
                hold.is_waited_for_by(1, &service).await;
                hold.release().await;
            });
            assert!(answers.iter().all(Result::is_ok));
        } else {
            assert!(stream(&service.client, items).await.iter().all(Result::is_ok));
        }
        let announcements = worker.until(100).await;
        most = most.max(announcements.iter().map(|batch| texts(batch).len()).max().unwrap());
        warm.extend(proxy.take().into_iter().filter(|cost| cost.largest_bind > LARGE && cost.prepared == 0));
    }
    assert!(most >= 99, "the largest batch had {most} messages");
    assert!(warm.len() >= 20, "only {} large batches with everything prepared", warm.len());
    let trips: Vec<usize> = warm.iter().map(|cost| cost.round_trips).collect();
    assert!(trips.iter().all(|trips| *trips <= 6), "{trips:?}");
    service.stop().await;
    assert!(tasks.shutdown(PATIENCE).await, "the proxy does not stop");
}

async fn a_batch_reads_no_rows_but_its_own(database: Database) {
    const ROOMS: usize = 60;
    const SENDS: usize = 200;
    let url = database.url();
    let service = Service::set_up(database, Setup::default()).await;
    let [maja] = service.people().await;
    let mut rooms = Vec::new();
    for _ in 0..ROOMS {
        rooms.push(service.group(&maja, []).await);
    }
    for _ in 0..SENDS {
        assert!(stream(&service.client, vec![maja.send(&rooms[0], "one")]).await.iter().all(Result::is_ok));
    }
    let database = service.ends().await;
    let watcher = sqlx::PgPool::connect(&url).await.unwrap();
    // Connections report what they have read at their end at the latest.
    let alone = "select count(*) = 1 from pg_stat_activity where datname = current_database()
                 and backend_type = 'client backend'";
    let ended = async { while !sqlx::query_scalar::<_, bool>(alone).fetch_one(&watcher).await.unwrap() {} };
    tokio::time::timeout(PATIENCE, ended).await.expect("the connections end");
    let read = "select sum(idx_tup_read)::bigint from pg_stat_user_indexes where relname in ('rooms', 'members')";
    let rows: i64 = sqlx::query_scalar(read).fetch_one(&watcher).await.unwrap();
    watcher.close().await;
    // Locked, read and moved: the room and its member a few times for each send, and not the other rooms.
    let each = usize::try_from(rows).unwrap() / SENDS;
    assert!((1..ROOMS / 2).contains(&each), "{each} rows of rooms and members for each send");
    database.drop().await;
}

async fn a_hundred_who_connect_at_once_cost_a_few_reads(database: Database) {
    const AT_ONCE: usize = 100;
    let tasks = Tasks::new();
    let (proxy, through) = Proxy::start(&database.url(), &tasks).await;
    let service = Service::set_up(database, Setup { database_url: Some(through), ..Setup::default() }).await;
    let [maja] = service.people().await;
    let room = service.group(&maja, []).await;
    proxy.take();
    let asking = (0..AT_ONCE).map(|_| async {
        let list = service.sync().memberships(maja.actor()).await.unwrap().into_inner();
        assert_eq!(list.items[0].room, room);
        let hello = chat::HelloRequest { actor: Some(maja.actor()), ..Default::default() };
        let reply = service.sync().hello(hello).await.unwrap().into_inner();
        assert_eq!(reply.rooms.len(), 1);
    });
    future::join_all(asking).await;
    let reads = proxy.take();
    let trips: usize = reads.iter().map(|read| read.round_trips).sum();
    assert!(!reads.is_empty(), "the reads are counted");
    assert!(trips <= AT_ONCE, "{trips} round trips in {} reads for {AT_ONCE} connections", reads.len());
    service.stop().await;
    assert!(tasks.shutdown(PATIENCE).await, "the proxy does not stop");
}
