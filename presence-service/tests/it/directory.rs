//! Who serves what: attaching, leases, registration, clearing.

use std::collections::HashSet;

use presence_service::{
    error::Error,
    store::{Change, Op, Standing},
};
use service_kit::id::{Topic, UserId};

use crate::world::{TIMING, World, room};

crate::on_both!(
    a_topic_has_the_gateways_that_attached_to_it,
    an_older_operation_changes_nothing,
    an_older_attach_and_detach_in_one_update_keep_their_order,
    a_gateway_without_a_live_lease_is_absent,
    a_first_renewal_finds_nothing_a_second_is_alive_a_late_one_expired,
    an_older_renewal_prolongs_nothing,
    a_gateway_that_a_sweeper_cleared_is_over,
    a_gateway_that_only_registered_is_cleared_too,
    a_full_registration_removes_what_it_did_not_name,
    a_renewal_counts_topics_and_sessions,
    a_gateway_that_leaves_is_gone_at_once_and_not_cleared,
    thousands_of_entries_of_a_dead_gateway_go,
    the_epoch_stays,
    a_renewal_counts_the_gateways_with_a_live_lease,
);

async fn a_topic_has_the_gateways_that_attached_to_it(world: World) {
    let (mut one, mut two) = (world.gateway(), world.gateway());
    let (shared, own) = (room(), room());
    one.renews().await;
    two.renews().await;
    one.attaches(shared).await;
    two.attaches(shared).await;
    two.attaches(own).await;
    let located = world.store.lookup(&[own, room(), shared]).await.unwrap();
    assert_eq!(located.served[0], [two.boot]);
    assert!(located.served[1].is_empty());
    assert_eq!(located.served[2].iter().copied().collect::<HashSet<_>>(), HashSet::from([one.boot, two.boot]));
    one.detaches(shared).await;
    assert_eq!(world.serves(shared).await, HashSet::from([two.boot]));
}

async fn an_older_operation_changes_nothing(world: World) {
    let mut gateway = world.gateway();
    let topic = room();
    gateway.renews().await;
    gateway.does_as(6, Change::Attach(topic)).await;
    gateway.does_as(5, Change::Detach(topic)).await;
    gateway.does_as(6, Change::Detach(topic)).await;
    assert_eq!(world.serves(topic).await, HashSet::from([gateway.boot]));
    assert_eq!(gateway.renews().await.entries, 1);
    gateway.does_as(7, Change::Detach(topic)).await;
    assert!(world.serves(topic).await.is_empty());
    assert_eq!(gateway.renews().await.entries, 0);
}

async fn an_older_attach_and_detach_in_one_update_keep_their_order(world: World) {
    let mut gateway = world.gateway();
    let (stays, goes) = (room(), room());
    gateway.renews().await;
    let op = |number, change| Op { number, change };
    let ops = [
        op(1, Change::Attach(stays)),
        op(2, Change::Detach(stays)),
        op(3, Change::Attach(stays)),
        op(4, Change::Attach(goes)),
        op(5, Change::Detach(goes)),
    ];
    gateway.tries(&ops, 0).await.unwrap();
    // Again, as after an answer that got lost.
    gateway.tries(&ops[2..], 0).await.unwrap();
    assert_eq!(world.serves(stays).await, HashSet::from([gateway.boot]));
    assert!(world.serves(goes).await.is_empty());
    assert_eq!(gateway.renews().await.entries, 1);
}

async fn a_gateway_without_a_live_lease_is_absent(world: World) {
    let mut gateway = world.gateway();
    let topic = room();
    gateway.renews().await;
    gateway.attaches(topic).await;
    assert_eq!(world.serves(topic).await, HashSet::from([gateway.boot]));
    world.passes(TIMING.lease).await;
    assert!(world.serves(topic).await.is_empty());
    gateway.renews().await;
    assert_eq!(world.serves(topic).await, HashSet::from([gateway.boot]), "its entries were kept");
}

