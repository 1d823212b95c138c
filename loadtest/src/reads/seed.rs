//! Rooms with a past, in little time: through the API with many sends under way, or written into the database.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use parlance_client::{RoomId, UserId};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use uuid::Uuid;

use crate::plan::{self, Told};
use crate::pool::{Address, Event, Pool};
use crate::progress;
use crate::scan::{Frame, frame};

/// Connections that send.
const CONNECTIONS: usize = 8;
/// Sends of one connection that may be unanswered; a server works on 64.
const UNDER_WAY: usize = 48;
/// Length of each text.
const SIZE: usize = 128;
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Sends so many messages into each of these rooms, in turn, through the public API.
pub(super) fn through_api(address: &Address, rooms: &[RoomId], each: usize) -> anyhow::Result<()> {
    let (run, all) = (Uuid::new_v4().as_fields().0, rooms.len() * each);
    let mut pool = Pool::new()?;
    pool.open(&vec![address.clone(); CONNECTIONS.min(all.max(1))])?;
    let mut under_way = [0_usize; CONNECTIONS];
    let (mut sent, mut acked, mut told, mut heard) = (0, 0, Instant::now(), Instant::now());
    let mut text = String::new();
    while acked < all {
        for (connection, under_way) in under_way.iter_mut().enumerate() {
            let Some(socket) = pool.socket(connection) else { continue };
            while *under_way < UNDER_WAY && sent < all {
                let number = sent as u64;
                let words = Told { number, room: sent % rooms.len(), slot: 0, turn: number, due_us: 0 };
                text.clear();
                plan::send(&mut text, run, &rooms[sent % rooms.len()], &words, SIZE);
                ensure!(socket.feed(&text), "the server does not take what is sent");
                (sent, *under_way) = (sent + 1, *under_way + 1);
            }
            socket.flush()?;
        }
        let mut failed = None;
        pool.poll(PATIENCE, |connection, event| match event {
            Event::Frame(bytes) => match frame(bytes) {
                Frame::Sent { .. } => {
                    (acked, under_way[connection], heard) = (acked + 1, under_way[connection] - 1, Instant::now());
                }
                Frame::Refused { .. } => failed = Some(String::from_utf8_lossy(bytes).into_owned()),
                _ => {}
            },
            Event::Closed(close) => failed = Some(close.to_string()),
        })?;
        if let Some(failed) = failed {
            bail!("a send was not taken: {failed}");
        }
        ensure!(heard.elapsed() < PATIENCE, "no answer to a send");
        if told.elapsed() > TELL_EVERY {
            told = Instant::now();
            progress(format_args!("{acked} of {all} messages are there"));
        }
    }
    Ok(())
}

/// Writes so many messages of this user into a room that nobody is connected to, as the service would have.
pub(super) async fn into_database(url: &str, room: RoomId, sender: UserId, count: usize) -> anyhow::Result<()> {
    let mut database = PgConnection::connect(url).await.context("cannot connect to the database")?;
    let count = i64::try_from(count)?;
    let mut change = database.begin().await?;
    let (seq, rev, at): (i64, i64, i64) =
        sqlx::query_as("select seq, rev, active_at from rooms where id = $1 for no key update")
            .bind(room.0)
            .fetch_one(&mut *change)
            .await
            .context("the room is not in this database")?;
    sqlx::query(
        "insert into messages (room_id, seq, rev, id, client_id, sender, kind, text, at) \
         select $1, $2 + g, $3 + g, gen_random_uuid(), gen_random_uuid(), $4, 1, rpad('message ' || g, 128, 'x'), $5 \
         from generate_series(1, $6) g",
    )
    .bind(room.0)
    .bind(seq)
    .bind(rev)
    .bind(sender.0)
    .bind(at)
    .bind(count)
    .execute(&mut *change)
    .await?;
    sqlx::query("update rooms set seq = seq + $2, rev = rev + $2 where id = $1")
        .bind(room.0)
        .bind(count)
        .execute(&mut *change)
        .await?;
    change.commit().await?;
    // As the server does by itself after a while; not while it is measured.
    database.execute("vacuum analyze messages").await?;
    database.execute("checkpoint").await.map(drop).or_else(|_| anyhow::Ok(()))?;
    Ok(())
}
