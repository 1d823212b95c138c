//! Judges a batch, item by item and in order, on what was read under the locks. No database here.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use service_kit::{
    fault::Fault,
    id::{ClientId, FileId, MessageId, RoomId, UserId},
};

use super::{Accepted, Item};
use crate::{
    accounts::blocks,
    files::attach::{self, Known},
    messages::{self, KIND_TEXT, MessageRow},
    rooms::{self, Role},
};

/// Most files of one message.
const MAX_ATTACHMENTS: usize = 10;

/// A room as it stands under its lock.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct RoomState {
    pub(super) id: RoomId,
    pub(super) seq: i64,
    pub(super) rev: i64,
    pub(super) archived: bool,
    pub(super) announcement: bool,
    pub(super) slow_mode_s: i64,
    pub(super) kind: i16,
}

/// The rooms of a batch. One that is in neither does not exist.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Those that are ours until the end of the transaction.
    pub(super) locked: HashMap<RoomId, RoomState>,
    /// Those whose lock is somebody else's.
    pub(super) missed: HashSet<RoomId>,
}

impl Rooms {
    pub(super) fn new(locked: Vec<RoomState>, missed: impl IntoIterator<Item = RoomId>) -> Self {
        let locked = locked.into_iter().map(|room| (room.id, room)).collect();
        Self { locked, missed: missed.into_iter().collect() }
    }
}

/// What was read for one item after its room was locked.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct State {
    /// Place of the item in the batch, from 1.
    #[allow(dead_code, reason = "orders the rows in SQL")]
    pub(super) ord: i64,
    pub(super) present: Option<bool>,
    pub(super) role: Option<i16>,
    pub(super) visible_from_seq: Option<i64>,
    pub(super) muted_until: Option<i64>,
    pub(super) sent_at: Option<i64>,
    /// By the other one in a direct room.
    pub(super) blocked: Option<bool>,
    /// The message that has this client id already.
    pub(super) d_id: Option<MessageId>,
    pub(super) d_seq: Option<i64>,
    pub(super) d_rev: Option<i64>,
    pub(super) d_at: Option<i64>,
}

/// What becomes of one item.
#[derive(Debug)]
pub(super) enum Outcome {
    Accept(Accepted),
    Refuse(Fault),
    /// Its room is locked by somebody else.
    Missed,
}

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// One for each item, in order.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) inserts: Vec<MessageRow>,
    /// The new seq, rev and activity of each room that moved.
    pub(super) rooms: HashMap<RoomId, Moved>,
    /// The last own message of each sender: it counts as read.
    pub(super) senders: HashMap<(RoomId, UserId), Moved>,
    /// The files of the messages.
    pub(super) refs: Vec<(FileId, RoomId, i64)>,
}

/// Where a room, or a sender in it, stands after the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) seq: i64,
    pub(super) rev: i64,
    pub(super) at: i64,
    pub(super) direct: bool,
}

/// Judges the items. `states` has one entry for each item, in order; `known` are the files that their senders may use.
pub(super) fn decide(items: &[Item], rooms: &Rooms, states: &[State], known: &Known, now: i64) -> Plan {
    let mut plan = Plan::default();
    let mut stored: HashMap<(RoomId, UserId, ClientId), Accepted> = HashMap::new();
    for (item, state) in items.iter().zip(states) {
        let key = (item.room, item.sender, item.client_id);
        let outcome = if rooms.missed.contains(&item.room) {
            Outcome::Missed
        } else if let Some(duplicate) = earlier(state).or_else(|| stored.get(&key).cloned()) {
            Outcome::Accept(Accepted { duplicate: true, ..duplicate })
        } else {
            let accepted = rooms.locked.get(&item.room).ok_or_else(no_such_room);
            match accepted.and_then(|room| accept(&mut plan, item, room, state, known, now)) {
                Ok(accepted) => {
                    stored.insert(key, accepted.clone());
                    Outcome::Accept(accepted)
                }
                Err(fault) => Outcome::Refuse(fault),
            }
        };
        plan.outcomes.push(outcome);
    }
    plan
}

fn earlier(state: &State) -> Option<Accepted> {
    Some(Accepted { id: state.d_id?, seq: state.d_seq?, rev: state.d_rev?, at: state.d_at?, duplicate: true })
}

fn no_such_room() -> Fault {
    Fault::not_found("there is no such room, or you are not in it")
}

