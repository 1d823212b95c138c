//! What a message in a large room costs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use notify_service::{news::News, notifications::tell::Teller, plan::Planner};
use parlance_proto::v1::Message;
use service_kit::{
    db::Db,
    id::{RoomId, UserId},
};
use tracing::{Event, Metadata, Subscriber, span};

use crate::world::{Database, absent_presence};

/// Counts the statements that sqlx says it has executed on this thread.
#[derive(Clone, Default)]
struct Statements(Arc<AtomicUsize>);

impl Subscriber for Statements {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Runs on one thread, so that it counts its own statements only.
#[tokio::test]
async fn a_message_in_a_room_of_100_000_with_1_000_devices_costs_at_most_three_statements() {
    let Some(database) = Database::postgres().await else { return };
    let db = Db::connect(&database.url()).await.unwrap();
    notify_service::migrate(&db).await.unwrap();
    let Db::Postgres(pool) = &db else { unreachable!() };
    let room = RoomId::generate();
    sqlx::query(
        "insert into members (room_id, user_id, present, role, joined_at, rev, joined_rev, visible_from_seq, read_seq,
             delivered_seq, me_rev, notify, favourite)
         select $1, gen_random_uuid(), true, 1, 1, n, n, 0, 0, 0, 0, 1, false from generate_series(1, 100000) n",
    )
    .bind(room)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query(
        "insert into push_devices (id, user_id, session_id, platform, target, created_at)
         select gen_random_uuid(), user_id, gen_random_uuid(), 1, 'https://push.example/', 1
         from members where room_id = $1 and rev <= 1000",
    )
    .bind(room)
    .execute(pool)
    .await
    .unwrap();

    let planner = Planner::new(db.clone(), Duration::ZERO, Teller::silent(), absent_presence());
    let message = |seq| {
        let message = Message { room: room.to_wire(), seq, sender: UserId::generate().to_wire(), ..Message::default() };
        News::Message { message, direct: false }
    };
    let statements = Statements::default();
    // With one subscriber alone, a statement that another test's thread, which has none, executes first counts as one that
    // nobody ever wants to hear of.
    let _another = tracing::Dispatch::new(Statements::default());
    let guard = tracing::subscriber::set_default(statements.clone());
    assert_eq!(planner.plan(&[message(1)]).await.unwrap(), 1000);
    let counted = statements.0.load(Ordering::Relaxed);
    assert!((1..=3).contains(&counted), "{counted}");
    drop(guard);
    let began = Instant::now();
    assert_eq!(planner.plan(&[message(2)]).await.unwrap(), 1000);
    eprintln!("planning a message for 1,000 devices among 100,000 members: {:?}", began.elapsed());
    db.close().await;
    database.drop().await;
}
