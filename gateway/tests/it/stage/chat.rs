//! A chat-service whose rooms are a few numbers and a list of events. A call's answer is made when it arrives; its gate
//! may hold it back after that.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use parlance_proto::{
    chat::{
        self,
        sync_server::{Sync, SyncServer},
    },
    event::{MemberChanged, MemberRemoved, RoomEvent, room_event::Kind},
    v1,
};
use service_kit::id::{ClientId, MessageId, RoomId, SessionId, UserId};
use tonic::{Request, Response, Status, service::RoutesBuilder};

use super::{accounts::Keys, gates::Gates};

/// Somebody with a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Person {
    pub(crate) user: UserId,
    pub(crate) session: SessionId,
}

impl Person {
    pub(crate) fn new() -> Self {
        Self { user: UserId::generate(), session: SessionId::generate() }
    }

    /// The same user with another session.
    pub(crate) fn elsewhere(self) -> Self {
        Self { session: SessionId::generate(), ..self }
    }
}

/// The double.
pub(crate) struct Chat {
    pub(crate) gates: Gates,
    keys: Arc<Keys>,
    state: Mutex<State>,
}

struct State {
    users: HashMap<UserId, i64>,
    revoked: HashSet<SessionId>,
    rooms: HashMap<RoomId, Room>,
    repair_page: usize,
    me_rev: i64,
    choices: HashMap<UserId, chat::Choice>,
    heads_asked: Vec<(usize, usize)>,
}

#[derive(Default)]
struct Room {
    rev: i64,
    seq: i64,
    /// The rev with which each membership began.
    members: HashMap<UserId, i64>,
    log: Vec<RoomEvent>,
}

impl Chat {
    pub(crate) fn new(keys: Arc<Keys>) -> Arc<Self> {
        let state = State {
            users: HashMap::new(),
            revoked: HashSet::new(),
            rooms: HashMap::new(),
            repair_page: 500,
            me_rev: 1,
            choices: HashMap::new(),
            heads_asked: Vec::new(),
        };
        Arc::new(Self { gates: Gates::default(), keys, state: Mutex::new(state) })
    }

    pub(crate) fn serve(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        self.keys.serve(routes);
        routes.add_service(SyncServer::new(Double(Arc::clone(self))));
    }

    /// A room at rev 10 that these have been in for long.
    pub(crate) fn room(&self, people: &[Person]) -> RoomId {
        let id = RoomId::generate();
        let mut state = self.lock();
        let members = people.iter().map(|person| (person.user, 1)).collect();
        for person in people {
            state.users.entry(person.user).or_insert(1);
        }
        state.rooms.insert(id, Room { rev: 10, seq: 10, members, log: Vec::new() });
        id
    }

    fn commit(&self, id: RoomId, kind: impl FnOnce(&mut Room) -> Kind) -> RoomEvent {
        let mut state = self.lock();
        let room = state.rooms.get_mut(&id).expect("a room");
        room.rev += 1;
        let kind = kind(room);
        let event = RoomEvent { room: id.to_wire(), rev: room.rev, kind: Some(kind), ..RoomEvent::default() };
        room.log.push(event.clone());
        event
    }

    /// A message is stored.
    pub(crate) fn message(&self, id: RoomId) -> RoomEvent {
        self.commit(id, |room| {
            room.seq += 1;
            Kind::Message(v1::Message {
                room: id.to_wire(),
                seq: room.seq,
                rev: room.rev,
                id: MessageId::generate().to_wire(),
                client_id: ClientId::generate().to_wire(),
                sender: UserId::generate().to_wire(),
                kind: v1::MessageKind::Text.into(),
                text: "hi".to_owned(),
                ..v1::Message::default()
            })
        })
    }

    /// Somebody joins a room.
    pub(crate) fn join(&self, id: RoomId, person: Person) -> RoomEvent {
        self.touch_user(person);
        self.commit(id, |room| {
            room.members.insert(person.user, room.rev);
            let user = v1::User { id: person.user.to_wire(), ..v1::User::default() };
            let role = v1::Role::Member.into();
            let member = v1::Member { user: Some(user), role, rev: room.rev, ..v1::Member::default() };
            Kind::Member(MemberChanged { member: Some(member), joined_rev: room.rev, visible_from_seq: 0 })
        })
    }

