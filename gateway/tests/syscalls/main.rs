//! How many system calls a delivered frame costs. Alone in its process, so that nothing else is counted.

#[allow(dead_code, reason = "shared with the other stories")]
#[path = "../it/stage/mod.rs"]
mod stage;

use std::sync::atomic::{AtomicUsize, Ordering};

use stage::{Stage, chat::Person, of_room};

const CONNECTIONS: usize = 50;
const BURSTS: usize = 10;
const EVENTS: usize = 20;

/// Calls of `send`, with which Rust writes to a socket; `/proc` does not count them.
static SENDS: AtomicUsize = AtomicUsize::new(0);

/// What the standard library calls: counted, then done.
///
/// # Safety
/// As `send(2)`.
#[allow(unsafe_code, reason = "the only way to see the calls of this process from inside it")]
#[unsafe(no_mangle)]
unsafe extern "C" fn send(socket: i32, buffer: *const u8, length: usize, flags: i32) -> isize {
    unsafe extern "C" {
        fn sendto(socket: i32, buffer: *const u8, length: usize, flags: i32, to: *const u8, to_length: u32) -> isize;
    }
    SENDS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: without an address it is the same call.
    unsafe { sendto(socket, buffer, length, flags, std::ptr::null(), 0) }
}

/// Everything else that writes: `write` and `writev`, those that wake other threads too.
fn writes() -> usize {
    let counters = std::fs::read_to_string("/proc/self/io").expect("counters");
    let line = counters.lines().find_map(|line| line.strip_prefix("syscw: ")).expect("syscw");
    line.parse().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_wait_together_are_written_together() {
    let stage = Stage::set().await;
    let people: Vec<_> = (0..CONNECTIONS).map(|_| Person::new()).collect();
    let room = stage.chat.room(&people);
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(stage.enters(*person).await);
    }
    let before = (SENDS.load(Ordering::Relaxed), writes());
    assert!(before.0 > CONNECTIONS, "sends are seen");
    for burst in 0..BURSTS {
        // As at load: what was committed together comes in one parcel.
        stage.publish((0..EVENTS).map(|_| of_room(stage.chat.message(room))));
        let expected: Vec<String> =
            (1..=EVENTS).map(|event| format!("message {}", 10 + burst * EVENTS + event)).collect();
        for socket in &mut sockets {
            assert_eq!(socket.told(EVENTS).await, expected);
        }
    }
    let (sends, writes) = (SENDS.load(Ordering::Relaxed) - before.0, writes() - before.1);
    let frames = CONNECTIONS * BURSTS * EVENTS;
    let calls = sends + writes;
    println!("{frames} frames: {sends} sends and {writes} other writes");
    assert!(calls >= CONNECTIONS * BURSTS, "writes are seen");
    assert!(calls * 10 <= frames * 3, "{calls} calls for {frames} frames");
}