async fn a_first_renewal_finds_nothing_a_second_is_alive_a_late_one_expired(world: World) {
    let mut gateway = world.gateway();
    gateway.attaches(room()).await;
    assert_eq!(gateway.renews().await.standing, Standing::Expired);
    assert_eq!(gateway.renews().await.standing, Standing::Alive);
    world.passes(TIMING.lease).await;
    assert_eq!(gateway.renews().await.standing, Standing::Expired);
    assert_eq!(gateway.renews().await.standing, Standing::Alive);
}

async fn an_older_renewal_prolongs_nothing(world: World) {
    let gateway = world.gateway();
    gateway.renews_as(5).await;
    world.passes(TIMING.lease / 2).await;
    assert_eq!(gateway.renews_as(4).await, Standing::Alive);
    world.passes(TIMING.lease / 2).await;
    assert_eq!(gateway.renews_as(5).await, Standing::Expired);
    assert_eq!(gateway.renews_as(3).await, Standing::Expired);
    assert_eq!(gateway.renews_as(6).await, Standing::Expired);
    assert_eq!(gateway.renews_as(7).await, Standing::Alive);
}

async fn a_gateway_that_a_sweeper_cleared_is_over(world: World) {
    let (mut dead, mut alive) = (world.gateway(), world.gateway());
    let topic = room();
    dead.renews().await;
    dead.attaches(topic).await;
    alive.renews().await;
    alive.attaches(topic).await;
    let mut sweeper = world.sweeper();
    let mut cleared = 0;
    world
        .until(&mut [&mut alive], &mut sweeper, "the dead one is cleared", |sweeper| {
            if let presence_service::sweeper::Step::Swept { cleared: count, .. } = sweeper.last {
                cleared += count;
            }
            cleared == 1
        })
        .await;
    assert_eq!(world.serves(topic).await, HashSet::from([alive.boot]));
    let renewal = dead.renews().await;
    assert_eq!((renewal.standing, renewal.entries), (Standing::Cleared, 0));
    let refused = dead.tries(&[Op { number: 99, change: Change::Attach(topic) }], 0).await;
    assert!(matches!(refused, Err(Error::Cleared)), "{refused:?}");
    assert_eq!(dead.renews().await.standing, Standing::Cleared);
    assert_eq!(alive.renews().await.standing, Standing::Alive);
    assert_eq!(alive.renews().await.entries, 1);
}

async fn a_gateway_that_only_registered_is_cleared_too(world: World) {
    let mut gateway = world.gateway();
    let topic = room();
    gateway.attaches(topic).await;
    let mut sweeper = world.sweeper();
    world.until(&mut [], &mut sweeper, "trust", crate::world::Watched::trusts_itself).await;
    world.lives(&mut [], &mut sweeper, TIMING.lease).await;
    assert_eq!(gateway.renews().await.standing, Standing::Cleared);
    assert_eq!(gateway.renews().await.entries, 0);
}

async fn a_full_registration_removes_what_it_did_not_name(world: World) {
    let mut gateway = world.gateway();
    let (stays, goes, user) = (room(), room(), UserId::generate());
    gateway.renews().await;
    gateway.attaches(stays).await;
    gateway.attaches(goes).await;
    gateway.connects(user, 1).await;
    let begin = gateway.number + 1;
    gateway.attaches(stays).await;
    gateway.tries(&[], begin).await.unwrap();
    assert_eq!(world.serves(stays).await, HashSet::from([gateway.boot]));
    assert!(world.serves(goes).await.is_empty());
    assert_eq!(gateway.renews().await.entries, 1);
    let mut sweeper = world.sweeper();
    let gone = |sweeper: &crate::world::Watched| !sweeper.heard_of(user).is_empty();
    world.until(&mut [&mut gateway], &mut sweeper, "the user is offline", gone).await;
}

async fn a_renewal_counts_topics_and_sessions(world: World) {
    let mut gateway = world.gateway();
    let user = UserId::generate();
    gateway.attaches(Topic::User(user)).await;
    gateway.attaches(Topic::Presence(user)).await;
    gateway.connects(user, 1).await;
    gateway.connects(user, 2).await;
    gateway.idles(user, 2).await;
    assert_eq!(gateway.renews().await.entries, 4);
    gateway.disconnects(user, 1).await;
    assert_eq!(gateway.renews().await.entries, 3);
}

