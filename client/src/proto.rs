//! Binary frames (`parlance.v1.proto`) from and to the JSON of the contract, which is what the rest of this library reads.

mod objects;

use bytes::Bytes;
use parlance_proto::{
    client::{self, ClientFrame, ServerFrame, client_frame::Verb, event::Kind, server_frame::Body},
    v1::PresenceState,
};
use prost::Message;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use self::objects::{
    all, changes, id, ids, me, member, message, notification, presence, room, shared_room, user, with,
};

/// Writes a frame; an error names the field that has no binary form, as one of another type has none.
pub fn encode(id: u32, verb: &str, body: &Value) -> Result<Vec<u8>, String> {
    Ok(ClientFrame { id, verb: Some(verb_of(verb, &Fields::of(body)?)?) }.encode_to_vec())
}

/// Reads a server's frame as the JSON object that it would have been.
pub fn decode(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    let frame = ServerFrame::decode(bytes).map_err(|e| e.to_string())?;
    let mut object = Map::new();
    let (name, body) = match frame.body.ok_or("a kind of frame that is not known here")? {
        Body::Event(event) => {
            // A newer server may have kinds that this library does not know, as in JSON.
            let (kind, body) = event.kind.map_or_else(|| ("unknown", json!({})), event_of);
            object.insert("event".into(), json!({ kind: body }));
            return Ok(object);
        }
        Body::Welcome(it) => ("welcome", welcome(it)),
        Body::Sent(it) => ("sent", sent(&it)),
        Body::Ok(it) => ("ok", ok(it)),
        Body::Messages(it) => {
            ("messages", json!({ "items": all(it.items, message), "has_more": it.has_more, "rev": it.rev }))
        }
        Body::Changes(it) => ("changes", changes(it)),
        Body::Pong(it) => ("pong", json!({ "server_time": it.server_time })),
        Body::Error(it) => {
            let body = json!({ "code": it.code, "message": it.message });
            ("error", with(body, [("retry_after_ms", it.retry_after_ms.map(Value::from))]))
        }
    };
    object.insert("re".into(), frame.re.into());
    object.insert(name.into(), body);
    Ok(object)
}

fn welcome(it: client::Welcome) -> Value {
    json!({
        "connection": id(&it.connection), "user": it.user.map(user), "session": id(&it.session),
        "server_time": it.server_time, "heartbeat_ms": it.heartbeat_ms, "max_frame": it.max_frame,
        "generation": it.generation, "rooms": all(it.rooms, room), "next_cursor": it.next_cursor,
        "changes": all(it.changes, changes), "left": ids(&it.left),
    })
}

fn sent(it: &client::Sent) -> Value {
    json!({
        "room": id(&it.room), "client_id": id(&it.client_id), "id": id(&it.id), "seq": it.seq, "rev": it.rev,
        "at": it.at, "duplicate": it.duplicate,
    })
}

fn ok(it: client::Ok) -> Value {
    let presence = (!it.presence.is_empty()).then(|| all(it.presence, presence));
    let fields =
        [("rev", it.rev.map(Value::from)), ("presence", presence), ("expires_in_s", it.expires_in_s.map(Value::from))];
    with(json!({}), fields)
}

fn event_of(kind: Kind) -> (&'static str, Value) {
    let prev = |prev: Option<i64>| [("prev", prev.map(Value::from))];
    match kind {
        Kind::Message(it) => ("message", with(message(it.message.unwrap_or_default()), prev(it.prev))),
        Kind::Skip(it) => ("skip", with(json!({ "room": id(&it.room), "rev": it.rev }), prev(it.prev))),
        Kind::Member(it) => {
            let body = with(member(it.member.unwrap_or_default()), [("room", Some(id(&it.room)))]);
            ("member", with(body, prev(it.prev)))
        }
        Kind::Removed(it) => {
            let body = json!({ "room": id(&it.room), "rev": it.rev, "user": id(&it.user) });
            ("removed", with(body, prev(it.prev)))
        }
        Kind::Room(it) => ("room", with(named(shared_room(&it.room.unwrap_or_default())), prev(it.prev))),
        Kind::Joined(it) => ("joined", named(room(it))),
        Kind::Left(it) => ("left", json!({ "room": id(&it.room) })),
        Kind::Receipt(it) => {
            let body = json!({ "room": id(&it.room), "user": id(&it.user) });
            let cursors = [("read_seq", it.read_seq), ("delivered_seq", it.delivered_seq)];
            ("receipt", with(body, cursors.map(|(name, seq)| (name, seq.map(Value::from)))))
        }
        Kind::Typing(it) => ("typing", json!({ "room": id(&it.room), "user": id(&it.user), "on": it.on })),
        Kind::Presence(it) => ("presence", presence(it)),
        Kind::Me(it) => ("me", with(me(it.me.unwrap_or_default()), [("room", Some(id(&it.room)))])),
        Kind::Resync(it) => ("resync", json!({ "room": id(&it.room), "rev": it.rev, "after_ms": it.after_ms })),
        Kind::Notification(it) => ("notification", notification(it)),
        Kind::NotificationsRead(it) => ("notifications_read", json!({ "up_to": id(&it.up_to) })),
        Kind::GoingAway(it) => ("going_away", json!({ "reconnect_after_ms": it.reconnect_after_ms })),
    }
}

/// The id of a room beside its fields, as events have it.
fn named(mut room: Value) -> Value {
    room["room"] = room["id"].clone();
    room
}

