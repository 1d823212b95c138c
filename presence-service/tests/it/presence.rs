//! Who is online, and who is told of it.

use presence_service::{
    presence::{Choice, Chosen, Known, MAX_ENDED, Seen, State, Transition},
    store::{Change, Op, Standing, Store, Timing},
};
use service_kit::id::UserId;

use crate::world::{Gateway, TIMING, Watched, World, states};

crate::on_both!(
    nobody_knows_a_stranger,
    the_first_session_brings_a_user_online_once,
    two_devices_are_one_user,
    idle_everywhere_is_away,
    an_older_session_changes_nothing,
    a_reconnect_within_the_grace_shows_nothing,
    a_user_is_offline_once_after_the_grace,
    two_sweepers_tell_each_transition_once,
    the_active_device_leaves_and_the_idle_one_stays,
    users_of_a_dead_gateway_are_last_seen_with_its_last_renewal,
    users_who_moved_are_never_offline,
    dnd_shows_while_connected,
    the_invisible_are_offline_to_others,
    an_invisible_user_comes_and_goes_unseen,
    the_invisible_are_present_to_the_services_as_long_as_everybody_else,
    of_two_choices_the_later_one_counts_in_either_order,
    the_first_state_has_the_choice_that_comes_with_the_session,
    two_gateways_that_know_different_choices_agree_on_the_later_one,
    a_choice_that_is_stored_nowhere_counts_until_one_comes_that_is,
    versions_grow,
    who_went_offline_is_handed_out_until_that_is_stored,
    a_newer_instant_outlives_the_confirmation_of_an_older_one,
    who_flaps_is_bounded,
);

async fn alone(world: &World) -> (Gateway, UserId) {
    let mut gateway = world.gateway();
    gateway.renews().await;
    (gateway, UserId::generate())
}

/// Waits for the first transition of `user` and then long enough for a second one, which would be a fault.
async fn only_transition(
    world: &World,
    gateways: &mut [&mut Gateway],
    sweeper: &mut Watched,
    user: UserId,
) -> Transition {
    world.until(gateways, sweeper, "a transition is told", |sweeper| !sweeper.heard_of(user).is_empty()).await;
    // The announcer would do this.
    world.store.said(&sweeper.heard_of(user)).await.unwrap();
    world.lives(gateways, sweeper, TIMING.resay * 4).await;
    let told = sweeper.heard_of(user);
    assert_eq!(told.len(), 1, "{told:?}");
    told[0]
}

async fn nobody_knows_a_stranger(world: World) {
    let status = world.store.states(&[UserId::generate()]).await.unwrap()[0].status;
    assert_eq!((status.state, status.last_seen, status.version), (State::Offline, None, 0));
    assert!(world.store.states(&[]).await.unwrap().is_empty());
}

async fn the_first_session_brings_a_user_online_once(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let told = gateway.connects(user, 1).await;
    assert_eq!(states(&told), [State::Online]);
    assert_eq!(told[0].status.last_seen, None);
    assert_eq!(world.store.states(&[user]).await.unwrap()[0].status, told[0].status);
    assert!(gateway.connects(user, 1).await.is_empty());
}

async fn two_devices_are_one_user(world: World) {
    let (mut one, user) = alone(&world).await;
    let (mut two, _) = alone(&world).await;
    assert_eq!(states(&one.connects(user, 1).await), [State::Online]);
    assert!(two.connects(user, 1).await.is_empty());
    assert!(one.disconnects(user, 1).await.is_empty());
    let mut sweeper = world.sweeper();
    world.lives(&mut [&mut one, &mut two], &mut sweeper, TIMING.grace * 3).await;
    assert!(sweeper.heard.is_empty(), "{:?}", sweeper.heard);
    assert_eq!(world.state(user).await, State::Online);
}

async fn idle_everywhere_is_away(world: World) {
    let (mut gateway, user) = alone(&world).await;
    gateway.connects(user, 1).await;
    gateway.connects(user, 2).await;
    assert!(gateway.idles(user, 1).await.is_empty(), "the other one is in use");
    assert_eq!(states(&gateway.idles(user, 2).await), [State::Away]);
    assert_eq!(states(&gateway.connects(user, 1).await), [State::Online]);
}

