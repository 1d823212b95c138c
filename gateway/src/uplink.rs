//! Sends on their way to chat-service: one stream to each replica, a room always on one of them.
//!
//! A room changes replica only when none of its sends is unanswered, or, after a stream broke, by sending all its
//! unanswered ones again in order. That is safe: the client id makes a repeat the same message.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use parlance_proto::chat::{SendAnswer, SendItem, Sends, Sent, messages_client::MessagesClient, send_answer};
use service_kit::{
    fault::{Fault, Kind},
    id::{ClientId, FileId, RoomId},
    rpc::{Client, MAX_MESSAGE},
    tasks::Tasks,
    telemetry,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{
    conn::{Conn, Wakes},
    frame::{self, Re},
    hub::lock,
    socket::Frame,
};

/// Sends that may be unanswered at this gateway.
const MAX_UNANSWERED: usize = 16_384;
/// Their bytes.
const MAX_UNANSWERED_BYTES: usize = 64 * 1024 * 1024;
/// Sends of one message on a stream.
const TOGETHER: usize = 256;
/// Messages that wait on a stream.
const STREAM: usize = 64;
/// How long a send may take before its client is told to send it again.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often that is looked after.
const SWEEP: Duration = Duration::from_millis(500);
/// How long after a broken stream the next one is made.
const PAUSE: Duration = Duration::from_millis(200);
/// What a client is asked to wait when too much is on its way.
const OVERLOADED_WAIT: Duration = Duration::from_millis(500);

/// The way of all sends of this gateway.
pub(crate) struct Uplink {
    // Held to queue a send and to take its answer, never across an await.
    state: Mutex<State>,
    replicas: Vec<mpsc::Sender<SendItem>>,
    hasher: RandomState,
}

struct State {
    next: u64,
    /// Which replicas have a stream.
    alive: Vec<bool>,
    rooms: HashMap<RoomId, Lane>,
    /// Which room an unanswered send is for.
    index: HashMap<u64, RoomId>,
    /// The bytes of the unanswered sends.
    bytes: usize,
}

/// A room's unanswered sends, in order, and the replica that has them.
struct Lane {
    replica: usize,
    unanswered: VecDeque<Unanswered>,
}

struct Unanswered {
    item: SendItem,
    conn: Arc<Conn>,
    re: Re,
    client_id: ClientId,
    since: Instant,
}

impl Uplink {
    /// Makes the streams and keeps them.
    pub(crate) fn start(replicas: Vec<Client>, tasks: &Tasks) -> Arc<Self> {
        let (queues, waiting): (Vec<_>, Vec<_>) = replicas.iter().map(|_| mpsc::channel(MAX_UNANSWERED)).unzip();
        let state = State {
            next: 0,
            alive: vec![false; replicas.len()],
            rooms: HashMap::new(),
            index: HashMap::new(),
            bytes: 0,
        };
        let uplink = Arc::new(Self { state: Mutex::new(state), replicas: queues, hasher: RandomState::new() });
        for (number, (client, queue)) in replicas.into_iter().zip(waiting).enumerate() {
            let client = MessagesClient::new(client).max_decoding_message_size(MAX_MESSAGE);
            tasks.spawn_until_stop(Arc::clone(&uplink).keep(number, client, queue));
        }
        tasks.spawn_until_stop(Arc::clone(&uplink).sweep());
        uplink
    }

    /// Sends a message for a connection; the answer goes to its queue. Sends of one caller to one room stay in order.
    pub(crate) fn send(&self, conn: &Arc<Conn>, re: Re, send: frame::Send) {
        let room = send.room;
        let client_id = send.client_id;
        let mut item = SendItem {
            id: 0,
            room: room.to_wire(),
            sender: conn.user.to_wire(),
            client_id: client_id.to_wire(),
            text: send.text,
            reply_to: send.reply_to,
            meta: send.meta,
            unbuilt: send.unbuilt,
            attachments: send.attachments.into_iter().map(FileId::to_wire).collect(),
            mentions: send.mentions.to_wire(),
            mentions_all: send.mentions.all,
            traceparent: telemetry::current_traceparent().unwrap_or_default(),
        };
        let bytes = weight(&item);
        let mut state = lock(&self.state);
        if state.index.len() >= MAX_UNANSWERED || state.bytes + bytes > MAX_UNANSWERED_BYTES {
            drop(state);
            let fault = Fault::unavailable("too many messages are on their way; send it again");
            return conn.answer(frame::error(re, &fault.retry_after(OVERLOADED_WAIT)));
        }
        state.next += 1;
        state.bytes += bytes;
        let id = state.next;
        item.id = id;
        let alive = state.alive.clone();
        let lane = state
            .rooms
            .entry(room)
            .or_insert_with(|| Lane { replica: self.pick(room, &alive), unanswered: VecDeque::new() });
        let replica = lane.replica;
        lane.unanswered.push_back(Unanswered {
            item: item.clone(),
            conn: Arc::clone(conn),
            re,
            client_id,
            since: Instant::now(),
        });
        state.index.insert(id, room);
        // Under the lock, so that the order on the stream is the order here. A replica without a stream gets all of the
        // lane when it has one; a full queue cannot be, since it has room for all that may be unanswered.
        if alive[replica] && self.replicas[replica].try_send(item).is_err() {
            metrics::counter!("uplink_queue_full_total").increment(1);
        }
    }

    /// The replica of a room: by its hash, among those that have a stream (rendezvous hashing).
    fn pick(&self, room: RoomId, alive: &[bool]) -> usize {
        let any = alive.iter().any(|alive| *alive);
        let candidates = (0..self.replicas.len()).filter(|replica| !any || alive[*replica]);
        candidates.max_by_key(|replica| self.hasher.hash_one((room, *replica))).unwrap_or_default()
    }

    /// Keeps the stream to one replica, for ever.
    async fn keep(self: Arc<Self>, number: usize, client: MessagesClient<Client>, mut queue: mpsc::Receiver<SendItem>) {
        loop {
            let (sends, outgoing) = mpsc::channel(STREAM);
            match client.clone().stream(ReceiverStream::new(outgoing)).await {
                Ok(answers) => {
                    let mut answers = answers.into_inner();
                    self.opened(number, &mut queue);
                    let mut batch = Vec::with_capacity(TOGETHER);
                    loop {
                        tokio::select! {
                            answer = answers.message() => match answer {
                                Ok(Some(answers)) => self.answered(answers.items),
                                _ => break,
                            },
                            taken = queue.recv_many(&mut batch, TOGETHER) => {
                                let message = Sends { items: std::mem::take(&mut batch) };
                                if taken == 0 || !hand_over(&sends, message).await {
                                    break;
                                }
                            }
                        }
                    }
                    tracing::warn!(replica = number, "a stream to chat-service broke");
                    self.broke(number);
                }
                Err(status) => tracing::debug!(replica = number, error = %status, "no stream to chat-service"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A stream is there: what was queued for an older one is superseded by the lanes themselves.
    fn opened(&self, number: usize, queue: &mut mpsc::Receiver<SendItem>) {
        let mut state = lock(&self.state);
        while queue.try_recv().is_ok() {}
        state.alive[number] = true;
        let alive = state.alive.clone();
        for (room, lane) in &mut state.rooms {
            // Lanes that wait for a replica without a stream move here as well, when the hash says so.
            if !alive[lane.replica] {
                lane.replica = self.pick(*room, &alive);
            }
            if lane.replica == number {
                self.resend(lane);
            }
        }
    }

    /// A stream is gone: its lanes go to the others, all unanswered sends again in order.
    fn broke(&self, number: usize) {
        let mut state = lock(&self.state);
        state.alive[number] = false;
        let alive = state.alive.clone();
        if !alive.iter().any(|alive| *alive) {
            return;
        }
        for (room, lane) in &mut state.rooms {
            if lane.replica == number {
                lane.replica = self.pick(*room, &alive);
                self.resend(lane);
            }
        }
    }

    fn resend(&self, lane: &Lane) {
        for unanswered in &lane.unanswered {
            metrics::counter!("uplink_resent_total").increment(1);
            if self.replicas[lane.replica].try_send(unanswered.item.clone()).is_err() {
                metrics::counter!("uplink_queue_full_total").increment(1);
            }
        }
    }

    fn answered(&self, answers: Vec<SendAnswer>) {
        let mut wakes = Wakes::default();
        for answer in answers {
            let Some((unanswered, room)) = self.take(answer.id) else { continue };
            let frame = match answer.result {
                Some(send_answer::Result::Sent(sent)) => sent_frame(&unanswered, room, &sent),
                Some(send_answer::Result::Failure(failure)) => {
                    let mut fault = Fault::new(Kind::from_code(Code::from_i32(failure.code)), failure.message);
                    fault.retry_after =
                        failure.retry_after_ms.and_then(|wait| u64::try_from(wait).ok()).map(Duration::from_millis);
                    frame::error(unanswered.re, &fault)
                }
                None => frame::error(unanswered.re, &Fault::internal()),
            };
            wakes.answer(&unanswered.conn, frame);
        }
    }

    fn take(&self, id: u64) -> Option<(Unanswered, RoomId)> {
        let mut state = lock(&self.state);
        let room = state.index.remove(&id)?;
        let lane = state.rooms.get_mut(&room)?;
        let place = lane.unanswered.iter().position(|unanswered| unanswered.item.id == id)?;
        let unanswered = lane.unanswered.remove(place)?;
        if lane.unanswered.is_empty() {
            state.rooms.remove(&room);
        }
        state.bytes -= weight(&unanswered.item);
        Some((unanswered, room))
    }

    /// Tells clients whose sends take too long to send them again.
    async fn sweep(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(SWEEP);
        loop {
            ticks.tick().await;
            let overdue: Vec<u64> = {
                let state = lock(&self.state);
                let lanes = state.rooms.values().flat_map(|lane| &lane.unanswered);
                lanes.filter(|waiting| waiting.since.elapsed() > DEADLINE).map(|waiting| waiting.item.id).collect()
            };
            for (unanswered, _) in overdue.into_iter().filter_map(|id| self.take(id)) {
                let fault = Fault::new(Kind::Timeout, "the message was not stored in time; send it again");
                unanswered.conn.answer(frame::error(unanswered.re, &fault));
            }
        }
    }
}

/// What of a send can be large.
fn weight(item: &SendItem) -> usize {
    let ids = item.mentions.iter().chain(&item.attachments);
    item.text.len()
        + item.meta.as_ref().map_or(0, String::len)
        + ids.map(|id| id.len() + size_of_val(id)).sum::<usize>()
}

async fn hand_over(sends: &mpsc::Sender<Sends>, message: Sends) -> bool {
    tokio::time::timeout(DEADLINE, sends.send(message)).await.is_ok_and(|sent| sent.is_ok())
}

fn sent_frame(unanswered: &Unanswered, room: RoomId, sent: &Sent) -> Frame {
    frame::sent(unanswered.re, &room, &unanswered.client_id, sent)
}
