//! From the bytes of a binary frame to what is asked, by the same bounds and with the same refusals as in JSON.

use std::{collections::BTreeMap, ops::RangeInclusive};

use bytes::Bytes;
use parlance_proto::{
    client::{self, ClientFrame, client_frame},
    v1,
};
use prost::Message;
use serde_json::{Map, Value};
use service_kit::{
    fault::Fault,
    id::{ClientId, FileId, RoomId, UserId},
};
use uuid::Uuid;

use super::{
    Format, Hello, History, Mentions, Parsed, Re, Send, State, Verb,
    fields::{ANY_LENGTH, check_ids, check_int, check_text, holds_nul, refuse, required},
    parse::{
        MAX_ATTACHMENTS, MAX_CHANGES, MAX_EMOJI, MAX_HELD_ROOMS, MAX_MENTIONS, MAX_PAGE, MAX_TEXT, MAX_WATCHED,
        compact_meta, one_side, watch_within_bounds,
    },
};

/// The number of `id` in a `ClientFrame`; every other field is a verb.
const ID: usize = 1;
const FROM_ZERO: RangeInclusive<i64> = 0..=i64::MAX;
const FROM_ONE: RangeInclusive<i64> = 1..=i64::MAX;

/// Reads one binary frame of a client.
#[must_use]
pub fn parse(bytes: Bytes) -> Parsed {
    let Some(verbs) = count_verbs(&bytes) else { return Parsed::NotAFrame };
    let Ok(ClientFrame { id: id @ 1.., verb: asked }) = ClientFrame::decode(bytes) else { return Parsed::NotAFrame };
    let re = Re { id, format: Format::Proto };
    let hello = verbs == 1 && matches!(asked, Some(client_frame::Verb::Hello(_)));
    // Of several, protobuf would take the last one.
    let parsed = match asked {
        _ if verbs != 1 => Err(Fault::bad_request("a frame has exactly one verb beside its id")),
        Some(asked) => verb(asked),
        None => Err(Fault::bad_request("this is not a verb")),
    };
    match parsed {
        Ok(verb) => Parsed::Frame { re, verb },
        Err(fault) => Parsed::Refused { re, fault, hello },
    }
}

/// How many fields beside the id a frame has, known ones or not. None when it is not the wire format of protobuf
/// (protobuf.dev, "Encoding").
fn count_verbs(mut bytes: &[u8]) -> Option<usize> {
    let mut verbs = 0;
    while !bytes.is_empty() {
        // Public for length delimiters, which are varints as keys are.
        let key = prost::decode_length_delimiter(&mut bytes).ok()?;
        verbs += usize::from(key >> 3 != ID);
        let length = match key & 7 {
            // A varint has no length of its own: what is read is all of it.
            0 => prost::decode_length_delimiter(&mut bytes).map(|_| 0).ok()?,
            1 => 8,
            2 => prost::decode_length_delimiter(&mut bytes).ok()?,
            5 => 4,
            _ => return None,
        };
        bytes = bytes.get(length..)?;
    }
    Some(verbs)
}

fn verb(asked: client_frame::Verb) -> Result<Verb, Fault> {
    use client_frame::Verb as Asked;
    Ok(match asked {
        Asked::Hello(body) => Verb::Hello(hello(body)?),
        Asked::Send(body) => Verb::Send(send(body)?),
        Asked::Edit(body) => {
            let text = text("text", body.text, 0..=MAX_TEXT)?;
            Verb::Edit { room: room(body.room)?, seq: int("seq", body.seq, FROM_ONE)?, text }
        }
        Asked::Delete(body) => Verb::Delete { room: room(body.room)?, seq: int("seq", body.seq, FROM_ONE)? },
        Asked::React(body) => {
            let emoji = text("emoji", body.emoji, 1..=MAX_EMOJI)?;
            let (room, seq) = (room(body.room)?, int("seq", body.seq, FROM_ONE)?);
            Verb::React { room, seq, emoji, on: required("on", body.on)? }
        }
        Asked::Pin(body) => {
            let (room, seq) = (room(body.room)?, int("seq", body.seq, FROM_ONE)?);
            Verb::Pin { room, seq, on: required("on", body.on)? }
        }
        Asked::Read(body) => Verb::Read { room: room(body.room)?, seq: int("seq", body.seq, FROM_ONE)? },
        Asked::Delivered(body) => Verb::Delivered { room: room(body.room)?, seq: int("seq", body.seq, FROM_ONE)? },
        Asked::Typing(body) => Verb::Typing { room: room(body.room)?, on: required("on", body.on)? },
        Asked::Watch(body) => {
            watch_within_bounds(ids("add", &body.add, MAX_WATCHED)?, ids("remove", &body.remove, MAX_WATCHED)?)?
        }
        Asked::Status(body) => Verb::Status(state(body.state())?),
        Asked::History(body) => Verb::History(history(body)?),
        Asked::Changes(body) => Verb::Changes {
            after_rev: int("after_rev", body.after_rev, FROM_ZERO)?,
            limit: opt_int("limit", body.limit, 1..=MAX_CHANGES)?.unwrap_or(0),
            room: room(body.room)?,
        },
        Asked::Renew(body) => Verb::Renew { token: text("token", body.token, ANY_LENGTH)? },
        Asked::Ping(client::Ping {}) => Verb::Ping,
    })
}

