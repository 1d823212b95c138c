//! The answer to `hello` and `sync`: one snapshot of a user's rooms and of what changed in those that the client holds.

mod rows;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parlance_proto::{chat, v1};
use service_kit::{
    fault::Fault,
    id::{RoomId, UserId},
};

pub(crate) use self::rows::{Light, memberships};
use self::rows::{Person, people};
use crate::{
    App,
    accounts::choice::Choice,
    actor::Actor,
    changes::{self, Rows, Since},
    error::Result,
    page,
    rooms::{
        list,
        view::{self, RoomView},
    },
};

/// Rooms that one answer lists.
const MOST_ROOMS: usize = 200;
/// Changed rows that one answer carries in all.
const MOST_ROWS: usize = 1_000;

/// What a client says that it holds.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    pub(crate) actor: Actor,
    pub(crate) generation: Option<String>,
    /// Rooms with the rev, and the own rev if known.
    pub(crate) rooms: Vec<(RoomId, i64, Option<i64>)>,
}

type Answer = Result<chat::HelloReply, Fault>;

/// One hello with what was found for it.
struct Case<'a> {
    hello: &'a Hello,
    person: Person,
    /// All rooms of the user, newest activity first.
    rooms: Vec<Light>,
    /// Those to list, and whether there are more.
    listed: Vec<RoomId>,
    more: bool,
    /// Held rooms whose rev moved, with the rev held.
    moved: Vec<Since>,
    same_generation: bool,
}

/// Answers hellos that wait together.
pub(crate) async fn read(app: Arc<App>, hellos: Vec<Hello>) -> Result<Vec<Answer>> {
    let mut tx = app.db.snapshot().await?;
    let people = people(&mut tx, &hellos).await?;
    let users: HashSet<UserId> = people.values().map(|person| person.user.id).collect();
    let memberships = memberships(&mut tx, &users.into_iter().collect::<Vec<_>>()).await?;
    let cases: Vec<Option<Case>> = hellos
        .iter()
        .map(|hello| {
            // In a batch the session may be known from somebody else's hello.
            let person = people.get(&hello.actor.session).filter(|person| person.user.id == hello.actor.user)?.clone();
            let rooms = memberships.get(&hello.actor.user).cloned().unwrap_or_default();
            Some(case(hello, person, rooms))
        })
        .collect();
    let present = || cases.iter().flatten();
    let pairs: HashSet<(UserId, RoomId)> = present()
        .flat_map(|case| {
            let moved = case.moved.iter().map(|(room, _)| *room);
            case.listed.iter().copied().chain(moved).map(|room| (case.hello.actor.user, room))
        })
        .collect();
    let views = view::read(&mut tx, &pairs.into_iter().collect::<Vec<_>>()).await?;
    let views: HashMap<(UserId, RoomId), RoomView> =
        views.into_iter().map(|view| ((view.member().user_id, view.room.id), view)).collect();
    let since: HashSet<Since> =
        present().filter(|case| case.same_generation).flat_map(|case| case.moved.iter().copied()).collect();
    let most = i64::try_from(changes::MOST).unwrap_or(i64::MAX);
    let rows = changes::read(&mut tx, &since.into_iter().collect::<Vec<_>>(), most + 1).await?;
    tx.commit().await?;
    Ok(cases
        .into_iter()
        .map(|case| {
            let case = case.ok_or_else(|| Fault::unauthenticated("this session was ended; log in again"))?;
            Ok(assemble(case, &views, &rows))
        })
        .collect())
}

fn case(hello: &Hello, person: Person, rooms: Vec<Light>) -> Case<'_> {
    let same_generation = hello.generation.as_ref().is_none_or(|generation| *generation == person.generation);
    let held: HashMap<RoomId, (i64, Option<i64>)> =
        hello.rooms.iter().map(|(room, rev, me_rev)| (*room, (*rev, *me_rev))).collect();
    let (mut listed, mut moved) = (Vec::new(), Vec::new());
    let mut more = false;
    for room in &rooms {
        let known = held.get(&room.room_id);
        let rev_moved = known.is_some_and(|(rev, _)| *rev != room.rev || !same_generation);
        let me_moved = known.is_some_and(|(_, me_rev)| me_rev.is_some_and(|rev| rev != room.me_rev));
        if rev_moved && let Some((rev, _)) = known {
            moved.push((room.room_id, *rev));
        }
        if known.is_none() || rev_moved || me_moved {
            if listed.len() < MOST_ROOMS {
                listed.push(room.room_id);
            } else {
                more = true;
            }
        }
    }
    Case { hello, person, rooms, listed, more, moved, same_generation }
}

fn assemble(
    case: Case<'_>,
    views: &HashMap<(UserId, RoomId), RoomView>,
    rows: &HashMap<Since, Rows>,
) -> chat::HelloReply {
    let user = case.hello.actor.user;
    let listed: Vec<&RoomView> = case.listed.iter().filter_map(|room| views.get(&(user, *room))).collect();
    let next_cursor = listed.last().filter(|_| case.more).map(|last| page::cursor(&list::place(&last.room)));
    let mine: HashSet<RoomId> = case.rooms.iter().map(|room| room.room_id).collect();
    let held = case.hello.rooms.iter().map(|(room, _, _)| *room);
    let left: HashSet<RoomId> = held.filter(|room| !mine.contains(room)).collect();
    chat::HelloReply {
        user_rev: case.person.user_rev,
        generation: case.person.generation.clone(),
        rooms: listed.iter().map(|view| view.to_wire()).collect(),
        next_cursor,
        changes: catch_up(&case, views, rows),
        left: left.into_iter().map(RoomId::to_wire).collect(),
        memberships: case.rooms.iter().map(Light::to_wire).collect(),
        choice: case.person.choice().map(Choice::to_wire),
        user: Some(case.person.user.into_wire()),
    }
}

/// What the client missed in the rooms that it holds, as far as the answer has room for it.
fn catch_up(
    case: &Case<'_>,
    views: &HashMap<(UserId, RoomId), RoomView>,
    rows: &HashMap<Since, Rows>,
) -> Vec<v1::Changes> {
    let nothing = Rows::default();
    let mut left = MOST_ROWS;
    let mut all = Vec::with_capacity(case.moved.len());
    for since @ (room, rev) in &case.moved {
        let Some(view) = views.get(&(case.hello.actor.user, *room)) else { continue };
        let rows = rows.get(since).unwrap_or(&nothing);
        // The room's own settings may be one more row.
        if !case.same_generation || rows.len() + 1 > left {
            all.push(changes::truncated(*room, *rev, view.room.rev));
            continue;
        }
        let member = view.member();
        let changes =
            changes::assemble(&view.room, member.joined_rev, member.visible_from_seq, *rev, rows, changes::MOST);
        let infos = usize::from(changes.info.is_some());
        left -= changes.messages.len() + changes.members.len() + changes.removed.len() + infos;
        all.push(changes);
    }
    all
}
