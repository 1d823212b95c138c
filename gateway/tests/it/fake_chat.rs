//! A chat-service that knows keys and takes notes, in front of which the whole edge can be built.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use crate::fake_rooms::Noted;
use gateway::{http::Edge, limit::Limits, services::Services, token::Tokens};
use parlance_proto::{
    chat::{
        self,
        accounts_server::{Accounts, AccountsServer},
    },
    v1,
};
use service_kit::{
    auth::Signer,
    clock,
    id::{SessionId, UserId},
    rpc,
    tasks::Tasks,
};
use tonic::{Request, Response, Status, service::Routes};

/// What the service answers, and how often it was asked.
#[derive(Default)]
pub(crate) struct Keys {
    jwks: Mutex<String>,
    asked: AtomicUsize,
}

impl Keys {
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

pub(crate) struct FakeChat(Arc<Keys>);

macro_rules! refuses {
    ($($name:ident: $request:ty => $reply:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl Accounts for FakeChat {
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
}

pub(crate) fn signer() -> Signer {
    Signer::from_pem(&Signer::generate_pem().expect("a key")).expect("a key")
}

/// A token of somebody, issued so many milliseconds ago for a minute.
pub(crate) fn token(signer: &Signer, age_ms: i64) -> String {
    signer.sign(UserId::generate(), SessionId::generate(), clock::now_ms() - age_ms, 60).expect("a token")
}

/// An edge before that service, with this key published.
pub(crate) async fn edge(signer: &Signer, limits: bool) -> (Edge, Arc<Keys>, Noted) {
    let keys = Arc::new(Keys::default());
    keys.publish(signer);
    let noted = Noted::default();
    let mut routes = Routes::builder();
    routes.add_service(AccountsServer::new(FakeChat(Arc::clone(&keys))));
    noted.serve(&mut routes);
    // The presence-service is never there.
    let presence = rpc::connect("http://127.0.0.1:9").expect("a URL");
    let services = Services::new(&rpc::in_process(routes.routes(), &Tasks::new()), &presence);
    let tokens = Tokens::new(services.accounts.clone());
    tokens.load().await;
    let edge = Edge {
        services,
        tokens,
        limits: Limits::new(limits),
        allowed_origins: vec!["https://chat.example".to_owned()].into(),
        trusted_proxies: Vec::new().into(),
    };
    (edge, keys, noted)
}