/// Gives an item its seq and rev, or says why not: form was checked before, here permission and then the state.
fn accept(
    plan: &mut Plan,
    item: &Item,
    room: &RoomState,
    state: &State,
    known: &Known,
    now: i64,
) -> Result<Accepted, Fault> {
    if state.present != Some(true) {
        return Err(no_such_room());
    }
    let role = Role::from_row(state.role.unwrap_or_default());
    if room.announcement && role < Role::Admin {
        return Err(Fault::forbidden("only admins and the owner write in this room"));
    }
    if state.blocked == Some(true) {
        return Err(blocks::blocked());
    }
    if let Some(until) = state.muted_until.filter(|until| *until > now) {
        return Err(Fault::forbidden("you are muted in this room").retry_after(millis(until - now)));
    }
    if room.archived {
        return Err(Fault::unprocessable("the room is archived"));
    }
    if item.unbuilt {
        return Err(Fault::unprocessable("threads are not built yet"));
    }
    let key = (item.room, item.sender);
    let pause = room.slow_mode_s * 1000;
    let last = plan.senders.get(&key).map(|moved| moved.at).or(state.sent_at);
    if let Some(wait) = last.map(|last| last + pause - now).filter(|wait| *wait > 0 && pause > 0 && role < Role::Admin)
    {
        let fault =
            Fault::new(service_kit::fault::Kind::RateLimited, "the room is in slow mode; wait before the next message");
        return Err(fault.retry_after(millis(wait)));
    }
    let direct = room.kind == rooms::Kind::Direct as i16;
    let room = plan.rooms.get(&item.room).copied().unwrap_or(Moved { seq: room.seq, rev: room.rev, at: now, direct });
    // A room's seqs are dense: every message up to the last one exists.
    if item.reply_to.is_some_and(|seq| seq > room.seq || seq <= state.visible_from_seq.unwrap_or_default()) {
        return Err(Fault::unprocessable("reply_to: there is no such message in this room"));
    }
    let attachments = attach::judge(known, item.sender, &item.attachments)?;
    let moved = Moved { seq: room.seq + 1, rev: room.rev + 1, at: now, direct };
    plan.rooms.insert(item.room, moved);
    plan.senders.insert(key, moved);
    let id = MessageId::generate();
    plan.refs.extend(item.attachments.iter().map(|file| (*file, item.room, moved.seq)));
    plan.inserts.push(MessageRow { attachments, ..row(item, moved, id) });
    Ok(Accepted { id, seq: moved.seq, rev: moved.rev, at: now, duplicate: false })
}

fn row(item: &Item, moved: Moved, id: MessageId) -> MessageRow {
    MessageRow {
        room_id: item.room,
        seq: moved.seq,
        rev: moved.rev,
        id,
        client_id: item.client_id,
        sender: item.sender,
        kind: KIND_TEXT,
        text: item.text.clone(),
        reply_to: item.reply_to,
        meta: item.meta.clone(),
        at: moved.at,
        edited_at: None,
        deleted_at: None,
        attachments: None,
        mentions: item.mentions.clone(),
    }
}

fn millis(wait: i64) -> Duration {
    Duration::from_millis(u64::try_from(wait).unwrap_or_default())
}

