//! The broker is gone, or stands still with every socket open: messages wait in the outbox, and nobody hears what is not for
//! them.

use std::time::{Duration, Instant};

use e2e::{Device, OwnCluster, Person, Signal, Stack, lasts};
use parlance_client::{Draft, Event, RoomId};

use super::witness::Witness;

fault_stories!([]; stopped, frozen);

/// What the contract of this fault states for a revocation.
const CUT_OFF: Duration = Duration::from_secs(2);
/// A commit does not wait for the broker.
const ACKNOWLEDGED: Duration = Duration::from_secs(1);
/// How long the broker stands still: longer than a heartbeat.
const FROZEN: Duration = Duration::from_secs(20);

async fn stopped(cluster: &OwnCluster) {
    let mut story = Story::begins(cluster.stack()).await;
    cluster.takes_down("amqp").await;
    story.goes_on().await;
    cluster.brings_up("amqp").await;
    story.ends().await;
}

async fn frozen(cluster: &OwnCluster) {
    let mut story = Story::begins(cluster.stack()).await;
    cluster.signals_service(Signal::Stop, "amqp").await;
    let since = Instant::now();
    story.goes_on().await;
    while since.elapsed() < FROZEN {
        story.alice_sends("still without carol").await;
        lasts(Duration::from_millis(100)).await;
    }
    cluster.signals_service(Signal::Continue, "amqp").await;
    story.ends().await;
}

/// Alice writes to Bob and Carol; Carol is removed, and Bob's phone is logged out.
struct Story {
    alice: Person,
    bob: Person,
    carol: Person,
    room: RoomId,
    /// Alice's and Carol's.
    direct: RoomId,
    alices: Witness,
    bobs: Witness,
    carols: Device,
    phone: Person,
    phones: Device,
    sent: Vec<(RoomId, u64)>,
    slowest: Duration,
}

impl Story {
    async fn begins(stack: &Stack) -> Self {
        let (alice, bob, carol) = (stack.user("alice").await, stack.user("bob").await, stack.user("carol").await);
        let room = alice.makes_a_group("circle", &[&bob, &carol]).await.id;
        let direct = alice.direct_with(&carol).await;
        let phone = bob.logs_in_again().await;
        let (alices, bobs) = (Witness::of(&alice, &[0]).await, Witness::of(&bob, &[1]).await);
        let (carols, phones) = (carol.on(1).await, phone.on(1).await);
        let (sent, slowest) = (Vec::new(), Duration::ZERO);
        let mut story = Self { alice, bob, carol, room, direct, alices, bobs, carols, phone, phones, sent, slowest };
        story.alice_sends("before").await;
        story.carols.receives("before").await;
        story
    }

    async fn alice_sends(&mut self, text: &str) {
        let asked = Instant::now();
        let sent = self.alices.session.send(self.room, Draft::text(text)).await.unwrap();
        self.slowest = self.slowest.max(asked.elapsed());
        self.sent.push((self.room, sent.seq));
    }

    /// While the broker is away.
    async fn goes_on(&mut self) {
        for n in 0..50 {
            self.alice_sends(&format!("with carol {n}")).await;
        }

        self.bob.api_at(1).revoke_session(self.phone.login.session).await.unwrap();
        let revoked = Instant::now();
        self.phones.is_closed_with(4003).await;
        assert!(revoked.elapsed() < CUT_OFF, "the revoked session was cut off after {:?}", revoked.elapsed());

        self.alice.api.remove_member(self.room, self.carol.id()).await.unwrap();
        for n in 0..50 {
            self.alice_sends(&format!("without carol {n}")).await;
        }
    }

    /// The broker is back.
    async fn ends(mut self) {
        self.bobs.has_all(&self.sent).await;
        self.alices.has_all(&self.sent).await;
        self.alice_sends("after").await;
        self.bobs.has_all(&self.sent).await;
        assert!(self.slowest < ACKNOWLEDGED, "a send was acknowledged after {:?}", self.slowest);

        let left = |event: &Event| matches!(event, Event::Left(left) if left.room == self.room).then_some(());
        self.carols.sees("left", left).await;
        // What comes to Carol after all that stands behind whatever would have come to her of it.
        self.alices.session.send(self.direct, Draft::text("sorry")).await.unwrap();
        self.carols.receives("sorry").await;
        let heard: Vec<_> = self.carols.texts(self.room).into_iter().filter(|(_, t)| t.contains("without")).collect();
        assert!(heard.is_empty(), "she was removed, and heard {heard:?}");
    }
}
