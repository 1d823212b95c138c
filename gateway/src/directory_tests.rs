//! What is queued while the directory takes nothing.

use futures_util::FutureExt as _;
use service_kit::rpc;

use super::*;

/// A directory that never takes anything: nobody runs it.
fn away() -> Directory {
    let nobody = rpc::connect("http://127.0.0.1:1").unwrap();
    Directory::new(BootId::generate(), DirectoryClient::new(nobody.clone()), SyncClient::new(nobody))
}

/// Wants to hear of it, and waits for nothing.
fn attaches(directory: &Directory, topic: Topic) {
    assert_eq!(directory.attach([topic]).now_or_never(), None);
}

fn room() -> Topic {
    Topic::Room(RoomId::generate())
}

/// More comes and goes than the queue may hold.
fn much_comes_and_goes(directory: &Directory) {
    let passing = room();
    for _ in 0..=MAX_BEHIND / 2 {
        attaches(directory, passing);
        directory.detach(passing);
    }
}

/// What the directory would have after everything was sent, with the mark of the last batch.
fn sent(directory: &Directory, between: impl Fn(u64)) -> (usize, u64, usize) {
    let (mut topics, mut sessions, mut mark) = (0, 0, 0);
    loop {
        let (ops, sweep_below) = directory.take();
        let Some(last) = ops.last() else { return (topics, mark, sessions) };
        topics += ops.iter().filter(|op| op.kind() == op::Kind::Attach).count();
        sessions += ops.iter().filter(|op| op.kind() == op::Kind::Session).count();
        mark = mark.max(sweep_below);
        between(last.number);
        directory.acknowledge(last.number);
    }
}

#[tokio::test]
async fn the_queue_is_bounded_and_then_everything_is_registered_again() {
    let (directory, user) = (away(), UserId::generate());
    for _ in 0..TOGETHER {
        attaches(&directory, room());
    }
    directory.session(user, 1, None);
    much_comes_and_goes(&directory);
    much_comes_and_goes(&directory);
    assert!(lock(&directory.state).queue.len() <= MAX_BEHIND, "{}", lock(&directory.state).queue.len());

    let before = lock(&directory.state).number;
    assert_eq!(sent(&directory, |_| {}), (TOGETHER, 0, 0), "topics go at once");
    assert!(directory.settled(Duration::ZERO).await);
    let owed = lock(&directory.state).owed;
    directory.register_sessions(owed, &HashMap::new());
    assert_eq!(sent(&directory, |_| {}), (0, before + 1, 1), "and the mark with the sessions");
    assert!(directory.settled(Duration::ZERO).await);
}

#[tokio::test]
async fn nobody_is_told_of_an_entry_before_all_are_registered_again() {
    let directory = away();
    attaches(&directory, room());
    for _ in 0..TOGETHER {
        attaches(&directory, room());
    }
    much_comes_and_goes(&directory);
    let acked = directory.acked.subscribe();
    sent(&directory, |last| assert!(last < *acked.borrow() || *acked.borrow() == 0, "acknowledged with a part of it"));
    assert_eq!(*acked.borrow(), lock(&directory.state).number);
}

#[tokio::test]
async fn heads_are_compared_after_a_registration_that_replaced_a_queue() {
    let directory = away();
    attaches(&directory, room());
    much_comes_and_goes(&directory);
    let (ops, _) = directory.take();
    assert!(directory.acknowledge(ops.last().unwrap().number), "what was published meanwhile may have been missed");
}

#[tokio::test]
async fn as_many_entries_as_there_are_may_wait() {
    let directory = away();
    for _ in 0..MAX_BEHIND + TOGETHER {
        directory.session(UserId::generate(), 1, None);
    }
    assert!(!lock(&directory.state).dropped, "registering everything again would be no shorter");
}

#[tokio::test]
async fn sessions_of_a_registration_that_another_one_has_replaced_are_not_queued() {
    let (directory, user) = (away(), UserId::generate());
    directory.session(user, 1, None);
    much_comes_and_goes(&directory);
    sent(&directory, |_| {});
    let replaced = lock(&directory.state).owed;
    much_comes_and_goes(&directory);
    sent(&directory, |_| {});
    directory.register_sessions(replaced, &HashMap::new());
    assert_eq!(sent(&directory, |_| {}), (0, 0, 0));
    let owed = lock(&directory.state).owed;
    directory.register_sessions(owed, &HashMap::new());
    assert_eq!(sent(&directory, |_| {}), (0, owed, 1));
}

#[tokio::test]
async fn a_connection_that_has_ended_is_not_made_idle() {
    let (directory, user) = (away(), UserId::generate());
    directory.session(user, 1, None);
    directory.end_session(user, 1);
    directory.idle(user, 1, true, Choice::default());
    assert_eq!(sent(&directory, |_| {}), (0, 0, 1), "the session that began, and no other");
}
