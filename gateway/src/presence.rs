//! Presence as clients ask for it: following others, appearing to others, and who may still follow whom.

use std::{sync::Arc, time::Duration};

use parlance_proto::{
    chat::{self, WatchableRequest},
    presence::{ChooseRequest, StatesRequest},
    v1,
};
use service_kit::{
    fault::Fault,
    id::{Topic, UserId},
};
use tonic::{Code, Status};

use crate::{
    attach::actor,
    conn::Conn,
    frame::{self, Re, State},
    life::Life,
    services::Services,
    socket::Frame,
};

/// How long after a failure it is asked again who may follow whom.
const PAUSE: Duration = Duration::from_millis(500);

/// Somebody whom the caller may watch.
pub(crate) struct Watchable {
    pub(crate) user: UserId,
    /// As chat-service has it stored. presence-service may have seen the user since, or may have forgotten.
    last_seen: Option<i64>,
}

/// Those of the users whom the actor may watch.
pub(crate) async fn watchable(
    services: &Services,
    actor: Option<chat::Actor>,
    users: &[UserId],
) -> Result<Vec<Watchable>, Status> {
    let request = WatchableRequest { actor, users: users.iter().map(|user| user.to_wire()).collect() };
    let reply = services.sync.clone().watchable(request).await?.into_inner();
    // A chat-service of the version before tells no instants.
    let instants = reply.last_seen.iter().map(|at| Some(*at).filter(|at| *at > 0)).chain(std::iter::repeat(None));
    let users = reply.users.iter().zip(instants);
    let users = users.map(|(user, last_seen)| Ok(Watchable { user: UserId::from_wire(user, "users")?, last_seen }));
    Ok(users.collect::<Result<_, Fault>>()?)
}

/// How these users are, in their order. Of those who are offline the later of what is known and what is stored counts.
pub(crate) async fn states(services: &Services, users: &[Watchable]) -> Result<Vec<v1::Presence>, Status> {
    if users.is_empty() {
        return Ok(Vec::new());
    }
    let request = StatesRequest { users: users.iter().map(|it| it.user.to_wire()).collect() };
    let mut items = services.presence.clone().states(request).await?.into_inner().items;
    for (item, watchable) in items.iter_mut().zip(users) {
        if item.state() == v1::PresenceState::Offline {
            item.last_seen = item.last_seen.max(watchable.last_seen);
        }
    }
    Ok(items)
}

/// Follows the presence of those whom chat-service lets this user follow, and answers how they are.
pub(crate) async fn watch(
    life: &Life,
    conn: &Arc<Conn>,
    re: Re,
    add: &[UserId],
    remove: &[UserId],
) -> Result<Frame, Fault> {
    life.hub.watches.drop(conn, remove);
    let watchable = allowed(life, conn, add).await?;
    if watchable.is_empty() {
        return Ok(frame::ok_presence(re, &[]));
    }
    let users: Vec<UserId> = watchable.iter().map(|it| it.user).collect();
    if !life.hub.watches.add(conn, &users) {
        return Err(Fault::unprocessable("add: this connection would follow more than 500 users"));
    }
    if !life.hub.has(conn) {
        // It went meanwhile, and was not found among those who follow.
        life.hub.watches.remove(conn);
    }
    life.directory.attach(users.iter().map(|user| Topic::Presence(*user))).await;
    let states = states(&life.shared.services, &watchable).await;
    let items = states.inspect_err(|_| life.hub.watches.drop(conn, &users))?;
    // An event may have come meanwhile, and then it is newer than the answer.
    let items: Vec<v1::Presence> =
        users.iter().zip(items).map(|(user, presence)| life.hub.watches.read(*user, presence)).collect();
    Ok(frame::ok_presence(re, &items))
}

/// Sets how this connection, or the user, appears. It is stored before it is shown: what is shown can be lost with Redis.
pub(crate) async fn status(life: &Life, conn: &Conn, state: State) -> Result<(), Fault> {
    let choice = match state {
        State::Online | State::Away => v1::PresenceState::Online,
        State::Dnd => v1::PresenceState::Dnd,
        State::Invisible => v1::PresenceState::Invisible,
    };
    let request = chat::ChooseRequest { actor: Some(actor(conn)), state: choice.into() };
    let choice = match life.shared.services.accounts.clone().choose(request).await {
        Ok(reply) => reply.into_inner(),
        // A chat-service of the version before stores nothing.
        Err(status) if status.code() == Code::Unimplemented => chat::Choice { state: choice.into(), version: 0 },
        Err(status) => return Err(status.into()),
    };
    if conn.presence && matches!(state, State::Online | State::Away) {
        life.directory.idle(conn.user, conn.number, state == State::Away, choice);
    }
    let request = ChooseRequest { user: conn.user.to_wire(), state: choice.state, version: choice.version };
    life.shared.services.presence.clone().choose(request).await?;
    Ok(())
}

/// Those of the users whom this connection may follow; it follows the others no longer.
async fn allowed(life: &Life, conn: &Conn, users: &[UserId]) -> Result<Vec<Watchable>, Status> {
    let allowed = watchable(&life.shared.services, Some(actor(conn)), users).await?;
    let others: Vec<UserId> =
        users.iter().filter(|user| !allowed.iter().any(|it| it.user == **user)).copied().collect();
    life.hub.watches.drop(conn, &others);
    Ok(allowed)
}

/// Asks again who may follow this user and whom this user may follow, after a change of privacy or of rooms.
pub(crate) async fn ask_again(life: &Arc<Life>, user: UserId) {
    let followers = life.hub.watches.followers(user).into_iter().map(|conn| (conn, vec![user]));
    let own = life.hub.conns(user).into_iter().map(|conn| {
        let followed = life.hub.watches.followed_by(&conn);
        (conn, followed)
    });
    for (conn, users) in followers.chain(own).filter(|(_, users)| !users.is_empty()) {
        while allowed(life, &conn, &users).await.is_err() {
            if conn.is_closed() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
