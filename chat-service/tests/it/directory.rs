//! A delivery directory for stories: says what it was told to say, and counts how often it was asked.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use parlance_proto::presence::{
    self, LookupReply, LookupRequest, Served,
    directory_server::{Directory, DirectoryServer},
};
use service_kit::{
    bus::{Arrival, Bus, Inbox},
    id::{BootId, RoomId, Topic},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::chat_world::Room;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Answers,
    Fails,
    /// It was lost a moment ago.
    SaysUnknown,
}

#[derive(Clone, Default)]
pub(crate) struct Double(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    mood: Mood,
    served: HashMap<Bytes, Vec<BootId>>,
    /// For each look-up how many gateways the answer named.
    lookups: Vec<usize>,
}

impl Double {
    pub(crate) fn routes(&self) -> Routes {
        Routes::new(DirectoryServer::new(self.clone()))
    }

    pub(crate) fn is(&self, mood: Mood) {
        self.0.lock().unwrap().mood = mood;
    }

    /// This room has members at these gateways.
    pub(crate) fn serves(&self, room: &Room, boots: &[BootId]) {
        let topic = Topic::Room(RoomId::from_wire(room, "room").unwrap()).to_wire();
        self.0.lock().unwrap().served.insert(topic, boots.to_vec());
    }

    /// The look-ups since the last time: for each, how many gateways its answer named.
    pub(crate) fn lookups(&self) -> Vec<usize> {
        std::mem::take(&mut self.0.lock().unwrap().lookups)
    }
}

#[tonic::async_trait]
impl Directory for Double {
    async fn lookup(&self, request: Request<LookupRequest>) -> Result<Response<LookupReply>, Status> {
        let mut state = self.0.lock().unwrap();
        let topics = request.into_inner().topics;
        let served: Vec<Vec<BootId>> =
            topics.iter().map(|topic| state.served.get(topic).cloned().unwrap_or_default()).collect();
        let distinct: HashSet<BootId> = served.iter().flatten().copied().collect();
        state.lookups.push(distinct.len());
        match state.mood {
            Mood::Fails => return Err(Status::unavailable("the directory is away")),
            Mood::SaysUnknown => return Ok(Response::new(LookupReply { unknown: true, ..LookupReply::default() })),
            Mood::Answers => {}
        }
        let boots: Vec<BootId> = distinct.into_iter().collect();
        let place = |boot: &BootId| u32::try_from(boots.iter().position(|other| other == boot).unwrap()).unwrap();
        let served = served.iter().map(|at| Served { boots: at.iter().map(place).collect() }).collect();
        let boots = boots.into_iter().map(BootId::to_wire).collect();
        Ok(Response::new(LookupReply { unknown: false, boots, served }))
    }

    async fn update(&self, _: Request<presence::UpdateRequest>) -> Result<Response<presence::UpdateReply>, Status> {
        Err(Status::unimplemented("only gateways do this"))
    }

    async fn renew(&self, _: Request<presence::RenewRequest>) -> Result<Response<presence::RenewReply>, Status> {
        Err(Status::unimplemented("only gateways do this"))
    }

    async fn leave(&self, _: Request<presence::LeaveRequest>) -> Result<Response<presence::LeaveReply>, Status> {
        Err(Status::unimplemented("only gateways do this"))
    }
}

/// A gateway that only counts: the events of each parcel that came.
pub(crate) struct Counter {
    pub(crate) boot: BootId,
    inbox: Inbox,
}

impl Counter {
    pub(crate) async fn on(bus: &Bus) -> Self {
        let boot = BootId::generate();
        Self { boot, inbox: bus.inbox(boot).await.unwrap() }
    }

    /// The events of the parcels until this room's message with this text, which comes last.
    pub(crate) async fn parcels(&mut self, last: &str) -> Vec<usize> {
        let mut parcels = Vec::new();
        loop {
            let next = tokio::time::timeout(crate::PATIENCE, self.inbox.next()).await.expect("nothing comes");
            let Some(Arrival::Parcel(parcel)) = next else { continue };
            let parcel = <parlance_proto::event::Parcel as prost::Message>::decode(parcel.body).unwrap();
            if parcel.events.iter().any(|event| event.windows(last.len()).any(|part| part == last.as_bytes())) {
                return parcels;
            }
            parcels.push(parcel.events.len());
        }
    }
}
