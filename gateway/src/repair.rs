//! Finding out what was missed, and feeding it to the sockets: one query for each room and gateway, never one per user.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use parlance_proto::chat::{HeadsRequest, RepairRequest, StandingRequest};
use service_kit::{
    clock,
    id::{RoomId, SessionId, UserId},
};
use tonic::Status;

use crate::{
    attach,
    frame::Close,
    hub::{SharedRoom, lock},
    life::Life,
};

/// Time for one comparison among all gateways together, when nothing asks for one: the more of them there are, the less
/// often each compares.
const SHARE: Duration = Duration::from_secs(3);
/// A gateway compares no more often than that by itself, which is what up to 10 of them do.
const SHORTEST: Duration = Duration::from_secs(30);
/// And no less often, which is what 100 and more of them do: it is how long the last net may take to find something.
const LONGEST: Duration = Duration::from_secs(300);
/// How long a room may be behind in that comparison: its event may be on the way.
const ON_THE_WAY: Duration = Duration::from_secs(1);
/// Rooms or users of one comparison.
const SLICE: usize = 4_096;
/// Rooms that are repaired at the same time.
const TOGETHER: usize = 8;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// Attempts at one room before the next comparison takes it up.
const ATTEMPTS: u32 = 10;
/// Events after which a repair gives up on continuity and asks the clients to fetch the changes.
const MOST_EVENTS: usize = 5_000;
/// Clients are spread over this time when they are asked to fetch, in milliseconds.
const RESYNC_MS: i64 = 2_000;

