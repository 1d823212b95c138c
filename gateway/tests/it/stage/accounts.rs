//! Accounts that know keys, take every session for one that stands, and let nobody in.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use parlance_proto::{
    chat::{
        self,
        accounts_server::{Accounts, AccountsServer},
    },
    v1,
};
use service_kit::auth::Signer;
use tonic::{Request, Response, Status, service::RoutesBuilder};

/// What the service answers, and how often it was asked.
#[derive(Default)]
pub(crate) struct Keys {
    jwks: Mutex<String>,
    asked: AtomicUsize,
}

impl Keys {
    /// The keys of this signer.
    pub(crate) fn of(signer: &Signer) -> Arc<Self> {
        let keys = Arc::new(Self::default());
        keys.publish(signer);
        keys
    }

    pub(crate) fn serve(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(AccountsServer::new(Double(Arc::clone(self))));
    }

    pub(crate) fn publish(&self, signer: &Signer) {
        *self.jwks.lock().expect("not poisoned") = signer.jwks();
    }

    /// From now on the answer is no key set.
    pub(crate) fn break_down(&self) {
        "nonsense".clone_into(&mut self.jwks.lock().expect("not poisoned"));
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

struct Double(Arc<Keys>);

macro_rules! refuses {
    ($($name:ident: $request:ty => $reply:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Accounts for Double {
            async fn keys(&self, _: Request<chat::Empty>) -> Result<Response<chat::KeySet>, Status> {
                self.0.asked.fetch_add(1, Ordering::Relaxed);
                Ok(Response::new(chat::KeySet { jwks: self.0.jwks.lock().expect("not poisoned").clone() }))
            }

            async fn check(&self, _: Request<chat::Actor>) -> Result<Response<chat::Empty>, Status> {
                Ok(Response::new(chat::Empty {}))
            }

            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$reply>, Status> {
                Err(Status::unauthenticated("the username or the password is wrong"))
            })*
        }
    };
}

refuses! {
    register: chat::RegisterRequest => chat::Grant,
    login: chat::LoginRequest => chat::Grant,
    refresh: chat::RefreshRequest => chat::Tokens,
    logout: chat::Actor => chat::Empty,
    list_sessions: chat::ListSessionsRequest => chat::SessionList,
    revoke_session: chat::RevokeSessionRequest => chat::Empty,
    change_password: chat::ChangePasswordRequest => chat::Empty,
    get_me: chat::Actor => chat::Profile,
    patch_me: chat::PatchMeRequest => chat::Profile,
    get_user: chat::GetUserRequest => v1::User,
    find_users: chat::FindUsersRequest => chat::UserList,
    choose: chat::ChooseRequest => chat::Choice,
    block: chat::BlockRequest => chat::Empty,
    unblock: chat::BlockRequest => chat::Empty,
    list_blocks: chat::ListBlocksRequest => chat::UserList,
}
