//! Presence as clients ask for it: following others, appearing to others, and who may still follow whom.

use std::{sync::Arc, time::Duration};

use parlance_proto::{
    chat::WatchableRequest,
    presence::{ChooseRequest, StatesRequest},
    v1,
};
use service_kit::{
    fault::Fault,
    id::{Topic, UserId},
};
use tonic::Status;

use crate::{
    attach::actor,
    conn::Conn,
    frame::{self, State},
    life::Life,
    socket::Frame,
};

/// How long after a failure it is asked again who may follow whom.
const PAUSE: Duration = Duration::from_millis(500);

/// Follows the presence of those whom chat-service lets this user follow, and answers how they are.
pub(crate) async fn watch(
    life: &Life,
    conn: &Arc<Conn>,
    re: u32,
    add: &[UserId],
    remove: &[UserId],
) -> Result<Frame, Fault> {
    life.hub.watches.drop(conn, remove);
    let users = allowed(life, conn, add).await?;
    if users.is_empty() {
        return Ok(frame::ok_presence(re, &[]));
    }
    if !life.hub.watches.add(conn, &users) {
        return Err(Fault::unprocessable("add: this connection would follow more than 500 users"));
    }
    if !life.hub.has(conn) {
        // It went meanwhile, and was not found among those who follow.
        life.hub.watches.remove(conn);
    }
    life.directory.attach(users.iter().map(|user| Topic::Presence(*user))).await;
    let states = life
        .shared
        .services
        .presence
        .clone()
        .states(StatesRequest { users: users.iter().map(|user| user.to_wire()).collect() })
        .await;
    let items = states.inspect_err(|_| life.hub.watches.drop(conn, &users))?.into_inner().items;
    // An event may have come meanwhile, and then it is newer than the answer.
    let items: Vec<v1::Presence> =
        users.iter().zip(items).map(|(user, presence)| life.hub.watches.read(*user, presence)).collect();
    Ok(frame::ok_presence(re, &items))
}

/// Sets how this connection, or the user, appears.
pub(crate) async fn status(life: &Life, conn: &Conn, state: State) -> Result<(), Fault> {
    let choice = match state {
        State::Online | State::Away => v1::PresenceState::Online,
        State::Dnd => v1::PresenceState::Dnd,
        State::Invisible => v1::PresenceState::Invisible,
    };
    if conn.presence && matches!(state, State::Online | State::Away) {
        life.directory.session(conn.user, conn.number, state == State::Away);
    }
    let request = ChooseRequest { user: conn.user.to_wire(), state: choice.into() };
    life.shared.services.presence.clone().choose(request).await?;
    Ok(())
}

/// Those of the users whom this connection may follow; it follows the others no longer.
async fn allowed(life: &Life, conn: &Conn, users: &[UserId]) -> Result<Vec<UserId>, Status> {
    let request =
        WatchableRequest { actor: Some(actor(conn)), users: users.iter().map(|user| user.to_wire()).collect() };
    let allowed = life.shared.services.sync.clone().watchable(request).await?.into_inner().users;
    let allowed: Vec<UserId> = allowed.iter().filter_map(|user| UserId::from_wire(user, "users").ok()).collect();
    let others: Vec<UserId> = users.iter().filter(|user| !allowed.contains(user)).copied().collect();
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