fn verb_of(verb: &str, body: &Fields<'_>) -> Result<Verb, String> {
    let (room, seq, on) = (body.id("room"), body.int("seq"), body.flag("on"));
    Ok(match verb {
        "hello" => Verb::Hello(hello(body)?),
        "send" => Verb::Send(send(body)?),
        "edit" => Verb::Edit(client::Edit { room: room?, seq: seq?, text: body.text("text")? }),
        "delete" => Verb::Delete(client::Delete { room: room?, seq: seq? }),
        "react" => Verb::React(client::React { room: room?, seq: seq?, emoji: body.text("emoji")?, on: on? }),
        "pin" => Verb::Pin(client::Pin { room: room?, seq: seq?, on: on? }),
        "read" => Verb::Read(client::Mark { room: room?, seq: seq? }),
        "delivered" => Verb::Delivered(client::Mark { room: room?, seq: seq? }),
        "typing" => Verb::Typing(client::TypingOn { room: room?, on: on? }),
        "watch" => Verb::Watch(client::Watch { add: body.ids("add")?, remove: body.ids("remove")? }),
        "status" => Verb::Status(client::Status { state: state(body)?.into() }),
        "history" => Verb::History(client::History {
            room: room?,
            before: body.int("before")?,
            after: body.int("after")?,
            around: body.int("around")?,
            limit: body.int("limit")?,
            thread: body.int("thread")?,
        }),
        "changes" => Verb::Changes(client::ChangesAfter {
            room: room?,
            after_rev: body.int("after_rev")?,
            limit: body.int("limit")?,
        }),
        "renew" => Verb::Renew(client::Renew { token: body.text("token")? }),
        "ping" => Verb::Ping(client::Ping {}),
        unknown => return Err(format!("{unknown} is no verb")),
    })
}

fn hello(body: &Fields<'_>) -> Result<client::Hello, String> {
    let held = |(room, revs): (&String, &Value)| {
        let (rev, me_rev) = match revs.as_array().map(Vec::as_slice) {
            Some([rev, me_rev]) => (rev.as_i64(), me_rev.as_i64()),
            Some(_) => (None, None),
            None => (revs.as_i64(), None),
        };
        let known = uuid(room).zip(rev);
        let (room, rev) = known.ok_or_else(|| format!("rooms.{room} has no binary form"))?;
        Ok(client::HeldRoom { room: Some(bytes(room)), rev: Some(rev), me_rev })
    };
    let rooms = body.get("rooms", Value::as_object)?.into_iter().flatten().map(held);
    Ok(client::Hello {
        token: body.text("token")?,
        device: body.text("device")?,
        generation: body.text("generation")?,
        rooms: rooms.collect::<Result<_, String>>()?,
        presence: body.flag("presence")?,
    })
}

fn send(body: &Fields<'_>) -> Result<client::Send, String> {
    let (everybody, mentions) = body.list("mentions")?.iter().partition::<Vec<&Value>, _>(|item| **item == "all");
    Ok(client::Send {
        room: body.id("room")?,
        client_id: body.id("client_id")?,
        text: body.text("text")?,
        mentions: ids_of("mentions", mentions)?,
        mentions_all: !everybody.is_empty(),
        reply_to: body.int("reply_to")?,
        thread: body.int("thread")?,
        attachments: body.ids("attachments")?,
        meta: body.get("meta", Value::as_object)?.map(|_| body.0["meta"].to_string()),
    })
}

fn state(body: &Fields<'_>) -> Result<PresenceState, String> {
    match body.text("state")?.as_deref() {
        None => Ok(PresenceState::Unspecified),
        Some("online") => Ok(PresenceState::Online),
        Some("away") => Ok(PresenceState::Away),
        Some("dnd") => Ok(PresenceState::Dnd),
        Some("invisible") => Ok(PresenceState::Invisible),
        Some(_) => Err("state has no binary form".into()),
    }
}

/// The body of a verb.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn of(body: &'a Value) -> Result<Self, String> {
        body.as_object().map(Self).ok_or_else(|| "the body is no object".into())
    }

    fn get<T>(&self, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
        let value = self.0.get(name).filter(|value| !value.is_null());
        value.map(|value| read(value).ok_or_else(|| format!("{name} has no binary form"))).transpose()
    }

    fn text(&self, name: &str) -> Result<Option<String>, String> {
        self.get(name, |value| value.as_str().map(str::to_owned))
    }

    fn int(&self, name: &str) -> Result<Option<i64>, String> {
        self.get(name, Value::as_i64)
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        self.get(name, Value::as_bool)
    }

    fn id(&self, name: &str) -> Result<Option<Bytes>, String> {
        self.get(name, |value| uuid(value.as_str()?).map(bytes))
    }

    fn list(&self, name: &str) -> Result<&'a [Value], String> {
        Ok(self.get(name, Value::as_array)?.map_or(&[], Vec::as_slice))
    }

    fn ids(&self, name: &str) -> Result<Vec<Bytes>, String> {
        ids_of(name, self.list(name)?)
    }
}

fn ids_of<'a>(name: &str, items: impl IntoIterator<Item = &'a Value>) -> Result<Vec<Bytes>, String> {
    let id = |item: &Value| uuid(item.as_str()?).map(bytes);
    items.into_iter().map(|item| id(item).ok_or_else(|| format!("{name} has no binary form"))).collect()
}

/// A UUID as the contract writes it, and no other form.
fn uuid(text: &str) -> Option<Uuid> {
    (text.len() == uuid::fmt::Hyphenated::LENGTH).then(|| text.parse().ok()).flatten()
}

fn bytes(id: Uuid) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}
