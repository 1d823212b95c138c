//! The calls that the gateway makes to the other services.

use parlance_proto::{
    chat::{
        accounts_client::AccountsClient, messages_client::MessagesClient, rooms_client::RoomsClient,
        sync_client::SyncClient,
    },
    files::files_client::FilesClient,
    notify::notify_client::NotifyClient,
    presence::{directory_client::DirectoryClient, presence_client::PresenceClient},
};
use service_kit::rpc::{Client, MAX_MESSAGE};

/// A client for each service call there is. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Services {
    /// Accounts, sessions and tokens.
    pub accounts: AccountsClient<Client>,
    /// Rooms and who is in them.
    pub rooms: RoomsClient<Client>,
    /// Messages and cursors.
    pub messages: MessagesClient<Client>,
    /// What is known of files.
    pub files: FilesClient<Client>,
    /// What gateways need to serve and to repair.
    pub sync: SyncClient<Client>,
    /// Which gateway serves what.
    pub directory: DirectoryClient<Client>,
    /// Who is online.
    pub presence: PresenceClient<Client>,
    /// Push targets, and why a push was sent or not.
    pub notify: NotifyClient<Client>,
}

macro_rules! client {
    ($kind:ident, $channel:expr) => {
        $kind::new($channel.clone()).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE)
    };
}

impl Services {
    /// The clients over a connection to each of the other services.
    #[must_use]
    pub fn new(chat: &Client, presence: &Client, notify: &Client) -> Self {
        Self {
            accounts: client!(AccountsClient, chat),
            rooms: client!(RoomsClient, chat),
            messages: client!(MessagesClient, chat),
            files: client!(FilesClient, chat),
            sync: client!(SyncClient, chat),
            directory: client!(DirectoryClient, presence),
            presence: client!(PresenceClient, presence),
            notify: client!(NotifyClient, notify),
        }
    }
}
