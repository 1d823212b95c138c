//! The calls that this service answers. Wire types stop here.

mod accounts;
mod files;
mod messages;
mod rooms;
mod sync;

use std::sync::Arc;

use parlance_proto::{
    chat::{
        accounts_server::AccountsServer, messages_server::MessagesServer, rooms_server::RoomsServer,
        sync_server::SyncServer,
    },
    files::files_server::FilesServer,
};
use service_kit::rpc::MAX_MESSAGE;
use tonic::service::Routes;

use crate::App;

/// Everything this service answers.
pub(crate) fn routes(app: &Arc<App>) -> Routes {
    let limit = MAX_MESSAGE;
    Routes::new(AccountsServer::new(accounts::Accounts::new(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(RoomsServer::new(rooms::Rooms::new(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(MessagesServer::new(messages::Messages::new(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(FilesServer::new(files::Files::new(Arc::clone(app))).max_decoding_message_size(limit))
        .add_service(SyncServer::new(sync::Sync::new(Arc::clone(app))).max_decoding_message_size(limit))
}
