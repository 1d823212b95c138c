//! The calls that this service answers. Wire types stop here.

mod accounts;

use std::sync::Arc;

use parlance_proto::chat::accounts_server::AccountsServer;
use service_kit::rpc::MAX_MESSAGE;
use tonic::service::Routes;

use crate::App;

/// Everything this service answers.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    Routes::new(AccountsServer::new(accounts::Accounts::new(Arc::clone(app))).max_decoding_message_size(MAX_MESSAGE))
}