async fn an_older_session_changes_nothing(world: World) {
    let (gateway, user) = alone(&world).await;
    let session = |idle| Change::Session { user, connection: 1, idle, chosen: None };
    gateway.does_as(5, session(false)).await;
    assert!(gateway.does_as(4, session(true)).await.is_empty());
    gateway.does_as(5, Change::SessionEnd { user, connection: 1 }).await;
    let counted = gateway.renews_as(50).await;
    assert_eq!(counted, Standing::Alive);
    gateway.does_as(7, Change::SessionEnd { user, connection: 1 }).await;
    gateway.does_as(6, session(false)).await;
    // The late one left at most an entry too many, and no session.
    let mut sweeper = world.sweeper();
    let mut other = world.gateway();
    let told = only_transition(&world, &mut [&mut other], &mut sweeper, user).await;
    assert_eq!(told.status.state, State::Offline);
}

async fn a_reconnect_within_the_grace_shows_nothing(world: World) {
    let (mut one, user) = alone(&world).await;
    let (mut two, _) = alone(&world).await;
    one.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.until(&mut [&mut one, &mut two], &mut sweeper, "trust", Watched::trusts_itself).await;
    assert!(one.disconnects(user, 1).await.is_empty());
    assert_eq!(world.state(user).await, State::Online);
    world.lives(&mut [&mut one, &mut two], &mut sweeper, TIMING.grace / 3).await;
    assert!(two.connects(user, 9).await.is_empty());
    world.lives(&mut [&mut one, &mut two], &mut sweeper, TIMING.grace * 2).await;
    assert!(sweeper.heard.is_empty(), "{:?}", sweeper.heard);
    assert_eq!(world.state(user).await, State::Online);
}

async fn a_user_is_offline_once_after_the_grace(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let online = gateway.connects(user, 1).await[0].status;
    let mut sweeper = world.sweeper();
    world.until(&mut [&mut gateway], &mut sweeper, "trust", Watched::trusts_itself).await;
    let before = world.now();
    gateway.disconnects(user, 1).await;
    let told = only_transition(&world, &mut [&mut gateway], &mut sweeper, user).await.status;
    assert!(world.now() - before >= TIMING.grace);
    assert_eq!(told.state, State::Offline);
    assert!(told.version > online.version);
    let (said, seen) = (told.version, told.last_seen.unwrap());
    assert!(said - seen >= i64::try_from(TIMING.grace.as_millis()).unwrap(), "last seen when the session ended");
    assert_eq!(world.store.states(&[user]).await.unwrap()[0].status, told);
    assert_eq!(states(&gateway.connects(user, 1).await), [State::Online]);
}

