//! The calls of other services. The types of the wire stop here.

use std::collections::HashMap;

use parlance_proto::{
    presence::{
        self as wire, ChooseReply, ChooseRequest, LeaveReply, LeaveRequest, LookupReply, LookupRequest, RenewReply,
        RenewRequest, SeenList, SeenStoredReply, Served, StatesReply, StatesRequest, TakeSeenRequest, UpdateReply,
        UpdateRequest, directory_server::DirectoryServer, presence_server::PresenceServer,
    },
    v1,
};
use service_kit::{
    fault::Fault,
    id::{BootId, Topic, UserId},
    rpc::MAX_MESSAGE,
};
use tonic::{Request, Response, Status as Refusal, service::Routes};

use crate::{
    directory::Directory,
    presence::{Choice, Chosen, Seen, State, Status},
    store::{BATCH, Change, Located, MAX_NUMBER, Op, Renewal, Standing},
};

/// The routes of both services.
pub(crate) fn routes(directory: Directory) -> Routes {
    let calls = Calls(directory);
    let directory = DirectoryServer::new(calls.clone()).max_decoding_message_size(MAX_MESSAGE);
    let presence = PresenceServer::new(calls).max_decoding_message_size(MAX_MESSAGE);
    Routes::new(directory).add_service(presence)
}

#[derive(Clone)]
struct Calls(Directory);

#[tonic::async_trait]
impl wire::directory_server::Directory for Calls {
    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateReply>, Refusal> {
        let request = request.into_inner();
        let boot = BootId::from_wire(&request.boot, "boot")?;
        let ops = request.ops.iter().map(op).collect::<Result<Vec<_>, _>>()?;
        self.0.update(boot, &ops, request.sweep_below).await?;
        Ok(Response::new(UpdateReply {}))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<RenewReply>, Refusal> {
        let request = request.into_inner();
        let boot = BootId::from_wire(&request.boot, "boot")?;
        let renewal = self.0.renew(boot, request.number).await?;
        let standing = match renewal.standing {
            Standing::Alive => wire::renew_reply::Standing::Alive,
            Standing::Expired => wire::renew_reply::Standing::Expired,
            Standing::Cleared => wire::renew_reply::Standing::Cleared,
        };
        let Renewal { entries, epoch, gateways, .. } = renewal;
        Ok(Response::new(RenewReply { standing: standing.into(), entries, epoch, gateways }))
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupReply>, Refusal> {
        let topics = request.into_inner().topics;
        let topics = topics.iter().map(|topic| Topic::from_wire(topic)).collect::<Result<Vec<_>, _>>()?;
        Ok(Response::new(located(&self.0.lookup(&topics).await?)))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveReply>, Refusal> {
        self.0.leave(BootId::from_wire(&request.into_inner().boot, "boot")?).await?;
        Ok(Response::new(LeaveReply {}))
    }
}

#[tonic::async_trait]
impl wire::presence_server::Presence for Calls {
    async fn states(&self, request: Request<StatesRequest>) -> Result<Response<StatesReply>, Refusal> {
        let users = request.into_inner().users;
        let users = users.iter().map(|user| UserId::from_wire(user, "users")).collect::<Result<Vec<_>, _>>()?;
        let states = self.0.states(&users).await?;
        let items = users.iter().zip(&states).map(|(user, known)| presence(*user, &known.status)).collect();
        let present = states.iter().map(|known| known.present).collect();
        Ok(Response::new(StatesReply { items, present }))
    }

    async fn choose(&self, request: Request<ChooseRequest>) -> Result<Response<ChooseReply>, Refusal> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user")?;
        self.0.choose(user, chosen(request.state(), request.version, "state")?).await?;
        Ok(Response::new(ChooseReply {}))
    }

    async fn take_seen(&self, _: Request<TakeSeenRequest>) -> Result<Response<SeenList>, Refusal> {
        let seen = self.0.take_seen().await?;
        let items = seen.iter().map(|seen| wire::Seen { user: seen.user.to_wire(), at: seen.at }).collect();
        Ok(Response::new(SeenList { items, more: seen.len() >= BATCH }))
    }

    async fn seen_stored(&self, request: Request<SeenList>) -> Result<Response<SeenStoredReply>, Refusal> {
        let items = request.into_inner().items;
        let seen = |seen: &wire::Seen| Ok(Seen { user: UserId::from_wire(&seen.user, "items")?, at: seen.at });
        self.0.seen_stored(&items.iter().map(seen).collect::<Result<Vec<_>, Fault>>()?).await?;
        Ok(Response::new(SeenStoredReply {}))
    }
}

/// A user's public state as others get it.
pub(crate) fn presence(user: UserId, status: &Status) -> v1::Presence {
    let state = match status.state {
        State::Offline => v1::PresenceState::Offline,
        State::Online => v1::PresenceState::Online,
        State::Away => v1::PresenceState::Away,
        State::Dnd => v1::PresenceState::Dnd,
    };
    let Status { last_seen, version, .. } = *status;
    v1::Presence { user: user.to_wire(), state: state.into(), last_seen, version }
}

fn op(op: &wire::Op) -> Result<Op, Fault> {
    let user = || UserId::from_wire(&op.user, "user");
    let change = match op.kind() {
        wire::op::Kind::Attach => Change::Attach(Topic::from_wire(&op.topic)?),
        wire::op::Kind::Detach => Change::Detach(Topic::from_wire(&op.topic)?),
        wire::op::Kind::Session => {
            let known = op.choice_version != 0;
            let chosen = known.then(|| chosen(op.choice(), op.choice_version, "choice")).transpose()?;
            Change::Session { user: user()?, connection: op.connection, idle: op.idle, chosen }
        }
        wire::op::Kind::SessionEnd => Change::SessionEnd { user: user()?, connection: op.connection },
        wire::op::Kind::Unspecified => return Err(Fault::bad_request("kind: is not one of this service")),
    };
    Ok(Op { number: op.number, change })
}

fn chosen(state: v1::PresenceState, version: i64, field: &str) -> Result<Chosen, Fault> {
    let choice = match state {
        v1::PresenceState::Online => Choice::Online,
        v1::PresenceState::Dnd => Choice::Dnd,
        v1::PresenceState::Invisible => Choice::Invisible,
        _ => return Err(Fault::bad_request(format!("{field}: must be online, dnd or invisible"))),
    };
    if !u64::try_from(version).is_ok_and(|version| version <= MAX_NUMBER) {
        return Err(Fault::bad_request("version: must be 0 to 2^53 - 1"));
    }
    Ok(Chosen { choice, version })
}

/// Each boot once, and the topics refer to it.
fn located(located: &Located) -> LookupReply {
    let mut index: HashMap<BootId, u32> = HashMap::new();
    let mut boots = Vec::new();
    let mut number = |boot: &BootId| {
        *index.entry(*boot).or_insert_with(|| {
            boots.push(boot.to_wire());
            u32::try_from(boots.len() - 1).unwrap_or(u32::MAX)
        })
    };
    let served = located.served.iter().map(|boots| Served { boots: boots.iter().map(&mut number).collect() }).collect();
    LookupReply { unknown: located.unknown, boots, served }
}