fn hello(body: client::Hello) -> Result<Hello, Fault> {
    Ok(Hello {
        token: opt_text("token", body.token)?,
        device: opt_text("device", body.device)?,
        generation: opt_text("generation", body.generation)?,
        rooms: held_rooms(&body.rooms)?,
        presence: body.presence.unwrap_or(true),
    })
}

fn held_rooms(items: &[client::HeldRoom]) -> Result<Vec<(RoomId, i64, Option<i64>)>, Fault> {
    if items.len() > MAX_HELD_ROOMS {
        return Err(refuse("rooms", format_args!("must hold at most {MAX_HELD_ROOMS}")));
    }
    // A room that is named twice: the later one counts.
    let mut held = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let room = item.room.as_ref().and_then(id).map(RoomId);
        let room = room.ok_or_else(|| refuse("rooms", format_args!("item {index} is of no room: 16 bytes")))?;
        let rev = item.rev.filter(|rev| *rev >= 0 && item.me_rev.is_none_or(|me_rev| me_rev >= 0));
        let rev = rev.ok_or_else(|| refuse(&format!("rooms.{room}"), "must have a rev, and may have a me_rev"))?;
        held.insert(room, (rev, item.me_rev));
    }
    Ok(held.into_iter().map(|(room, (rev, me_rev))| (room, rev, me_rev)).collect())
}

fn send(body: client::Send) -> Result<Send, Fault> {
    let room = room(body.room)?;
    let client_id = uuid("client_id", body.client_id).map(ClientId)?;
    let attachments = ids("attachments", &body.attachments, MAX_ATTACHMENTS)?;
    let text = text("text", body.text, usize::from(attachments.is_empty())..=MAX_TEXT)?;
    let most = MAX_MENTIONS - usize::from(body.mentions_all);
    let users = ids("mentions", &body.mentions, most)?.into_iter().map(UserId).collect();
    let mentions = Mentions { users, all: body.mentions_all };
    let reply_to = opt_int("reply_to", body.reply_to, FROM_ONE)?;
    let thread = opt_int("thread", body.thread, FROM_ONE)?;
    let unbuilt = thread.is_some();
    let attachments = attachments.into_iter().map(FileId).collect();
    Ok(Send { room, client_id, text, reply_to, meta: meta(body.meta)?, mentions, attachments, unbuilt })
}

fn meta(text: Option<String>) -> Result<Option<String>, Fault> {
    let Some(text) = text else { return Ok(None) };
    let map: Map<String, Value> =
        serde_json::from_str(&text).map_err(|_| refuse("meta", "must be a JSON object, as text"))?;
    if map.iter().any(|(key, value)| key.contains('\0') || holds_nul(value)) {
        return Err(refuse("meta", "must not hold U+0000"));
    }
    compact_meta(&map).map(Some)
}

fn state(state: v1::PresenceState) -> Result<State, Fault> {
    match state {
        v1::PresenceState::Online => Ok(State::Online),
        v1::PresenceState::Away => Ok(State::Away),
        v1::PresenceState::Dnd => Ok(State::Dnd),
        v1::PresenceState::Invisible => Ok(State::Invisible),
        v1::PresenceState::Unspecified => Err(refuse("state", "is missing, or not known here")),
        v1::PresenceState::Offline => Err(refuse("state", "must be one of online, away, dnd, invisible")),
    }
}

fn history(body: client::History) -> Result<History, Fault> {
    one_side(History {
        before: opt_int("before", body.before, FROM_ZERO)?,
        after: opt_int("after", body.after, FROM_ZERO)?,
        around: opt_int("around", body.around, FROM_ZERO)?,
        limit: opt_int("limit", body.limit, 1..=MAX_PAGE)?.unwrap_or(0),
        thread: opt_int("thread", body.thread, FROM_ONE)?,
        room: room(body.room)?,
    })
}

fn id(bytes: &Bytes) -> Option<Uuid> {
    Uuid::from_slice(bytes).ok()
}

fn uuid(field: &str, bytes: Option<Bytes>) -> Result<Uuid, Fault> {
    id(&required(field, bytes)?).ok_or_else(|| refuse(field, "must be a UUID: 16 bytes"))
}

fn room(bytes: Option<Bytes>) -> Result<RoomId, Fault> {
    uuid("room", bytes).map(RoomId)
}

fn ids(field: &str, items: &[Bytes], most: usize) -> Result<Vec<Uuid>, Fault> {
    check_ids(field, items.iter().map(id), most)
}

fn text(field: &str, text: Option<String>, length: RangeInclusive<usize>) -> Result<String, Fault> {
    let text = required(field, text)?;
    check_text(field, &text, &length)?;
    Ok(text)
}

fn opt_text(field: &str, given: Option<String>) -> Result<Option<String>, Fault> {
    given.map(|given| text(field, Some(given), ANY_LENGTH)).transpose()
}

fn int(field: &str, number: Option<i64>, range: RangeInclusive<i64>) -> Result<i64, Fault> {
    check_int(field, Some(required(field, number)?), &range)
}

fn opt_int(field: &str, number: Option<i64>, range: RangeInclusive<i64>) -> Result<Option<i64>, Fault> {
    number.map(|number| check_int(field, Some(number), &range)).transpose()
}