    /// Somebody is removed from a room.
    pub(crate) fn remove(&self, id: RoomId, person: Person) -> RoomEvent {
        self.touch_user(person);
        self.commit(id, |room| {
            let joined_rev = room.members.remove(&person.user).expect("a member");
            Kind::Removed(MemberRemoved { user: person.user.to_wire(), joined_rev })
        })
    }

    /// Later changes of the same rows have taken the place of the room's oldest `count` events after rev 10.
    pub(crate) fn compact(&self, id: RoomId, count: usize) {
        self.lock().rooms.get_mut(&id).expect("a room").log.drain(..count);
    }

    pub(crate) fn revoke(&self, person: Person) -> i64 {
        self.lock().revoked.insert(person.session);
        self.touch_user(person)
    }

    /// The user's own affairs have changed; gives their new rev.
    pub(crate) fn touch_user(&self, person: Person) -> i64 {
        let mut state = self.lock();
        let rev = state.users.entry(person.user).or_insert(1);
        *rev += 1;
        *rev
    }

    /// The user has chosen this, by whichever gateway.
    pub(crate) fn choose(&self, person: Person, state: v1::PresenceState, version: i64) {
        self.lock().choices.insert(person.user, chat::Choice { state: state.into(), version });
    }

    /// Rows of one answer to Repair.
    pub(crate) fn set_repair_page(&self, rows: usize) {
        self.lock().repair_page = rows;
    }

    pub(crate) fn set_me_rev(&self, rev: i64) {
        self.lock().me_rev = rev;
    }

