//! Sends on their way to chat-service: in order, answered once, whatever becomes of its replicas.

use service_kit::id::RoomId;

use crate::stage::{Stage, chat::Person, gates::until, socket::Socket};

/// The texts that a replica was sent for a room, in order.
fn texts(stage: &Stage, replica: usize, room: RoomId) -> Vec<String> {
    let got = stage.replicas[replica].got();
    got.into_iter().filter(|item| item.room == room.to_wire()).map(|item| item.text).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

/// The ids of the frames that the next `count` answers are for, sorted; each has to be `sent`.
async fn sent(socket: &mut Socket, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let frame = socket.frame().await;
        assert!(frame["sent"].is_object(), "{frame}");
        ids.push(frame["re"].as_u64().expect("an id"));
    }
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn sends_of_a_connection_reach_chat_service_in_their_order_and_are_answered_once() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    for number in 0..300 {
        socket.say(room, &number.to_string()).await;
    }
    assert_eq!(sent(&mut socket, 300).await, (2..302).collect::<Vec<_>>());
    assert_eq!(socket.told_so_far().await, [""; 0]);
    assert_eq!(texts(&stage, 0, room), numbers(300));
}

#[tokio::test]
async fn a_room_stays_on_its_replica_while_a_send_is_unanswered_and_moves_afterwards() {
    let stage = Stage::with_replicas(2).await;
    let (first, second) = (&stage.replicas[0], &stage.replicas[1]);
    second.go_away();
    let alice = Person::new();
    let rooms: Vec<_> = (0..20).map(|_| stage.chat.room(&[alice])).collect();
    let mut socket = stage.enters(alice).await;
    first.has_stream().await;
    first.be_silent();
    for room in &rooms {
        socket.say(*room, "0").await;
    }
    first.has_got(20).await;
    second.come_back();
    second.has_stream().await;
    for room in &rooms {
        socket.say(*room, "1").await;
    }
    first.has_got(40).await;
    assert!(second.got().is_empty(), "a room moved while a send was unanswered");
    first.answer_all();
    sent(&mut socket, 40).await;
    for room in &rooms {
        socket.say(*room, "2").await;
    }
    sent(&mut socket, 20).await;
    assert!(!second.got().is_empty(), "of twenty rooms some belong to the second replica");
    assert_eq!(first.got().len() + second.got().len(), 60);
}

#[tokio::test]
async fn when_a_stream_breaks_everything_unanswered_goes_again_in_order_and_is_answered_once() {
    let stage = Stage::with_replicas(2).await;
    let (first, second) = (&stage.replicas[0], &stage.replicas[1]);
    second.go_away();
    let people: Vec<_> = (0..5).map(|_| Person::new()).collect();
    let rooms: Vec<_> = people.iter().map(|person| stage.chat.room(&[*person])).collect();
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(stage.enters(*person).await);
    }
    first.has_stream().await;
    first.be_silent();
    for number in 0..4 {
        for (socket, room) in sockets.iter_mut().zip(&rooms) {
            socket.say(*room, &number.to_string()).await;
        }
    }
    first.has_got(20).await;
    second.come_back();
    second.has_stream().await;
    first.go_away();
    for socket in &mut sockets {
        assert_eq!(sent(socket, 4).await, [2, 3, 4, 5]);
        assert_eq!(socket.told_so_far().await, [""; 0], "one answer each");
    }
    let identities = |replica: usize, room: &RoomId| {
        let got = stage.replicas[replica].got();
        let of_room = got.into_iter().filter(|item| item.room == room.to_wire());
        of_room.map(|item| (item.text, item.client_id)).collect::<Vec<_>>()
    };
    for room in &rooms {
        assert_eq!(texts(&stage, 1, *room), numbers(4));
        assert_eq!(identities(0, room), identities(1, room), "a repeat is the same message by its client id");
    }
}

#[tokio::test]
async fn without_any_replica_a_send_waits_for_one_to_come_back() {
    let stage = Stage::set().await;
    let replica = &stage.replicas[0];
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    replica.has_stream().await;
    replica.go_away();
    let before = replica.gates.calls("stream");
    replica.gates.called("stream", before + 1).await;
    for number in 0..3 {
        socket.say(room, &number.to_string()).await;
    }
    assert_eq!(socket.told_so_far().await, [""; 0]);
    replica.come_back();
    assert_eq!(sent(&mut socket, 3).await.len(), 3);
    assert_eq!(texts(&stage, 0, room), numbers(3));
}

#[tokio::test]
async fn a_send_that_nobody_takes_is_answered_with_timeout_once() {
    let stage = Stage::set().await;
    let alice = Person::new();
    let room = stage.chat.room(&[alice]);
    let mut socket = stage.enters(alice).await;
    stage.replicas[0].has_stream().await;
    stage.replicas[0].be_silent();
    socket.say(room, "hello?").await;
    assert_eq!(socket.told(1).await, ["error timeout"]);
    stage.replicas[0].answer_all();
    let id = socket.say(room, "again").await;
    assert_eq!(socket.frame().await["re"], id, "the late answer of the first one is nobody's");
}

#[tokio::test]
async fn too_many_unanswered_sends_are_refused_and_the_others_are_answered() {
    const MOST: usize = 16_384;
    const EACH: usize = 64;
    let stage = Stage::set().await;
    stage.replicas[0].has_stream().await;
    stage.replicas[0].be_silent();
    let people: Vec<_> = (0..MOST / EACH).map(|_| Person::new()).collect();
    let room = stage.chat.room(&people);
    let mut sockets = Vec::new();
    for person in &people {
        sockets.push(stage.enters(*person).await);
    }
    for socket in &mut sockets {
        for _ in 0..EACH {
            socket.say(room, "hi").await;
        }
    }
    stage.replicas[0].has_got(MOST).await;
    let late = Person::new();
    stage.chat.join(room, late);
    let mut latecomer = stage.enters(late).await;
    latecomer.say(room, "one more").await;
    let refused = latecomer.frame().await;
    assert_eq!(refused["error"]["code"], "unavailable");
    assert!(refused["error"]["retry_after_ms"].as_i64() > Some(0), "{refused}");
    stage.replicas[0].answer_all();
    for socket in &mut sockets {
        sent(socket, EACH).await;
    }
    latecomer.say(room, "now").await;
    sent(&mut latecomer, 1).await;
}

#[tokio::test]
async fn an_answer_for_a_connection_that_is_gone_harms_nobody() {
    let stage = Stage::set().await;
    let (alice, bob) = (Person::new(), Person::new());
    let room = stage.chat.room(&[alice, bob]);
    let (mut gone, mut here) = (stage.enters(alice).await, stage.enters(bob).await);
    stage.replicas[0].has_stream().await;
    stage.replicas[0].be_silent();
    gone.say(room, "and away").await;
    here.say(room, "still here").await;
    stage.replicas[0].has_got(2).await;
    gone.leave().await;
    until("its session ended", || stage.directory.count(parlance_proto::presence::op::Kind::SessionEnd) == 1).await;
    stage.replicas[0].answer_all();
    assert_eq!(sent(&mut here, 1).await, [2]);
    assert_eq!(here.told_so_far().await, [""; 0]);
}
