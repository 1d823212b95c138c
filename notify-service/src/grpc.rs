//! The calls of other services. The types of the wire stop here.

use std::sync::Arc;

use parlance_proto::notify::{
    CountsReply, CountsRequest,
    notify_server::{Notify, NotifyServer},
};
use tonic::{Request, Response, Status, service::Routes};

use crate::worker::Counts;

/// The routes of the service.
pub(crate) fn routes(counts: Arc<Counts>) -> Routes {
    Routes::new(NotifyServer::new(Calls(counts)))
}

struct Calls(Arc<Counts>);

#[tonic::async_trait]
impl Notify for Calls {
    async fn counts(&self, _request: Request<CountsRequest>) -> Result<Response<CountsReply>, Status> {
        Ok(Response::new(CountsReply { batches: self.0.batches(), messages: self.0.messages() }))
    }
}
