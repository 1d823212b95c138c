//! From the text of a frame to what is asked. The parts that REST bodies share are read here too, and the bounds that binary
//! frames share stand here.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use service_kit::{
    fault::Fault,
    id::{ClientId, FileId, RoomId, UserId},
};
use uuid::Uuid;

use super::{
    Format, Hello, History, Parsed, Re, Send, State, Verb,
    fields::{ANY_LENGTH, Fields, read_uuid, refuse},
};

/// Characters of a message's text.
pub(super) const MAX_TEXT: usize = 8_000;
/// Bytes of `meta`, as compact JSON.
pub(super) const MAX_META: usize = 4 * 1024;
pub(super) const MAX_MENTIONS: usize = 50;
pub(super) const MAX_ATTACHMENTS: usize = 10;
pub(super) const MAX_EMOJI: usize = 32;
/// Ids in `add` and `remove` of one `watch` together, and users of GET presence.
pub(crate) const MAX_WATCHED: usize = 500;
/// Rooms that a client may say it holds.
pub(super) const MAX_HELD_ROOMS: usize = 10_000;
/// Largest page of a list.
pub(crate) const MAX_PAGE: i64 = 200;
/// Most rows of a Changes object.
pub(super) const MAX_CHANGES: i64 = 500;

/// Reads one text frame of a client.
#[must_use]
pub fn parse(text: &str) -> Parsed {
    let Ok(Value::Object(frame)) = serde_json::from_str(text) else { return Parsed::NotAFrame };
    let id = frame.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok()).filter(|id| *id > 0);
    let Some(id) = id else { return Parsed::NotAFrame };
    let re = Re { id, format: Format::Json };
    match verb(&frame) {
        Ok(verb) => Parsed::Frame { re, verb },
        Err(fault) => Parsed::Refused { re, fault, hello: frame.len() == 2 && frame.contains_key("hello") },
    }
}

fn verb(frame: &Map<String, Value>) -> Result<Verb, Fault> {
    let mut keys = frame.iter().filter(|(key, _)| *key != "id");
    let (Some((name, body)), None) = (keys.next(), keys.next()) else {
        return Err(Fault::bad_request("a frame has exactly one verb beside its id"));
    };
    let Value::Object(body) = body else { return Err(refuse(name, "must be an object")) };
    let body = &Fields::of(body);
    Ok(match name.as_str() {
        "hello" => Verb::Hello(hello(body)?),
        "send" => Verb::Send(send(room(body)?, body)?),
        "edit" => Verb::Edit { room: room(body)?, seq: seq(body)?, text: message_text(body)? },
        "delete" => Verb::Delete { room: room(body)?, seq: seq(body)? },
        "react" => {
            let emoji = body.text("emoji", 1..=MAX_EMOJI)?;
            Verb::React { room: room(body)?, seq: seq(body)?, emoji, on: body.flag("on")? }
        }
        "pin" => Verb::Pin { room: room(body)?, seq: seq(body)?, on: body.flag("on")? },
        "read" => Verb::Read { room: room(body)?, seq: seq(body)? },
        "delivered" => Verb::Delivered { room: room(body)?, seq: seq(body)? },
        "typing" => Verb::Typing { room: room(body)?, on: body.flag("on")? },
        "watch" => watch(body)?,
        "status" => Verb::Status(body.word(
            "state",
            &[("online", State::Online), ("away", State::Away), ("dnd", State::Dnd), ("invisible", State::Invisible)],
        )?),
        "history" => Verb::History(history(room(body)?, body)?),
        "changes" => {
            let (after_rev, limit) = changes_after(body)?;
            Verb::Changes { room: room(body)?, after_rev, limit }
        }
        "renew" => Verb::Renew { token: body.text("token", ANY_LENGTH)? },
        "ping" => Verb::Ping,
        _ => return Err(refuse(name, "is not a verb")),
    })
}

fn room(body: &Fields<'_>) -> Result<RoomId, Fault> {
    body.uuid("room").map(RoomId)
}

/// `seq`: from 1.
///
/// # Errors
/// `bad_request` naming it.
pub(crate) fn seq(body: &Fields<'_>) -> Result<i64, Fault> {
    body.int("seq", 1..=i64::MAX)
}

/// Whether this may be a reaction, by its length.
///
/// # Errors
/// `bad_request` naming `emoji`.
pub(crate) fn emoji_fits(emoji: &str) -> Result<(), Fault> {
    if emoji.contains('\0') || !(1..=MAX_EMOJI).contains(&emoji.chars().count()) {
        return Err(refuse("emoji", format_args!("must have 1 to {MAX_EMOJI} characters")));
    }
    Ok(())
}

/// `text` of a message that has no attachments.
///
/// # Errors
/// `bad_request` naming it.
pub(crate) fn message_text(body: &Fields<'_>) -> Result<String, Fault> {
    body.text("text", 0..=MAX_TEXT)
}

fn hello(body: &Fields<'_>) -> Result<Hello, Fault> {
    Ok(Hello {
        token: body.opt_text("token", ANY_LENGTH)?,
        device: body.opt_text("device", ANY_LENGTH)?,
        generation: body.opt_text("generation", ANY_LENGTH)?,
        rooms: held_rooms(body)?,
        presence: body.opt_flag("presence")?.unwrap_or(true),
    })
}