/// Compares heads when something may have been missed, and every now and then.
pub(crate) async fn run(life: Arc<Life>) {
    loop {
        // Counted from the last comparison, whatever asked for that one.
        let pause = interval(life.directory.gateways(), rand::random());
        let patience = tokio::select! {
            () = life.compare_wanted() => Duration::ZERO,
            () = tokio::time::sleep(pause) => ON_THE_WAY,
        };
        while let Err(status) = compare(&life, patience).await {
            tracing::warn!(error = %status, "heads could not be compared; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// How long after a comparison the next one comes by itself, with this many gateways (0: unknown). `spread`, from 0 to 1,
/// moves it by up to a tenth either way, so that gateways that began together do not compare together for ever.
fn interval(gateways: u64, spread: f64) -> Duration {
    let gateways = u32::try_from(gateways).unwrap_or(u32::MAX);
    SHARE.saturating_mul(gateways).clamp(SHORTEST, LONGEST).mul_f64(0.9 + spread.clamp(0.0, 1.0) / 5.0)
}

/// Compares the heads of all rooms and users, and repairs what is behind.
async fn compare(life: &Arc<Life>, patience: Duration) -> Result<(), Status> {
    // A user who cannot be read keeps no room from its repair.
    let read = users(life).await;
    rooms(life, patience).await?;
    read
}

/// Compares the heads of all rooms, and repairs what is behind.
async fn rooms(life: &Arc<Life>, patience: Duration) -> Result<(), Status> {
    let mut behind = Vec::new();
    for slice in life.hub.heads().chunks(SLICE) {
        let request = HeadsRequest { rooms: slice.iter().map(|(room, _)| room.to_wire()).collect(), users: Vec::new() };
        let heads = life.shared.services.sync.clone().heads(request).await?.into_inner().rooms;
        behind.extend(
            slice.iter().zip(heads).filter(|((_, ours), head)| head > ours).map(|((room, _), head)| (*room, head)),
        );
    }
    if behind.is_empty() {
        return Ok(());
    }
    tokio::time::sleep(patience).await;
    stream::iter(behind)
        .for_each_concurrent(TOGETHER, |(id, head)| async move {
            let Some(room) = life.hub.find(id) else { return };
            let mine = {
                let mut room = lock(&room);
                room.delivered().is_some_and(|delivered| delivered < head) && room.begin_repair()
            };
            if mine {
                metrics::counter!("repairs_total", "why" => "heads").increment(1);
                self::room(life, &room, id).await;
                life.end_repair(&room, id);
            }
        })
        .await;
    Ok(())
}

/// Reads what a room has missed and feeds it in order. The caller has the right to, by `begin_repair`.
pub(crate) async fn room(life: &Arc<Life>, shared: &SharedRoom, id: RoomId) {
    let mut fed = 0;
    for _ in 0..ATTEMPTS {
        let Some(after_rev) = lock(shared).begin_read() else { return };
        let request = RepairRequest { room: id.to_wire(), after_rev };
        match life.shared.services.sync.clone().repair(request).await {
            Ok(reply) => {
                let reply = reply.into_inner();
                fed += reply.events.len();
                let after = if reply.more && fed >= MOST_EVENTS {
                    lock(shared).skip_to(reply.rev, clock::now_ms() % RESYNC_MS)
                } else {
                    lock(shared).feed(reply.events)
                };
                let gap = after.gap || lock(shared).has_gap();
                life.follow_up(id, after);
                if !reply.more && !gap {
                    return;
                }
            }
            Err(status) => {
                tracing::warn!(room.id = %id, error = %status, "a room could not be repaired; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    life.want_compare();
}

/// Compares the revs of all users, and sees to those who moved.
///
/// # Errors
/// When chat-service cannot be asked.
pub(crate) async fn users(life: &Arc<Life>) -> Result<(), Status> {
    let mut read = Ok(());
    for slice in life.hub.user_heads().chunks(SLICE) {
        let request = HeadsRequest { rooms: Vec::new(), users: slice.iter().map(|(user, _)| user.to_wire()).collect() };
        let heads = life.shared.services.sync.clone().heads(request).await?.into_inner().users;
        for ((user, ours), head) in slice.iter().zip(heads) {
            if head > *ours
                && let Err(status) = standing(life, *user).await
            {
                read = Err(status);
            }
        }
    }
    read
}

/// Reads anew what stands of a user, until that has worked.
pub(crate) async fn user(life: &Arc<Life>, user: UserId) {
    while let Err(status) = standing(life, user).await {
        tracing::warn!(user.id = %user, error = %status, "a user could not be read; trying again");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Closes what was revoked, attaches what was joined, lets go what was left.
async fn standing(life: &Arc<Life>, user: UserId) -> Result<(), Status> {
    let conns = life.hub.conns(user);
    if conns.is_empty() {
        return Ok(());
    }
    let sessions = conns.iter().map(|conn| conn.session.to_wire()).collect();
    let request = StandingRequest { user: user.to_wire(), sessions };
    let reply = life.shared.services.sync.clone().standing(request).await?.into_inner();
    let revoked: Vec<SessionId> =
        reply.revoked.iter().filter_map(|session| SessionId::from_wire(session, "session").ok()).collect();
    for conn in conns.iter().filter(|conn| revoked.contains(&conn.session)) {
        conn.close(Close::Revoked);
    }
    let attached = life.hub.rooms_of(user);
    let member: Vec<RoomId> =
        reply.memberships.iter().filter_map(|membership| RoomId::from_wire(&membership.room, "room").ok()).collect();
    for room in &member {
        for conn in &conns {
            conn.keep_early(crate::conn::Early::Joined(*room));
        }
        life.join(user, *room);
    }
    for room in attached.into_iter().filter(|room| !member.contains(room)) {
        attach::check(life, user, room).await;
    }
    if life.hub.conns(user).len() == conns.len() {
        life.hub.user_read(user, reply.user_rev);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Halfway between the earliest and the latest.
    fn seconds(gateways: u64) -> u64 {
        interval(gateways, 0.5).as_secs()
    }

    #[test]
    fn all_gateways_together_compare_once_in_three_seconds() {
        assert_eq!([1, 2, 10].map(seconds), [30; 3]);
        assert_eq!([11, 20, 99, 100].map(seconds), [33, 60, 297, 300]);
    }

    #[test]
    fn the_last_net_is_drawn_every_five_minutes_however_many_there_are() {
        assert_eq!([101, 100_000, u64::MAX].map(seconds), [300; 3]);
    }

    #[test]
    fn who_does_not_know_how_many_there_are_takes_them_for_few() {
        assert_eq!(seconds(0), 30);
    }

    #[test]
    fn gateways_do_not_march_in_step() {
        let between = |gateways| [0.0, 1.0].map(|spread| interval(gateways, spread).as_secs());
        assert_eq!((between(1), between(100)), ([27, 33], [270, 330]));
    }
}
