//! What a client asks on its socket, done: each verb is a call to the service that decides, and its answer a frame.

use std::sync::Arc;

use parlance_proto::{
    chat::{self, RoomRequest, mark_request},
    event::{Event, Parcel, Typing, event},
};
use prost::Message;
use service_kit::{
    bus, clock,
    fault::{Fault, Kind},
    id::{RoomId, Topic},
    telemetry,
};

use tracing::Instrument;

use crate::{
    attach::actor,
    conn::Conn,
    frame::{self, Code, History, Re, Verb},
    hub::lock,
    life::Life,
    presence,
    socket::Frame,
    token::Tokens,
};

/// Does what a frame asks; its answer goes to the connection's queue.
pub(crate) fn perform(life: &Arc<Life>, tokens: &Tokens, conn: &Arc<Conn>, re: Re, verb: Verb) {
    conn.begin();
    // Work that was begun is finished even when its connection goes.
    let tasks = life.tasks.clone();
    match verb {
        Verb::Send(send) => life.shared.uplink.send(conn, re, send),
        Verb::Ping => conn.answer(frame::pong(re, clock::now_ms())),
        Verb::Hello(_) => conn.answer(frame::error(re, &Fault::conflict("this connection has said hello already"))),
        Verb::Renew { token } => {
            let (life, tokens, conn) = (Arc::clone(life), tokens.clone(), Arc::clone(conn));
            let work = async move { conn.answer(renew(&life, &tokens, &conn, re, &token).await) };
            tasks.spawn(work.in_current_span());
        }
        verb => {
            let (life, conn) = (Arc::clone(life), Arc::clone(conn));
            let work = async move {
                let answer = ask(&life, &conn, re, verb).await;
                conn.answer(answer.unwrap_or_else(|fault| frame::error(re, &fault)));
            };
            tasks.spawn(work.in_current_span());
        }
    }
}

/// The verbs that are a call. The service has its deadline from the channel.
async fn ask(life: &Arc<Life>, conn: &Arc<Conn>, re: Re, verb: Verb) -> Result<Frame, Fault> {
    let mut messages = life.shared.services.messages.clone();
    let actor = Some(actor(conn));
    match verb {
        Verb::Edit { room, seq, text } => {
            let request = chat::EditRequest { actor, room: room.to_wire(), seq, text };
            Ok(frame::ok_rev(re, messages.edit(request).await?.into_inner().rev))
        }
        Verb::Delete { room, seq } => {
            let request = chat::MessageRequest { actor, room: room.to_wire(), seq, pushes_of: None };
            Ok(frame::ok_rev(re, messages.delete(request).await?.into_inner().rev))
        }
        Verb::React { room, seq, .. } | Verb::Pin { room, seq, .. } => {
            let request = chat::MessageRequest { actor, room: room.to_wire(), seq, pushes_of: None };
            messages.unbuilt(request).await?;
            Ok(frame::ok(re))
        }
        Verb::Read { room, seq } => mark(life, conn, re, room, seq, mark_request::Kind::Read).await,
        Verb::Delivered { room, seq } => mark(life, conn, re, room, seq, mark_request::Kind::Delivered).await,
        Verb::Typing { room, on } => typing(life, conn, room, on).await.map(|()| frame::ok(re)),
        Verb::Watch { add, remove } => presence::watch(life, conn, re, &add, &remove).await,
        Verb::Status(state) => presence::status(life, conn, state).await.map(|()| frame::ok(re)),
        Verb::History(window) => history(life, conn, re, window).await,
        Verb::Changes { room, after_rev, limit } => {
            let request = chat::ChangesRequest { actor, room: room.to_wire(), after_rev, limit };
            Ok(frame::changes(re, &messages.changes(request).await?.into_inner()))
        }
        Verb::Send(_) | Verb::Ping | Verb::Hello(_) | Verb::Renew { .. } => Err(Fault::internal()),
    }
}

async fn mark(
    life: &Life,
    conn: &Conn,
    re: Re,
    room: RoomId,
    seq: i64,
    kind: mark_request::Kind,
) -> Result<Frame, Fault> {
    let request = chat::MarkRequest { actor: Some(actor(conn)), room: room.to_wire(), kind: kind.into(), seq };
    life.shared.services.messages.clone().mark(request).await?;
    Ok(frame::ok(re))
}

async fn history(life: &Life, conn: &Conn, re: Re, window: History) -> Result<Frame, Fault> {
    let mut messages = life.shared.services.messages.clone();
    if let Some(thread) = window.thread {
        let request = chat::MessageRequest {
            actor: Some(actor(conn)),
            room: window.room.to_wire(),
            seq: thread,
            pushes_of: None,
        };
        messages.unbuilt(request).await?;
    }
    let request = chat::HistoryRequest {
        actor: Some(actor(conn)),
        room: window.room.to_wire(),
        before: window.before,
        after: window.after,
        around: window.around,
        limit: window.limit,
    };
    Ok(frame::messages(re, &messages.history(request).await?.into_inner()))
}

/// Tells the room's other members. Only here a gateway decides by itself: by the members that its hub knows. Of a direct
/// room chat-service is asked, because one of the two may block the other; whoever types learns nothing of that.
async fn typing(life: &Life, conn: &Conn, room: RoomId, on: bool) -> Result<(), Fault> {
    let shared = life.hub.find(room);
    let here = shared.as_ref().map(|room| lock(room)).filter(|room| room.has(conn.user)).map(|room| room.is_direct());
    let Some(direct) = here else {
        return Err(Fault::not_found("there is no such room, or you are not in it"));
    };
    if direct {
        let request = RoomRequest { actor: Some(actor(conn)), room: room.to_wire() };
        if !life.shared.services.sync.clone().typing(request).await?.into_inner().shown {
            return Ok(());
        }
    }
    let typing = Typing { room: room.to_wire(), user: conn.user.to_wire(), on };
    let event = Event { kind: Some(event::Kind::Typing(typing)) }.encode_to_vec();
    let body = Parcel { events: vec![event.into()] }.encode_to_vec();
    let parcel = bus::Parcel { body: body.into(), traceparent: telemetry::current_traceparent() };
    for gateway in life.directory.lookup(Topic::Room(room)).await {
        // Nobody misses it: neither waited for nor tried again.
        drop(life.shared.bus.publish(gateway, parcel.clone()));
    }
    Ok(())
}

/// Takes a fresh token of the same user and session.
async fn renew(life: &Life, tokens: &Tokens, conn: &Conn, re: Re, token: &str) -> Frame {
    let claims = match tokens.verify(token).await {
        Ok(claims) => claims,
        Err(service_kit::auth::Rejected::Expired) => return frame::token_expired(re),
        Err(rejected) => {
            return frame::error_code(re, Code::Unauthenticated.name(), &rejected.to_string());
        }
    };
    if (claims.sub, claims.sid) != (conn.user, conn.session) {
        return frame::error(re, &Fault::forbidden("the token is of another user or session"));
    }
    match life.shared.services.accounts.clone().check(actor(conn)).await {
        Ok(_) => {
            conn.renew(claims.exp);
            frame::ok_expires(re, claims.expires_in_s())
        }
        Err(status) => {
            if Kind::from_code(status.code()) == Kind::Unauthenticated {
                conn.close(frame::Close::Revoked);
            }
            frame::error(re, &Fault::from(status))
        }
    }
}