async fn two_sweepers_tell_each_transition_once(world: World) {
    let (mut gateway, _) = alone(&world).await;
    let users: Vec<UserId> = (0..40).map(|_| UserId::generate()).collect();
    for user in &users {
        gateway.connects(*user, 1).await;
        gateway.disconnects(*user, 1).await;
    }
    let (mut one, mut two) = (world.sweeper(), world.sweeper());
    let mut told = Vec::new();
    let end = world.now() + TIMING.grace * 8;
    while world.now() < end {
        gateway.renews().await;
        let now = world.now();
        tokio::join!(one.steps(now), two.steps(now));
        let fresh: Vec<Transition> = one.heard.drain(..).chain(two.heard.drain(..)).collect();
        world.store.said(&fresh).await.unwrap();
        told.extend(fresh);
        world.passes(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(told.len(), users.len());
    assert!(told.iter().all(|transition| transition.status.state == State::Offline));
}

async fn the_active_device_leaves_and_the_idle_one_stays(world: World) {
    let (mut gateway, user) = alone(&world).await;
    gateway.connects(user, 1).await;
    gateway.idles(user, 2).await;
    assert!(gateway.disconnects(user, 1).await.is_empty(), "it may come back");
    let mut sweeper = world.sweeper();
    let told = only_transition(&world, &mut [&mut gateway], &mut sweeper, user).await;
    assert_eq!(told.status.state, State::Away);
}

async fn users_of_a_dead_gateway_are_last_seen_with_its_last_renewal(world: World) {
    let (mut dead, user) = alone(&world).await;
    let (mut alive, other) = alone(&world).await;
    alive.connects(other, 1).await;
    dead.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.lives(&mut [&mut alive, &mut dead], &mut sweeper, TIMING.lease / 2).await;
    dead.renews().await;
    let silent = world.now();
    let told = only_transition(&world, &mut [&mut alive], &mut sweeper, user).await.status;
    assert!(world.now() - silent >= TIMING.grace);
    assert_eq!(told.state, State::Offline);
    let grace = i64::try_from(TIMING.grace.as_millis()).unwrap();
    assert!(told.version - told.last_seen.unwrap() >= grace, "{told:?}");
    assert_eq!(world.state(other).await, State::Online);
}

async fn users_who_moved_are_never_offline(world: World) {
    let (mut dead, user) = alone(&world).await;
    let (mut alive, _) = alone(&world).await;
    dead.connects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.lives(&mut [&mut alive], &mut sweeper, TIMING.lease / 2).await;
    assert!(alive.connects(user, 1).await.is_empty());
    world.lives(&mut [&mut alive], &mut sweeper, TIMING.lease * 2 + TIMING.grace * 2).await;
    assert_eq!(dead.renews().await.standing, Standing::Cleared);
    assert!(sweeper.heard.is_empty(), "{:?}", sweeper.heard);
    assert_eq!(world.state(user).await, State::Online);
}

async fn dnd_shows_while_connected(world: World) {
    let (mut gateway, user) = alone(&world).await;
    assert!(world.chooses(user, Choice::Dnd).await.is_none());
    assert_eq!(world.state(user).await, State::Offline);
    assert_eq!(states(&gateway.connects(user, 1).await), [State::Dnd]);
    assert!(gateway.idles(user, 1).await.is_empty());
    let back = world.chooses(user, Choice::Online).await.unwrap();
    assert_eq!(back.status.state, State::Away);
    assert!(world.chooses(user, Choice::Online).await.is_none());
}

async fn the_invisible_are_offline_to_others(world: World) {
    let (mut gateway, user) = alone(&world).await;
    gateway.connects(user, 1).await;
    let gone = world.chooses(user, Choice::Invisible).await.unwrap().status;
    assert_eq!(gone.state, State::Offline);
    assert!(gone.last_seen.is_some());
    world.store.said(&[Transition { user, status: gone }]).await.unwrap();
    assert_eq!(states(&world.chooses(user, Choice::Dnd).await.into_iter().collect::<Vec<_>>()), [State::Dnd]);
}

async fn an_invisible_user_comes_and_goes_unseen(world: World) {
    let (mut gateway, user) = alone(&world).await;
    world.chooses(user, Choice::Invisible).await;
    assert!(gateway.connects(user, 1).await.is_empty());
    let status = world.store.states(&[user]).await.unwrap()[0].status;
    assert_eq!((status.state, status.last_seen), (State::Offline, None));
    gateway.disconnects(user, 1).await;
    let mut sweeper = world.sweeper();
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.lease + TIMING.grace * 2).await;
    assert!(sweeper.heard.is_empty(), "{:?}", sweeper.heard);
    assert_eq!(world.store.states(&[user]).await.unwrap()[0].status.last_seen, None, "nobody saw them");
}

async fn the_invisible_are_present_to_the_services_as_long_as_everybody_else(world: World) {
    let (mut gateway, shy) = alone(&world).await;
    let open = UserId::generate();
    let known = async || {
        let known = world.store.states(&[shy, open, UserId::generate()]).await.unwrap();
        assert_eq!(known[0].status.state, State::Offline, "to others nothing changes");
        assert_eq!(known[2], Known::default(), "a stranger");
        [known[0].present, known[1].present]
    };
    world.chooses(shy, Choice::Invisible).await;
    assert_eq!(known().await, [false, false], "a choice is no session");
    for user in [shy, open] {
        gateway.connects(user, 1).await;
    }
    assert_eq!(known().await, [true, true]);
    for user in [shy, open] {
        gateway.idles(user, 1).await;
    }
    assert_eq!(known().await, [true, true], "away is there");
    world.chooses(open, Choice::Invisible).await;
    assert_eq!(known().await, [true, true], "who becomes invisible stays");
    world.chooses(open, Choice::Online).await;
    for user in [shy, open] {
        gateway.disconnects(user, 1).await;
    }
    assert_eq!(known().await, [true, true], "the grace is everybody's");
    let mut sweeper = world.sweeper();
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.lease + TIMING.grace * 2).await;
    assert_eq!(known().await, [false, false]);
    gateway.connects(shy, 2).await;
    world.chooses(shy, Choice::Dnd).await;
    world.chooses(shy, Choice::Invisible).await;
    assert_eq!(known().await, [true, false], "back, and hidden again");
}

