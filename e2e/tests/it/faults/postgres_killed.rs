//! PostgreSQL is killed with SIGKILL and brought up again.

use std::time::{Duration, Instant};

use e2e::{Device, OwnCluster, Person, Signal, eventually, within};
use futures_util::future::join;
use parlance_client::frame::{Range, Sent};
use parlance_client::{Code, Draft, RoomId};

use super::witness::Witness;

fault_stories!([]; nothing_is_acknowledged_falsely_and_sending_comes_back);

/// What the contract of this fault states, from the moment at which PostgreSQL answers again.
const BACK: Duration = Duration::from_secs(5);

async fn nothing_is_acknowledged_falsely_and_sending_comes_back(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.direct_with(&bob).await;
    let (desk, phone, bobs) = (alice.on(0).await, alice.on(1).await, Witness::of(&bob, &[1]).await);

    let writing = join(writes_until_refused(&desk, room, "desk"), writes_until_refused(&phone, room, "phone"));
    let killing = async {
        within("the first messages", async {
            while bobs.texts(room).len() < 20 {
                e2e::lasts(Duration::from_millis(5)).await;
            }
        })
        .await;
        cluster.signals_service(Signal::Kill, "postgres").await;
    };
    let ((mut acknowledged, hers), ()) = join(writing, killing).await;
    acknowledged.extend(hers);
    let into_the_void = Draft::text("into the void");
    let (one, other) =
        join(desk.connection.send(room, &into_the_void), phone.connection.send(room, &into_the_void)).await;
    for refusal in [one.unwrap_err(), other.unwrap_err()] {
        assert!(matches!(refusal.code(), Some(Code::Unavailable | Code::Timeout)), "{refusal}");
    }

    cluster.brings_up("postgres").await;
    let up = Instant::now();
    for device in [&desk, &phone] {
        let draft = Draft::text("after");
        let sent = eventually("a send that works", async || device.connection.send(room, &draft).await.ok()).await;
        assert!(up.elapsed() < BACK, "sending worked again after {:?}", up.elapsed());
        acknowledged.push(sent);
    }

    let places: Vec<_> = acknowledged.iter().map(|sent| (room, sent.seq)).collect();
    bobs.has_all(&places).await;
    let stored = everything(&bob, room).await;
    for sent in &acknowledged {
        let here: Vec<_> = stored.iter().filter(|(_, client_id)| *client_id == Some(sent.client_id)).collect();
        assert_eq!(here, [&(sent.seq, Some(sent.client_id))], "acknowledged, so it is there, and once");
    }
    assert_eq!(bobs.error(), None);
}

/// Sends one message after the other until one is refused, which has to be for now and not for good.
async fn writes_until_refused(device: &Device, room: RoomId, name: &str) -> Vec<Sent> {
    let mut acknowledged = Vec::new();
    within("a refusal", async {
        for n in 0.. {
            match device.connection.send(room, &Draft::text(format!("{name} {n}"))).await {
                Ok(sent) => acknowledged.push(sent),
                Err(refusal) => {
                    assert!(matches!(refusal.code(), Some(Code::Unavailable | Code::Timeout)), "{refusal}");
                    return;
                }
            }
        }
    })
    .await;
    acknowledged
}

/// Every message of a room as it is stored: its seq, and the id that its sender gave it.
async fn everything(person: &Person, room: RoomId) -> Vec<(u64, Option<uuid::Uuid>)> {
    let mut stored = Vec::new();
    let mut after = 0;
    loop {
        let range = Range { after: Some(after), limit: Some(200), ..Range::default() };
        let page = person.api_at(1).history(room, range).await.unwrap();
        stored.extend(page.items.iter().map(|message| (message.seq, message.client_id)));
        let Some((last, _)) = stored.last().filter(|_| page.has_more) else { return stored };
        after = *last;
    }
}