/// Checks the form of a message before it is queued, so that no text the database would refuse gets there.
pub(crate) fn check_form(item: &Item) -> Result<(), Fault> {
    messages::check_text(&item.text, !item.attachments.is_empty())?;
    if item.attachments.len() > MAX_ATTACHMENTS {
        return Err(Fault::bad_request(format!("attachments: must hold at most {MAX_ATTACHMENTS}")));
    }
    if item.meta.as_deref().is_some_and(|meta| meta.contains('\0')) {
        return Err(Fault::bad_request("meta: must not contain U+0000"));
    }
    if item.reply_to.is_some_and(|seq| seq < 1) {
        return Err(Fault::bad_request("reply_to: must be a seq, 1 or more"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use service_kit::fault::Kind;
    use tokio::sync::oneshot;

    use super::*;
    use crate::commit::Reply;

    fn item(room: RoomId, sender: UserId, client_id: ClientId) -> Item {
        let (reply, _) = oneshot::channel();
        Item {
            room,
            sender,
            client_id,
            text: "hi".to_owned(),
            reply_to: None,
            meta: None,
            attachments: Vec::new(),
            mentions: None,
            unbuilt: false,
            traceparent: String::new(),
            reply: Reply::Call(reply),
        }
    }

    fn room(id: RoomId) -> RoomState {
        RoomState { id, seq: 7, rev: 20, archived: false, announcement: false, slow_mode_s: 0, kind: 2 }
    }

    fn locked(room: RoomState) -> Rooms {
        Rooms::new(vec![room], [])
    }

    fn state() -> State {
        State {
            ord: 1,
            present: Some(true),
            role: Some(1),
            visible_from_seq: Some(0),
            muted_until: None,
            sent_at: None,
            blocked: None,
            d_id: None,
            d_seq: None,
            d_rev: None,
            d_at: None,
        }
    }

    fn accepted(outcome: &Outcome) -> &Accepted {
        match outcome {
            Outcome::Accept(accepted) => accepted,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_duplicate_inside_a_batch_takes_no_number() {
        let (here, sender, client) = (RoomId::generate(), UserId::generate(), ClientId::generate());
        let items = [item(here, sender, client), item(here, sender, client), item(here, sender, ClientId::generate())];
        let plan = decide(&items, &locked(room(here)), &[state(), state(), state()], &Known::default(), 1000);
        assert_eq!(accepted(&plan.outcomes[0]).seq, 8);
        assert_eq!(accepted(&plan.outcomes[1]).seq, 8);
        assert!(accepted(&plan.outcomes[1]).duplicate);
        assert_eq!(accepted(&plan.outcomes[2]).seq, 9);
        assert_eq!(plan.rooms[&here], Moved { seq: 9, rev: 22, at: 1000, direct: false });
        assert_eq!(plan.inserts.len(), 2);
    }

    #[test]
    fn a_repeat_answers_the_stored_message_even_of_somebody_who_was_removed() {
        let id = MessageId::generate();
        let removed =
            State { present: Some(false), d_id: Some(id), d_seq: Some(3), d_rev: Some(5), d_at: Some(9), ..state() };
        let here = RoomId::generate();
        let items = [item(here, UserId::generate(), ClientId::generate())];
        let plan = decide(&items, &locked(room(here)), &[removed], &Known::default(), 1000);
        assert_eq!(accepted(&plan.outcomes[0]), &Accepted { id, seq: 3, rev: 5, at: 9, duplicate: true });
        assert!(plan.inserts.is_empty() && plan.rooms.is_empty());
    }

    #[test]
    fn who_may_not_write_takes_no_number() {
        let here = RoomId::generate();
        let cases = [
            (room(here), State { present: None, ..state() }, Kind::NotFound),
            (room(here), State { present: Some(false), ..state() }, Kind::NotFound),
            (room(RoomId::generate()), state(), Kind::NotFound),
            (RoomState { announcement: true, ..room(here) }, state(), Kind::Forbidden),
            (room(here), State { muted_until: Some(2000), ..state() }, Kind::Forbidden),
            (room(here), State { blocked: Some(true), ..state() }, Kind::Forbidden),
            (RoomState { archived: true, ..room(here) }, state(), Kind::Unprocessable),
            (RoomState { slow_mode_s: 10, ..room(here) }, State { sent_at: Some(500), ..state() }, Kind::RateLimited),
        ];
        for (room, state, kind) in cases {
            let items = [item(here, UserId::generate(), ClientId::generate())];
            let plan = decide(&items, &locked(room), &[state], &Known::default(), 1000);
            match &plan.outcomes[0] {
                Outcome::Refuse(fault) => assert_eq!(fault.kind, kind),
                other => panic!("{other:?}"),
            }
            assert!(plan.inserts.is_empty() && plan.rooms.is_empty());
        }
    }

    #[test]
    fn a_room_of_somebody_else_is_missed_and_the_others_are_not() {
        let (held, free) = (RoomId::generate(), RoomId::generate());
        let items = [
            item(held, UserId::generate(), ClientId::generate()),
            item(free, UserId::generate(), ClientId::generate()),
        ];
        let plan = decide(&items, &Rooms::new(vec![room(free)], [held]), &[state(), state()], &Known::default(), 1000);
        assert!(matches!(plan.outcomes[0], Outcome::Missed));
        assert_eq!(accepted(&plan.outcomes[1]).seq, 8);
    }
}