async fn of_two_choices_the_later_one_counts_in_either_order(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let (older, newer) =
        (Chosen { choice: Choice::Online, version: 4 }, Chosen { choice: Choice::Invisible, version: 5 });
    world.store.choose(user, newer).await.unwrap();
    assert!(world.store.choose(user, older).await.unwrap().is_none());
    assert!(gateway.connects(user, 1).await.is_empty(), "the later one stands");
    let other = UserId::generate();
    world.store.choose(other, older).await.unwrap();
    world.store.choose(other, newer).await.unwrap();
    assert!(gateway.connects(other, 2).await.is_empty());
    // Said twice, as after an answer that got lost.
    assert!(world.store.choose(other, newer).await.unwrap().is_none());
}

async fn the_first_state_has_the_choice_that_comes_with_the_session(world: World) {
    let (mut gateway, shy) = alone(&world).await;
    let busy = UserId::generate();
    let chosen = |choice| Some(Chosen { choice, version: 1 });
    let session = |user, choice| Change::Session { user, connection: 1, idle: false, chosen: chosen(choice) };
    assert!(gateway.does(session(shy, Choice::Invisible)).await.is_empty(), "nobody ever saw them");
    assert_eq!(states(&gateway.does(session(busy, Choice::Dnd)).await), [State::Dnd], "and nothing before that");
    let status = world.store.states(&[shy]).await.unwrap()[0].status;
    assert_eq!((status.state, status.last_seen, status.version), (State::Offline, None, 0));
}

async fn two_gateways_that_know_different_choices_agree_on_the_later_one(world: World) {
    let (mut one, shy) = alone(&world).await;
    let (mut two, busy) = alone(&world).await;
    let session = |user, choice, version| {
        let chosen = Some(Chosen { choice, version });
        Change::Session { user, connection: 1, idle: false, chosen }
    };
    assert!(one.does(session(shy, Choice::Invisible, 9)).await.is_empty());
    assert!(two.does(session(shy, Choice::Online, 8)).await.is_empty(), "an older one does not come back");
    assert_eq!(world.state(shy).await, State::Offline);
    assert_eq!(states(&one.does(session(busy, Choice::Online, 8)).await), [State::Online]);
    assert_eq!(states(&two.does(session(busy, Choice::Dnd, 9)).await), [State::Dnd]);
    let again = Change::Session { user: busy, connection: 1, idle: true, chosen: None };
    assert!(one.does(again).await.is_empty(), "a session without one takes none back");
    assert_eq!(world.state(busy).await, State::Dnd);
}

async fn a_choice_that_is_stored_nowhere_counts_until_one_comes_that_is(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let unstored = |choice| Chosen { choice, version: 0 };
    gateway.connects(user, 1).await;
    let dnd = world.store.choose(user, unstored(Choice::Dnd)).await.unwrap().unwrap();
    assert_eq!(dnd.status.state, State::Dnd);
    let back = world.store.choose(user, Chosen { choice: Choice::Online, version: 3 }).await.unwrap().unwrap();
    assert_eq!(back.status.state, State::Online);
    let dnd = world.store.choose(user, unstored(Choice::Dnd)).await.unwrap().unwrap();
    assert_eq!(dnd.status.state, State::Dnd, "a gateway of the version before goes on working");
}

async fn versions_grow(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let mut version = 0;
    for _ in 0..5 {
        for told in [gateway.connects(user, 1).await, gateway.idles(user, 1).await] {
            assert_eq!(told.len(), 1);
            assert!(told[0].status.version > version);
            version = told[0].status.version;
        }
    }
}

async fn who_flaps_is_bounded(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let mut told = gateway.connects(user, 0).await;
    for connection in 1..=2 * MAX_ENDED as u64 {
        told.extend(gateway.connects(user, connection).await);
        told.extend(gateway.disconnects(user, connection - 1).await);
    }
    assert_eq!(states(&told), [State::Online]);
    assert_eq!(gateway.renews().await.entries, 1);
    assert_eq!(world.state(user).await, State::Online);
}