    /// Of how many rooms, and of how many users, each call has asked the heads.
    pub(crate) fn heads_asked(&self) -> Vec<(usize, usize)> {
        self.lock().heads_asked.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl State {
    fn memberships(&self, user: UserId) -> Vec<chat::Membership> {
        let rooms = self.rooms.iter().filter_map(|(id, room)| {
            let joined_rev = *room.members.get(&user)?;
            Some(chat::Membership { room: id.to_wire(), rev: room.rev, visible_from_seq: 0, joined_rev, direct: false })
        });
        rooms.collect()
    }

    fn view(&self, id: RoomId) -> v1::Room {
        let (rev, seq) = self.rooms.get(&id).map_or((0, 0), |room| (room.rev, room.seq));
        let me = Some(v1::Me { rev: self.me_rev, ..v1::Me::default() });
        v1::Room { id: id.to_wire(), kind: v1::RoomKind::Group.into(), rev, seq, me, ..v1::Room::default() }
    }

    fn hello(&self, request: &chat::HelloRequest, user: UserId) -> chat::HelloReply {
        let memberships = self.memberships(user);
        let moved = memberships.iter().filter(|membership| {
            !request.rooms.iter().any(|held| held.room == membership.room && held.rev == membership.rev)
        });
        let rooms = moved.map(|membership| self.view(room_id(&membership.room))).collect();
        chat::HelloReply {
            user: Some(v1::User { id: user.to_wire(), username: "someone".to_owned(), ..v1::User::default() }),
            user_rev: self.users.get(&user).copied().unwrap_or(1),
            generation: "g1".to_owned(),
            rooms,
            memberships,
            choice: self.choices.get(&user).copied(),
            ..chat::HelloReply::default()
        }
    }

    fn repair(&self, request: &chat::RepairRequest) -> chat::RepairReply {
        let Some(room) = self.rooms.get(&room_id(&request.room)) else { return chat::RepairReply::default() };
        let mut prev = request.after_rev;
        let mut events: Vec<RoomEvent> = Vec::new();
        let mut missed = room.log.iter().filter(|event| event.rev > request.after_rev);
        for event in missed.by_ref().take(self.repair_page) {
            let before = if prev == event.rev - 1 { 0 } else { prev };
            prev = event.rev;
            events.push(RoomEvent { prev: before, ..event.clone() });
        }
        chat::RepairReply { events, rev: room.rev, more: missed.next().is_some() }
    }
}

fn room_id(bytes: &[u8]) -> RoomId {
    RoomId::from_wire(bytes, "room").expect("a room")
}

fn user_of(actor: Option<&chat::Actor>) -> UserId {
    UserId::from_wire(&actor.expect("an actor").user, "user").expect("a user")
}

#[derive(Clone)]
struct Double(Arc<Chat>);

#[tonic::async_trait]
impl Sync for Double {
    async fn hello(&self, request: Request<chat::HelloRequest>) -> Result<Response<chat::HelloReply>, Status> {
        let request = request.into_inner();
        let reply = self.0.lock().hello(&request, user_of(request.actor.as_ref()));
        self.0.gates.pass("hello").await?;
        Ok(Response::new(reply))
    }

    async fn typing(&self, _: Request<chat::RoomRequest>) -> Result<Response<chat::TypingReply>, Status> {
        Ok(Response::new(chat::TypingReply { shown: true }))
    }

    async fn memberships(&self, request: Request<chat::Actor>) -> Result<Response<chat::MembershipList>, Status> {
        let user = user_of(Some(request.get_ref()));
        let reply = {
            let state = self.0.lock();
            let user_rev = state.users.get(&user).copied().unwrap_or(1);
            chat::MembershipList { items: state.memberships(user), user_rev }
        };
        self.0.gates.pass("memberships").await?;
        Ok(Response::new(reply))
    }

    async fn read_room(&self, request: Request<chat::RoomRequest>) -> Result<Response<chat::ReadRoomReply>, Status> {
        let request = request.into_inner();
        let reply = {
            let (state, user) = (self.0.lock(), user_of(request.actor.as_ref()));
            let membership = state.memberships(user).into_iter().find(|membership| membership.room == request.room);
            let room = membership.is_some().then(|| state.view(room_id(&request.room)));
            chat::ReadRoomReply { room, membership }
        };
        self.0.gates.pass("read_room").await?;
        Ok(Response::new(reply))
    }

    async fn heads(&self, request: Request<chat::HeadsRequest>) -> Result<Response<chat::HeadsReply>, Status> {
        let request = request.into_inner();
        let reply = {
            let mut state = self.0.lock();
            state.heads_asked.push((request.rooms.len(), request.users.len()));
            let room = |id| state.rooms.get(&room_id(id)).map_or(0, |room| room.rev);
            let user = |id: &_| UserId::from_wire(id, "user").ok().and_then(|id| state.users.get(&id).copied());
            chat::HeadsReply {
                rooms: request.rooms.iter().map(|id| room(id)).collect(),
                users: request.users.iter().map(|id| user(id).unwrap_or_default()).collect(),
            }
        };
        self.0.gates.pass("heads").await?;
        Ok(Response::new(reply))
    }

    async fn repair(&self, request: Request<chat::RepairRequest>) -> Result<Response<chat::RepairReply>, Status> {
        let reply = self.0.lock().repair(request.get_ref());
        self.0.gates.pass("repair").await?;
        Ok(Response::new(reply))
    }

    async fn standing(&self, request: Request<chat::StandingRequest>) -> Result<Response<chat::StandingReply>, Status> {
        let request = request.into_inner();
        let user = UserId::from_wire(&request.user, "user").expect("a user");
        let reply = {
            let state = self.0.lock();
            let revoked = request.sessions.into_iter().filter(|session| {
                SessionId::from_wire(session, "session").is_ok_and(|session| state.revoked.contains(&session))
            });
            let user_rev = state.users.get(&user).copied().unwrap_or(1);
            chat::StandingReply { user_rev, revoked: revoked.collect(), memberships: state.memberships(user) }
        };
        self.0.gates.pass("standing").await?;
        Ok(Response::new(reply))
    }

    async fn watchable(
        &self,
        request: Request<chat::WatchableRequest>,
    ) -> Result<Response<chat::WatchableReply>, Status> {
        self.0.gates.pass("watchable").await?;
        Ok(Response::new(chat::WatchableReply { users: request.into_inner().users, last_seen: Vec::new() }))
    }

    async fn choices(&self, request: Request<chat::ChoicesRequest>) -> Result<Response<chat::ChoicesReply>, Status> {
        self.0.gates.pass("choices").await?;
        let state = self.0.lock();
        let choice = |id: &_| UserId::from_wire(id, "user").ok().and_then(|user| state.choices.get(&user).copied());
        let items = request.get_ref().users.iter().map(|id| choice(id).unwrap_or_default()).collect();
        Ok(Response::new(chat::ChoicesReply { items }))
    }
}