/// `rooms` of `hello` and of POST sync: `{"<room>": rev}` or `{"<room>": [rev, me.rev]}`.
///
/// # Errors
/// `bad_request` naming `rooms`, or the entry as `rooms.<id>`.
pub(crate) fn held_rooms(body: &Fields<'_>) -> Result<Vec<(RoomId, i64, Option<i64>)>, Fault> {
    let Some(map) = body.opt_map("rooms")? else { return Ok(Vec::new()) };
    if map.len() > MAX_HELD_ROOMS {
        return Err(refuse("rooms", format_args!("must hold at most {MAX_HELD_ROOMS}")));
    }
    // One room may be written in two ways (the case of its digits): the later one counts.
    let mut held = BTreeMap::new();
    for (key, value) in map {
        let path = || format!("rooms.{key}");
        let room = read_uuid(key).map(RoomId).ok_or_else(|| refuse(&path(), "is not a UUID"))?;
        let rev = |value: &Value| value.as_i64().filter(|rev| *rev >= 0);
        let revs = match value {
            Value::Array(pair) => match pair.as_slice() {
                [room_rev, me_rev] => rev(room_rev).zip(rev(me_rev)).map(|(room_rev, me_rev)| (room_rev, Some(me_rev))),
                _ => None,
            },
            value => rev(value).map(|rev| (rev, None)),
        };
        let revs = revs.ok_or_else(|| refuse(&path(), "must be a rev, or [rev, me.rev]"))?;
        held.insert(room, revs);
    }
    Ok(held.into_iter().map(|(room, (rev, me_rev))| (room, rev, me_rev)).collect())
}

/// The body of `send` and of POST messages.
///
/// # Errors
/// `bad_request` naming the field.
pub(crate) fn send(room: RoomId, body: &Fields<'_>) -> Result<Send, Fault> {
    let client_id = body.uuid("client_id").map(ClientId)?;
    let attachments = body.uuids("attachments", MAX_ATTACHMENTS)?;
    let text = body.text("text", usize::from(attachments.is_empty())..=MAX_TEXT)?;
    let mentions = body.mentions("mentions", MAX_MENTIONS)?;
    let reply_to = body.opt_int("reply_to", 1..=i64::MAX)?;
    let thread = body.opt_int("thread", 1..=i64::MAX)?;
    let unbuilt = thread.is_some();
    let attachments = attachments.into_iter().map(FileId).collect();
    Ok(Send { room, client_id, text, reply_to, meta: meta(body)?, mentions, attachments, unbuilt })
}

fn meta(body: &Fields<'_>) -> Result<Option<String>, Fault> {
    let Some(map) = body.opt_map("meta")? else { return Ok(None) };
    compact_meta(map).map(Some)
}

/// `meta` as it is stored.
///
/// # Errors
/// `bad_request` when it is too long.
pub(super) fn compact_meta(map: &Map<String, Value>) -> Result<String, Fault> {
    let text = serde_json::to_string(map).map_err(|_| refuse("meta", "must be a JSON object"))?;
    if text.len() > MAX_META {
        return Err(refuse("meta", format_args!("must have at most {MAX_META} bytes as JSON")));
    }
    Ok(text)
}

fn watch(body: &Fields<'_>) -> Result<Verb, Fault> {
    watch_within_bounds(body.uuids("add", MAX_WATCHED)?, body.uuids("remove", MAX_WATCHED)?)
}

/// `watch` of these users.
///
/// # Errors
/// `bad_request` when they are too many together.
pub(super) fn watch_within_bounds(add: Vec<Uuid>, remove: Vec<Uuid>) -> Result<Verb, Fault> {
    if add.len() + remove.len() > MAX_WATCHED {
        return Err(refuse("add", format_args!("must hold at most {MAX_WATCHED} together with remove")));
    }
    let users = |ids: Vec<Uuid>| ids.into_iter().map(UserId).collect();
    Ok(Verb::Watch { add: users(add), remove: users(remove) })
}

/// Which page of messages: of `history`, and of the query of GET messages.
///
/// # Errors
/// `bad_request` naming the field.
pub(crate) fn history(room: RoomId, fields: &Fields<'_>) -> Result<History, Fault> {
    let from_zero = 0..=i64::MAX;
    one_side(History {
        room,
        before: fields.opt_int("before", from_zero.clone())?,
        after: fields.opt_int("after", from_zero.clone())?,
        around: fields.opt_int("around", from_zero)?,
        limit: fields.opt_int("limit", 1..=MAX_PAGE)?.unwrap_or(0),
        thread: fields.opt_int("thread", 1..=i64::MAX)?,
    })
}

/// The page, when it is asked for from one side only.
///
/// # Errors
/// `bad_request` naming the second side.
pub(super) fn one_side(history: History) -> Result<History, Fault> {
    let sides = [("before", history.before), ("after", history.after), ("around", history.around)];
    let mut given = sides.iter().filter(|(_, seq)| seq.is_some());
    if let (Some(_), Some((name, _))) = (given.next(), given.next()) {
        return Err(refuse(name, "only one of before, after and around may be given"));
    }
    Ok(history)
}

/// `after_rev` and `limit` of `changes`, and of the query of GET changes.
///
/// # Errors
/// `bad_request` naming the field.
pub(crate) fn changes_after(fields: &Fields<'_>) -> Result<(i64, i64), Fault> {
    let after_rev = fields.int("after_rev", 0..=i64::MAX)?;
    Ok((after_rev, fields.opt_int("limit", 1..=MAX_CHANGES)?.unwrap_or(0)))
}