/// The rules are written twice, in `presence.rs` and `user.lua`: the same random life has to look the same in both.
#[tokio::test]
async fn both_stores_tell_the_same_of_a_random_life() {
    let Some(url) = crate::world::redis_url() else { return };
    let seed = service_kit::clock::now_ms().unsigned_abs() | 1;
    let mut random = seed;
    let mut below = |bound: u64| {
        // xorshift64: no more is needed to mix operations.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % bound
    };
    // Nobody's grace ends within this test, however slow the machine is.
    let timing = Timing { grace: std::time::Duration::from_secs(3_600), ..Timing::default() };
    let prefix = format!("test-{}:", UserId::generate());
    let stores = ["memory:", url.as_str()].map(|url| Store::connect(url, &prefix, timing).unwrap());
    let boots = [0; 3].map(|_| service_kit::id::BootId::generate());
    let users = [0; 3].map(|_| UserId::generate());
    let mut number = 10;
    for step in 0..600 {
        // Now and then an operation is late.
        number += 1;
        let number = if below(5) == 0 { number - below(8) } else { number };
        let (boot, user, connection) = (below(3) as usize, users[below(3) as usize], below(3));
        let choice = [Choice::Online, Choice::Dnd, Choice::Invisible][below(3) as usize];
        let chosen = Chosen { choice, version: i64::try_from(below(12) * (number / 8)).unwrap() };
        let known = (below(2) == 0 && chosen.version > 0).then_some(chosen);
        let change = match below(5) {
            0 | 1 => Some(Change::Session { user, connection, idle: false, chosen: known }),
            2 => Some(Change::Session { user, connection, idle: true, chosen: known }),
            3 => Some(Change::SessionEnd { user, connection }),
            _ => None,
        };
        let mut seen = Vec::new();
        for store in &stores {
            let mut told = Vec::new();
            match change {
                Some(change) => {
                    let op = Op { number, change };
                    store.update(boots[boot], &[op], 0, &mut told).await.unwrap();
                }
                None => told.extend(store.choose(user, chosen).await.unwrap()),
            }
            store.said(&told).await.unwrap();
            let now = store.states(&users).await.unwrap().iter().map(|known| known.status.state).collect::<Vec<_>>();
            let entries = store.renew(boots[boot], step).await.unwrap().entries;
            seen.push((states(&told), now, entries));
        }
        assert_eq!(seen[0], seen[1], "step {step} of seed {seed}: {change:?} number {number}");
    }
}

/// When this user was last seen, as it is handed out to be stored.
async fn taken(world: &World, user: UserId) -> Option<i64> {
    let taken = world.store.take_seen().await.unwrap();
    taken.into_iter().find(|seen| seen.user == user).map(|seen| seen.at)
}

async fn who_went_offline_is_handed_out_until_that_is_stored(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let mut sweeper = world.sweeper();
    gateway.connects(user, 1).await;
    assert_eq!(taken(&world, user).await, None, "who is there was not last seen");
    gateway.disconnects(user, 1).await;
    let told = only_transition(&world, &mut [&mut gateway], &mut sweeper, user).await;
    let at = told.status.last_seen.unwrap();

    assert_eq!(taken(&world, user).await, Some(at));
    // Nobody confirmed: it comes again, on Redis once the claim has run out.
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.claim * 2).await;
    assert_eq!(taken(&world, user).await, Some(at));
    world.store.seen_stored(&[Seen { user, at }]).await.unwrap();
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.claim * 2).await;
    assert_eq!(taken(&world, user).await, None);
    assert_eq!(world.store.states(&[user]).await.unwrap()[0].status.last_seen, Some(at), "it is known here as well");
}

async fn a_newer_instant_outlives_the_confirmation_of_an_older_one(world: World) {
    let (mut gateway, user) = alone(&world).await;
    let mut sweeper = world.sweeper();
    gateway.connects(user, 1).await;
    // Invisible is offline at once, without a grace to wait for.
    let gone = world.chooses(user, Choice::Invisible).await.unwrap();
    world.store.said(&[gone]).await.unwrap();
    let first = taken(&world, user).await.unwrap();
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.claim / 10).await;
    world.chooses(user, Choice::Online).await.unwrap();
    let gone = world.chooses(user, Choice::Invisible).await.unwrap();
    world.store.said(&[gone]).await.unwrap();
    world.store.seen_stored(&[Seen { user, at: first }]).await.unwrap();
    let second = taken(&world, user).await.unwrap();
    assert!(second > first, "{second} after {first}");

    // Nothing of what they do unseen moves it.
    world.store.seen_stored(&[Seen { user, at: second }]).await.unwrap();
    gateway.disconnects(user, 1).await;
    world.lives(&mut [&mut gateway], &mut sweeper, TIMING.grace + TIMING.claim * 2).await;
    assert_eq!(taken(&world, user).await, None);
}
