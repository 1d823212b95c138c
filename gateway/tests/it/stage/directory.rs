//! A presence-service that notes what gateways want of its directory, and says of their leases what it is told to.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard},
};

use parlance_proto::{
    presence::{
        self as wire,
        directory_server::{Directory as DirectoryService, DirectoryServer},
        op,
        presence_server::{Presence, PresenceServer},
        renew_reply::Standing,
    },
    v1,
};
use service_kit::id::{BootId, Topic, UserId};
use tonic::{Request, Response, Status, service::RoutesBuilder};

use super::gates::Gates;

/// The double.
#[derive(Default)]
pub(crate) struct Directory {
    pub(crate) gates: Gates,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Each boot that renewed its lease, in order.
    boots: Vec<BootId>,
    ops: Vec<wire::Op>,
    entries: HashSet<(Vec<u8>, u64)>,
    sweeps: Vec<u64>,
    left: Vec<BootId>,
    cleared: HashSet<BootId>,
    epoch: u64,
    expire_next: bool,
    miscounts: bool,
}

impl Directory {
    pub(crate) fn serve(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        let double = Double(Arc::clone(self));
        routes.add_service(DirectoryServer::new(double.clone())).add_service(PresenceServer::new(double));
    }

    /// The boots of the gateway, the latest last.
    pub(crate) fn boots(&self) -> Vec<BootId> {
        self.lock().boots.clone()
    }

    /// How many operations of this kind there were.
    pub(crate) fn count(&self, kind: op::Kind) -> usize {
        self.lock().ops.iter().filter(|op| op.kind() == kind).count()
    }

    /// With which choice each session of a user was registered, in order, and its version.
    pub(crate) fn choices(&self, user: UserId) -> Vec<(v1::PresenceState, i64)> {
        let (state, user) = (self.lock(), user.to_wire());
        let sessions = state.ops.iter().filter(|op| op.kind() == op::Kind::Session && op.user == user);
        sessions.map(|op| (op.choice(), op.choice_version)).collect()
    }

    /// How often this topic was attached.
    pub(crate) fn attached(&self, topic: Topic) -> usize {
        let topic = topic.to_wire();
        self.lock().ops.iter().filter(|op| op.kind() == op::Kind::Attach && op.topic == topic).count()
    }

    /// The marks that have ended full registrations.
    pub(crate) fn sweeps(&self) -> Vec<u64> {
        self.lock().sweeps.clone()
    }

    /// The lowest number of the operations after the first `count`.
    pub(crate) fn numbers_after(&self, count: usize) -> Vec<u64> {
        self.lock().ops.iter().skip(count).map(|op| op.number).collect()
    }

    pub(crate) fn ops(&self) -> usize {
        self.lock().ops.len()
    }

    pub(crate) fn left(&self) -> Vec<BootId> {
        self.lock().left.clone()
    }

    /// Declares this boot dead.
    pub(crate) fn clear(&self, boot: BootId) {
        self.lock().cleared.insert(boot);
    }

    /// The next renewal finds its lease expired.
    pub(crate) fn expire(&self) {
        self.lock().expire_next = true;
    }

    /// It comes back empty, in a new epoch.
    pub(crate) fn forget_all(&self) {
        let mut state = self.lock();
        state.entries.clear();
        state.epoch += 1;
    }

    /// Counts one entry fewer than there are, until everything is registered again.
    pub(crate) fn lose_an_entry(&self) {
        self.lock().miscounts = true;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }
}

impl State {
    fn apply(&mut self, request: wire::UpdateRequest) {
        for op in request.ops {
            let topic = (op.topic.to_vec(), 0);
            let session = (op.user.to_vec(), op.connection);
            match op.kind() {
                op::Kind::Attach => drop(self.entries.insert(topic)),
                op::Kind::Detach => drop(self.entries.remove(&topic)),
                op::Kind::Session => drop(self.entries.insert(session)),
                op::Kind::SessionEnd => drop(self.entries.remove(&session)),
                op::Kind::Unspecified => panic!("an operation of no kind"),
            }
            self.ops.push(op);
        }
        if request.sweep_below != 0 {
            self.sweeps.push(request.sweep_below);
            self.miscounts = false;
        }
    }

    fn renew(&mut self, boot: BootId) -> wire::RenewReply {
        if !self.boots.contains(&boot) {
            self.boots.push(boot);
        }
        let standing = if self.cleared.contains(&boot) {
            Standing::Cleared
        } else if std::mem::take(&mut self.expire_next) {
            Standing::Expired
        } else {
            Standing::Alive
        };
        let entries = u64::try_from(self.entries.len()).unwrap_or_default() - u64::from(self.miscounts);
        wire::RenewReply { standing: standing.into(), entries, epoch: self.epoch.to_string(), gateways: 1 }
    }
}

#[derive(Clone)]
struct Double(Arc<Directory>);

fn boot_id(bytes: &[u8]) -> BootId {
    BootId::from_wire(bytes, "boot").expect("a boot id")
}

#[tonic::async_trait]
impl DirectoryService for Double {
    async fn update(&self, request: Request<wire::UpdateRequest>) -> Result<Response<wire::UpdateReply>, Status> {
        let request = request.into_inner();
        self.0.gates.pass("update").await?;
        let mut state = self.0.lock();
        if state.cleared.contains(&boot_id(&request.boot)) {
            return Err(Status::failed_precondition("this boot is over"));
        }
        state.apply(request);
        Ok(Response::new(wire::UpdateReply {}))
    }

    async fn renew(&self, request: Request<wire::RenewRequest>) -> Result<Response<wire::RenewReply>, Status> {
        self.0.gates.pass("renew").await?;
        Ok(Response::new(self.0.lock().renew(boot_id(&request.get_ref().boot))))
    }

    async fn lookup(&self, _: Request<wire::LookupRequest>) -> Result<Response<wire::LookupReply>, Status> {
        Ok(Response::new(wire::LookupReply { unknown: true, ..wire::LookupReply::default() }))
    }

    async fn leave(&self, request: Request<wire::LeaveRequest>) -> Result<Response<wire::LeaveReply>, Status> {
        self.0.lock().left.push(boot_id(&request.get_ref().boot));
        Ok(Response::new(wire::LeaveReply {}))
    }
}

#[tonic::async_trait]
impl Presence for Double {
    async fn states(&self, _: Request<wire::StatesRequest>) -> Result<Response<wire::StatesReply>, Status> {
        Ok(Response::new(wire::StatesReply::default()))
    }

    async fn choose(&self, _: Request<wire::ChooseRequest>) -> Result<Response<wire::ChooseReply>, Status> {
        Ok(Response::new(wire::ChooseReply {}))
    }

    async fn take_seen(&self, _: Request<wire::TakeSeenRequest>) -> Result<Response<wire::SeenList>, Status> {
        Err(Status::unimplemented("only chat-service does this"))
    }

    async fn seen_stored(&self, _: Request<wire::SeenList>) -> Result<Response<wire::SeenStoredReply>, Status> {
        Err(Status::unimplemented("only chat-service does this"))
    }
}