async fn a_gateway_that_leaves_is_gone_at_once_and_not_cleared(world: World) {
    let mut gateway = world.gateway();
    let (topic, user) = (room(), UserId::generate());
    gateway.renews().await;
    gateway.attaches(topic).await;
    gateway.connects(user, 1).await;
    let dead = world.store.leave(gateway.boot).await.unwrap();
    assert!(world.serves(topic).await.is_empty());
    let mut told = Vec::new();
    assert_eq!(world.store.clear(&dead, &mut told).await.unwrap(), 2);
    assert!(told.is_empty(), "its users have their grace");
    let renewal = gateway.renews().await;
    assert_eq!((renewal.standing, renewal.entries), (Standing::Expired, 0));
    let mut sweeper = world.sweeper();
    let gone = |sweeper: &crate::world::Watched| !sweeper.heard_of(user).is_empty();
    world.until(&mut [&mut gateway], &mut sweeper, "the user is offline", gone).await;
    assert_eq!(sweeper.heard_of(user)[0].status.last_seen, Some(dead.last_sign));
}

async fn thousands_of_entries_of_a_dead_gateway_go(world: World) {
    let mut gateway = world.gateway();
    let topics: Vec<Topic> = (0..1_500).map(|_| room()).collect();
    let users: Vec<UserId> = (0..600).map(|_| UserId::generate()).collect();
    let attach = topics.iter().map(|topic| Change::Attach(*topic));
    let connect = users.iter().map(|user| Change::Session { user: *user, connection: 1, idle: false, chosen: None });
    let ops: Vec<Op> = (1..).zip(attach.chain(connect)).map(|(number, change)| Op { number, change }).collect();
    gateway.renews().await;
    assert_eq!(gateway.tries(&ops, 0).await.unwrap().len(), users.len());
    assert_eq!(gateway.renews().await.entries, 2_100);
    let mut sweeper = world.sweeper();
    let gone = |sweeper: &crate::world::Watched| sweeper.heard.len() >= users.len();
    world.until(&mut [], &mut sweeper, "all are offline", gone).await;
    world.lives(&mut [], &mut sweeper, TIMING.resay * 3).await;
    assert_eq!(sweeper.heard.iter().map(|told| told.user).collect::<HashSet<_>>().len(), users.len());
    assert_eq!(gateway.renews().await.entries, 0);
    let located = world.store.lookup(&topics).await.unwrap();
    assert!(located.served.iter().all(Vec::is_empty));
}

async fn the_epoch_stays(world: World) {
    let (mut one, mut two) = (world.gateway(), world.gateway());
    let epoch = one.renews().await.epoch;
    world.store.lookup(&[room()]).await.unwrap();
    assert_eq!(two.renews().await.epoch, epoch);
}

async fn a_renewal_counts_the_gateways_with_a_live_lease(world: World) {
    let (mut stays, mut silent, mut leaves) = (world.gateway(), world.gateway(), world.gateway());
    assert_eq!(stays.renews().await.gateways, 1);
    assert_eq!(silent.renews().await.gateways, 2);
    assert_eq!(leaves.renews().await.gateways, 3);
    assert_eq!(leaves.renews().await.gateways, 3, "each counts once");
    world.store.leave(leaves.boot).await.unwrap();
    assert_eq!(stays.renews().await.gateways, 2, "who has left is gone at once");

    // Nobody sweeps: a lease that has run out counts no longer all the same.
    world.passes(TIMING.lease / 2).await;
    stays.renews().await;
    world.passes(TIMING.lease / 2).await;
    assert_eq!(stays.renews().await.gateways, 1);
    assert_eq!(silent.renews().await.gateways, 2, "it was only silent");

    world.passes(TIMING.lease).await;
    let mut sweeper = world.sweeper();
    world.until(&mut [&mut stays], &mut sweeper, "trust", crate::world::Watched::trusts_itself).await;
    let renewal = silent.renews().await;
    assert_eq!((renewal.standing, renewal.gateways), (Standing::Cleared, 1), "who was cleared learns it too");
}
