//! Users and rooms never become objects of the broker.

use e2e::{OwnCluster, eventually};
use futures_util::future::join_all;

fault_stories!([]; fifty_users_come_and_go_and_the_broker_sees_nothing_of_it);

const USERS: usize = 50;

async fn fifty_users_come_and_go_and_the_broker_sees_nothing_of_it(cluster: &OwnCluster) {
    let stack = cluster.stack();
    let owner = stack.user("owner").await;
    let room = owner.makes_a_channel("busy").await.id;
    let before = cluster.broker_objects().await;
    assert!(before.iter().any(|object| object.contains("inbox.")), "the gateways have inboxes: {before:#?}");

    let people = join_all((0..USERS).map(|n| async move { stack.user(&format!("u{n}")).await })).await;
    let devices = join_all(people.iter().enumerate().map(|(n, person)| person.on(n))).await;
    join_all(people.iter().map(|person| async { person.api.join(room).await.unwrap() })).await;
    let desk = owner.on(0).await;
    desk.sends(room, "everybody").await;
    join_all(devices.iter().map(|device| device.receives("everybody"))).await;
    assert_eq!(cluster.broker_objects().await, before, "while they are here");

    join_all(people.iter().map(|person| async { person.api.leave(room).await.unwrap() })).await;
    drop(devices);
    eventually("an empty room", async || (owner.api.room(room).await.unwrap().member_count == 1).then_some(())).await;
    assert_eq!(cluster.broker_objects().await, before, "after they went");
}
