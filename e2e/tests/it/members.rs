//! Who may do what in a room.

use e2e::Stack;
use parlance_client::wire::Role;
use parlance_client::{Code, Event};

use super::is_refused;

stories!(
    admins_and_the_owner_manage_members,
    roles_are_given_below_ones_own,
    nobody_removes_the_owner,
    strangers_may_not_know_of_a_room,
    putting_a_member_twice_changes_nothing,
);

async fn admins_and_the_owner_manage_members(stack: &Stack) {
    let (alice, adam, mia, new) =
        (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await, stack.user("new").await);
    let room = alice.makes_a_group("roles", &[&adam, &mia]).await.id;
    alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();

    is_refused(mia.api.put_member(room, new.id(), None).await, Code::Forbidden);
    let added = adam.api_at(1).put_member(room, new.id(), None).await.unwrap();
    assert!(added.created && added.body.role == Role::Member);
    is_refused(mia.api.remove_member(room, new.id()).await, Code::Forbidden);
    adam.api.remove_member(room, new.id()).await.unwrap();
    is_refused(adam.api.remove_member(room, new.id()).await, Code::NotFound);
    is_refused(new.api.room(room).await, Code::NotFound);
}

async fn roles_are_given_below_ones_own(stack: &Stack) {
    let (alice, adam, mia) = (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await);
    let room = alice.makes_a_group("roles", &[&adam, &mia]).await.id;
    let mias = mia.on(1).await;

    let changed = alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();
    assert!(!changed.created && changed.body.role == Role::Admin);
    mias.sees("admin", |event| {
        matches!(event, Event::Member(e) if e.member.user.id == adam.id() && e.member.role == Role::Admin).then_some(())
    })
    .await;

    is_refused(mia.api.put_member(room, mia.id(), Some(Role::Admin)).await, Code::Forbidden);
    is_refused(adam.api.put_member(room, mia.id(), Some(Role::Admin)).await, Code::Forbidden);
    is_refused(adam.api.put_member(room, alice.id(), Some(Role::Member)).await, Code::Forbidden);
    let back = alice.api.put_member(room, adam.id(), Some(Role::Member)).await.unwrap();
    assert_eq!(back.body.role, Role::Member);
}

async fn nobody_removes_the_owner(stack: &Stack) {
    let (alice, adam, mia) = (stack.user("alice").await, stack.user("adam").await, stack.user("mia").await);
    let room = alice.makes_a_group("mine", &[&adam, &mia]).await.id;
    alice.api.put_member(room, adam.id(), Some(Role::Admin)).await.unwrap();
    is_refused(adam.api.remove_member(room, alice.id()).await, Code::Forbidden);
    is_refused(mia.api.remove_member(room, alice.id()).await, Code::Forbidden);
    assert_eq!(alice.api.room(room).await.unwrap().me.role, Role::Owner);
}

async fn strangers_may_not_know_of_a_room(stack: &Stack) {
    let (alice, eve) = (stack.user("alice").await, stack.user("eve").await);
    let room = alice.makes_a_group("hidden", &[]).await.id;
    alice.on(0).await.sends(room, "secret").await;
    let eves = eve.on(1).await;

    is_refused(eve.api.room(room).await, Code::NotFound);
    is_refused(eve.api.members(room, None).await, Code::NotFound);
    is_refused(eve.api.history(room, Default::default()).await, Code::NotFound);
    is_refused(eve.api.message(room, 1).await, Code::NotFound);
    is_refused(eve.api.edit(room, 1, "x").await, Code::NotFound);
    is_refused(eve.api.delete(room, 1).await, Code::NotFound);
    is_refused(eve.api.put_member(room, eve.id(), None).await, Code::NotFound);
    is_refused(eve.api.read(room, 1).await, Code::NotFound);
    is_refused(eve.api.changes(room, 0, None).await, Code::NotFound);
    is_refused(eves.connection.history(room, Default::default()).await, Code::NotFound);
    is_refused(eves.connection.typing(room, true).await, Code::NotFound);
    assert!(eve.api.rooms(None, 50).await.unwrap().items.is_empty());
}

async fn putting_a_member_twice_changes_nothing(stack: &Stack) {
    let (alice, bob) = (stack.user("alice").await, stack.user("bob").await);
    let room = alice.makes_a_group("twice", &[]).await.id;
    assert!(alice.api.put_member(room, bob.id(), None).await.unwrap().created);
    let rev = alice.api.room(room).await.unwrap().rev;
    assert!(!alice.api_at(1).put_member(room, bob.id(), None).await.unwrap().created);
    let after = alice.api.room(room).await.unwrap();
    assert_eq!((after.rev, after.member_count), (rev, 2));
}
